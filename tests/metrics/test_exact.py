"""Exact metrics, thresholds, decisions: by hand, against scikit-learn, slow definitions and golden vectors."""

import numpy as np
import pytest
import torch
from metric_cases import GOLDEN_CASES, VALUES, simulated
from sklearn import metrics as reference

from adlib import metrics
from adlib.common.errors import UserError


def everything(masks, maps):
    found = metrics.pixel_metrics(masks, maps, limits=(0.05, 0.3, 1.0))
    return np.array([found[name] for name in ("aupro@0.05", *VALUES)])


def slow_aupro(masks, maps, limit):
    """Common.md 4.4 word by word: one loop over all distinct thresholds, flood fill with eight neighbours."""
    regions = []
    for i, mask in enumerate(masks):
        left = set(zip(*np.nonzero(mask), strict=True))
        while left:
            region, todo = [], [left.pop()]
            while todo:
                y, x = todo.pop()
                region.append(maps[i, y, x])
                near = {(y + a, x + b) for a in (-1, 0, 1) for b in (-1, 0, 1)} & left
                left -= near
                todo += near
            regions.append(np.array(region))
    normal, points = maps[masks == 0], [(0.0, 0.0)]
    for t in np.unique(maps)[::-1]:
        points.append(((normal >= t).mean(), np.mean([(region >= t).mean() for region in regions])))
    fpr, pro = np.array([*points, (1.0, 1.0)]).T
    inside = fpr <= limit
    end = np.interp(limit, fpr, pro) if fpr[inside][-1] < limit else pro[inside][-1]
    return np.trapezoid([*pro[inside], end], [*fpr[inside], limit]) / limit


def test_image_auroc_counts_pairs():
    """Anomalous 3, 1; normal 2, 1: pairs 3>2, 3>1, 1<2, 1=1 give (1 + 1 + 0 + 1/2) / 4 = 0.625."""
    assert metrics.image_auroc([1, 1, 0, 0], [3, 1, 2, 1]) == 0.625


def test_average_precision_by_hand():
    """Falling scores: anomalous, normal, anomalous: 1/2 * 1/1 + 1/2 * 2/3 = 5/6."""
    assert metrics.average_precision([1, 0, 1], [3, 2, 1]) == pytest.approx(5 / 6, abs=1e-15)


def test_f1_max_by_hand():
    """Same scores: cut at 3: F1 = 2/3; at 2: 2/4; at 1: 4/5. Best is 0.8 at threshold 1 (score >= 1)."""
    assert metrics.f1_max([1, 0, 1], [3, 2, 1]) == (0.8, 1.0)


def test_aupro_by_hand_counts_regions_not_pixels():
    """One row: region a (2 pixels, scores 9, 9), gap, region b (1 pixel, score 4), four normals 5, 3, 2, 1.

    PRO is 1/2 until the first of four normals has entered (FPR 1/4), then 1. Up to 1: 1/2 * 1/4 + 3/4 = 0.875; up to
    0.5: (1/2 * 1/4 + 1/4) / 0.5 = 0.75. Pixels instead of regions would give (2/3 + 3)/4 = 0.917 up to 1.
    """
    masks = np.array([[[1, 1, 0, 0, 0, 1, 0]]])
    maps = np.array([[[9.0, 9.0, 5.0, 3.0, 2.0, 4.0, 1.0]]])
    assert metrics.aupro(masks, maps, 1.0) == pytest.approx(0.875, abs=1e-15)
    assert metrics.aupro(masks, maps, 0.5) == pytest.approx(0.75, abs=1e-15)
    assert metrics.pixel_auroc(masks, maps) == pytest.approx((2 / 3 + 3) / 4, abs=1e-15)


def test_aupro_of_constant_maps_is_half_the_limit():
    """All pixels enter together: the curve is the diagonal, its area up to L is L^2/2, divided by L: L/2."""
    masks, maps = simulated()
    for limit in (0.05, 0.3, 1.0):
        assert metrics.aupro(masks, np.zeros_like(maps), limit) == pytest.approx(limit / 2, abs=1e-12)


def test_regions_touching_at_a_corner_are_one():
    """Two squares meeting at a corner, a ring, a pixel, a line, a column: 5 regions (6 if 4-connected)."""
    assert metrics.pixel_metrics(*simulated())["n_regions"] == 5


