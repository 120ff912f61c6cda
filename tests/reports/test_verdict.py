"""The verdict by hand-made cells: which numbers may be judged, what is said of them, and when a check fails."""

import json

import numpy as np
import pandas as pd
import pytest
from fake_runs import fake_runs

from adlib import models
from adlib.common.errors import UserError
from adlib.reports import measured, published, verdict


def cell_of(runs, category="bottle", metric="image_auroc", **keywords):
    table = verdict.verdict(runs, "simplenet", **keywords)
    return table[(table["category"] == category) & (table["metric"] == metric)].iloc[0]


def test_reproduced_where_the_band_meets_the_interval():
    """Bottle I is printed 100.0, i.e. at least 0.9995; our interval [0.9797, 0.9997] meets it."""
    row = cell_of(fake_runs({("bottle", "image_auroc"): [0.9897]}))
    assert row["verdict"] == "reproduced"
    assert (row["published"], row["beside"], row["measured"]) == (1.0, 1.0, 0.9897)
    assert (row["n_seeds"], row["n_images"], row["interval_method"]) == (1, 80, "bootstrap")


def test_within_noise_needs_two_seeds_and_two_sd():
    """Mean 0.98 +- 0.01: 1.000 lies 0.0195 from it (less half a digit); sd of (0.97, 0.99) is 0.0141, twice 0.0283."""
    assert cell_of(fake_runs({("bottle", "image_auroc"): [0.97, 0.99]}))["verdict"] == "within noise"
    assert cell_of(fake_runs({("bottle", "image_auroc"): [0.98]}))["verdict"] == "not reproduced"


def test_not_reproduced_outside_interval_and_noise():
    """0.95 with sd 0.0014: 1.000 is 35 sd away."""
    row = cell_of(fake_runs({("bottle", "image_auroc"): [0.949, 0.951]}))
    assert row["verdict"] == "not reproduced"
    assert not verdict.check(fake_runs({("bottle", "image_auroc"): [0.95]}), "simplenet").ok


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"epochs": 2}, "epochs 2"),
        ({"backbone": "resnet18.tv_in1k"}, "backbone resnet18"),
        ({"image_size": 192}, "image_size 192"),
        ({"resize": 288}, "resize 288"),
        ({"resize_mode": "pad"}, "resize_mode pad"),
        ({"resize_mode": "tiles"}, "resize_mode tiles"),
        ({"noise_std": 0.15}, "noise_std 0.15"),
    ],
)
def test_reduced_runs_are_not_comparable_and_say_why(config, reason):
    """A value equal to the published one stays without verdict if the run is another experiment."""
    row = cell_of(fake_runs({("bottle", "image_auroc"): [1.0]}, config=config))
    assert row["verdict"] == "not comparable"
    assert f"differs in {next(iter(config))}" in row["reason"]
    assert reason in row["differs"]


@pytest.mark.parametrize("config", [{"holdback": 0.0}, {"mask_rule": "half"}, {"epochs": 320}])
def test_listed_differences_do_not_forbid(config):
    """Hold-back, mask rule and longer training are listed, not forbidding."""
    row = cell_of(fake_runs({("bottle", "pixel_auroc"): [0.98]}, config=config), metric="pixel_auroc")
    assert row["verdict"] == "reproduced"
    assert next(iter(config)) in row["differs"]


def test_another_training_setting_is_not_comparable():
    """Paper 01 states one model for all categories; ours per category is another experiment, also at equal numbers."""
    config = {"image_size": 224, "resize_mode": "squash", "epochs": 1000}
    runs = fake_runs({("bottle", "image_auroc"): [0.993]}, method="improved_mae", paper_config=config)
    table = verdict.verdict(runs, "improved_mae").set_index("category")
    assert table.loc["bottle", "verdict"] == "not comparable"
    assert "training per category (paper together)" in table.loc["bottle", "differs"]


def test_selection_on_the_test_set_is_listed_and_the_oracle_stands_beside():
    """The report's numbers are those of the best epoch on the test set; ours of the last, the oracle is not judged."""
    cells = {("bottle", "image_auroc"): [0.9], ("bottle", "image_auroc (oracle best epoch)"): [1.0]}
    row = cell_of(fake_runs(cells))
    assert "select last (best_test (oracle) in the authors' code)" in row["differs"]
    assert (row["oracle"], row["verdict"]) == (1.0, "not reproduced")


def test_silence_of_the_paper_is_listed():
    """Fields of which nobody states a value are named in every verdict."""
    config = {"image_size": 256, "resize_mode": "squash", "epochs": 600}
    runs = fake_runs({("carpet", "image_auroc"): [0.963]}, method="mmaerec", paper_config=config)
    row = verdict.verdict(runs, "mmaerec").iloc[0]
    assert row["verdict"] == "reproduced"
    assert "not stated: resize, resample, holdback, select" in row["differs"]


