"""95 % intervals of metrics over test images: stratified bootstrap, score interval near 1, paired differences.

Normal and anomalous images are resampled separately with replacement, both counts kept; percentiles 2.5 and 97.5.
Several seeds of one system share the drawn images; categories are drawn independently. Source: specs/common.md 4.8.
Public names: `adlib.metrics`.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from adlib.common.errors import UserError
from adlib.metrics.inputs import check_images, check_limit, check_pair
from adlib.metrics.ranking import Ranking, defined, region_weights

CEILING = 0.95  # above this estimate the bootstrap of an AUROC is too narrow (coverage 0.80 at 0.99, common.md 4.8)
TAILS = (2.5, 97.5)
QUANTILE = 1.959963984540054  # of the normal distribution at 97.5 %
BATCH = 64  # replicates handled at a time by the histogram bootstrap: bounds its memory to some 10 MB


@dataclass(frozen=True)
class Interval:
    """95 % interval [low, high] around `value`; method "bootstrap" or "score". Unpacks as `low, high = interval`."""

    low: float
    high: float
    method: str
    value: float

    def __iter__(self) -> Iterator[float]:
        return iter((self.low, self.high))


@dataclass(frozen=True)
class _Part:
    """One category: labels [N] bool, scores [seeds, N], drawn image indices [B, N]."""

    labels: np.ndarray
    scores: np.ndarray
    index: np.ndarray


def bootstrap_interval(
    labels,
    scores,
    metric: str | Callable = "image_auroc",
    replicates: int = 2000,
    seed: int = 0,
    index=None,
    method: str = "auto",
) -> Interval:
    """Stratified 95 % interval of a metric of image scores, of its mean over seeds, or of its mean over categories.

    labels: [N]; scores: [N] or [seeds, N], averaged over seeds within each replicate. Lists of such arrays, one per
    category, give the unweighted mean. metric: "image_auroc", "average_precision", "f1_max" (an oracle) or
    f(labels, scores) -> float. index: own draws [B, N] (a list of them for categories). method "auto" takes the score
    interval where an AUROC is >= 0.95 (for a mean over categories: where any is), else the bootstrap.
    """
    if method not in ("auto", "bootstrap", "score"):
        raise UserError(f'method must be "auto", "bootstrap" or "score", got {method!r}')
    parts = _parts(labels, scores, replicates, seed, index)
    values = [_estimate(part, metric) for part in parts]
    near = metric == "image_auroc" and index is None and max(values) >= CEILING
    if method == "score" and metric != "image_auroc":
        raise UserError(f"the score interval exists for image_auroc only, not for {metric}")
    if method == "score" or (method == "auto" and near):
        return _score_mean(parts, values, force=method == "score")
    return _percentiles(np.mean([_replicate(part, metric) for part in parts], axis=0), float(np.mean(values)))


def paired_interval(
    labels,
    scores_a,
    scores_b,
    metric: str | Callable = "image_auroc",
    replicates: int = 2000,
    seed: int = 0,
    index=None,
) -> Interval:
    """95 % interval of metric(a) - metric(b): the same test images, drawn together in every replicate.

    Inputs as in `bootstrap_interval`; a and b may have different numbers of seeds. Zero width means that no drawn
    sample told the two apart (both perfect, say), not that they are equal.
    """
    parts_a = _parts(labels, scores_a, replicates, seed, index)
    parts_b = _parts(labels, scores_b, replicates, seed, index)
    drawn = [_replicate(a, metric) - _replicate(b, metric) for a, b in zip(parts_a, parts_b, strict=True)]
    values = [_estimate(a, metric) - _estimate(b, metric) for a, b in zip(parts_a, parts_b, strict=True)]
    return _percentiles(np.mean(drawn, axis=0), float(np.mean(values)))


def image_replicates(
    labels, scores, metric: str | Callable = "image_auroc", replicates: int = 2000, seed: int = 0
) -> np.ndarray:
    """Drawn values [B] of a metric of image scores, mean over seeds; inputs as in `bootstrap_interval`.

    Equal labels, replicates and seed draw the same images, so those of two systems are paired.
    """
    return np.mean([_replicate(part, metric) for part in _parts(labels, scores, replicates, seed, None)], axis=0)


def score_interval(value: float, n_normal: int, n_anomalous: int) -> Interval:
    """95 % score interval of an AUROC estimate with the Hanley-McNeil variance: all theta with
    (value - theta)^2 <= 1.96^2 V(theta). Honest near 1, where the bootstrap collapses (common.md 4.8).
    """
    from scipy.optimize import brentq  # heavy, and wanted near 1 only

    half = (n_normal + n_anomalous) / 2 - 1

    def excess(theta: float) -> float:
        spread = 1 + half * (1 - theta) / (2 - theta) + half * theta / (1 + theta)
        variance = theta * (1 - theta) * spread / (n_normal * n_anomalous)
        return (value - theta) ** 2 - QUANTILE**2 * variance

    low = brentq(excess, 0.0, min(value, 1 - 1e-12)) if value > 0 else 0.0  # 1 itself is a root where value is 1
    high = brentq(excess, max(value, 1e-12), 1.0) if value < 1 else 1.0
    return Interval(float(low), float(high), "score", float(value))


def pixel_replicates(
    masks,
    maps,
    limits: Sequence[float] = (0.3,),
    replicates: int = 2000,
    seed: int = 0,
    index=None,
    bins: int = 4096,
    labels=None,
    valid=None,
) -> dict[str, np.ndarray]:
    """Stratified bootstrap of pixel_auroc, pixel_ap, aupro@L: {metric: drawn values [B]}; images are drawn, not pixels.

    masks (0/1), maps: [N,H,W]; labels: [N], the strata, default: an image with an empty mask is normal; index: own
    draws [B, N]. Average over seeds or categories first, then take percentiles. Equal labels, replicates and seed draw
    the same images, so the replicates of two systems are paired; the labels matter where a small defect has no pixel on
    one of their grids. Each image becomes a histogram of its normal pixels, anomalous pixels and region weights over
    common quantile bins, half of them of the anomalous scores, where AP needs them fine; a replicate is a sum of
    histograms and carries the bins' rounding. valid (0/1) [N,H,W]: pixels outside count nowhere. UserError: no
    anomalous or no normal pixel, fewer than 2 bins.
    """
    masks, maps, valid = check_images(masks, maps, valid)
    limits = [check_limit(limit) for limit in limits]
    counts = _image_counts(masks, labels, replicates, seed, index)
    return _pixel_draws(masks, maps, valid, limits, counts, bins)


def _parts(labels, scores, replicates: int, seed: int, index) -> list[_Part]:
    """One checked part per category, each with its own stream of draws."""
    many = isinstance(labels, (list, tuple)) and len(labels) > 0 and np.ndim(labels[0]) > 0
    labels, scores, index = (
        (labels, scores, index) if many else ([labels], [scores], None if index is None else [index])
    )
    if len(labels) != len(scores):
        raise UserError(
            f"labels of {len(labels)} categories but scores of {len(scores)}; one array per category is needed"
        )
    streams = np.random.SeedSequence(seed).spawn(len(labels))
    index = [None] * len(labels) if index is None else index
    parts = []
    for one, score, stream, own in zip(labels, scores, streams, index, strict=True):
        one, score = _check(one, score)
        parts.append(_Part(one, score, _draws(one, replicates, np.random.default_rng(stream), own)))
    return parts


def _check(labels, scores) -> tuple[np.ndarray, np.ndarray]:
    """labels [N] bool and scores [seeds, N]; UserError where a class is absent."""
    rows = scores if np.ndim(scores) == 2 else [scores]
    checked = [check_pair(labels, row, ("labels", "scores")) for row in rows]
    labels = checked[0][0]
    if labels.ndim != 1 or labels.all() or not labels.any():
        raise UserError(f"labels must be [N] with both classes for an interval, got {int(labels.sum())} anomalous (1) "
                        f"among {labels.size}")  # fmt: skip
    return labels, np.stack([row for _, row in checked])


def _draws(labels: np.ndarray, replicates: int, rng: np.random.Generator, index=None) -> np.ndarray:
    """Image indices [B, N]: the normal ones drawn from the normal, then the anomalous from the anomalous."""
    if index is not None:
        index = np.asarray(index)
        if index.ndim != 2 or index.shape[1] != len(labels):
            raise UserError(f"index must be [replicates, {len(labels)}], got {list(index.shape)}")
        return index
    if replicates < 1:
        raise UserError(f"replicates must be at least 1, got {replicates}; the usual value is 2000")
    groups = [np.flatnonzero(labels == kind) for kind in (False, True)]
    return np.concatenate([rng.choice(group, (replicates, len(group))) for group in groups if len(group)], axis=1)


def _counts(index: np.ndarray, n: int) -> np.ndarray:
    """How often each of n images was drawn, [B, n], from indices [B, N]."""
    flat = index + n * np.arange(len(index))[:, None]
    return np.bincount(flat.ravel(), minlength=n * len(index)).reshape(len(index), n).astype(float)


def _image_counts(masks: np.ndarray, labels, replicates: int, seed: int, index) -> np.ndarray:
    """How often each image is drawn in each replicate, [B, N], stratified by label."""
    strata = masks.any(axis=(1, 2)) if labels is None else np.asarray(labels).astype(bool)
    if strata.shape != (len(masks),):
        raise UserError(f"labels must be [{len(masks)}], one per image, got {list(strata.shape)}")
    return _counts(_draws(strata, replicates, np.random.default_rng(seed), index), len(masks))


def _estimate(part: _Part, metric: str | Callable) -> float:
    whole = np.arange(len(part.labels))[None]
    return float(_replicate(_Part(part.labels, part.scores, whole), metric)[0])


def _replicate(part: _Part, metric: str | Callable) -> np.ndarray:
    """The metric of every drawn sample, averaged over seeds: [B]."""
    if callable(metric):
        drawn = [[metric(part.labels[i].astype(int), row[i]) for i in part.index] for row in part.scores]
        return np.mean(drawn, axis=0)
    known = {"image_auroc": _auroc_of_draws, "average_precision": _ap_of_draws, "f1_max": _f1_of_draws}
    if metric not in known:
        raise UserError(f"metric {metric!r} is unknown; valid: {', '.join(known)}, or a function of (labels, scores)")
    counts = _counts(part.index, len(part.labels))
    return known[metric](part, counts)


def _auroc_of_draws(part: _Part, counts: np.ndarray) -> np.ndarray:
    """c1' C c0 / (n1 n0) with the comparison matrix C (entries 1, 1/2, 0), averaged over seeds beforehand."""
    high, low = part.scores[:, part.labels, None], part.scores[:, None, ~part.labels]
    compared = np.mean([(h > l) + 0.5 * (h == l) for h, l in zip(high, low, strict=True)], axis=0)  # noqa: E741
    ones, zeros = counts[:, part.labels], counts[:, ~part.labels]
    return ((ones @ compared) * zeros).sum(axis=1) / (ones.sum(axis=1) * zeros.sum(axis=1))


