"""DRAEM against the error maps of its own reconstruction: treated alike, all seeds, the strongest rival."""

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

import adlib
from adlib import data, evaluation, images
from adlib.models import draem
from adlib.reports import rivals
from adlib.views import Views

CONFIG = {"image_size": 32, "reconstruction_width": 2, "segmentation_width": 2, "batch_size": 8, "epochs": 1}
CONFIG |= {"textures": "photographs"}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two seeds of a net far too small, on photographs of brick."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ADLIB_RESULTS", str(tmp_path_factory.mktemp("results")))
        yield adlib.reproduce("draem", "textures", "brick", (0, 1), CONFIG, "cpu")


@pytest.fixture(scope="module")
def compared(runs):
    return rivals.against_errors(runs)


@pytest.mark.parametrize("smooth", [False, True])
def test_every_rival_is_smoothed_before_its_maximum(smooth):
    """As DRAEM's own map is (section 3.4); its map for the pixel metrics is smoothed only where that is asked for."""
    torch.manual_seed(0)
    detector = draem.Draem(draem.Config.from_dict(CONFIG)).eval()
    batch = torch.rand(2, 3, 32, 32)
    error = (detector.reconstructive(batch) - batch).square().mean(1)
    filtered = draem.smoothed(error, draem.pool_side(32))
    found = rivals.ErrorMap(detector, "error", smooth).score(batch)
    assert torch.allclose(found.image, filtered.amax((1, 2)))
    assert torch.allclose(found.map, filtered if smooth else error)


def test_values_are_those_of_the_test_images(runs, compared):
    """The squared error's image AUROC of seed 1, from the pictures by hand and scikit-learn."""
    values, _ = compared
    run = runs.runs[1]
    table = data.load("textures", "brick")
    tests = np.flatnonzero(table.split == "test")
    detector = run.detector()
    pictures = images.to_float(images.cached(table, detector.config.geometry)[tests])
    scores = draem.smoothed(detector.parts(pictures)["error"], detector.side).amax((1, 2))
    row = values[(values.rival == "squared error") & (values.metric == "image_auroc") & (values.seed == 1)].iloc[0]
    assert row.value == pytest.approx(roc_auc_score(table.label[tests], scores), abs=1e-6)
    assert row.ours == run.record["per_category"]["brick"]["metrics"]["image_auroc"]


def test_a_smoothed_rival_meets_our_smoothed_map(runs, compared):
    """Treated alike: the same filter on D's probability, by hand; the rival as it is meets the run's own number."""
    values, _ = compared
    run = runs.runs[0]
    table = data.load("textures", "brick")
    tests = np.flatnonzero(table.split == "test")
    detector, size = run.detector(), run.record["protocol"]["metric_size"]
    parts = detector.parts(images.to_float(images.cached(table, detector.config.geometry)[tests]))
    maps = evaluation.to_grid(draem.smoothed(parts["probability"], detector.side), size).numpy()
    grid = detector.config.geometry.at(size)
    truth = evaluation.PixelTruth(
        table.iloc[tests], grid, detector.config.mask_rule, Views.of(table, detector.config.geometry).subset(tests)
    )
    ours = values[(values.metric == "pixel_ap") & (values.seed == 0)].set_index("rival").ours
    assert ours["1 - SSIM, smoothed"] == pytest.approx(evaluation.pixel_metrics(truth, maps)["pixel_ap"], abs=1e-6)
    assert ours["1 - SSIM"] == run.record["per_category"]["brick"]["metrics"]["pixel_ap"]
    assert ours["1 - SSIM"] != ours["1 - SSIM, smoothed"]
    shown = rivals.table(values)["seed 0"].loc["brick", "pixel AP"]
    assert shown["D (ours), smoothed"] == pytest.approx(100 * ours["1 - SSIM, smoothed"], abs=0.051)


def test_the_strongest_rival_over_all_seeds_leads_the_table(compared):
    """Per metric the rival with the highest mean; lead, seeds ahead and interval belong to it; D first in the table."""
    values, leads = compared
    assert list(leads.metric) == ["image_auroc", "pixel_auroc", "pixel_ap", "aupro@0.3"]
    for lead in leads.itertuples():
        means = values[values.metric == lead.metric].groupby("rival").value.mean()
        assert lead.rival == means.idxmax()
        assert lead.value == pytest.approx(means.max())
        rows = values[(values.metric == lead.metric) & (values.rival == lead.rival)]
        assert lead.lead == pytest.approx((rows.ours - rows.value).mean())
        assert lead.ahead == (rows.ours > rows.value).sum()
        assert lead.low <= lead.lead <= lead.high
    table = rivals.table(values)
    assert list(table.columns) == ["seed 0", "seed 1"]
    assert table.index[0] == ("brick", "image AUROC", "D (ours)")


def test_maps_of_tiles_are_stitched(tmp_path, monkeypatch):
    """Brick is 128 px: 32 px tiles make many views of a picture, and one score and one map of each picture."""
    monkeypatch.setenv("ADLIB_RESULTS", str(tmp_path))
    config = CONFIG | {"resize_mode": "tiles", "metric_size": 64, "epochs": 0}
    made = adlib.reproduce("draem", "textures", "brick", 0, config, "cpu")
    tried = rivals._Tried(made.runs[0], "brick", "cpu")
    count = len(made.runs[0].scores)
    assert tried.scored["1 - SSIM"].scores.shape == (count,)
    assert tried.scored["1 - SSIM"].maps.shape == (count, 64, 64)
