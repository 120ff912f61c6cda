"""Numbers beside the floors: what beats them, and what a run shows where it does not; by hand."""

from types import SimpleNamespace

import numpy as np
import pandas as pd

from adlib.reports import sections

FLOOR = pd.DataFrame(
    {"image_auroc": [0.6, 0.55], "pixel_auroc": [np.nan, 0.7]}, index=["mean grey", "mean picture"]
).rename_axis("floor")


def runs_of(low, high, scores=(0, 1, 2, 3), losses=(1.0, 0.95), pixel_low=0.8):
    """One run of "bottle", mean in the middle of low and high, 12 fitted images; brightness rises over the images."""
    mean = (low + high) / 2
    record = {"method": "padim", "dataset": "d", "category": "bottle", "seed": 0, "hash": "h"}
    record["config"] = {"epochs": 3, "steps": None, "batch_size": 8}
    facts = {"metrics": {"image_auroc": mean, "pixel_auroc": 0.85}, "counts": {"fit": 12}}
    record["per_category"] = {"bottle": facts}
    tests = pd.DataFrame({"category": "bottle", "score": scores, "mean_grey": [1.0, 2.0, 3.0, 4.0]})
    history = pd.DataFrame({"epoch": range(1, len(losses) + 1), "total": losses})
    run = SimpleNamespace(record=record, scores=tests, history=history)
    rows = [("image_auroc", mean, low, high), ("pixel_auroc", 0.85, pixel_low, 0.9)]
    metrics = pd.DataFrame(rows, columns=["metric", "mean", "low", "high"]).assign(category="bottle", n_images=4)
    return SimpleNamespace(metrics=metrics, runs=[run])


class Runs(list):
    """What iterates as runs do."""

    def __init__(self, fake):
        super().__init__(fake.runs)
        self.metrics, self.runs = fake.metrics, fake.runs


def told(*args, **kwargs) -> str:
    return sections.beside_floors(Runs(runs_of(*args, **kwargs)), {"bottle": FLOOR})


def test_the_table_has_the_run_the_floors_and_guessing():
    rows = [line for line in told(0.8, 0.9).splitlines() if line.startswith("| bottle")]
    assert [row.split("|")[2].strip() for row in rows] == ["**PaDiM**, seed 0", "mean grey", "mean picture", "guessing"]
    assert [row.split("|")[3].strip() for row in rows] == ["85.0", "60.0", "55.0", "50.0"]


def test_an_interval_above_all_floors_needs_no_reason():
    text = told(0.8, 0.9)
    assert "The whole interval lies above mean grey (60.0 %), mean picture (55.0 %) and guessing (50.0 %)." in text
    assert "What the run shows" not in text
    assert "Its map beats the mean picture's in pixel AUROC 85.0 % [80.0, 90.0] against 70.0 %." in text


def test_an_interval_that_holds_a_floor_warns_and_shows_what_the_run_shows():
    """0.57 lies above 0.55 and 0.5, not above 0.6. Scores rise with brightness; the loss fell by a twentieth in 3
    epochs of two batches.
    """
    text = told(0.57, 0.8, pixel_low=0.65)
    assert "Its interval lies wholly above mean picture and guessing, but not wholly above mean grey (60.0 %)." in text
    assert "the score follows brightness (rank correlation +1.00)" in text
    assert "the loss hardly fell, from 1 to 0.95 (means of the first and the last epoch), in 6 steps" in text
    assert "The score itself is above every floor, but 4 test images leave an interval of 23 points." in text
    assert "**does not beat** it in pixel AUROC" in text


def test_scores_that_point_the_wrong_way_are_told():
    assert "Anomalous images score *lower*" in told(0.2, 0.4, scores=(1, 0, 0, 1), losses=(1.0, 0.1))
