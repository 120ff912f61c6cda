"""Intervals of metrics: golden replicates, agreement of fast and slow forms, coverage, pairing."""

import warnings

import numpy as np
import pytest
from metric_cases import simulated
from sklearn import metrics as reference

from adlib import metrics
from adlib.common.errors import UserError


def gaussian(seed, shift, n_normal=20, n_anomalous=60):
    """labels [N], scores [N]: AUROC = Phi(shift / sqrt 2)."""
    rng = np.random.default_rng(seed)
    labels = np.repeat([0, 1], [n_normal, n_anomalous])
    return labels, rng.standard_normal(len(labels)) + shift * labels


def test_golden_bootstrap(golden):
    """scikit-learn per replicate, NumPy percentiles; 1e-9 for float64 sums."""
    g = golden("metrics")
    inputs = g["boot_labels"], g["boot_scores"]
    found = metrics.bootstrap_interval(*inputs, index=g["boot_index"])
    np.testing.assert_allclose([*found, found.value], [*g["boot_interval"], g["boot_point"]], atol=1e-9)
    assert found.method == "bootstrap"
    ap = metrics.bootstrap_interval(*inputs, "average_precision", index=g["boot_index"])
    np.testing.assert_allclose(
        [*ap, ap.value], [*np.percentile(g["boot_ap"], [2.5, 97.5]), g["boot_ap_point"]], atol=1e-9
    )
    paired = metrics.paired_interval(*inputs, g["boot_scores_other"], index=g["boot_index"])
    np.testing.assert_allclose([*paired], g["boot_difference_interval"], atol=1e-9)


@pytest.mark.parametrize("name", ["image_auroc", "average_precision", "f1_max"])
@pytest.mark.parametrize("scale", [1, 1000])
def test_golden_replicates_of_fast_forms_equal_a_loop(golden, name, scale):
    """Matrix and cumulative forms against one call per replicate, with ties (scores have one decimal) and without."""
    g = golden("metrics")
    scores = g["boot_scores"] + np.arange(30) * 1e-5 * (scale > 1)
    slow = {
        "image_auroc": reference.roc_auc_score,
        "average_precision": reference.average_precision_score,
        "f1_max": lambda labels, scores: metrics.f1_max(labels, scores)[0],
    }[name]
    fast = metrics.bootstrap_interval(g["boot_labels"], scores, name, index=g["boot_index"])
    loop = metrics.bootstrap_interval(g["boot_labels"], scores, slow, index=g["boot_index"])
    np.testing.assert_allclose([*fast, fast.value], [*loop, loop.value], atol=1e-9)


def test_draws_are_stratified_and_seeded():
    """Both class counts are kept in every draw, so the share of anomalous images, as a metric, has no width."""
    labels, scores = gaussian(0, 1.0, 12, 18)
    assert [*metrics.bootstrap_interval(labels, scores, lambda y, s: y.mean(), 200)] == [0.6, 0.6]
    one, two = (metrics.bootstrap_interval(labels, scores, seed=5) for _ in range(2))
    assert one == two
    assert metrics.bootstrap_interval(labels, scores, seed=6) != one


def test_interval_holds_its_coverage():
    """True AUROC Phi(1.5/sqrt 2) = 0.856, 60 + 110 images: 95 % nominal, measured 0.95; 200 sets, 3 sd = 0.046."""
    from scipy.stats import norm

    truth, hits = norm.cdf(1.5 / np.sqrt(2)), 0
    for seed in range(200):
        low, high = metrics.bootstrap_interval(*gaussian(seed, 1.5, 60, 110), replicates=300, seed=seed)
        hits += low <= truth <= high
    assert hits / 200 >= 0.95 - 0.046


def test_score_interval_covers_near_the_ceiling():
    """True AUROC 0.990, 20 + 60 images: the bootstrap covers 0.80, the score interval 0.96; 200 sets, 3 sd = 0.046."""
    from scipy.stats import norm

    shift, hits, methods = np.sqrt(2) * norm.ppf(0.99), 0, set()
    for seed in range(200):
        found = metrics.bootstrap_interval(*gaussian(seed, shift), replicates=50, seed=seed)
        hits += found.low <= 0.99 <= found.high
        methods.add(found.method)
    assert hits / 200 >= 0.95 - 0.046
    assert "score" in methods


def test_score_interval_of_a_perfect_estimate():
    """Common.md 4.8: [0.933, 1] at 20 + 60 images, [0.975, 1] at 60 + 110."""
    assert metrics.score_interval(1.0, 20, 60).low == pytest.approx(0.933, abs=5e-4)
    assert metrics.score_interval(1.0, 60, 110).low == pytest.approx(0.975, abs=5e-4)
    assert metrics.score_interval(1.0, 20, 60).high == 1
    found = metrics.bootstrap_interval([0] * 20 + [1] * 60, np.arange(80.0))
    assert (found.method, found.value) == ("score", 1.0)
    assert found == metrics.score_interval(1.0, 20, 60)


