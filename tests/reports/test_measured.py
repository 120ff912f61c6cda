"""Finished runs as the numbers of a table: averages, settings, where data and weights came from."""

import numpy as np
import pytest
from fake_runs import fake_runs

from adlib.reports import measured, verdict


def test_average_has_the_sd_of_per_seed_averages():
    """Seeds (0.90, 0.96), (1.00, 0.90): means 0.93, 0.95, sd 0.01414; half the interval 0.01 * sqrt(2) / 2."""
    runs = fake_runs({("bottle", "image_auroc"): [0.90, 1.00], ("cable", "image_auroc"): [0.96, 0.90]})
    value = verdict.ours(runs, "simplenet", "mvtec_ad", "average", "image_auroc")
    assert value["mean"] == pytest.approx(0.94)
    assert value["sd"] == pytest.approx(0.0141421, abs=1e-6)
    assert (value["n_seeds"], value["n_categories"]) == (2, 2)
    assert value["high"] - value["mean"] == pytest.approx(0.01 / np.sqrt(2))


def test_metrics_are_read_once():
    """`settings` is all that reads them: a verdict on 36 cells asks the runs a single time."""

    class Counting:
        def __init__(self, runs):
            self.content, self.runs, self.reads = runs.metrics, runs.runs, 0

        @property
        def metrics(self):
            self.reads += 1
            return self.content

    runs = Counting(fake_runs({("bottle", "image_auroc"): [0.9]}))
    verdict.verdict(runs, "simplenet")
    assert runs.reads == 1


def test_provenance_is_said_once_per_text():
    """Two categories with one text are one sentence; a category without text, or a record without field, none."""
    records = [
        {"dataset": "d", "per_category": {"b": {"provenance": "copies of 256 pixels"}}},
        {"dataset": "d", "per_category": {"a": {"provenance": "copies of 256 pixels"}, "c": {"provenance": None}}},
        {"dataset": "d", "per_category": {"b": {"provenance": "copies of 256 pixels"}, "e": {}}},
        {"dataset": "d"},
    ]
    assert measured.provenance(records) == ["d (a, b): copies of 256 pixels"]


def test_weights_are_a_list_whatever_the_record_holds():
    """Older records: null or one network; newer ones: a list of all."""
    network = {"name": "resnet18", "file": "w", "fingerprint": "ab"}
    recorded = (None, network, [network, network])
    assert [len(measured.weights({"weights": w})) for w in recorded] == [0, 1, 2]
    assert measured.weights({}) == []
