"""Tables: the papers' layout, numbers in 0..1 inside, percent in print, the same bytes every time."""

import numpy as np
import pytest
from fake_runs import fake_runs

from adlib.common.errors import UserError
from adlib.metrics.names import PLAIN
from adlib.reports import published, tables, verdict


def test_table_1_has_the_papers_rows_and_columns():
    """Categories, textures' average, objects' average, average; then each system's I/P, then ours."""
    table = tables.paper_table(None, "simplenet", "table1")
    assert list(table["category"])[4:7] == ["wood", "avg_textures", "bottle"]
    assert list(table["category"])[-2:] == ["avg_objects", "average"]
    assert len(table) == 18
    text = tables.printed(table)
    assert list(text.columns[1:3]) == ["AE-SSIM I/P", "RIAD I/P"]
    assert text.loc[0, "CS-Flow I/P"] == "100.0/-"
    assert text.loc[17, "SimpleNet (reproduction of the report) I/P"] == "99.6/97.6"
    assert text.loc[17, "ours image AUROC"] == "-"


@pytest.mark.parametrize("paper", published.PAPERS)
def test_every_published_number_is_in_its_table(paper):
    """No cell is lost or moved: the sum over the regenerated tables equals the sum over the CSV."""
    cells = published.load(paper)
    for name, group in cells.groupby("table"):
        table = tables.paper_table(None, paper, name)
        ours = [c for c in table.columns if c.startswith("ours ")]
        total = table.drop(columns=ours).select_dtypes("number").sum().sum()
        scale = np.where(group["metric"].isin(PLAIN), 1, 100)
        assert total == pytest.approx((group["value"] / scale).sum())


def test_ours_averages_only_what_was_run_and_says_so():
    """Two categories: 0.94 with the sd of the per-seed averages 0.93, 0.95, "2 of 15", and the paper's mean of both."""
    runs = fake_runs({("bottle", "image_auroc"): [0.90, 1.00], ("cable", "image_auroc"): [0.96, 0.90]})
    table = tables.paper_table(runs, "simplenet").set_index("category")
    row = table.loc["average"]
    assert row["ours image_auroc"] == pytest.approx(0.94)
    assert row["ours image_auroc sd"] == pytest.approx(0.0141421, abs=1e-6)
    assert row["ours image_auroc of"] == "2 of 15"
    assert table.loc["avg_textures", "ours image_auroc of"] == "0 of 5"
    text = tables.printed(table.reset_index())
    assert text.loc[17, "ours image AUROC"] == "94.0 ± 1.4 [93.3, 94.7] (n=2, 2 of 15)"
    assert any("2 of 15 categories run here: 100.0" in note for note in table.attrs["notes"])


def test_reduced_runs_are_labelled_below_the_table():
    """Design 10: reduced runs say so in the table where their number stands."""
    runs = fake_runs({("bottle", "image_auroc"): [0.9]}, config={"epochs": 2, "backbone": "resnet18"})
    table = tables.paper_table(runs, "simplenet")
    assert any("epochs 2 (paper 160)" in note and "backbone resnet18" in note for note in table.attrs["notes"])
    assert "Reduced runs of simplenet" in tables.to_markdown(table)


def test_the_mean_grey_floor_stands_beside_the_measured_auroc():
    """What brightness alone gives away, last in the row, in percent; empty where nothing was run."""
    runs = fake_runs({("screw", "image_auroc"): [0.8], ("screw", "mean_grey_auroc"): [1.0]})
    table = tables.paper_table(runs, "simplenet")
    assert table.columns[-1] == "mean_grey_auroc"
    text = tables.printed(table).set_index("category")["mean grey AUROC (floor)"]
    assert (text["screw"], text["bottle"]) == ("100.0", "-")
    assert "mean_grey_auroc" not in tables.paper_table(None, "simplenet")


def test_rivals_that_were_run_stand_beside_theirs():
    """PaDiM measured by us gets a column of its own, after the published ones."""
    runs = fake_runs({("carpet", "image_auroc"): [0.99]}, method="padim")
    table = tables.paper_table(runs, "simplenet")
    assert table.loc[0, "PaDiM (here) image_auroc"] == 0.99


def test_ablation_table_has_systems_as_rows_and_needs_their_own_runs():
    """The default's runs fill only the rows that are the default; a mapping fills each variant."""
    runs = fake_runs({("carpet", "image_auroc"): [0.9]}, method="mmaerec", paper_config={"image_size": 256})
    table = tables.paper_table(runs, "mmaerec", "table5").set_index("system")
    assert table["ours image_auroc"].notna().tolist() == [False, False, True]
    table = tables.paper_table({"MMAERec edge only": runs}, "mmaerec", "table5").set_index("system")
    assert table["ours image_auroc"].notna().tolist() == [False, True, False]


def test_errata_of_a_table_stand_below_it():
    """MMAERec table 5 exchanges AUPRO and AP in two rows."""
    notes = tables.paper_table(None, "mmaerec", "table5").attrs["notes"]
    assert len([n for n in notes if n.startswith("Erratum: MMAERec edge only")]) == 2


