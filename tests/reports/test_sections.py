"""What every paper's notebook shows: counted verdicts, the closing table, errata, and what the numbers come from."""

from types import SimpleNamespace

import pandas as pd
import pytest
from fake_runs import fake_runs

from adlib.common.errors import UserError
from adlib.reports import sections, verdict


def finished(category="bottle", seed=0, stale=False, **record):
    """A run as far as these sections read it."""
    machine = {"python": "3.11", "device": "a CPU", "device_type": "cpu", "threads": 2}
    machine["versions"] = {"torch": "2.0", "timm": "1.0"}
    facts = {"metrics": {}, "provenance": None}
    content = {"dataset": "mvtec_ad", "category": category, "seed": seed, "seconds": {"train": 10.0}, "code": "c0de"}
    content |= {"machine": machine, "weights": None, "data": {category: "0123456789abcdef"}}
    return SimpleNamespace(record=content | {"per_category": {category: facts}} | record, stale=stale)


def test_work_done_counts_runs_and_adds_their_seconds():
    """Two categories, two seeds of one: 3 runs, 30 s."""
    text = sections.work_done([finished(), finished(seed=1), finished("cable")], "SimpleNet")
    assert text.startswith("**3 runs** of SimpleNet on mvtec_ad (bottle, cable), seeds 0, 1; trained on a CPU in 30 s")


def test_a_mean_has_its_interval_and_number_of_seeds():
    """As in a sentence; a system without masks says so."""
    cell = {"mean": 0.925, "low": 0.904, "high": 0.945, "n_seeds": 3}
    assert sections.mean_text(cell) == "92.5 % [90.4, 94.5], n = 3 seeds"
    assert sections.mean_text(None) == "not measured (no masks)"


def test_closing_table_holds_every_published_cell():
    """18 rows of the report's table 1; what was not run says so; the counts add up to 36."""
    verdicts = verdict.verdict(fake_runs({("bottle", "image_auroc"): [0.995]}), "simplenet")
    table = sections.closing_table(verdicts)
    assert table.shape == (18, 2)
    assert table.loc["bottle", "image AUROC"] == "100.0 → 99.5: reproduced"
    assert table.loc["cable", "pixel AUROC"] == "97.3 → -: not run"
    counted = "**1 reproduced**, **0 within noise**, **0 not reproduced**, **2 not comparable**, **33 not run**."
    assert sections.closing_counts(verdicts) == counted


def test_closing_table_merges_tables_that_print_parts_of_one():
    """DRAEM's image AUROC stands in table 1, its pixel numbers in table 2: merged, one row per category."""
    verdicts = verdict.verdict(None, "draem")
    merged = {"table1_via_simplenet_report": "tables 1 and 2", "table2": "tables 1 and 2"}
    assert "tables 1 and 2" in sections.closing_table(verdicts, merged).index.get_level_values("table")
    row = sections.closing_table(verdicts, merged).loc[("tables 1 and 2", "bottle")]
    printed = ["image AUROC", "pixel AUROC", "pixel AP"]
    assert list(row.index[row.str.contains("not run")]) == printed
    assert (row.drop(printed) == "").all()


def test_judged_cells_leave_out_what_was_not_run():
    """One category of fifteen: cable is not in the table; nothing run is a sentence."""
    text = sections.judged_cells(verdict.verdict(fake_runs({("bottle", "image_auroc"): [0.995]}), "simplenet"))
    assert "bottle" in text
    assert "cable" not in text
    assert sections.judged_cells(verdict.verdict(None, "simplenet")) == "No published cell was run."


def test_errata_are_listed_with_how_we_know():
    """MMAERec's table 5 exchanges two columns."""
    assert "exchanged" in sections.errata_table("mmaerec")
    with pytest.raises(UserError, match="unknown paper"):
        sections.errata_table("mmaerek")


def test_provenance_names_networks_data_code_and_time():
    """One of two runs is stale; two networks; 20 s of training, 3 s for the notebook; a rescaled copy says so."""
    networks = [{"name": n, "file": "f", "fingerprint": "ab" * 20} for n in ("teacher", "lpips")]
    copies = {"bottle": {"metrics": {}, "provenance": "rescaled copies"}}
    runs = [finished(weights=networks, per_category=copies), finished("cable", weights=networks, stale=True)]
    table = sections.provenance(runs, notebook_seconds=3)
    assert isinstance(table, pd.DataFrame)
    value = table["value"]
    assert value["weights"] == "teacher, abababababab; lpips, abababababab"
    assert value["data"] == "bottle 0123456789ab, cable 0123456789ab"
    assert value["code"] == "c0de (stale: the code changed since)"
    assert value["seconds"] == "training 20, this notebook 3"
    assert value["data come from"] == "mvtec_ad (bottle): rescaled copies"
    assert sections.provenance([finished()])["value"]["weights"] == "none"
