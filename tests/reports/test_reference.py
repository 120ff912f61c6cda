"""Runs against reference runs by hand-written folders: what is compared, the rule, and what `check` makes of it."""

import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from written_runs import run_of

from adlib.batch.made import Gap
from adlib.common.errors import UserError
from adlib.reports import check, reference
from adlib.reports.comparison import Contender
from adlib.runs.run import Runs


@pytest.fixture
def compared(tmp_path):
    """compared(ours, theirs): the table, from the keywords of `write_run` of each run."""

    def compare(ours: list[dict], theirs: list[dict]) -> pd.DataFrame:
        return reference.compare(runs_of(tmp_path / "ours", ours), runs_of(tmp_path / "theirs", theirs))

    return compare


def runs_of(folder, chosen: list[dict], missing=()) -> Runs:
    return Runs([run_of(folder, **one) for one in chosen], list(missing))


NAN = float("nan")


def numbers(mean: float, half: float = 0.01, sd: float = NAN, n: int | None = None) -> pd.Series:
    """n: seeds; by default as many as an sd needs."""
    n = n or (1 if np.isnan(sd) else 2)
    return pd.Series({"mean": mean, "sd": sd, "n_seeds": n, "low": mean - half, "high": mean + half})


@pytest.mark.parametrize(
    ("ours", "theirs", "said"),
    [
        (numbers(0.9), numbers(0.909, 0.001), "reproduced"),  # 0.909 in [0.89, 0.91]
        (numbers(0.909, 0.001), numbers(0.9), "reproduced"),  # ours in theirs
        (numbers(0.9, NAN), numbers(0.9, NAN), "reproduced"),  # the same number
        (numbers(0.90), numbers(0.915, sd=0.008), "within noise"),  # 0.015 apart, error sqrt(64e-6 (1 + 1/2)) = 0.0098
        (numbers(0.90, sd=0.008), numbers(0.915), "within noise"),
        (numbers(0.90, sd=0.014), numbers(0.915, sd=0.002), "within noise"),  # 2 errors are 0.02
        (numbers(0.90, sd=0.007), numbers(0.915, sd=0.001), "not reproduced"),  # 2 errors are 0.01
        (numbers(0.90), numbers(0.915), "not reproduced"),  # intervals that overlap do not suffice
        (numbers(0.93), numbers(0.915), "not reproduced"),  # nor does being better
        (numbers(0.9, NAN), numbers(0.91, NAN), "not comparable"),
        (numbers(0.9), None, "not comparable"),
    ],
)
def test_the_rule_without_draws(ours, theirs, said):
    assert reference.judge(ours, theirs, [])[0] == said


@pytest.mark.parametrize(
    ("paired", "said"),
    [((-0.006, -0.004), "not reproduced"), ((0.001, 0.02), "not reproduced"), ((-0.02, 0.001), "reproduced")],
)
def test_the_paired_interval_decides_whatever_the_two_intervals_say(paired, said):
    """Each mean lies in the other's interval, which would have passed; or both lie far apart, which would not have."""
    near, far = numbers(0.905), numbers(0.95)
    assert reference.judge(numbers(0.9), near, [], paired)[0] == said
    assert reference.judge(numbers(0.9), far, [], paired)[0] == said


@pytest.mark.parametrize(("theirs", "said"), [(0.79, "within noise"), (0.81, "not reproduced")])
def test_noise_is_the_standard_error_of_the_means_and_not_the_sd_of_a_seed(theirs, said):
    """sd of 56 points over 16 seeds each: 2 errors are 2 * 0.56 * sqrt(2 / 16) = 0.396; the gaps are 0.39, 0.41."""
    ours, other = (numbers(mean, sd=0.56, n=16) for mean in (0.4, theirs))
    assert reference.judge(ours, other, [], (-0.5, -0.3))[0] == said


def test_means_that_print_alike_are_equal():
    """A paired interval without width tells floats of two machines apart: 90.00 and 90.04 pass, 90.06 does not."""
    assert reference.judge(numbers(0.9), numbers(0.9004), [], (-0.0004, -0.0004)) == ("reproduced", "equal means")
    assert reference.judge(numbers(0.9), numbers(0.9006), [], (-0.0006, -0.0006))[0] == "not reproduced"


def test_a_metric_that_our_runs_lost_fails_unless_a_setting_explains_it():
    assert reference.judge(None, numbers(0.9), []) == ("not reproduced", "our runs lack it")
    assert reference.judge(None, numbers(0.9), ["image_size"]) == ("not comparable", "differs in image_size")