def test_not_run_without_a_run():
    """Nothing run: every cell "not run"; `check` refuses to call that a success."""
    table = verdict.verdict(None, "simplenet")
    assert set(table["verdict"]) == {"not run"}
    assert len(table) == 36
    with pytest.raises(UserError, match="no finished run of simplenet"):
        verdict.check(None, "simplenet")


def test_average_over_some_categories_is_not_comparable():
    """Two of fifteen categories: no verdict on the average; the textures' average of five of five has one."""
    two = fake_runs({("bottle", "image_auroc"): [1.0], ("cable", "image_auroc"): [1.0]})
    row = cell_of(two, "average")
    assert (row["verdict"], row["n_images"]) == ("not comparable", 160)
    assert "2 of 15 categories" in row["reason"]
    five = fake_runs({(c, "image_auroc"): [0.998] for c in measured.TEXTURES})
    assert cell_of(five, "avg_textures")["verdict"] == "reproduced"
    assert cell_of(five, "avg_objects")["verdict"] == "not run"


def test_undefined_category_is_left_out_of_the_average():
    """A category with one class only has a NaN AUROC: left out, and the average says so."""
    runs = fake_runs({("bottle", "image_auroc"): [0.9], ("cable", "image_auroc"): [np.nan]})
    assert verdict.ours(runs, "simplenet", "mvtec_ad", "average", "image_auroc")["n_categories"] == 1
    assert cell_of(runs, "cable")["verdict"] == "not run"


def test_errata_are_judged_at_the_corrected_value():
    """SimpleNet (original), objects: printed 99.5, rows give 99.44; the row carries both."""
    runs = fake_runs({("bottle", "image_auroc"): [1.0]})
    table = verdict.verdict(runs, "simplenet", systems=["SimpleNet (original)"])
    row = table.query("category == 'avg_objects' and metric == 'image_auroc'").iloc[0]
    assert row["published"] == pytest.approx(0.995)
    assert row["erratum"].startswith("99.5 -> 99.44")


def test_single_category_data_set_and_other_spellings_match():
    """validflow prints `all` for MTD and `class_1` for DAGM's Class1; its settings for MTD count there."""
    default = {"image_size": 768, "resize_mode": "squash", "epochs": 300, "backbone": "tf_efficientnet_b5.ns_jft_in1k"}
    config = {"image_size": 384, "epochs": 60}
    cells = {("tiles", "image_auroc"): [0.996]}
    runs = fake_runs(cells, "validflow", "mtd", config=config, paper_config=default)
    table = verdict.verdict(runs, "validflow").query("table == 'table3'")
    assert list(table["verdict"]) == ["reproduced"]
    dagm = fake_runs({("Class1", "image_auroc"): [0.943]}, "validflow", "dagm", paper_config=default)
    assert verdict.verdict(dagm, "validflow").query("category == 'class_1'")["verdict"].item() == "reproduced"


def test_speed_is_shown_and_never_judged():
    """Frames per second come from other hardware (specs/common 5)."""
    cells = {("all", "frames_per_second"): [122.0]}
    runs = fake_runs(cells, "validflow", "none", paper_config={"image_size": 768})
    row = verdict.verdict(runs, "validflow").query("metric == 'frames_per_second'").iloc[0]
    assert (row["verdict"], row["published"]) == ("not comparable", 122.0)


def test_runs_of_the_default_do_not_stand_for_a_variant():
    """A row of an ablation table needs runs of that variant: same numbers, default config -> no verdict."""
    config = {"image_size": 256, "resize_mode": "squash", "epochs": 600, "branches": "both"}
    cells = {(c, "image_auroc"): [0.928] for c in published.load("mmaerec")["category"].unique()[:15]}
    system = ["MMAERec edge only"]
    default = fake_runs(cells, "mmaerec", paper_config=config)
    variant = fake_runs(cells, "mmaerec", paper_config=config, config={"branches": "edge"})
    for runs, expected in ((default, "not comparable"), (variant, "reproduced")):
        table = verdict.verdict(runs, "mmaerec", systems=system).query("metric == 'image_auroc'")
        assert table["verdict"].item() == expected


def test_one_model_for_all_categories_has_one_record_for_them():
    """Paper 01: the values of a category stand in the record's `per_category`."""
    config = {"image_size": 224, "resize_mode": "squash", "epochs": 1000}
    runs = fake_runs({("bottle", "image_auroc"): [0.99, 0.99]}, "improved_mae", paper_config=config)
    for run in runs.runs:
        run.record["per_category"] = {"bottle": {"metrics": run.record.pop("metrics")}}
        run.record |= {"category": "together", "protocol": {"training": "together"}}
    table = verdict.verdict(runs, "improved_mae").set_index("category")
    assert table.loc["bottle", "verdict"] == "reproduced"
    assert "training" not in table.loc["bottle", "differs"]


