"""PixelMetrics: bounds that hold, order and batches that do not matter."""

import warnings

import numpy as np
import pytest
import torch
from metric_cases import GOLDEN_CASES, VALUES, simulated

from adlib import metrics
from adlib.common.errors import UserError
from adlib.metrics.streaming import order_key

LIMITS = (0.05, 0.3, 1.0)


def streamed(masks, maps, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # coarse bins are the point of these tests
        return metrics.PixelMetrics(limits=LIMITS, **options).update(masks, maps).compute()


def assert_within_bounds(found, exact):
    for name in (n for n in found if f"{n}_bound" in found):
        assert abs(found[name] - exact[name]) <= found[f"{name}_bound"], name


def test_keys_sort_like_scores_and_zero_has_one_sign():
    """Keys of sorted float32 rise strictly; -0.0 and 0.0 are the same score and get the same key."""
    scores = np.array([-3e38, -1.5, -1e-30, -1e-45, 0.0, 1e-45, 1e-30, 1.5, 3e38], np.float32)
    assert (np.diff(order_key(scores).astype(np.int64)) > 0).all()
    assert order_key(np.float32([-0.0])) == order_key(np.float32([0.0]))


@pytest.mark.parametrize("bits", [8, 12, 20])
@pytest.mark.parametrize("transform", [lambda s: s, lambda s: 1 / (1 + np.exp(-8 * s)), lambda s: np.exp(3 * s)])
@pytest.mark.parametrize("levels", [None, 5])
def test_value_lies_within_its_own_bound(levels, transform, bits):
    """Common.md 4.9, for fine and coarse bins, saturated and heavy-tailed scores, with and without ties."""
    masks, maps = simulated(levels=levels)
    maps = transform(maps).astype(np.float32)
    assert_within_bounds(streamed(masks, maps, bits=bits), metrics.pixel_metrics(masks, maps, LIMITS))


@pytest.mark.parametrize("case", GOLDEN_CASES)
def test_golden_cases_lie_within_bounds(golden, case):
    g = golden("metrics")
    masks, maps = g[f"{case}_masks"], g[f"{case}_maps"].astype(np.float32)
    for bits in (10, 20):
        assert_within_bounds(streamed(masks, maps, bits=bits), metrics.pixel_metrics(masks, maps, LIMITS))


def test_bound_holds_where_one_bin_is_one_tie():
    """Normal 9; anomalous 5, 5, 5 (a bin without normals): AP = 3/4, although three separate scores in that bin could
    reach (1/2 + 2/3 + 3/4) / 3 = 0.639 at most: ties have to be allowed for in the upper bound."""
    masks, maps = np.array([[[0, 1, 1, 1, 0]]]), np.array([[[9.0, 5, 5, 5, 1]]])
    found = streamed(masks, maps)
    assert found["pixel_ap"] == 0.75
    assert found["pixel_ap_bound"] >= 0.75 - (1 / 2 + 2 / 3 + 3 / 4) / 3 - 1e-9


@pytest.mark.parametrize("case", GOLDEN_CASES)
def test_golden_bins_that_separate_scores_are_exact(golden, case):
    """Scores renumbered 0, 1, 2.. below 2^15 differ in the top 24 bits, one bin each: only sums round (1e-12)."""
    g = golden("metrics")
    masks, maps = g[f"{case}_masks"], g[f"{case}_maps"]
    ranks = np.unique(maps, return_inverse=True)[1].reshape(maps.shape).astype(np.float32)
    found, exact = streamed(masks, ranks, bits=24), metrics.pixel_metrics(masks, maps, LIMITS)
    for name in VALUES:
        assert found[name] == pytest.approx(exact[name], abs=1e-12), name


def test_order_and_batches_change_nothing():
    """Counts are sums over images; 1e-12 for the order of the float64 sums of region weights."""
    masks, maps = simulated(levels=25)
    whole = streamed(masks, maps)
    parts = metrics.PixelMetrics(limits=LIMITS)
    for chosen in ([5], [3, 0], [1, 4, 2]):
        parts.update(torch.tensor(masks[chosen]), torch.tensor(maps[chosen]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert parts.compute() == pytest.approx(whole, abs=1e-12)


def test_sizes_may_differ_between_updates():
    """Two sizes in two updates give the pooled pixels of both: AUROC and AP of the concatenated pixels.

    Small whole numbers differ in the top 24 bits of float32: a bin each, so only sums round (1e-12).
    """
    (masks, maps), (wide_masks, wide_maps) = simulated(0, levels=25), simulated(1, side=33, levels=25)
    stream = metrics.PixelMetrics(bits=24).update(masks, maps).update(wide_masks, wide_maps)
    with pytest.warns(UserWarning, match="coarse"):  # ties are what the bounds allow for
        found = stream.compute()
    truth, scores = (
        np.concatenate([masks.ravel(), wide_masks.ravel()]),
        np.concatenate([maps.ravel(), wide_maps.ravel()]),
    )
    assert found["pixel_auroc"] == pytest.approx(metrics.pixel_auroc(truth, scores), abs=1e-12)
    assert found["pixel_ap"] == pytest.approx(metrics.pixel_average_precision(truth, scores), abs=1e-12)
    assert (found["n_images"], found["n_regions"], found["n_pixels"]) == (12, 10, len(truth))


def test_a_loose_bound_warns_and_a_tight_one_does_not():
    """Gaussian scores spread over 2^24 bins; a saturated sigmoid falls into few of 2^12."""
    masks, maps = simulated(n=40, side=64)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        metrics.PixelMetrics(bits=24).update(masks, maps).compute()
    with pytest.warns(UserWarning, match=r"bits=12 is coarse for these scores: pixel_.*logits"):
        metrics.PixelMetrics(bits=12).update(masks, 1 / (1 + np.exp(-10 * maps))).compute()


def test_memory_does_not_grow_with_images():
    """24 B * 2^bits whatever was seen."""
    masks, maps = simulated()
    stream = metrics.PixelMetrics(bits=16)
    for _ in range(3):
        stream.update(masks, maps)
    assert stream.normals.nbytes + stream.positives.nbytes + stream.weight.nbytes == 24 * 2**16


def test_one_class_streams_name_it_or_give_nan():
    masks, maps = simulated()
    with pytest.raises(UserError, match="masks hold no anomalous"):
        metrics.PixelMetrics().update(masks * 0, maps).compute()
    with pytest.raises(UserError, match="masks hold no normal"):
        metrics.PixelMetrics().compute()
    found = metrics.PixelMetrics(one_class="nan").update(masks * 0, maps).compute()
    assert np.isnan([found[name] for name in ("pixel_auroc", "pixel_ap", "aupro@0.3", "aupro@0.3_bound")]).all()


def test_bad_input_of_streams_says_which():
    masks, maps = simulated()
    stream = metrics.PixelMetrics().update(masks, maps)
    with pytest.raises(UserError, match="bits 40"):
        metrics.PixelMetrics(bits=40)
    maps[2, 0, 0] = np.nan
    with pytest.raises(UserError, match=r"maps\[2\].*finite"):
        stream.update(masks, maps)
    with pytest.raises(UserError, match=r"masks\[0\] holds 255"):
        stream.update(masks * 255, np.zeros_like(maps))