def test_a_lost_metric_fails_the_check_and_one_that_only_we_have_does_not(tmp_path):
    """Both runs have the same identity."""
    facts = {"metrics": {"image_ap": 1.0}, "threshold": {"tau": 0.5}, "pixel": {}, "notes": []}
    without = {"per_category": {"bottle": facts | {"counts": {"normal": 1, "anomalous": 1}}}}
    (row,) = reference.compare(runs_of(tmp_path / "a", [without]), runs_of(tmp_path / "b", [{}])).to_dict("records")
    assert (row["metric"], row["verdict"], row["reason"]) == ("pixel_auroc", "not reproduced", "our runs lack it")
    assert not report_of(tmp_path / "c", [without], [{}], allow_incomparable=True).ok
    (row,) = reference.compare(runs_of(tmp_path / "d", [{}]), runs_of(tmp_path / "e", [without])).to_dict("records")
    assert (row["verdict"], row["reason"]) == ("not comparable", "not defined in the reference")


def test_draws_are_paired_image_by_image_whatever_the_order_of_the_files():
    """The same scores, once in another order: the difference is 0 in every draw."""
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"category": "bottle", "path": [f"{i}.png" for i in range(40)], "label": [0, 1] * 20})
    table["score"] = rng.normal(size=40) + table["label"]
    parts = [
        Contender("simplenet", "bottle", (SimpleNamespace(scores=scores, replicates={}),))
        for scores in (table, table.sample(frac=1, random_state=1))
    ]
    for part in parts:
        vars(part)["numbers"] = pd.DataFrame({"mean": [0.7]}, index=["image_auroc"])
    assert reference.paired_interval(*parts, "image_auroc") == (0, 0)
    assert reference.paired_interval(*parts, "pixel_auroc") is None


def test_a_field_that_forbids_leaves_no_verdict_even_at_equal_numbers():
    assert reference.judge(numbers(0.9), numbers(0.9), ["epochs"]) == ("not comparable", "differs in epochs")


def test_numbers_intervals_and_seeds_of_both_stand_in_the_row(compared):
    """Seeds 0.97 and 0.99: mean 0.98, sd 0.0141; each draw is mean over seeds, so the interval is 0.98 +- 0.01."""
    table = compared([{"value": 0.985}], [{"value": 0.97}, {"value": 0.99, "seed": 1}])
    (row,) = table.to_dict("records")
    assert tuple(table.columns) == reference.COLUMNS
    assert (row["method"], row["dataset"], row["category"], row["metric"]) == (
        "simplenet",
        "mvtec_ad",
        "bottle",
        "pixel_auroc",
    )
    assert [row[k] for k in ("measured", "low", "high", "n_seeds")] == pytest.approx([0.985, 0.975, 0.995, 1])
    theirs = [row[k] for k in ("reference", "reference_sd", "reference_low", "reference_high", "reference_n")]
    assert theirs == pytest.approx([0.98, 0.0002**0.5, 0.97, 0.99, 2])
    assert (row["verdict"], row["differs"]) == ("within noise", "")  # 0.005 in every draw; 2 errors are 0.035


def test_equal_draws_leave_no_room_that_overlapping_intervals_would(compared):
    """98.5 +- 1 and 98 +- 1 hold each other's mean; ours lies 0.5 higher in every draw, and nobody knows the noise."""
    (row,) = compared([{"value": 0.985}], [{"value": 0.98}]).to_dict("records")
    assert row["verdict"] == "not reproduced"
    assert row["reason"] == "0.005 from the reference, outside the paired 95 % interval"


@pytest.mark.parametrize(
    ("ours", "said"),
    [
        ({"config": {"epochs": 5}}, "epochs 5 (reference 160)"),
        ({"config": {"epochs": 500}}, "epochs 500 (reference 160)"),  # also longer training
        ({"config": {"noise_std": 0.1}}, "noise_std 0.1 (reference 0.015)"),
        ({"weights": "b" * 12}, "weights wide_resnet50_2 bbbbbbbb (reference wide_resnet50_2 aaaaaaaa)"),
        (
            {"protocol": {"training": "per category", "image_size": 256, "select": "last"}},
            "image_size 256 (reference 288)",
        ),
        (
            {"texture_bank": {"name": "dtd", "fingerprint": "c" * 9}},
            "texture_bank dtd cccccccc (reference none)",
        ),
    ],
)
def test_other_settings_sizes_and_weights_are_named_and_never_judged(compared, ours, said):
    (row,) = compared([ours | {"run_hash": "other"}], [{}]).to_dict("records")
    assert (row["verdict"], row["reason"]) == ("not comparable", f"differs in {said.split()[0]}")
    assert row["differs"] == said