@pytest.mark.parametrize("levels", [None, 2, 5, 40])
@pytest.mark.parametrize("seed", [0, 1])
def test_pixel_metrics_equal_definitions_and_sklearn(seed, levels):
    """Slow loops from the definition, and scikit-learn; 1e-9 for float64 sums over 2400 pixels."""
    masks, maps = simulated(seed, levels=levels)
    truth, scores = masks.ravel(), maps.ravel()
    found = metrics.pixel_metrics(masks, maps, limits=(0.05, 0.3, 1.0))
    assert found["pixel_auroc"] == pytest.approx(reference.roc_auc_score(truth, scores), abs=1e-9)
    assert found["pixel_ap"] == pytest.approx(reference.average_precision_score(truth, scores), abs=1e-9)
    precision, recall, _ = reference.precision_recall_curve(truth, scores)
    best = np.max(2 * precision * recall / np.maximum(precision + recall, 1e-300))
    assert found["pixel_f1_max (oracle)"] == pytest.approx(best, abs=1e-9)
    for limit in (0.05, 0.3, 1.0):
        assert found[f"aupro@{limit:g}"] == pytest.approx(slow_aupro(masks, maps, limit), abs=1e-9)
    pairs = scores[truth == 1][:, None] - scores[truth == 0]
    assert found["pixel_auroc"] == pytest.approx(((pairs > 0) + 0.5 * (pairs == 0)).mean(), abs=1e-9)


def test_single_functions_equal_the_one_pass():
    masks, maps = simulated(levels=20)
    found = metrics.pixel_metrics(masks, maps)
    assert metrics.pixel_auroc(masks, maps) == found["pixel_auroc"]
    assert metrics.pixel_average_precision(masks, maps) == found["pixel_ap"]
    assert metrics.aupro(masks, maps) == found["aupro@0.3"]
    assert metrics.f1_max(masks, maps) == (found["pixel_f1_max (oracle)"], found["pixel_f1_threshold (oracle)"])


@pytest.mark.parametrize("case", GOLDEN_CASES)
def test_golden_pixel_metrics(golden, case):
    """Tolerances of common.md 9: scikit-learn 1e-9, the official AUPRO 5e-7 (its FPR is float32)."""
    g = golden("metrics")
    found = metrics.pixel_metrics(g[f"{case}_masks"], g[f"{case}_maps"], limits=(0.05, 0.3, 1.0))
    assert found["n_regions"] == g[f"{case}_n_regions"]
    for ours, theirs in (("pixel_auroc",) * 2, ("pixel_ap",) * 2, ("pixel_f1_max (oracle)", "pixel_f1_max")):
        assert found[ours] == pytest.approx(float(g[f"{case}_{theirs}"]), abs=1e-9), ours
    for ours, theirs in (("aupro@0.05", "005"), ("aupro@0.3", "030"), ("aupro@1", "100")):
        assert found[ours] == pytest.approx(float(g[f"{case}_aupro_{theirs}"]), abs=5e-7), ours


@pytest.mark.parametrize("case", GOLDEN_CASES)
def test_golden_image_metrics(golden, case):
    """Image score = map maximum, label = mask not empty; NaN where no image is normal (all_anomalous)."""
    g = golden("metrics")
    labels, scores = g[f"{case}_masks"].any(axis=(1, 2)), g[f"{case}_maps"].max(axis=(1, 2))
    auroc = metrics.image_auroc(labels, scores, one_class="nan")
    ap = metrics.average_precision(labels, scores, one_class="nan")
    np.testing.assert_allclose([auroc, ap], [g[f"{case}_image_auroc"], g[f"{case}_image_ap"]], atol=1e-9, rtol=0)


def test_golden_names_are_all_tested(golden):
    assert set(golden("metrics")["names"]) == set(GOLDEN_CASES)


def test_golden_f1_max_and_threshold(golden):
    g = golden("metrics")
    best, cut = metrics.f1_max(g["boot_labels"], g["boot_scores"])
    np.testing.assert_allclose([best, cut], [g["boot_f1_max"], g["boot_f1_threshold"]], atol=1e-9)


def test_golden_conformal_threshold(golden):
    g = golden("metrics")
    found = [metrics.threshold(g["thr_normal"], alpha) for alpha in g["thr_alpha"]]
    np.testing.assert_allclose(found, np.stack([g["thr_value"], g["thr_level"]], 1), atol=1e-12)


@pytest.mark.parametrize("levels", [None, 12])
def test_increasing_transforms_change_nothing(levels):
    """A strictly increasing map that keeps scores distinct keeps every rank; exp in float64, ranks as integers."""
    masks, maps = simulated(levels=levels)
    expected = everything(masks, maps)
    ranks = np.unique(maps, return_inverse=True)[1].reshape(maps.shape)
    for changed in (np.exp(maps.astype(float)), 7 * maps - 3, -1 / (maps.astype(float) + 100), ranks):
        np.testing.assert_allclose(everything(masks, changed), expected, atol=1e-12)