@pytest.mark.parametrize("value", [0.0, 0.2, 0.5, 0.951, 0.999])
def test_score_interval_solves_its_equation(value):
    """At both ends (value - theta)^2 = 1.96^2 V(theta), V as in common.md 4.8; the interval is mirror-symmetric only
    in its ends at 0 and 1, and contains the estimate."""
    low, high = metrics.score_interval(value, 13, 17)
    for theta in {low, high} - {0.0}:
        n = (13 + 17) / 2 - 1
        v = theta * (1 - theta) * (1 + n * (1 - theta) / (2 - theta) + n * theta / (1 + theta)) / (13 * 17)
        assert (value - theta) ** 2 == pytest.approx(1.959964**2 * v, rel=1e-4, abs=1e-12)
    assert low <= value <= high


def test_paired_interval_is_narrower_than_independent_ones():
    """b = a + little noise on the same images: the difference is known far better than either value."""
    labels, scores = gaussian(1, 1.0)
    other = scores + 0.05 * np.random.default_rng(9).standard_normal(len(scores))
    paired, single = metrics.paired_interval(labels, scores, other), metrics.bootstrap_interval(labels, scores)
    assert paired.high - paired.low < 0.2 * (single.high - single.low)
    assert [*metrics.paired_interval(labels, scores, scores)] == [0, 0]


def test_pairing_draws_the_same_images():
    """A system against its mirror image: AUROC(s) - AUROC(-s) = 2 AUROC(s) - 1 in every single replicate."""
    labels, scores = gaussian(2, 0.7)
    paired = metrics.paired_interval(labels, scores, -scores, seed=4)
    single = metrics.bootstrap_interval(labels, scores, seed=4)
    np.testing.assert_allclose([*paired], [2 * end - 1 for end in single], atol=1e-12)


def test_seeds_are_averaged_inside_the_replicates():
    """Two seeds with equal scores are one seed; for two different ones the value is the mean of their AUROCs."""
    labels, scores = gaussian(3, 1.0)
    other = gaussian(4, 1.0)[1]
    assert metrics.bootstrap_interval(labels, [scores, scores]) == metrics.bootstrap_interval(labels, scores)
    for name in ("image_auroc", "average_precision"):
        single = [metrics.bootstrap_interval(labels, s, name).value for s in (scores, other)]
        assert metrics.bootstrap_interval(labels, np.stack([scores, other]), name).value == pytest.approx(
            np.mean(single)
        )


def test_mean_over_categories_draws_them_independently():
    """Mean of 4 equal, independent categories: the width shrinks by sqrt 4 = 2, not by 1 as with common draws."""
    labels, scores = gaussian(5, 1.2, 40, 40)
    single = metrics.bootstrap_interval(labels, scores)
    mean = metrics.bootstrap_interval([labels] * 4, [scores] * 4)
    assert mean.value == pytest.approx(single.value)
    assert (mean.high - mean.low) / (single.high - single.low) == pytest.approx(0.5, abs=0.05)
    paired = metrics.paired_interval([labels] * 4, [scores] * 4, [-scores] * 4)
    assert paired.value == pytest.approx(2 * single.value - 1)


def test_mean_over_perfect_categories_has_a_width():
    """Four categories at AUROC 1: each score interval is [l, 1], so the mean's lower end is 1 - (1 - l) / sqrt 4."""
    labels, scores = np.repeat([0, 1], [20, 60]), np.arange(80.0)
    mean = metrics.bootstrap_interval([labels] * 4, [scores] * 4)
    low = metrics.score_interval(1.0, 20, 60).low
    assert [*mean] == pytest.approx([1 - (1 - low) / 2, 1])
    assert mean.method == "score"
    assert [*metrics.bootstrap_interval([labels] * 4, [scores] * 4, method="bootstrap")] == [1, 1]


def test_pixel_replicates_equal_exact_metrics_of_drawn_images():
    """With so many quantiles that every distinct score is a bin of its own, only float64 sums round: 1e-12."""
    masks, maps = simulated(levels=40)
    index = np.array([[4, 5, 0, 1, 2, 3], [4, 4, 1, 1, 2, 0], [5, 4, 3, 3, 3, 3]])
    found = metrics.pixel_replicates(masks, maps, limits=(0.05, 0.3), index=index, bins=20_000)
    for b, chosen in enumerate(index):
        exact = metrics.pixel_metrics(masks[chosen], maps[chosen], limits=(0.05, 0.3))
        for name, values in found.items():
            assert values[b] == pytest.approx(exact[name], abs=1e-12), name