def test_neutral_fields_are_named_and_judged(compared):
    (row,) = compared([{"config": {"holdback": 0.2}, "run_hash": "other"}], [{}]).to_dict("records")
    assert (row["verdict"], row["differs"]) == ("reproduced", "holdback 0.2 (reference 0.1)")


def test_a_field_that_is_newer_than_the_reference_had_its_default(compared):
    newer = {"paper_config": {"epochs": 160, "clamp": 3}, "config": {"clamp": 3}, "run_hash": "newer"}
    (row,) = compared([newer], [{}]).to_dict("records")
    assert row["differs"] == ""


def test_other_test_images_are_named_and_never_judged(compared):
    """The same data set under another split: equal numbers stay without verdict, and without the reference's."""
    ours = {"dataset": "mvtec_ad?split=seeded", "data": {"bottle": "others"}}
    (row,) = compared([ours], [{}]).to_dict("records")
    assert (row["verdict"], row["reason"]) == ("not comparable", "other test images")
    assert pd.isna(row["reference"])


def test_a_category_of_a_mixture_matches_that_of_its_data_set(compared):
    ours = {"dataset": "mvtec_ad:bottle + mtd:all", "category": "mvtec_ad:bottle", "run_hash": "mixture"}
    (row,) = compared([ours], [{}]).to_dict("records")
    assert (row["dataset"], row["category"], row["verdict"]) == ("mvtec_ad", "bottle", "reproduced")


def test_one_model_of_other_categories_is_another_experiment(compared):
    both = {"data": {"bottle": "images", "cable": "cables"}, "run_hash": "two"}
    three = {"data": both["data"] | {"pill": "pills"}, "run_hash": "three"}
    table = compared([both], [three]).set_index("category")
    assert list(table.index) == ["bottle", "cable"]
    assert set(table["reason"]) == {"differs in trained_on"}


def test_the_setting_of_the_same_hash_is_taken_else_the_nearest(compared):
    """At other images even the same hash would not do."""
    theirs = [
        {"run_hash": "far", "config": {"epochs": 20, "holdback": 0.2}, "value": 0.1},
        {"run_hash": "near", "config": {"epochs": 20}, "value": 0.2},
        {"run_hash": "same", "config": {"epochs": 20, "holdback": 0.3, "mask_rule": "half"}, "value": 0.3},
    ]
    table = compared([{"run_hash": "same"}, {"run_hash": "unknown"}], theirs).set_index("hash")
    assert table["reference_hash"].to_dict() == {"same": "same", "unknown": "near"}
    assert table["reference"].to_dict() == {"same": 0.3, "unknown": 0.2}


def test_settings_of_ours_are_rows_of_their_own(compared):
    table = compared([{"value": 0.98}, {"value": 0.5, "run_hash": "short", "config": {"epochs": 1}}], [{}])
    assert table.set_index("hash")["verdict"].to_dict() == {"h": "reproduced", "short": "not comparable"}


def test_the_reference_is_not_compared_with_itself(tmp_path):
    both = runs_of(tmp_path, [{}, {"seed": 1, "value": 0.99}])
    table = reference.compare(both, both)
    assert len(table) == 0
    assert table.attrs["notes"] == [
        "2 of the runs are the reference's own files, which are not compared with themselves."
    ]
    first = reference.compare(Runs(both.runs[:1]), both)  # against the other seed
    assert (first["n_seeds"].item(), first["reference"].item()) == (1, 0.99)


def test_what_the_reference_has_no_run_of_and_stale_runs_of_it_are_said(compared):
    table = compared([{}, {"category": "cable", "run_hash": "c"}], [{"current": False}])
    assert table.attrs["notes"] == [
        "The reference has no run of SimpleNet on mvtec_ad cable.",
        "reference runs: stale, made by older code: simplenet mvtec_ad bottle h (seed 0).",
    ]


def report_of(tmp_path, ours, theirs=None, missing=(), **chosen) -> check.Report:
    known = None if theirs is None else runs_of(tmp_path / "theirs", theirs)
    return check.check(runs_of(tmp_path / "ours", ours, missing), known=known, **chosen)