def test_percent_has_as_many_decimals_as_the_paper():
    """ValidFlow's table 6 prints 99.63 and 99.57: with one decimal the claim would vanish."""
    text = tables.printed(tables.paper_table(None, "validflow", "table6"))
    assert list(text["image AUROC"])[:3] == ["99.53", "99.57", "99.63"]


def test_summary_has_one_row_per_category_of_any_data_set():
    """elpv is in no paper: category rows, an average, the reduced label, the grey floor without sd."""
    cells = {("mono", "image_auroc"): [0.8, 0.9], ("poly", "image_auroc"): [0.7, 0.7]}
    cells |= {("mono", "mean_grey_auroc"): [0.6, 0.6]}
    table = tables.summary(fake_runs(cells, dataset="elpv", config={"epochs": 3}))
    assert list(table["category"]) == ["mono", "poly", "average"]
    assert table.loc[0, "setting"] == "reduced"
    assert table.loc[2, "image_auroc"] == pytest.approx(0.775)
    assert (table.loc[0, "mean_grey_auroc"], table.loc[2, "image_auroc of"]) == (0.6, "2 of 2")
    text = tables.printed(table)
    assert text.loc[0, "image AUROC"] == "85.0 ± 7.1 [84.0, 86.0] (n=2)"
    assert text.loc[1, "mean grey AUROC (floor)"] == "-"


def test_summary_tells_settings_apart():
    """Size, backbone and epochs have columns; any other departure stands behind "reduced"."""
    runs = fake_runs({("bottle", "image_auroc"): [0.9]}, config={"epochs": 3, "noise_std": 0.5})
    assert tables.summary(runs).loc[0, "setting"] == "reduced: noise_std 0.5"
    runs = fake_runs({("bottle", "image_auroc"): [0.9]}, config={"resize_mode": "pad", "resize": None})
    assert tables.summary(runs).loc[0, "setting"] == "reduced: resize_mode pad"


def test_verdict_table_is_narrow_and_counts():
    """36 cells of the report: bottle reproduced, 35 not run: one category is no average; differences are below."""
    table = tables.verdict_table(verdict.verdict(fake_runs({("bottle", "image_auroc"): [0.995]}), "simplenet"))
    assert "1 reproduced, 0 within noise, 0 not reproduced, 0 not comparable, 35 not run" in table.attrs["notes"]
    row = tables.printed(table).set_index(["category", "metric"]).loc[("bottle", "image_auroc")]
    assert (row["published"], row["beside"], row["ours"], row["verdict"]) == (
        "100.0",
        "100.0",
        "99.5 [98.5, 100.5] (n=1)",
        "reproduced",
    )
    assert row["differs"] == "(1)"
    assert "(1) holdback 0.1 (0 in the authors' code)" in table.attrs["notes"][1]


def test_summary_of_the_papers_setting_says_paper():
    """No field differs: "paper", and a single run has no sd."""
    text = tables.printed(tables.summary(fake_runs({("bottle", "image_auroc"): [0.95]})))
    assert text.loc[0, "setting"] == "paper"
    assert text.loc[0, "image AUROC"] == "95.0 [94.0, 96.0] (n=1)"


def test_summary_without_runs_is_one_sentence():
    """An empty object is the user's mistake, said so."""
    with pytest.raises(UserError, match="no finished run"):
        tables.summary(None)


def test_verdict_prints_like_any_table():
    """A verdict's floats are percent, its texts and counts stay, its empty texts are dashes."""
    judged = verdict.verdict(fake_runs({("bottle", "image_auroc"): [0.95]}), "simplenet")
    text = tables.printed(judged).set_index(["category", "metric"]).loc[("bottle", "image_auroc")]
    assert (text["published"], text["measured"], text["sd"], text["n_seeds"]) == ("100.0", "95.0", "-", "1")
    assert text["erratum"] == "-"


def test_unknown_table_names_the_valid_ones():
    """One sentence."""
    with pytest.raises(UserError, match="unknown table of simplenet 'table9'; did you mean 'table1'"):
        tables.paper_table(None, "simplenet", "table9")


def test_provenance_stands_below_every_table_of_measured_numbers():
    """Rescaled copies: the paper's table and the summary say so, once for both seeds."""
    text = "rescaled copies, 900 to 256 pixels"
    runs = fake_runs({("bottle", "image_auroc"): [0.9, 0.8]}, provenance={"bottle": text})
    for table in (tables.paper_table(runs, "simplenet"), tables.summary(runs)):
        assert tables.to_markdown(table).count(text) == 1
        assert tables.to_text(table).replace("\n  ", " ").count(text) == 1


def test_training_in_steps_is_not_called_epochs():
    """A config that counts steps says so in the column of the length."""
    paper = {"epochs": None, "steps": 500}
    runs = fake_runs({("bottle", "image_auroc"): [0.9]}, paper_config=paper)
    assert tables.summary(runs).loc[0, "epochs"] == "500 steps"