def test_pixel_replicates_draw_by_image_label():
    """A defect without a pixel on this grid still counts as anomalous: the draws pair with those of a finer grid."""
    labels = np.array([0, 0, 0, 1, 1, 1])
    masks, maps = np.zeros((6, 4, 4)), np.random.default_rng(0).random((6, 4, 4))
    masks[3:, 0, 0] = 1
    fine = metrics.pixel_replicates(masks, maps, replicates=50, labels=labels)
    assert all(np.array_equal(fine[k], v) for k, v in metrics.pixel_replicates(masks, maps, replicates=50).items())
    masks[5] = 0
    coarse = metrics.pixel_replicates(masks, maps, replicates=50, labels=labels)
    assert not np.array_equal(
        coarse["pixel_auroc"], metrics.pixel_replicates(masks, maps, replicates=50)["pixel_auroc"], equal_nan=True
    )
    with pytest.raises(UserError, match=r"labels must be \[6\]"):
        metrics.pixel_replicates(masks, maps, replicates=5, labels=labels[:3])


def test_a_draw_without_an_anomalous_pixel_has_no_value_and_no_warning():
    """Of two anomalous images one has no pixel on the grid; the draw of it alone is NaN, as no AUROC is defined."""
    masks = np.zeros((4, 3, 3), bool)
    masks[2, 1, 1] = True
    maps = np.random.default_rng(0).random((4, 3, 3))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        draws = metrics.pixel_replicates(masks, maps, index=[[0, 1, 3, 3], [0, 1, 2, 3]], labels=[0, 0, 1, 1])
    for name in ("pixel_auroc", "pixel_ap"):
        assert np.isnan(draws[name]).tolist() == [True, False]


def test_pixel_replicates_of_continuous_scores_are_close_to_exact_draws():
    """A bin is a tie of some ten pixels here, which moves the ends by far less than a tenth of the interval's width."""
    masks, maps = simulated(n=12, side=40)
    index = np.random.default_rng(0).integers(0, 4, (40, 12))
    index[:, 4:] = 4 + np.random.default_rng(1).integers(0, 8, (40, 8))
    exact = [metrics.pixel_metrics(masks[i], maps[i]) for i in index]
    for name, drawn in metrics.pixel_replicates(masks, maps, index=index).items():
        ends = np.percentile([each[name] for each in exact], [2.5, 97.5])
        np.testing.assert_allclose(np.percentile(drawn, [2.5, 97.5]), ends, atol=0.1 * np.ptp(ends))


def test_pixel_replicates_of_two_systems_are_paired():
    """Equal seeds draw equal images: a shifted copy of the maps has the same value in every draw, noise a lower one."""
    masks, maps = simulated()
    noise = np.random.default_rng(8).standard_normal(maps.shape).astype(np.float32)
    drawn, shifted, worse = (metrics.pixel_replicates(masks, m, replicates=50) for m in (maps, maps + 8, noise))
    assert all(np.array_equal(drawn[name], shifted[name]) for name in drawn)
    assert np.percentile(drawn["pixel_auroc"] - worse["pixel_auroc"], 2.5) > 0


def test_bad_input_of_intervals_says_which():
    labels, scores = gaussian(0, 1.0)
    cases = [
        (lambda: metrics.bootstrap_interval(labels, scores, "auroc"), "metric 'auroc' is unknown; valid: image_auroc"),
        (lambda: metrics.bootstrap_interval(labels * 0, scores), "both classes"),
        (lambda: metrics.bootstrap_interval(labels, scores[1:]), r"\[80\] but scores \[79\]"),
        (lambda: metrics.bootstrap_interval([labels] * 2, [scores]), "2 categories but scores of 1"),
        (lambda: metrics.bootstrap_interval(labels, scores, index=[[0, 1]]), r"index must be \[replicates, 80\]"),
        (lambda: metrics.bootstrap_interval(labels, scores, replicates=0), "replicates"),
        (lambda: metrics.bootstrap_interval(labels, scores, method="exact"), "method must be"),
        (lambda: metrics.bootstrap_interval(labels, scores, "f1_max", method="score"), "image_auroc only"),
        (lambda: metrics.bootstrap_interval(labels, np.where(labels, np.nan, scores)), r"scores\[20\].*finite"),
        (lambda: metrics.pixel_replicates(np.zeros((2, 4, 4)), np.zeros((2, 4, 4))), "masks hold no anomalous"),
        (lambda: metrics.pixel_replicates(*simulated(), bins=1), "bins must be at least 2"),
    ]
    for call, message in cases:
        with pytest.raises(UserError, match=message):
            call()
