"""What every paper's notebook shows: counted verdicts, the closing table, errata, and what the numbers come from."""

from types import SimpleNamespace

import pandas as pd
import pytest
from fake_runs import fake_runs

from adlib.common.errors import UserError
from adlib.reports import sections, verdict
from adlib.reports.sections import page


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
    cell = {"mean": 0.925, "low": 0.904, "high": 0.945, "n_seeds": 1, "sd": float("nan")}
    assert sections.mean_text(cell) == "92.5 % [90.4, 94.5], n = 1 seed"
    assert sections.mean_text(cell | {"n_seeds": 3, "sd": 0.011}) == "92.5 ± 1.1 % [90.4, 94.5], n = 3 seeds"
    assert sections.mean_text(None) == "not measured (no masks)"


def test_mirrored_edges_are_told_where_a_geometry_has_them():
    """`pad` and `tiles` show the network more than the picture; `squash` and `crop` do not."""
    for mode, purpose in (("pad", "make it square"), ("tiles", "fill the last tile")):
        assert f"mirrored to {purpose}" in sections.mirrored(mode)
    for mode in ("squash", "crop"):
        assert f"With `resize_mode` {mode} no pixels are added" in sections.mirrored(mode)


def test_counts_add_up_to_the_paper():
    """18 rows of the report's table 1, two metrics: 36 cells; the two averages of 1 category are no averages."""
    counted = sections.closing_counts(verdict.verdict(fake_runs({("bottle", "image_auroc"): [0.995]}), "simplenet"))
    assert (
        counted == "**1 reproduced**, **0 within noise**, **0 not reproduced**, **0 not comparable**, **35 not run**."
    )


def with_data(runs, categories):
    """Fake runs as far as headline and closing read them: their records name the categories they cover."""
    for run in runs.runs:
        run.record["per_category"] = {run.record["category"]: {"metrics": run.record["metrics"], "counts": {}}}
    assert {run.record["category"] for run in runs.runs} == set(categories)
    return runs


def rows_of(markdown):
    """Cells of a Markdown table, a list a row."""
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in markdown.splitlines() if line[:1] == "|"]


def test_headline_of_one_category_is_no_average():
    """Bottle: 100.0 published by both, ours 99.5 beside it; the average of 15 is quoted, and ours has none."""
    runs = with_data(fake_runs({("bottle", "image_auroc"): [0.99, 1.0]}), ["bottle"])
    rows = rows_of(sections.headline(runs, "simplenet"))
    assert rows[0][2:4] == ["SimpleNet (original)", "SimpleNet (reproduction of the report)"]
    numbers = ["100.0 %", "100.0 %", "99.5 ± 0.7 % [98.5, 100.5], n = 2 seeds", "reproduced"]
    assert ["image AUROC", "bottle", *numbers] in rows
    assert ["image AUROC", "average of 15", "99.6 %", "99.6 %", "one category is no average", "not run"] in rows


def test_headline_says_why_it_does_not_judge():
    """Two categories of fifteen with fewer passes: the average has its count, the reasons follow the table."""
    cells = {("bottle", "image_auroc"): [0.9], ("cable", "image_auroc"): [0.8]}
    text = sections.headline(with_data(fake_runs(cells, config={"epochs": 20}), ["bottle", "cable"]), "simplenet")
    average = next(row for row in rows_of(text) if row[1].startswith("average") and row[0] == "image AUROC")
    assert average[1] == "average of 15 (here 2)"
    assert average[4].startswith("85.0 %")
    assert average[5] == "not comparable"
    assert "**Not comparable:** differs in epochs." in text
    assert "2 of 15 categories" in text


def test_headline_without_published_numbers_is_one_line():
    """elpv: no column "published", no "not run"; the averages of the paper are quoted as those of other data."""
    runs = with_data(fake_runs({("mono", "image_auroc"): [0.9]}, dataset="elpv"), ["mono"])
    text = sections.headline(runs, "simplenet")
    assert text.splitlines()[0].startswith("The paper has no number for `elpv`")
    assert "mvtec_ad: image AUROC 99.6 %, pixel AUROC 97.6 %" in text.splitlines()[0]
    assert rows_of(text)[0] == ["metric", "of", "ours"]
    assert "not run" not in text


def test_tables_without_a_run_fold_into_one_line():
    """DRAEM on bottle: tables 1 and 2 are shown, table 4 (DAGM) is named with what it needs; its numbers are folded."""
    runs = with_data(fake_runs({("bottle", "pixel_ap"): [0.5]}, method="draem"), ["bottle"])
    text = sections.paper_tables(runs, "draem", {"table2": "Table 2", "table4": "Table 4"})
    assert text.startswith("**Table 2**")
    line = next(line for line in text.splitlines() if line.startswith("Nothing of these tables"))
    assert line == "Nothing of these tables was run here: Table 4 needs dagm (all categories)."
    assert text.index("<details>") < text.index("**Table 4**")