def test_permuting_and_doubling_images_change_nothing():
    """Sums over images do not depend on order; every count doubles in numerator and denominator."""
    masks, maps = simulated(levels=25)
    order = np.random.default_rng(3).permutation(len(masks))
    np.testing.assert_allclose(everything(masks[order], maps[order]), everything(masks, maps), atol=1e-12)
    twice = everything(np.concatenate([masks, masks]), np.concatenate([maps, maps]))
    np.testing.assert_allclose(twice, everything(masks, maps), atol=1e-12)


@pytest.mark.parametrize("levels", [None, 6])
def test_auroc_of_negated_scores_is_the_complement(levels):
    masks, maps = simulated(levels=levels)
    assert metrics.pixel_auroc(masks, -maps) == pytest.approx(1 - metrics.pixel_auroc(masks, maps), abs=1e-12)


@pytest.mark.parametrize("levels", [None, 6])
def test_full_aupro_is_the_mean_auroc_of_regions(levels):
    """Identity of common.md 4.5: AUPRO(1) = mean over regions of the AUROC of their pixels against all normal ones."""
    from scipy import ndimage

    masks, maps = simulated(levels=levels)
    normal, each = maps[masks == 0], []
    for mask, scores in zip(masks, maps, strict=True):
        regions, count = ndimage.label(mask, np.ones((3, 3)))
        for k in range(1, count + 1):
            region = scores[regions == k]
            truth = np.repeat([1, 0], [len(region), len(normal)])
            each.append(reference.roc_auc_score(truth, np.concatenate([region, normal])))
    assert metrics.aupro(masks, maps, 1.0) == pytest.approx(np.mean(each), abs=1e-12)


