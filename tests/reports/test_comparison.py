"""Systems side by side: equal images only, one setting each, ranks as ranges, gaps with names, where each fails."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from compared_runs import FAIR, GOOD, run_of

from adlib.reports import comparison, floors, sections
from adlib.reports.averages import averages


def test_parts_of_mixtures_have_the_place_of_the_data_set_itself():
    """ "mtd:all" of a mixture is category all of mtd; a single data set's category is its own."""
    assert comparison.place_of({"dataset": "mtd:all + elpv:mono"}, "mtd:all") == ("mtd", "all")
    assert comparison.place_of({"dataset": "mtd"}, "all") == ("mtd", "all")


def test_only_equal_test_images_stand_together():
    """Other contents, or other images of the same contents, are groups of their own; a mixture's part is not."""
    mixed = run_of("dagan", GOOD, dataset="mvtec_ad:bottle + mtd:all", category="mvtec_ad:bottle")
    runs = [run_of("padim", GOOD), mixed, run_of("spade", FAIR, data="other")]
    fewer = run_of("riad", GOOD)
    fewer.scores = fewer.scores.iloc[:4]
    found = comparison.groups([*runs, fewer], "mvtec_ad", "bottle")
    assert [[one.method for one in group] for group in found] == [["dagan", "padim"], ["spade"], ["riad"]]
    assert comparison.groups(runs, "mvtec_ad", "screw") == []


def test_one_setting_of_a_system_by_seeds_then_length_never_by_score():
    """Two seeds before one with a better score; of one seed each, ten epochs before five."""
    two = [run_of("padim", FAIR, seed, hash="a", auroc=0.5) for seed in (1, 0)]
    [group] = comparison.groups([*two, run_of("padim", GOOD, hash="b", auroc=1.0)], "mvtec_ad", "bottle")
    assert [run.record["seed"] for run in group[0].runs] == [0, 1]
    long = run_of("padim", FAIR, hash="a", config={"epochs": 10}, auroc=0.5)
    [group] = comparison.groups([run_of("padim", GOOD, hash="b"), long], "mvtec_ad", "bottle")
    assert group[0].record["hash"] == "a"


def test_draws_of_two_systems_are_paired_whatever_the_order_of_their_files():
    """The same scores in another order of rows give the same draws: images are drawn by path."""
    a, b = run_of("padim", FAIR), run_of("spade", FAIR)
    b.scores = b.scores.iloc[::-1]
    draws = [comparison.Contender(run.record["method"], "bottle", (run,)).draws("image_auroc") for run in (a, b)]
    assert np.array_equal(*draws)
    assert 0 < draws[0].mean() < 1


def test_the_table_has_every_number_with_its_rank_and_no_zero_for_what_is_missing():
    """One seed: no sd; no maps: NaN and no rank. Equal inputs add a rank among those."""
    [group] = comparison.groups([run_of("padim", GOOD, auroc=1.0), run_of("spade", FAIR)], "mvtec_ad", "bottle")
    table = comparison.table(group)
    assert table.system.tolist() == ["PaDiM", "SPADE"]
    assert table["rank by image AUROC"].tolist() == ["1-2 (1-2)"] * 2
    assert comparison.may_be_first(table) == ["PaDiM", "SPADE"]
    assert table.pixel_auroc.isna().all()
    assert (table["rank by pixel AUROC"] == "").all()
    assert table.input.tolist() == ["64 px, none"] * 2


def test_stale_runs_are_named():
    """A run of older code stands in the table, and the note names its system."""
    old = run_of("padim", GOOD)
    old.stale = True
    [group] = comparison.groups([old, run_of("spade", FAIR)], "mvtec_ad", "bottle")
    assert comparison.table(group).attrs["notes"][-1] == "Stale, made by older code: PaDiM."