def test_closing_names_the_data_that_are_missing():
    """One cell of 36 was run: the table has it alone, a line counts the others."""
    text = sections.closing(with_data(fake_runs({("bottle", "image_auroc"): [0.995]}), ["bottle"]), "simplenet")
    assert "cable" not in text
    assert "35 cells were not run. They need mvtec_ad (carpet, grid and 13 more)." in text


def test_chinese_summary_has_the_numbers_of_the_run():
    """A published cell gives a verdict; for data without published numbers none is given."""
    runs = with_data(fake_runs({("bottle", "image_auroc"): [0.995]}), ["bottle"])
    text = sections.chinese(runs, "simplenet", "论点")
    assert "**论文的结论**:论点" in text
    assert "image AUROC 99.5 %,pixel AUROC 未测(无掩码)" in text
    assert text.endswith("已复现。")
    runs = with_data(fake_runs({("mono", "image_auroc"): [0.995]}, dataset="elpv"), ["mono"])
    assert "不作判定" in sections.chinese(runs, "simplenet", "论点")


def test_terms_are_worked_out_by_our_metrics():
    """Four images: 3 of 4 pairs, and (1/1 + 2/3) / 2 = 83.3 %; 990 of 1,000 pixels against one of two regions."""
    text = sections.terms()
    assert "75.0 %" in text
    assert "83.3 %" in text
    assert "99 %" in text


def test_times_come_from_the_evidence(tmp_path, monkeypatch):
    """400 words are 2 minutes; variants of a notebook are counted together, its ablation is another notebook."""
    monkeypatch.setattr(page, "TIMES", tmp_path / "times.csv")
    assert "not measured" in sections.times("03_simplenet")
    header = "notebook,words,seconds,training_seconds,cores\n"
    rows = "03_simplenet-a,400,60,120,2\n03_simplenet-b,800,180,600,2\n03_simplenet_ablation-a,9999,9999,0,2\n"
    (tmp_path / "times.csv").write_text(header + rows)
    said = "**2 to 4 min to read, 1 to 3 min to run, after 2 to 10 min of training** (measured on 2 cores)."
    assert sections.times("03_simplenet") == said


def _scored(normal: list[float], anomalous: list[float], tau: float) -> SimpleNamespace:
    """A run of one category with these scores and threshold."""
    scores = pd.DataFrame({"score": normal + anomalous, "label": [0] * len(normal) + [1] * len(anomalous)})
    scores = scores.assign(category="bottle", decision=(scores.score > tau).astype(int))
    return SimpleNamespace(
        scores=scores, record={"seed": 0, "per_category": {"bottle": {"threshold": {"tau": tau, "n": 21}}}}
    )


def test_where_the_threshold_lies_is_told_and_whose_the_errors_are():
    """Normal 0.1 and 0.2; anomalous 1.0 and 3.0: tau 2 misses one, a value between none; tau 0.5 never errs."""
    said = sections.decided([_scored([0.1, 0.2], [1.0, 3.0], 2.0)])
    assert "the threshold is 2, from 21 held-back pictures" in said
    assert "0 of 2 normal pictures are flagged, 1 of 2 anomalous ones are missed. The ranking is perfect" in said
    assert "ranking" not in sections.decided([_scored([0.1, 0.2], [1.0, 3.0], 0.5)])
    assert "1 of 2 normal pictures are flagged" in (mixed := sections.decided([_scored([0.1, 1.2], [1.0, 3.0], 1.1)]))
    assert "ranking" not in mixed


def test_kinds_of_defects_are_ranked():
    """Normal scores 0, 1; scratch 2, 3 beats both: 1; stain 0.5 wins one of two: 0.5, and is not found."""
    rows = [("good", 0, 0.0), ("good", 0, 1.0), ("scratch", 1, 2.0), ("scratch", 1, 3.0), ("stain", 1, 0.5)]
    scores = pd.DataFrame(rows, columns=["defect", "label", "score"]).assign(category="bottle")
    table = sections.kinds(SimpleNamespace(scores=scores.assign(decision=(scores.score > 1.5).astype(int))))
    assert list(table.index.get_level_values("kind")) == ["stain", "scratch", "good"]
    assert table.AUROC.tolist()[:2] == [0.5, 1.0]
    assert table.found.tolist() == [0.0, 1.0, 0.0]


def test_the_hardest_kind_is_named_unless_none_is_hard():
    """One of 3,000 normal images beats the stain: its AUROC rounds to 1.000, but it is the hardest. Else none is."""
    scores = pd.DataFrame({"defect": "good", "label": 0, "score": [0.0] * 2999 + [2.0], "decision": 0})
    of = lambda score: pd.DataFrame({"defect": ["stain"], "label": [1], "score": [score], "decision": [1]})
    run = lambda score: SimpleNamespace(scores=pd.concat([scores, of(score)]).assign(category="bottle"))
    assert sections.hardest(run(1.0)).startswith(
        "Hardest kind: bottle, stain. 100 % of its images are found; its AUROC"
    )
    assert "nothing here shows" in sections.hardest(run(3.0))
    assert (
        sections.hardest(SimpleNamespace(scores=scores.assign(category="bottle")))
        == "No kind of defect was in the test."
    )


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
