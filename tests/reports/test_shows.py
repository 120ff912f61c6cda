"""*What this run shows*: every seed, warnings and the strongest rival, against values computed by hand."""

from types import SimpleNamespace

import pandas as pd
import pytest

from adlib.reports import sections


def runs_of(image_auroc, floor=0.6, grey=None, low=None):
    """Runs of "bottle", one for each value, with five test images; grey: brightness of each, scores rise 0..4."""
    runs = []
    for seed, value in enumerate(image_auroc):
        metrics = {"image_auroc": value, "mean_grey_auroc": floor}
        record = {"method": "m", "dataset": "d", "category": "bottle", "seed": seed, "hash": "h", "config": {}}
        record["per_category"] = {"bottle": {"metrics": metrics}}
        scores = pd.DataFrame({"category": "bottle", "score": range(5), "mean_grey": grey or [1, 1, 1, 1, 1]})
        runs.append(SimpleNamespace(record=record, scores=scores))
    mean, low = sum(image_auroc) / len(image_auroc), min(image_auroc) if low is None else low
    row = {"method": "m", "dataset": "d", "category": "bottle", "metric": "image_auroc", "mean": mean, "sd": 0.0}
    row |= {"n_seeds": len(runs), "n_images": 5, "low": low, "high": 1.0, "interval_method": "bootstrap"}
    return SimpleNamespace(metrics=pd.DataFrame([row]), runs=runs)


def bullets(*args):
    return [line for line in sections.shows(*args).splitlines() if line.startswith("- ")]


def test_every_seed_is_shown():
    """Two seeds, 90 and 93 %: 3 points apart, no warning."""
    text = sections.shows(runs_of([0.9, 0.93]))
    row = next(line for line in text.splitlines() if line.startswith("| bottle"))
    assert [cell.strip() for cell in row.strip("|").split("|")] == ["bottle", "image AUROC [%]", "90.0", "93.0", "3.0"]
    assert "the 2 seeds differ by 3.0 points at most" in text
    assert "Warning" not in text


def test_one_seed_says_that_it_is_one():
    """No spread can be told of it."""
    assert "one seed" in "".join(bullets(runs_of([0.9])))


def test_seeds_more_than_five_points_apart_warn():
    """90 and 95.1 %: 5.1 points; 90 and 94.9 do not warn."""
    assert any("5.1 points (90.0 to 95.1 %)" in line for line in bullets(runs_of([0.9, 0.951])))
    assert not any("Warning" in line for line in bullets(runs_of([0.9, 0.949])))


@pytest.mark.parametrize(
    ("floor", "low", "said"),
    [
        (0.95, 0.85, "is no better"),
        (0.88, 0.85, "lies in the interval"),
        (0.84, 0.85, "above this floor with its whole interval"),
    ],
)
def test_the_floor_is_compared_with_the_score(floor, low, said):
    """Score 90 %, interval from 85 % on: a floor above the score, inside the interval, below it."""
    line = bullets(runs_of([0.9], floor, low=low))[0]
    assert said in line
    assert line.startswith("- **Warning.**") == (floor > low)


@pytest.mark.parametrize(
    ("grey", "rho"), [([5, 4, 3, 2, 1], "-1.00"), ([1, 2, 3, 5, 4], "+0.90"), ([3, 1, 5, 2, 4], None)]
)
def test_a_score_that_follows_brightness_warns(grey, rho):
    """Spearman by hand, 1 - 6 sum d^2 / (5 * 24): reversed -1; one exchange (d^2 = 2) 0.9; d^2 = 14 gives 0.3."""
    said = [line for line in bullets(runs_of([0.9], grey=grey)) if "brightness of the whole image" in line]
    assert len(said) == (rho is not None)
    if rho:
        assert f"{rho} (seed 0)" in said[0]
        assert ("darker" if rho[0] == "-" else "brighter") in said[0]


def rivals_of(rows):
    return pd.DataFrame(rows, columns=["rival", "category", "seed", "metric", "value"])


def test_the_strongest_rival_over_all_seeds_counts():
    """Rival a leads in seed 0 (95, 60: mean 77.5), b on average (85, 84): ours (90, 80) is 0.5 points ahead of b."""
    rows = [("a", "bottle", 0, "image_auroc", 0.95), ("a", "bottle", 1, "image_auroc", 0.6)]
    rows += [("b", "bottle", 0, "image_auroc", 0.85), ("b", "bottle", 1, "image_auroc", 0.84)]
    line = next(line for line in bullets(runs_of([0.9, 0.8]), rivals_of(rows)) if "rival" in line)
    assert "ours 85.0 %, strongest rival (b) 84.5 %: +0.5 points on average, ahead in 1 of 2 seeds." in line


def test_our_value_may_come_with_the_rival():
    """A column `ours`, made in the same way as the rival's value, replaces the run's: 70 against 75, behind."""
    rivals = rivals_of([("a", "bottle", 0, "image_auroc", 0.75)]).assign(ours=0.7)
    line = next(line for line in bullets(runs_of([0.9]), rivals) if "rival" in line)
    assert "ours 70.0 %, strongest rival (a) 75.0 %: -5.0 points, not ahead in its one seed." in line


def test_behind_in_every_seed_is_said_without_doubt():
    """ "Not ahead in all seeds" could mean: in some. 70 and 60 against 75 and 80: in none of 2."""
    rivals = rivals_of([("a", "bottle", 0, "image_auroc", 0.75), ("a", "bottle", 1, "image_auroc", 0.8)])
    line = next(line for line in bullets(runs_of([0.7, 0.6]), rivals) if "rival" in line)
    assert "-12.5 points on average, ahead in none of 2 seeds." in line