def test_chunks_change_nothing(monkeypatch):
    """Counts over normals add up: sorting 100 pixels at a time gives the same integers as all at once."""
    from adlib.metrics import ranking

    masks, maps = simulated(levels=25)
    expected = everything(masks, maps)
    whole = ranking.normal_chunks
    monkeypatch.setattr(ranking, "normal_chunks", lambda truth, scores, valid=None: whole(truth, scores, 100, valid))
    np.testing.assert_array_equal(everything(masks, maps), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_tensors_equal_arrays(dtype):
    """Quarters survive every float type, so tensors of any precision give the numbers of the arrays."""
    masks, maps = simulated()
    maps = np.round(maps * 4) / 4
    tensor = torch.tensor(maps, dtype=dtype, requires_grad=True)
    np.testing.assert_array_equal(everything(torch.tensor(masks).bool(), tensor), everything(masks, maps))
    np.testing.assert_array_equal(everything(torch.tensor(masks)[:, None], tensor[:, None]), everything(masks, maps))
    labels, scores = masks.any(axis=(1, 2)), maps.max(axis=(1, 2))
    assert metrics.image_auroc(torch.tensor(labels), torch.tensor(scores)) == metrics.image_auroc(labels, scores)


def test_inputs_are_not_changed():
    masks, maps = simulated()
    before = masks.copy(), maps.copy()
    metrics.pixel_metrics(masks, maps)
    np.testing.assert_array_equal(masks, before[0])
    np.testing.assert_array_equal(maps, before[1])


def test_threshold_by_hand():
    """n = 19, alpha 0.05: k = ceil(20 * 0.95) = 19 although 20 * 0.95 may exceed 19 in floats: the largest, level 1/20.

    n = 5: k = 5, level 1 - 5/6 = 0.167 > 0.05. n = 39: k = 38, the second largest, level 1/20.
    """
    assert metrics.threshold(np.arange(19.0)[::-1]) == (18.0, pytest.approx(0.05))
    assert metrics.threshold(np.arange(5.0)) == (4.0, pytest.approx(1 / 6))
    assert metrics.threshold(np.arange(39.0)) == (37.0, pytest.approx(0.05))


def test_threshold_keeps_its_level():
    """A new normal score exceeds tau with probability <= 0.05: 4000 draws of 39 + 1, 3 sd = 0.0103."""
    draws = np.random.default_rng(0).standard_normal((4000, 40))
    flagged = [row[-1] > metrics.threshold(row[:-1])[0] for row in draws]
    assert np.mean(flagged) <= 0.05 + 0.0103


def test_decisions_by_hand():
    """tau 2, strict: flagged are 3 and 4. tp 1 (4), fp 1 (3), fn 1 (2), tn 1 (1): every rate is one half."""
    found = metrics.decisions([0, 1, 0, 1], [1, 2, 3, 4], tau=2)
    assert [found[k] for k in ("precision", "recall", "fpr", "f1")] == [0.5] * 4
    assert [found[k] for k in ("n", "tp", "fp", "fn", "tn")] == [4, 1, 1, 1, 1]


def test_decisions_zero_by_zero_is_nan():
    """No image flagged: precision 0/0; no anomalous image: recall 0/0 and F1 0/0; FPR is 0/2."""
    found = metrics.decisions([0, 0], [1, 2], tau=5)
    assert np.isnan([found["precision"], found["recall"], found["f1"]]).all()
    assert found["fpr"] == 0


@pytest.mark.parametrize(("labels", "absent"), [([0, 0, 0], "anomalous"), ([1, 1, 1], "normal")])
@pytest.mark.parametrize("function", [metrics.image_auroc, metrics.average_precision, metrics.f1_max])
def test_an_absent_class_is_named(function, labels, absent):
    with pytest.raises(UserError, match=f"labels hold no {absent}"):
        function(labels, [1.0, 2.0, 3.0])
    assert np.isnan(function(labels, [1.0, 2.0, 3.0], one_class="nan")).all()


@pytest.mark.parametrize(("value", "absent"), [(0, "anomalous"), (1, "normal")])
@pytest.mark.parametrize("function", [metrics.aupro, metrics.pixel_auroc, metrics.pixel_average_precision])
def test_masks_without_regions_or_normal_pixels_are_named(function, value, absent):
    masks, maps = np.full((2, 4, 4), value), np.arange(32.0).reshape(2, 4, 4)
    with pytest.raises(UserError, match=f"masks hold no {absent}"):
        function(masks, maps)
    assert np.isnan(function(masks, maps, one_class="nan"))
    found = metrics.pixel_metrics(masks, maps, one_class="nan")
    assert np.isnan([found[name] for name in ("pixel_auroc", "pixel_ap", "aupro@0.3", "pixel_f1_max (oracle)")]).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_scores_that_are_not_finite_name_the_image(bad):
    masks, maps = simulated()
    maps[3, 5, 6] = bad
    for function in (metrics.pixel_metrics, metrics.aupro, metrics.pixel_auroc):
        with pytest.raises(UserError, match=r"maps\[3\].*finite"):
            function(masks, maps)
    with pytest.raises(UserError, match=r"scores\[1\].*finite"):
        metrics.image_auroc([0, 1], [1.0, bad])
    with pytest.raises(UserError, match=r"normal_scores\[0\].*finite"):
        metrics.threshold([bad, 1.0])


def test_bad_input_is_one_sentence_that_says_which():
    masks, maps = simulated()
    cases = [
        ("grey masks", lambda: metrics.aupro(masks * 255, maps), r"masks\[0\] holds 255"),
        ("soft masks", lambda: metrics.aupro(masks * 0.5, maps), r"masks\[0\] holds 0.5"),
        ("labels", lambda: metrics.image_auroc([0, 2], [1, 2]), r"labels\[1\] holds 2"),
        ("text", lambda: metrics.image_auroc(["good", "bad"], [1, 2]), "must be numbers"),
        ("shapes", lambda: metrics.aupro(masks[:3], maps), r"\[3, 20, 20\] but maps \[6, 20, 20\]"),
        ("lengths", lambda: metrics.image_auroc([0, 1, 1], [1, 2]), r"\[3\] but scores \[2\]"),
        ("flat", lambda: metrics.aupro(masks.ravel(), maps.ravel()), r"must be \[N,H,W\]"),
        ("ragged", lambda: metrics.aupro([masks[0], masks[0, 1:]], maps[:2]), "one size at a time"),
        ("empty", lambda: metrics.image_auroc([], []), "empty"),
        ("limit", lambda: metrics.aupro(masks, maps, 0), r"outside \(0, 1\]"),
        ("percent", lambda: metrics.aupro(masks, maps, 30), r"outside \(0, 1\]"),
        ("one_class", lambda: metrics.image_auroc([0, 1], [0, 1], one_class="skip"), "one_class"),
        ("alpha", lambda: metrics.threshold([1.0], alpha=5), "alpha 5"),
        ("no normal", lambda: metrics.threshold([]), "normal_scores is empty"),
    ]
    for what, call, message in cases:
        with pytest.raises(UserError, match=message):
            pytest.fail(f"{what}: {call()}")


def test_import_is_light():
    """Notebooks and the command line import metrics without torch or scikit-learn being loaded."""
    import subprocess
    import sys

    code = "import sys, adlib.metrics; sys.exit(any(m in sys.modules for m in ('torch', 'sklearn', 'matplotlib')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