def test_seeds_of_a_system_without_randomness_are_no_luck():
    """PaDiM learns nothing at random: no sd of 0.0, no note that one seed is few; SPADE neither; CutPaste both."""
    runs = [run_of(method, GOOD, seed) for method in ("padim", "cutpaste") for seed in (0, 1)] + [run_of("spade", FAIR)]
    [group] = comparison.groups(runs, "mvtec_ad", "bottle")
    table = comparison.table(group).set_index("system")
    assert np.isnan(table.loc["PaDiM", "image_auroc sd"])
    assert table.loc["CutPaste", "image_auroc sd"] == 0
    assert table.attrs["notes"] == ["Without randomness, so one seed says all: PaDiM, SPADE."]
    ground = pd.DataFrame({"image_auroc": [0.5]}, index=["mean grey"])
    assert "One seed only" not in sections.reading("mvtec_ad bottle", [group], ground)


def test_one_model_for_several_categories_says_so():
    """Its input is not that of a model per category."""
    mixed = run_of("dagan", GOOD, dataset="mvtec_ad:bottle + mtd:all", category="mvtec_ad:bottle")
    mixed.record["per_category"]["mtd:all"] = mixed.record["per_category"]["mvtec_ad:bottle"]
    [group] = comparison.groups([mixed, run_of("unet_autoencoder", FAIR)], "mvtec_ad", "bottle")
    assert [one.input for one in group] == ["64 px, none, one model of 2", "64 px, none"]
    assert comparison.table(group)["rank by image AUROC"].tolist() == ["1-2", "1-2"]  # no second rank: inputs differ


def test_floors_are_rows_of_the_saved_table():
    """Numbers and intervals without a rank, below the systems."""
    [group] = comparison.groups([run_of("padim", GOOD, auroc=1.0), run_of("spade", FAIR)], "mvtec_ad", "bottle")
    ground = pd.DataFrame(
        {"image_auroc": [0.6], "image_auroc low": [0.4], "image_auroc high": [0.8]}, index=["mean grey"]
    )
    table = comparison.with_floors(comparison.table(group), ground)
    last = table.iloc[-1]
    assert table.system.tolist() == ["PaDiM", "SPADE", "mean grey alone"]
    assert (last.image_auroc, last["image_auroc low"], last["rank by image AUROC"]) == (0.6, 0.4, "")


def test_averages_with_and_without_what_a_floor_solves():
    """0.9 and 0.7: mean 0.8; a floor of 0.95 solves the first category, so 0.7 remains. One of two: no mean. The floors
    are the last rows.
    """
    part = lambda runs: comparison.groups(runs, "mvtec_ad", "bottle")[0]
    parts = {
        "easy": part([run_of("padim", GOOD, auroc=0.9), run_of("spade", GOOD)]),
        "hard": part([run_of("padim", FAIR, auroc=0.7)]),
    }
    ground = {"easy": pd.Series({"mean grey": 0.95, "mean picture": 0.7}), "hard": pd.Series({"mean grey": 0.5})}
    table = averages(parts, ground)
    means = table.set_index("system")
    assert means.loc["PaDiM", "all"] == pytest.approx(0.8)
    assert means.loc["PaDiM", "without solved"] == pytest.approx(0.7)
    assert means.loc["SPADE", "categories"] == "1 of 2"
    assert np.isnan(means.loc["SPADE", "all"])
    assert (means.loc["PaDiM", "rank"], means.loc["SPADE", "rank"]) == ("1", "")
    assert means.loc["PaDiM", "low"] < means.loc["PaDiM", "high"]
    assert table.system.tolist()[2:] == ["mean grey alone", "mean picture alone"]
    assert means.loc["mean grey alone", "without solved"] == 0.5
    assert means.loc["mean grey alone", "all"] == pytest.approx(0.725)
    assert np.isnan(means.loc["mean picture alone", "without solved"])
    assert "easy" in table.attrs["notes"][0]