def _ap_of_draws(part: _Part, counts: np.ndarray) -> np.ndarray:
    return np.mean([_bins(part.labels, row, counts).average_precision() for row in part.scores], axis=0)


def _f1_of_draws(part: _Part, counts: np.ndarray) -> np.ndarray:
    return np.mean([_bins(part.labels, row, counts).f1().max(axis=1) for row in part.scores], axis=0)


def _bins(labels: np.ndarray, scores: np.ndarray, counts: np.ndarray) -> Ranking:
    """Ranking of each replicate [B, m] over the distinct scores of the whole sample, highest first."""
    order = np.argsort(-scores.astype(float), kind="stable")
    starts = np.flatnonzero(np.concatenate([[True], np.diff(scores[order]) != 0]))
    ordered, hit = counts[:, order], labels[order]
    positives = np.add.reduceat(ordered * hit, starts, axis=1)
    normals = np.add.reduceat(ordered * ~hit, starts, axis=1)
    return Ranking.of_bins(normals, positives, np.zeros_like(positives))


def _percentiles(drawn: np.ndarray, value: float) -> Interval:
    low, high = np.nanpercentile(drawn, TAILS)  # NaN: a sample without any anomalous pixel
    return Interval(float(low), float(high), "bootstrap", value)


def _score_mean(parts: list[_Part], values: list[float], force: bool) -> Interval:
    """Mean over categories by the intervals of each: the distances of their ends add up in squares (Zou & Donner 2008).

    The bootstrap of a mean is as blind to categories at 100 % as that of each of them.
    """
    each = [
        score_interval(value, int((~part.labels).sum()), int(part.labels.sum()))
        if force or value >= CEILING
        else _percentiles(_replicate(part, "image_auroc"), value)
        for part, value in zip(parts, values, strict=True)
    ]
    mean = float(np.mean(values))
    down = np.sqrt(sum((one.value - one.low) ** 2 for one in each)) / len(each)
    up = np.sqrt(sum((one.high - one.value) ** 2 for one in each)) / len(each)
    return Interval(float(max(mean - down, 0.0)), float(min(mean + up, 1.0)), "score", mean)