def test_unknown_system_is_one_sentence():
    """The valid names stand in the message."""
    with pytest.raises(UserError, match=r"unknown system in the tables of simplenet 'X'.*CutPaste"):
        verdict.verdict(None, "simplenet", systems=["X"])


def test_settings_are_kept_apart_and_the_papers_comes_first():
    """A folder with a quick run (0.80) and a run in the paper's setting (1.00): the verdict is about the latter."""
    quick = fake_runs({("bottle", "image_auroc"): [0.8]}, config={"epochs": 2}, run_hash="quick")
    full = fake_runs({("bottle", "image_auroc"): [1.0]}, run_hash="full")
    both = type(quick)(metrics=pd.concat([quick.metrics, full.metrics]), runs=quick.runs + full.runs)
    assert cell_of(both)["measured"] == 1.0
    assert [s.departures for s in measured.settings(both)] == [0, 1]


def test_training_that_counts_steps_is_one_difference_and_another_experiment():
    """The paper trains 160 epochs, ours 500 steps: one text with both units, never a number compared with None."""
    paper = {"epochs": 160, "steps": None}
    runs = fake_runs({("bottle", "image_auroc"): [1.0]}, config={"epochs": None, "steps": 500}, paper_config=paper)
    assert verdict.reduced(runs.runs[0].record) == ["steps 500 (paper 160 epochs)"]
    row = cell_of(runs)
    assert (row["verdict"], row["reason"]) == ("not comparable", "differs in steps")


def test_more_steps_than_the_papers_do_not_forbid():
    """As with epochs: longer training is listed, shorter is another experiment."""
    paper = {"epochs": None, "steps": 500}
    longer, shorter = (
        fake_runs({("bottle", "image_auroc"): [1.0]}, config={"steps": n}, paper_config=paper) for n in (600, 400)
    )
    assert verdict.reduced(longer.runs[0].record) == []
    assert verdict.reduced(shorter.runs[0].record) == ["steps 400 (paper 500)"]


def test_averages_without_rows_beside_them_run_over_all_categories_in_any_table():
    """MVTec AD has 15, BTAD 3, DAGM 10; a data set without categories is one."""
    cells = published.load("draem").query("table == 'notes_header'")
    cell = next(cells.itertuples(index=False))
    assert verdict.n_categories(cells, cell) == 15
    for dataset, count in (("btad", 3), ("dagm", 10), ("mtd", 1)):
        assert verdict.n_categories(cells, cell._replace(dataset=dataset, table="none")) == count


def test_check_folds_what_was_not_run_into_one_line():
    """One row: of 36 cells bottle alone was run, one category is no average; "35 of 36 cells not run"."""
    check = verdict.check(fake_runs({("bottle", "image_auroc"): [0.995]}), "simplenet")
    assert check.ok
    text = check.text()
    assert "35 of 36 cells not run." in text
    assert "1 reproduced, 0 within noise, 0 not reproduced, 0 not comparable." in text
    assert "cable" not in text
    assert len(check.table) == 36


def test_check_of_reduced_runs_alone_says_that_nothing_was_comparable():
    """Two epochs of 160: no cell can be judged, so nothing was shown; only asked for does that pass."""
    runs = fake_runs({("bottle", "image_auroc"): [1.0]}, config={"epochs": 2})
    check = verdict.check(runs, "simplenet")
    assert not check.ok
    assert "Nothing was comparable" in check.text()
    assert verdict.check(runs, "simplenet", allow_incomparable=True).ok
    failed = fake_runs({("bottle", "image_auroc"): [0.5]})
    assert not verdict.check(failed, "simplenet", allow_incomparable=True).ok


def test_check_for_programs_holds_every_cell():
    """json and csv: all 36 cells in 0..1; json says the sentences, too."""
    check = verdict.check(fake_runs({("bottle", "image_auroc"): [0.995]}), "simplenet")
    held = json.loads(check.text("json"))
    assert len(held["rows"]) == 36
    assert held["rows"][5]["measured"] is None or isinstance(held["rows"][5]["measured"], float)
    assert "35 of 36 cells not run." in held["notes"]
    assert len(check.text("csv").splitlines()) == 37
    with pytest.raises(UserError, match="unknown format 'xml'"):
        check.text("xml")


def test_rescaled_copies_are_named_below_the_verdict():
    """A record with a provenance says so once; older records have none."""
    text = "rescaled copies, 900 to 256 pixels"
    runs = fake_runs({("bottle", "image_auroc"): [0.9, 1.0]}, provenance={"bottle": text})
    assert verdict.verdict(runs, "simplenet").attrs["notes"] == [f"mvtec_ad (bottle): {text}"]
    assert verdict.check(runs, "simplenet").text().count(text) == 1
    assert verdict.verdict(fake_runs({("bottle", "image_auroc"): [0.9]}), "simplenet").attrs["notes"] == []