def test_a_registered_system_without_a_run_is_a_gap_with_a_name():
    """Two methods, one run: the other is named as the papers print it."""
    [group] = comparison.groups([run_of("padim", GOOD)], "mvtec_ad", "bottle")
    assert comparison.missing(group, ["padim", "nearest_neighbour"]) == ["1-NN"]
    gap = SimpleNamespace(method="spade", dataset="mtd", category="all", seed=2)
    assert "spade mtd all seed 2" in sections.gaps(SimpleNamespace(missing=[gap]))
    assert sections.gaps(SimpleNamespace(missing=[])) == "None is missing."


def test_every_system_of_the_papers_has_a_row_with_a_place_or_a_reason():
    """PaDiM was run; SPADE could be; nobody built DFR, and the row says why."""
    table = comparison.every_system([run_of("padim", GOOD)]).set_index("system").here
    assert table["PaDiM"] == "measured: mvtec_ad bottle"
    assert table["SPADE"] == "no finished run here"
    assert table["DFR"].startswith("published only: ")
    assert not (table == "published only: ").any()


def test_where_a_system_fails():
    """FAIR: one of three normal images above 0.5, one crack below; cracks are harder than the hole."""
    [group] = comparison.groups([run_of("padim", FAIR)], "mvtec_ad", "bottle")
    row = comparison.failures(group).iloc[0]
    assert (row["false alarms"], row.missed, row["hardest kind"]) == ("1 of 3", "1 of 3", "crack")
    assert row.image_auroc == pytest.approx(5 / 6)
    assert row["seeds [%]"] == "90.0"


def test_what_nobody_finds_comes_first():
    """a0 is found by one of two systems, the others by both."""
    [group] = comparison.groups([run_of("padim", FAIR), run_of("spade", GOOD)], "mvtec_ad", "bottle")
    found = comparison.found_by(group)
    assert found.path.tolist() == ["a0", "a1", "a2"]
    assert found.found.tolist() == [1, 2, 2]
    row = comparison.failures(group).set_index("system").loc["SPADE"]
    assert row["hardest kind"] == "none, all at 100 %"
    assert "of 3 anomalous images 0 are flagged by none" in sections.seldom_found(found)


def test_places_are_where_two_systems_were_run():
    """One system on screw is no comparison."""
    runs = [run_of("padim", GOOD), run_of("spade", GOOD), run_of("padim", GOOD, category="screw")]
    assert comparison.places(runs) == {"mvtec_ad": ["bottle"]}


def test_the_reading_names_who_may_be_first_and_who_is_not_above_the_floor():
    """A floor of 92 %: the system at 90 % is not above it."""
    ground = pd.DataFrame({"image_auroc": [0.92, 0.5]}, index=["mean grey", "mean picture"])
    groups = comparison.groups([run_of("riad", GOOD, auroc=1.0), run_of("cutpaste", FAIR)], "mvtec_ad", "bottle")
    said = sections.reading("mvtec_ad bottle", groups, ground)
    assert "Not above the higher floor, mean grey, 92.0 %: CutPaste (90.0 %)." in said
    assert "May be first by image AUROC: RIAD, CutPaste" in said
    assert "One seed only: CutPaste, RIAD." in said


def test_averages_of_ranks_and_of_aurocs_may_disagree():
    """B wins one category by 20 points, A two by one each: A has the better mean rank, B the better mean."""
    auroc = pd.DataFrame({"x": [70.0, 90.0], "y": [81.0, 80.0], "z": [81.0, 80.0]}, index=["A", "B"])
    ranks = auroc.rank(ascending=False)
    order = pd.DataFrame({"by mean rank": ranks.mean(axis=1), "by mean AUROC": -auroc.mean(axis=1)}).rank()
    assert order.loc["A"].tolist() == [1, 2]
    said = sections.by_ranks(auroc, order)
    assert said.startswith("2 of 2 systems change their place.")
    assert "here x (sd over systems 14.1 points) and least y (0.7)" in said


