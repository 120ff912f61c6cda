"""Tables as text: percent for readers, 100 columns for terminals, plain numbers for programs, equal bytes."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fake_runs import fake_runs

from adlib import runs
from adlib.common.errors import UserError
from adlib.reports import measured, printing, published, tables, verdict

REFERENCE = Path(__file__).resolve().parents[2] / "results" / "reference" / "runs"


@pytest.fixture(scope="module")
def reference():
    """The committed runs; their metrics are bootstrapped once for all tests of this file."""
    finished = runs.find(REFERENCE)

    class Once:
        runs = finished.runs
        metrics = finished.metrics

    return Once


def test_numbers_are_percent_with_one_decimal_or_a_dash():
    """0.97649 -> 97.6; NaN -> a dash; parameters and speed keep their own unit."""
    assert tables.number(0.97649) == "97.6"
    assert tables.number(np.nan) == "-"
    assert tables.number(370.50, "parameters_million") == "370.5"
    assert tables.number(0.319, "ours seconds_per_image") == "0.319"


def test_markdown_and_latex_escape_what_they_must():
    """A bar would break a Markdown row, an underscore and a percent sign a LaTeX cell."""
    table = pd.DataFrame({"a_b": ["x|y", "5 %"], "v": [0.5, np.nan]})
    assert "x\\|y" in tables.to_markdown(table)
    latex = tables.to_latex(table)
    assert r"a\_b & v \\" in latex
    assert r"5 \% & - \\" in latex


def test_csv_holds_plain_numbers():
    """Values in 0..1 with six decimals, no percent; a missing one is empty."""
    assert tables.to_csv(pd.DataFrame({"k": ["a", "b"], "v": [0.5, np.nan]})) == "k,v\na,0.500000\nb,\n"


def test_save_writes_the_same_bytes_twice(tmp_path):
    """Three files beside each other; a stem with a dot keeps its name."""
    table = tables.paper_table(fake_runs({("bottle", "image_auroc"): [0.9, 0.95]}), "simplenet")
    first = {p.name: p.read_bytes() for p in tables.save(table, tmp_path / "one" / "table1.v2")}
    second = {p.name: p.read_bytes() for p in tables.save(table, tmp_path / "two" / "table1.v2")}
    assert sorted(first) == ["table1.v2.csv", "table1.v2.md", "table1.v2.tex"]
    assert first == second


def longest(text: str) -> int:
    return max(len(line) for line in text.splitlines())


def test_no_line_of_the_committed_runs_is_over_100_columns(reference):
    """What `adlib list` and `adlib check` print: the summary of all runs, and the verdict on each paper."""
    summary = tables.to_text(tables.summary(reference))
    assert longest(summary) <= 100
    for run in reference.runs:
        assert all(category in summary for category in run.record["per_category"])
    papers = {published.paper_of(run.record["method"]) for run in reference.runs} - {None}  # None: of a rival
    for paper in papers:
        assert longest(verdict.check(reference, paper).text()) <= 100


@pytest.mark.parametrize("paper", published.PAPERS)
def test_no_table_of_a_paper_is_over_100_columns(paper, reference):
    """Wide tables continue in a second block; systems with long names get no exception."""
    for name in published.load(paper)["table"].unique():
        assert longest(tables.to_text(tables.paper_table(reference, paper, name))) <= 100


def test_what_is_the_same_in_every_row_stands_above_the_table():
    """One method on one data set in one setting: said once; categories and numbers stay in the rows."""
    cells = {("mono", "image_auroc"): [0.925], ("poly", "image_auroc"): [0.849]}
    lines = tables.to_text(tables.summary(fake_runs(cells, dataset="elpv"))).splitlines()
    above = " ".join(lines[:2])
    assert "method: simplenet; dataset: elpv" in above
    assert not any("simplenet" in line for line in lines[2:])
    assert any(line.startswith("mono") and "92.5 [91.5, 93.5]" in line for line in lines)


def test_settings_become_letters_with_their_meaning_below():
    """Two settings of one category differ in a letter; backbone, side, epochs and what is reduced stand behind it."""
    quick = fake_runs({("bottle", "image_auroc"): [0.8]}, config={"epochs": 2}, run_hash="quick")
    full = fake_runs({("bottle", "image_auroc"): [1.0]}, run_hash="full")
    both = type(quick)(metrics=pd.concat([quick.metrics, full.metrics]), runs=quick.runs + full.runs)
    text = tables.to_text(tables.summary(both))
    assert "- A: wide_resnet50_2.tv_in1k, 288 px, 160 epochs, paper" in text
    assert "- B: wide_resnet50_2.tv_in1k, 288 px, 2 epochs, reduced" in text


def test_letters_go_on_as_a_spreadsheets_columns():
    """0, 25, 26, 27: A, Z, AA, AB."""
    assert [printing._letter(k) for k in (0, 25, 26, 27)] == ["A", "Z", "AA", "AB"]


def test_json_has_rows_in_0_to_1_and_notes():
    """A missing number is null, not NaN, which is no JSON."""
    table = pd.DataFrame({"k": ["a", "b"], "v": [0.5, np.nan]})
    table.attrs["notes"] = ["a note"]
    assert json.loads(tables.to_json(table)) == {
        "rows": [{"k": "a", "v": 0.5}, {"k": "b", "v": None}],
        "notes": ["a note"],
    }


def test_every_format_ends_with_a_newline_and_another_is_refused():
    """text, md, csv, json; the error names them."""
    table = pd.DataFrame({"k": ["a", "b"], "v": [0.5, 0.25]})
    for name in printing.FORMATS:
        assert tables.to_text(table, name).endswith("\n")
    with pytest.raises(UserError, match=r"unknown format 'markdown'.*valid: text, md, csv, json"):
        tables.to_text(table, "markdown")
    assert tables.to_text(table.iloc[:0]) == "no rows\n"


def test_a_note_on_a_threshold_names_the_letter_of_its_row_s_setting():
    """The hash stands in no column of the table; the letter does."""

    def low_recall(epochs: int):
        part = fake_runs({("screw", "image_auroc"): [0.8]}, config={"epochs": epochs}, run_hash=f"hash{epochs}")
        record = part.runs[0].record
        threshold = {"tau": 1.0, "level": 0.11, "alpha": 0.05, "n": 8, "source": "holdback"}
        facts = {"metrics": record["metrics"] | {"recall@threshold": epochs / 100}, "threshold": threshold}
        record["per_category"] = {"screw": facts}
        return measured.settings(part)

    table = tables.summary(low_recall(10) + low_recall(20))
    text = " ".join(printing.narrow(table).split())
    for letter, epochs in (("A", 10), ("B", 20)):
        assert f"- {letter}: wide_resnet50_2.tv_in1k, 288 px, {epochs} epochs" in text
        assert f"simplenet mvtec_ad (screw), hash{epochs}, setting {letter}: recall 0.{epochs}" in text
    assert "setting A" not in printing.to_markdown(table)  # which spells the setting out


def test_the_floor_is_explained_without_its_own_name():
    text = printing.narrow(tables.summary(fake_runs({("screw", "mean_grey_auroc"): [0.6]})))
    assert "floor: mean grey AUROC." in " ".join(text.split())


def test_numbers_in_a_unit_of_their_own_are_not_turned_into_percent():
    """12 seconds stay 12, a share of 0.5 becomes 50; CSV has both as they are."""
    table = pd.DataFrame({"system": ["A"], "training [s]": [12.0], "image_auroc": [0.5]})
    table.attrs["plain"] = ["training [s]"]
    assert printing.to_markdown(table).splitlines()[2] == "| A        | 12             | 50.0          |"
    assert printing.to_csv(table).splitlines()[1] == "A,12.000000,0.500000"
