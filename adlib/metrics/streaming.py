"""Pixel metrics in bounded memory, with rigorous bounds on their own error (specs/common.md 4.9).

Scores fall into 2^bits bins of an order-preserving key of float32, so no range has to be known beforehand; a bin is
treated as a tie.
Public name: `adlib.metrics.PixelMetrics`.
"""

import warnings
from collections.abc import Sequence

import numpy as np
from scipy.special import digamma

from adlib.common.errors import UserError
from adlib.metrics.inputs import check_images, check_limit
from adlib.metrics.ranking import Ranking, defined, region_weights

TOLERANCE = 5e-4  # half of the last digit of a table in percent with one decimal


def order_key(scores: np.ndarray) -> np.ndarray:
    """uint32 keys that sort like the float32 scores: the bits, inverted if negative, else with the top bit set."""
    bits = (scores.astype(np.float32) + np.float32(0)).view(np.uint32)  # + 0 makes -0.0 equal to 0.0
    return np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31))


class PixelMetrics:
    """Streaming AUROC, AP, AUPRO and F1-max (oracle) over the pixels of any number of images; scores count as float32.

    `update(masks, maps)` with [N,H,W] per call, sizes may differ between calls; `compute()` for values and bounds.
    Memory: 24 B * 2^bits (25 MB at 20) and as much again while it computes, whatever the number of pixels.
    """

    def __init__(
        self,
        bits: int = 20,
        limits: Sequence[float] = (0.3,),
        one_class: str = "error",
    ):
        if not 8 <= bits <= 26:
            raise UserError(f"bits {bits} is outside 8..26 (24 bytes * 2^bits of memory); the usual value is 20")
        self.bits, self.limits, self.one_class = bits, [check_limit(limit) for limit in limits], one_class
        self.normals = np.zeros(1 << bits, np.int64)
        self.positives = np.zeros(1 << bits, np.int64)
        self.weight = np.zeros(1 << bits)
        self.n_images = self.n_regions = 0

    def update(self, masks, maps, valid=None) -> "PixelMetrics":
        """Count whole images: masks (0/1) and maps [N,H,W], arrays or tensors; of them the pixels that are valid (0/1,
        default all). Returns itself.
        """
        masks, maps, valid = check_images(masks, maps, valid)
        for i, (mask, scores) in enumerate(zip(masks, maps, strict=True)):
            counts = None if valid is None else valid[i]
            weights, regions = region_weights(mask[None], None if counts is None else counts[None])
            normal, anomalous = (~mask, mask) if counts is None else (~mask & counts, mask & counts)
            self._count(scores[normal], scores[anomalous], weights)
            self.n_images += 1
            self.n_regions += regions
        return self

    def compute(self) -> dict[str, float]:
        """Values, each with `<name>_bound` on its absolute error, and counts; warns where a bound exceeds 5e-4."""
        ranks = self._binned()
        both = defined(ranks, "a pixel metric", "masks", self.one_class)
        values = self._values(ranks) if both else dict.fromkeys(self._names(), np.nan)
        bounds = self._bounds(ranks, values) if both else dict.fromkeys(self._names(), np.nan)
        _warn(bounds, self.bits)
        counts = {"n_images": self.n_images, "n_regions": self.n_regions}
        anomalous = int(ranks.positives.sum())
        counts |= {"n_pixels": int(ranks.normals) + anomalous, "n_anomalous_pixels": anomalous}
        return values | {f"{name}_bound": bound for name, bound in bounds.items()} | counts

    def _count(self, normal: np.ndarray, anomalous: np.ndarray, weights: np.ndarray) -> None:
        shift = np.uint32(32 - self.bits)
        np.add(self.normals, np.bincount(order_key(normal) >> shift, minlength=1 << self.bits), out=self.normals)
        if len(anomalous):
            place, inverse, count = np.unique(order_key(anomalous) >> shift, return_inverse=True, return_counts=True)
            self.positives[place] += count
            self.weight[place] += np.bincount(inverse, weights)

    def _binned(self) -> Ranking:
        used = np.flatnonzero(self.normals + self.positives)[::-1]
        lowest = used.astype(np.uint32) << np.uint32(32 - self.bits)
        scores = np.where(lowest >> 31, lowest ^ np.uint32(1 << 31), ~lowest).view(np.float32)
        return Ranking.of_bins(self.normals[used], self.positives[used], self.weight[used], scores)

    def _names(self) -> list[str]:
        return ["pixel_auroc", "pixel_ap", *(f"aupro@{limit:g}" for limit in self.limits), "pixel_f1_max (oracle)"]

    def _values(self, ranks: Ranking) -> dict[str, float]:
        pro = [ranks.aupro(limit) for limit in self.limits]
        values = [ranks.auroc(), ranks.average_precision(), *pro, ranks.f1().max()]
        return {name: float(value) for name, value in zip(self._names(), values, strict=True)}

    def _bounds(self, ranks: Ranking, values: dict[str, float]) -> dict[str, float]:
        """Largest possible distance of each value from the exact one, given only the bins."""
        share = ranks.ties / ranks.normals  # f_b of common.md 4.9
        share_found = ranks.positives / ranks.positives.sum()
        auroc = (share * share_found).sum() / 2
        low, high = _ap_limits(ranks)
        ap = max(values["pixel_ap"] - low, high - values["pixel_ap"])
        pro = [_pro_bound(ranks, limit) for limit in self.limits]
        f1 = _f1_limit(ranks) - values["pixel_f1_max (oracle)"]
        rounding = 1e-12  # of the sums themselves
        return {name: float(bound) + rounding for name, bound in zip(self._names(), [auroc, ap, *pro, f1], strict=True)}


def _pro_bound(ranks: Ranking, limit: float) -> float:
    """1/L sum of g f_b w_b max(g/2, 1 - g/2); g = share of the bin's normals below the limit."""
    share = ranks.ties / ranks.normals
    inside = np.clip(limit - ranks.above / ranks.normals, 0.0, share)
    part = np.divide(inside, share, out=np.zeros_like(inside), where=share > 0)
    return float((inside * ranks.weight * np.maximum(part / 2, 1 - part / 2)).sum() / limit)


def _ap_limits(ranks: Ranking) -> tuple[float, float]:
    """Lowest and highest AP of any order and any ties inside the bins.

    Low: normals first, no ties: the sum of (T+i)/(T+i+F+n) over i = 1..a, by the digamma function. High: anomalous
    first and tied, a (T+a)/(T+a+F); without the tie (as in common.md 4.9) a bin of equal scores could exceed it.
    """
    positives, hits = ranks.positives, ranks.true_positives
    false_after = ranks.above + ranks.ties
    lost = false_after * (digamma(hits + false_after + 1.0) - digamma(hits - positives + false_after + 1.0))
    low = (positives - lost).sum() / hits[-1]
    high = (positives * hits / np.maximum(hits + ranks.above, 1)).sum() / hits[-1]
    return float(low), float(high)


def _f1_limit(ranks: Ranking) -> float:
    """Highest F1 of any threshold inside a bin: all its anomalous pixels, none of its normal ones."""
    hits = ranks.true_positives
    return float((2.0 * hits / (hits + ranks.above + hits[-1])).max())


def _warn(bounds: dict[str, float], bits: int) -> None:
    loose = {name: bound for name, bound in bounds.items() if bound > TOLERANCE}
    if loose:
        listed = ", ".join(f"{name} +- {bound:.1e}" for name, bound in loose.items())
        warnings.warn(
            f"streaming with bits={bits} is coarse for these scores: {listed}. Hand over logits instead of saturated "
            "scores or raise bits",
            stacklevel=3,
        )
