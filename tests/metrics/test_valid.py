"""`valid`: pixels outside count nowhere, and leaving it out or setting all of it changes nothing."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from adlib import metrics
from adlib.common.errors import UserError


@pytest.fixture
def case():
    """Masks, maps and valid [6,24,30]: a strip of padding in each picture, NaN or the highest scores there."""
    rng = np.random.default_rng(0)
    masks = np.zeros((6, 24, 30), bool)
    masks[3:, 8:14, 5:9] = True
    masks[4, 16:18, 20:25] = True
    maps = (rng.normal(0, 1, masks.shape) + masks).astype(np.float32)
    valid = np.zeros_like(masks)
    for i in range(6):
        valid[i, i : 24 - (i % 3)] = True
    maps[~valid] = np.where(rng.random((~valid).sum()) < 0.5, np.nan, 100)
    return masks, maps, valid


def test_pixels_outside_count_nowhere(case):
    """AUROC and AP are scikit-learn's on the pixels that were cut out."""
    masks, maps, valid = case
    auroc, ap = roc_auc_score(masks[valid], maps[valid]), average_precision_score(masks[valid], maps[valid])
    whole = metrics.pixel_metrics(masks, maps, valid=valid)
    assert whole["pixel_auroc"] == pytest.approx(auroc, abs=1e-12)
    assert whole["pixel_ap"] == pytest.approx(ap, abs=1e-12)
    assert metrics.pixel_auroc(masks, maps, valid=valid) == pytest.approx(auroc, abs=1e-12)
    assert metrics.pixel_average_precision(masks, maps, valid=valid) == pytest.approx(ap, abs=1e-12)
    assert whole["n_pixels"] == valid.sum()
    assert whole["n_regions"] == 4


def test_a_picture_cut_smaller_has_the_same_numbers(case):
    """All metrics of padded pictures equal those of the pictures without padding, where all are padded alike."""
    masks, maps, _ = case
    valid = np.zeros_like(masks)
    valid[:, 6:20] = True
    maps = np.where(valid, np.nan_to_num(maps, nan=0.5), np.nan)
    inner = masks[:, 6:20], maps[:, 6:20]
    assert metrics.pixel_metrics(masks, maps, valid=valid) == metrics.pixel_metrics(*inner)
    assert metrics.aupro(masks, maps, 0.3, valid=valid) == metrics.aupro(*inner, 0.3)
    streamed = metrics.PixelMetrics().update(masks, maps, valid).compute()
    assert streamed == metrics.PixelMetrics().update(*inner).compute()
    padded, cut = metrics.pixel_replicates(masks, maps, replicates=50, valid=valid), metrics.pixel_replicates(
        *inner, replicates=50
    )  # fmt: skip
    for name in cut:
        np.testing.assert_allclose(padded[name], cut[name], atol=1e-12)


def test_all_valid_is_the_same_bit_for_bit(case):
    masks, maps, _ = case
    maps, valid = np.nan_to_num(maps, nan=0.5), np.ones_like(masks)
    assert metrics.pixel_metrics(masks, maps, valid=valid) == metrics.pixel_metrics(masks, maps)
    one, other = metrics.PixelMetrics(), metrics.PixelMetrics()
    assert one.update(masks, maps, valid).compute() == other.update(masks, maps).compute()
    draws = [metrics.pixel_replicates(masks, maps, replicates=20, valid=v) for v in (None, valid)]
    assert all(np.array_equal(draws[0][name], draws[1][name]) for name in draws[0])


def test_a_region_that_padding_cuts_is_still_one_and_weighs_what_is_left():
    """A region of 6 pixels in two halves of 2 either side of the padding, one perfect and one missed: overlap 0.5."""
    masks = np.zeros((1, 5, 8), bool)
    masks[0, 2, 1:7] = True
    valid = np.ones_like(masks)
    valid[0, :, 3:5] = False
    maps = np.zeros(masks.shape)
    maps[0, 2, 1:3] = 1
    found = metrics.pixel_metrics(masks, maps, valid=valid)
    assert found["n_regions"] == 1
    assert found["n_anomalous_pixels"] == 4
    # half of the region before any false alarm; the other half ties with all normal pixels: a ramp over them to FPR 1
    assert found["aupro@0.3"] == pytest.approx(0.5 + 0.5 * 0.3 / 2)


def test_scores_that_count_must_be_finite_and_shapes_agree(case):
    masks, maps, valid = case
    with pytest.raises(UserError, match=r"maps\[\d\] contains nan"):
        metrics.pixel_metrics(masks, maps, valid=np.ones_like(valid))
    with pytest.raises(UserError, match=r"valid has shape \[5, 24, 30\] but maps \[6, 24, 30\]"):
        metrics.pixel_metrics(masks, maps, valid=valid[:5])