def _edges(masks: np.ndarray, maps: np.ndarray, valid: np.ndarray | None, bins: int) -> np.ndarray:
    """Lower ends of the common bins, ascending: quantiles of the normal and of the anomalous scores, half each."""
    if bins < 2:
        raise UserError(f"bins must be at least 2, got {bins}; the usual value is 4096")
    shares = np.linspace(0, 1, bins // 2, endpoint=False)
    every = max(1, maps.size // 1_000_000)  # a million pixels fix 2048 quantiles well enough
    counts = ~masks.reshape(-1)[::every]
    if valid is not None:
        counts, masks = counts & valid.reshape(-1)[::every], masks & valid
    normal = maps.reshape(-1)[::every][counts]
    ends = [np.quantile(part, shares, method="higher") for part in (normal, maps[masks]) if len(part)]
    return np.unique(np.concatenate(ends))


def _histograms(
    masks: np.ndarray, maps: np.ndarray, valid: np.ndarray | None, edges: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Per image, highest bin first, [N, bins]: normal pixels, anomalous pixels, region weights (sums of 1/n_k)."""
    shape = (len(masks), len(edges) + 1)
    normals, positives, weight = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    for i, (mask, scores) in enumerate(zip(masks, maps, strict=True)):
        place = len(edges) - np.searchsorted(edges, scores, "right")
        counts = None if valid is None else valid[i : i + 1]
        normal, anomalous = (~mask, mask) if counts is None else (~mask & counts[0], mask & counts[0])
        normals[i] = np.bincount(place[normal], minlength=shape[1])
        positives[i] = np.bincount(place[anomalous], minlength=shape[1])
        weight[i] = np.bincount(place[anomalous], region_weights(mask[None], counts)[0], minlength=shape[1])
    return normals, positives, weight


def _pixel_draws(masks, maps, valid, limits: Sequence[float], counts: np.ndarray, bins: int) -> dict[str, np.ndarray]:
    """Pixel metrics of every replicate [B]; counts: [B, N], how often each image was drawn."""
    histograms = _histograms(masks, maps, valid, _edges(masks, maps, valid, bins))
    whole = Ranking.of_bins(*(each.sum(axis=0) for each in histograms))
    defined(whole, "a pixel interval", "masks", "error")
    batches = [counts[start : start + BATCH] for start in range(0, len(counts), BATCH)]
    drawn = [_pixel_values(Ranking.of_bins(*(batch @ each for each in histograms)), limits) for batch in batches]
    return {name: np.concatenate([each[name] for each in drawn]) for name in drawn[0]}


def _pixel_values(ranks: Ranking, limits: Sequence[float]) -> dict[str, np.ndarray]:
    values = {"pixel_auroc": ranks.auroc(), "pixel_ap": ranks.average_precision()}
    return values | {f"aupro@{limit:g}": ranks.aupro(limit) for limit in limits}
