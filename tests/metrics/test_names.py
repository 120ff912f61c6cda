"""Names of metrics: every name that a record or a table uses is known, labels keep remarks, units decide the print."""

import numpy as np
import pytest

from adlib import metrics
from adlib.metrics import names
from adlib.reports import published


def test_every_published_metric_is_named():
    """A published metric without a label would be printed as its CSV name."""
    assert set(published.load()["metric"]) <= set(names.METRICS)


def test_every_measured_pixel_metric_is_named():
    """What `pixel_metrics` computes under a name of run.json is in the list, oracles by their base name."""
    masks, maps = np.array([[[0, 1]]]), np.array([[[0.0, 1.0]]])
    computed = metrics.pixel_metrics(masks, maps)
    assert set(names.PIXEL_METRICS) <= set(computed)
    assert {n.partition(" ")[0] for n in names.PIXEL_METRICS} <= set(names.METRICS)


@pytest.mark.parametrize(
    ("name", "text", "short"),
    [
        ("pixel_auroc", "pixel AUROC", "P"),
        ("ours pixel_ap", "ours pixel AP", "ours AP"),
        ("image_auroc (oracle best epoch)", "image AUROC (oracle best epoch)", "I (oracle best epoch)"),
        ("category", "category", "category"),
    ],
)
def test_labels_replace_the_metric_and_keep_the_rest(name, text, short):
    """A word that is no metric stays."""
    assert (names.label(name), names.label(name, short=True)) == (text, short)


def test_only_metrics_with_a_unit_of_their_own_are_plain():
    """Scores are stored in 0..1 and printed in percent; parameters, GMAC and speed are printed as they are."""
    assert names.PLAIN == ("parameters_million", "gmac", "seconds_per_image", "frames_per_second")
    assert names.axis_label("image_auroc") == "image AUROC [%]"
    assert names.best_epoch("pixel_ap") == "pixel_ap (oracle best epoch)"