def test_settings_say_what_a_run_changes():
    """Five epochs instead of nine."""
    [group] = comparison.groups([run_of("padim", GOOD)], "mvtec_ad", "bottle")
    assert comparison.settings(group).changes.tolist() == ["epochs 5 (paper 9)"]


def test_the_mean_picture_is_that_of_the_training_pictures():
    """On brick at 32 pixels: the map of the first test picture by hand; higher where it differs more."""
    from adlib import data, images

    table = data.load("textures", "brick")
    pictures = images.cached(table, images.Geometry(32)) / 255
    train, test = (np.flatnonzero(table.split == split) for split in ("train", "test"))
    by_hand = np.abs(pictures[test[0]] - pictures[train].mean(0)).mean(0)
    scored = floors.mean_picture("textures", "brick", 32)
    assert np.allclose(scored.maps[0], by_hand, atol=1e-6)
    assert scored.scores[0] == pytest.approx(by_hand.mean(), abs=1e-6)


def test_floors_have_an_interval_each_and_mean_grey_no_map():
    """Mean grey in its better direction is at least one half; pixel metrics belong to the mean picture alone."""
    table = floors.floors("textures", "brick", 32)
    assert table.loc["mean grey", "image_auroc"] >= 0.5
    assert np.isnan(table.loc["mean grey", "pixel_auroc"])
    for metric in ("image_auroc", "pixel_auroc", "aupro@0.3"):
        low, value, high = table.loc["mean picture", [f"{metric} low", metric, f"{metric} high"]]
        assert low <= value + 0.02
        assert value <= high + 0.02


def test_pixel_ranks_are_among_equal_grids_only():
    """Two systems on one grid, a third on another: 1 of 2, 2 of 2, 1 of 1, whatever the third's values are."""
    runs = []
    for method, grid, value in (("padim", 64, 0.9), ("spade", 64, 0.8), ("riad", 32, 0.99)):
        run = run_of(method, GOOD)
        run.record["protocol"]["metric_size"] = grid
        run.record["per_category"]["bottle"]["metrics"]["pixel_auroc"] = value
        run.replicates["bottle/pixel_auroc"] = np.linspace(value - 0.01, value + 0.01, 50)
        runs.append(run)
    [group] = comparison.groups(runs, "mvtec_ad", "bottle")
    ranks = comparison.table(group).set_index("system")["rank by pixel AUROC"]
    assert ranks.to_dict() == {"PaDiM": "1 of 2", "SPADE": "2 of 2", "RIAD": "1 of 1"}


def test_one_class_alone_has_no_auroc_and_says_so():
    """Only normal test images: no kind of defect, no rank, one sentence."""
    run = run_of("padim", GOOD, auroc=float("nan"))
    run.scores = run.scores.iloc[:3]
    [group] = comparison.groups([run], "mvtec_ad", "bottle")
    ground = pd.DataFrame({"image_auroc": [np.nan]}, index=["mean grey"])
    assert "one class only" in sections.reading("mvtec_ad bottle", [group], ground)
    assert "hardest kind" not in comparison.failures(group)


def test_without_pictures_the_recorded_brightness_is_the_floor():
    """A data set that is not at hand: mean grey as the runs have it, no map."""
    table = floors.known("mvtec_ad", "no such category", 0.7)
    assert table.image_auroc.to_dict() == {"mean grey": 0.7}
    assert "not at hand" in sections.pictures_of("mvtec_ad", "no such category")


def test_image_replicates_are_those_of_the_paired_interval():
    """The percentiles of the difference of two systems' draws are the paired interval."""
    from adlib import metrics

    labels, a, b = [0, 0, 0, 1, 1, 1], np.array(GOOD), np.array(FAIR)
    gaps = metrics.image_replicates(labels, a) - metrics.image_replicates(labels, b)
    interval = metrics.paired_interval(labels, a, b)
    assert tuple(np.percentile(gaps, [2.5, 97.5])) == pytest.approx((interval.low, interval.high))