def test_every_paper_that_prints_a_system_on_its_data_is_judged_as_own_or_rival(tmp_path):
    """csflow has no paper of its own here; those of SimpleNet and ValidFlow print it."""
    report = report_of(tmp_path, [{"method": "csflow"}], allow_incomparable=True)
    assert list(report.papers) == ["simplenet"]  # the other prints no pixel AUROC
    assert set(report.papers["simplenet"].table["system"]) == {"CS-Flow"}
    assert "Against simplenet: SimpleNet: A Simple Network" in report.text()


def test_with_a_paper_its_own_system_alone_is_judged_also_against_the_reference(tmp_path):
    runs = [{"value": 0.98}, {"value": 0.2, "method": "draem", "run_hash": "d"}]
    theirs = [{"value": 0.98}, {"value": 0.9, "method": "draem", "run_hash": "d"}]
    report = report_of(tmp_path, runs, theirs, paper="simplenet")
    assert report.ok
    assert set(report.compared["method"]) == {"simplenet"}
    assert "Against simplenet" not in report.text()


@pytest.mark.parametrize(
    ("ours", "theirs", "status"),
    [(0.98, 0.98, True), (0.98, 0.90, False), (0.90, 0.90, False), (0.90, 0.98, False)],
)
def test_a_cell_that_is_not_reproduced_fails_against_paper_or_reference(tmp_path, ours, theirs, status):
    """Printed for bottle: 98.0."""
    report = report_of(tmp_path, [{"value": ours, "half": 0.005}], [{"value": theirs, "half": 0.005}])
    assert report.ok is status


def test_a_reproduced_reference_counts_as_comparable_and_without_any_it_fails(tmp_path):
    reduced = {"config": {"epochs": 2}, "run_hash": "reduced"}
    assert report_of(tmp_path / "a", [reduced], [reduced]).ok
    assert not report_of(tmp_path / "b", [reduced], [{}]).ok
    assert report_of(tmp_path / "c", [reduced], [{}], allow_incomparable=True).ok


def test_a_system_that_no_paper_prints_on_these_data_gets_a_line(tmp_path):
    textures = {"dataset": "textures", "category": "brick"}
    report = report_of(tmp_path / "a", [textures], [textures])
    assert report.ok
    assert "No paper prints numbers of SimpleNet on textures." in report.text()
    for theirs, meant in (([{}], "has no other run"), (None, "no reference was asked for")):
        with pytest.raises(UserError, match=f"no paper prints simplenet on textures.*{meant}"):
            report_of(tmp_path / meant.replace(" ", "-"), [textures], theirs)


def test_stale_runs_are_listed_as_stale(tmp_path):
    report = report_of(tmp_path, [{"current": False}, {"current": False, "seed": 1}])
    assert "stale, made by older code: simplenet mvtec_ad bottle h (seed 0, 1)." in report.text()
    assert "stale" not in report_of(tmp_path / "current", [{}]).text()


def test_missing_runs_are_named_and_never_a_zero(tmp_path):
    gaps = [
        Gap("simplenet", "mvtec_ad", ("cable",), "cable", 0, "c"),
        Gap("simplenet", "mvtec_ad", ("bottle",), "bottle", 1, "h"),  # another seed is finished
    ]
    theirs = [{}, {"category": "cable", "run_hash": "c"}]
    report = report_of(tmp_path / "a", [{}], theirs, missing=gaps)
    assert "missing: simplenet mvtec_ad cable seed 0\nmissing: simplenet mvtec_ad bottle seed 1\n" in report.text()
    rows = report.compared.set_index("category")
    assert rows["verdict"].to_dict() == {"bottle": "reproduced", "cable": "not run"}
    assert pd.isna(rows.loc["cable", "measured"])
    assert not report.ok
    assert report_of(tmp_path / "b", [{}], theirs, missing=gaps, allow_missing=True).ok


def test_programs_get_one_table_of_papers_and_reference(tmp_path):
    report = report_of(tmp_path, [{}], [{}])
    held = json.loads(report.text("json"))
    assert {row["against"] for row in held["rows"]} == {"simplenet", "reference"}
    (row,) = (row for row in held["rows"] if row["against"] == "reference")
    assert (row["reference"], row["measured"], row["reference_n"], row["verdict"]) == (0.98, 0.98, 1, "reproduced")
    assert any(note.startswith("reference: 1 reproduced") for note in held["notes"])
    head = report.text("csv").splitlines()[0]
    assert head.startswith("table,dataset,category,system,metric,published,")
    assert head.endswith(
        "reason,against,hash,reference,reference_sd,reference_n,reference_low,reference_high,reference_hash"
    )
    assert "## Against the reference runs" in report.text("md")