MVTEC = sorted(set(published.load("simplenet")["category"]) - set(measured.AVERAGES))


def rival(method, paper, system, value=0.958, metric="image_auroc", config=None, **fields):
    """The verdict on a rival's cells of one metric, by category; its runs are in its own published setting but for
    `config`.
    """
    paper_config = models.get(method)[1]().to_dict()
    cells = {(category, metric): [value] for category in MVTEC}
    runs = fake_runs(cells, method, paper_config=paper_config, config=config, half=0.02, **fields)
    table = verdict.verdict(runs, paper, systems=[system]).query("metric == @metric and dataset == 'mvtec_ad'")
    return table.set_index("category")


@pytest.mark.parametrize(
    ("paper", "printed", "own"),
    [("simplenet", 0.9691, "image_size 224 (288"), ("mmaerec", 0.9542, "epochs 0 (paper 600)")],
)
def test_a_rival_in_its_own_published_setting_is_judged_whichever_paper_quotes_it(paper, printed, own):
    """PaDiM takes 224 pixels and no epochs; the 288 or 256 and 600 of the quoting papers' own systems are not its.
    printed: the average of the rows, where the papers' own averages are in error.
    """
    table = rival("padim", paper, "PaDiM", printed)
    assert set(table["verdict"]) <= {"reproduced", "within noise", "not reproduced"}
    assert table.loc["average", "verdict"] == "reproduced"
    row = table.loc["bottle"]
    assert own not in row["differs"]
    assert "not stated: image_size" in row["differs"]


@pytest.mark.parametrize(
    ("method", "paper", "system"),
    [("ganomaly", "validflow", "GANomaly"), ("mkd", "improved_mae", "MKD"), ("draem", "simplenet", "DRAEM")],
)
def test_sizes_length_and_training_of_the_quoting_paper_s_system_forbid_nothing_of_a_rival(method, paper, system):
    """ValidFlow's 768 pixels, the one model of paper 01, SimpleNet's 160 epochs; a rival may have a paper here, too."""
    table = rival(method, paper, system)
    assert not table["reason"].str.contains("differs").any()
    assert not table["differs"].str.contains("paper ").any()


def test_a_reduced_rival_names_its_own_fields():
    """Both values are PaDiM's; the average of 15 categories is no more comparable than a single one."""
    config = {"image_size": 128, "channels": 100}
    row = rival("padim", "mmaerec", "PaDiM", config=config).loc["average"]
    assert (row["verdict"], row["reason"]) == ("not comparable", "differs in channels, image_size")
    assert "image_size 128 (paper 224)" in row["differs"]
    assert "channels 100 (paper 550)" in row["differs"]


def test_one_model_of_all_categories_is_no_published_rival():
    """Paper 01 trains one model of all; the numbers that it quotes of MKD are of a model per category."""
    row = rival("mkd", "improved_mae", "MKD", protocol={"training": "together"}).loc["bottle"]
    assert (row["verdict"], row["reason"]) == ("not comparable", "differs in training")


def test_what_a_paper_states_of_the_evaluation_holds_for_its_rivals(monkeypatch):
    """No paper states a grid yet; one that did would list it beside a rival, too. The elsewhere of its own code not."""
    row = rival("padim", "simplenet", "PaDiM", metric="pixel_auroc", protocol={"metric_size": 224}).loc["bottle"]
    assert "metric_size 224" not in row["differs"]
    stated = published.protocol("simplenet", "mvtec_ad")
    stated["metric_size"] = stated["metric_size"] | {"stated": "256"}
    monkeypatch.setattr(published, "protocol", lambda paper, dataset: stated)
    row = rival("padim", "simplenet", "PaDiM", metric="pixel_auroc", protocol={"metric_size": 224}).loc["bottle"]
    assert "metric_size 224 (paper 256)" in row["differs"]


@pytest.mark.parametrize("paper", ["mmaerec", "simplenet"])
def test_a_column_of_another_metric_is_never_judged_as_its_heading(paper):
    """AE-SSIM's "image AUROC" is its pixel AUROC: an equal image AUROC of ours says nothing; the report's P is PRO."""
    row = rival("ae_ssim", paper, "AE-SSIM", value=0.93).loc["bottle"]
    assert row["published"] == 0.93
    assert (row["verdict"], row["reason"]) == ("not comparable", "the printed column is pixel AUROC")
    if paper == "simplenet":
        row = rival("ae_ssim", paper, "AE-SSIM", metric="pixel_auroc").loc["bottle"]
        assert row["reason"] == "the printed column is AUPRO"
