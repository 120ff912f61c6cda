"""The one-pass arithmetic under every ranking metric: what stands above each anomalous score (specs/common.md 4.5).

Only anomalous scores move a PRO, ROC or precision-recall curve upwards, so it is enough to know, for each distinct
anomalous score u_1 > u_2 > ..: how many normals lie above it, how many tie with it, how many anomalous elements and how
much region weight sit on it. All metrics are short sums over that table. Exact metrics, histogram bins (a bin is a tie)
and bootstrap replicates (a leading axis) share the same formulas. Public names: `adlib.metrics`.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from adlib.settings import UserError

EIGHT_CONNECTED = np.ones((3, 3), dtype=int)  # scipy's default is 4-connected and gives other numbers (common.md 4.6)
CHUNK = 1 << 21  # elements sorted at a time: bounds the memory, and smaller sorts stay in the cache


@dataclass(frozen=True)
class Ranking:
    """Counts at the distinct anomalous scores (or bins), highest first; arrays [..., m], leading axes = replicates.

    above: normals strictly above the score; ties: normals equal to it; positives: anomalous elements equal to it;
    weight: their region weight (sums to 1 over regions, 0 where regions are unknown); normals: [...], all normals.
    """

    scores: np.ndarray
    above: np.ndarray
    ties: np.ndarray
    positives: np.ndarray
    weight: np.ndarray
    normals: np.ndarray
    n_regions: int = 0

    @classmethod
    def of_bins(cls, normals, positives, weight, scores=None) -> "Ranking":
        """From histograms [..., m], highest bin first; weight: sums of 1/n_k, divided here by their total K."""
        above = np.cumsum(normals, axis=-1) - normals
        regions = weight.sum(axis=-1, keepdims=True)
        share = np.divide(weight, regions, out=np.zeros_like(weight, dtype=float), where=regions > 0)
        return cls(scores, above, normals, positives, share, normals.sum(axis=-1))

    @property
    def true_positives(self) -> np.ndarray:
        """[..., m]: anomalous elements with at least this score."""
        return np.cumsum(self.positives, axis=-1)

    def _area(self, shares: np.ndarray, limit: float) -> np.ndarray:
        """Area under the curve that rises by `shares` at each score, from FPR 0 to `limit`, divided by limit.

        A share at score u begins to count after `above` normals and counts fully after `above + ties`: ties are a ramp.
        """
        reach = limit * np.asarray(self.normals, dtype=float)[..., None]
        beyond = np.maximum(reach - self.above, 0.0)
        ramp = np.minimum(beyond, self.ties)
        covered = beyond - ramp + np.divide(ramp * ramp, 2.0 * self.ties, out=np.zeros_like(beyond), where=ramp > 0)
        return (shares * covered).sum(axis=-1) / reach[..., 0]

    def auroc(self) -> np.ndarray:
        """Area under the ROC curve, ties count one half."""
        return self._area(self.positives, 1.0) / self.positives.sum(axis=-1)

    def aupro(self, limit: float) -> np.ndarray:
        """Area under the PRO curve up to FPR = limit, divided by limit (common.md 4.4)."""
        return self._area(self.weight, limit)

    def average_precision(self) -> np.ndarray:
        """Sum over distinct thresholds of precision times the step in recall, no interpolation (common.md 4.3)."""
        hits = self.true_positives
        flagged = np.maximum(hits + self.above + self.ties, 1)  # empty bins above the first element: 0 / 1
        return (self.positives * (hits / flagged)).sum(axis=-1) / hits[..., -1]

    def f1(self) -> np.ndarray:
        """[..., m]: F1 of the decision "score >= u_j"."""
        hits = self.true_positives
        return 2.0 * hits / (hits + self.above + self.ties + hits[..., -1:])


def as_array(values) -> np.ndarray:
    """NumPy view of an array, a sequence or a tensor on any device; half precision becomes float32."""
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        values = (values.float() if values.is_floating_point() and values.itemsize == 2 else values).numpy()
    try:
        values = np.asarray(values)
    except ValueError as error:
        raise UserError("scores, maps and masks must be rectangular arrays; hand images of other sizes to "
                        "PixelMetrics.update one size at a time") from error  # fmt: skip
    if values.dtype.kind not in "fiub":
        raise UserError(f"labels, masks, scores and maps must be numbers, got {values.dtype}")
    return np.atleast_1d(values.astype(np.float32) if values.dtype == np.float16 else values)


def check_scores(scores, name: str) -> np.ndarray:
    """The array, or UserError naming the first image whose score is NaN or infinite."""
    scores = as_array(scores)
    if scores.dtype.kind == "f" and scores.size and not np.isfinite([scores.min(), scores.max()]).all():
        place = np.unravel_index(np.argmin(np.isfinite(scores)), scores.shape)
        raise UserError(f"{name}[{place[0]}] contains {scores[place]}; every score must be finite")
    return scores.view(np.uint8) if scores.dtype == bool else scores


def check_binary(values, name: str) -> np.ndarray:
    """Boolean array, or UserError naming the first entry that is neither 0 nor 1."""
    values = as_array(values)
    if values.dtype == bool:
        return values
    result = values.astype(bool)
    wrong = values != result
    if wrong.any():
        place = np.unravel_index(np.argmax(wrong), wrong.shape)
        raise UserError(f"{name}[{place[0]}] holds {values[place]}; only 0 (normal) and 1 (anomalous) are valid, "
                        "binarise grey masks first")  # fmt: skip
    return result


def check_pair(truth, scores, names: tuple[str, str]) -> tuple[np.ndarray, np.ndarray]:
    """Boolean truth and finite scores of one shape, or UserError."""
    truth, scores = check_binary(truth, names[0]), check_scores(scores, names[1])
    if truth.shape != scores.shape:
        raise UserError(
            f"{names[0]} have shape {list(truth.shape)} but {names[1]} {list(scores.shape)}; they must agree"
        )
    if not truth.size:
        raise UserError(f"{names[0]} and {names[1]} are empty; at least one normal and one anomalous entry are needed")
    return truth, scores


def check_images(masks, maps) -> tuple[np.ndarray, np.ndarray]:
    """Masks and maps as [N,H,W]; one [H,W] image and a channel axis of length 1 are accepted."""
    masks, maps = check_pair(masks, maps, ("masks", "maps"))
    if masks.ndim == 2:
        return masks[None], maps[None]
    if masks.ndim == 4 and masks.shape[1] == 1:
        return masks[:, 0], maps[:, 0]
    if masks.ndim != 3:
        raise UserError(f"masks and maps must be [N,H,W], got {list(masks.shape)}")
    return masks, maps


def region_weights(masks: np.ndarray) -> tuple[np.ndarray, int]:
    """1/n_k for every anomalous pixel in raster order, and the number of regions.

    masks: [N,H,W] bool; n_k = size of its 8-connected region. A region never crosses images.
    """
    weights, n_regions = [], 0
    for mask in masks:
        if mask.any():
            regions, count = ndimage.label(mask, structure=EIGHT_CONNECTED)
            place = regions[mask]
            weights.append(1.0 / np.bincount(place)[place])
            n_regions += count
    return (np.concatenate(weights) if weights else np.zeros(0)), n_regions


def normal_chunks(truth: np.ndarray, scores: np.ndarray, size: int = CHUNK) -> Iterator[np.ndarray]:
    """Copies of the normal scores, a few leading entries (images) at a time, about `size` elements each."""
    step = max(1, size * len(truth) // truth.size)
    for start in range(0, len(truth), step):
        yield scores[start : start + step][~truth[start : start + step]]


def rank(
    anomalous: np.ndarray, weights: np.ndarray | None, chunks: Iterable[np.ndarray], n_regions: int = 0
) -> Ranking:
    """The table of anomalous scores [A] against all normals, given in chunks of any size (each is sorted in place).

    Sorting a chunk and looking up the few anomalous scores in it is several times faster than looking up every normal
    score among the anomalous ones: the needles are sorted, so the look-ups stay in the cache.
    """
    scores, place, positives = np.unique(anomalous, return_inverse=True, return_counts=True)
    weight = np.bincount(place, weights, minlength=len(scores)) if weights is not None else np.zeros(len(scores))
    above, ties, total = np.zeros(len(scores), np.int64), np.zeros(len(scores), np.int64), 0
    for chunk in chunks:
        chunk.sort()
        below = np.searchsorted(chunk, scores, "left")
        upto = np.searchsorted(chunk, scores, "right")
        above += len(chunk) - upto
        ties += upto - below
        total += len(chunk)
    down = slice(None, None, -1)
    share = weight[down] / max(n_regions, 1)
    return Ranking(scores[down], above[down], ties[down], positives[down], share, np.int64(total), n_regions)


def rank_elements(truth: np.ndarray, scores: np.ndarray) -> Ranking:
    """Table without regions, for checked arrays of any shape."""
    return rank(scores[truth], None, normal_chunks(truth, scores))


def rank_images(masks: np.ndarray, maps: np.ndarray) -> Ranking:
    """Table with region weights, for checked [N,H,W] arrays."""
    weights, n_regions = region_weights(masks)
    return rank(maps[masks], weights, normal_chunks(masks, maps), n_regions)


def defined(ranking: Ranking, what: str, name: str, one_class: str) -> bool:
    """Whether both classes are present; if not, False (one_class="nan") or UserError naming the absent one."""
    if one_class not in ("error", "nan"):
        raise UserError(f'one_class must be "error" or "nan", got {one_class!r}')
    anomalous, normals = int(ranking.positives.sum()), int(ranking.normals)
    if anomalous and normals:
        return True
    if one_class == "nan":
        return False
    absent = "anomalous (1)" if normals else "normal (0)"
    raise UserError(f"{name} hold no {absent} entry among {anomalous + normals}; {what} needs both classes "
                    '(one_class="nan" returns NaN instead)')  # fmt: skip


def check_limit(limit: float) -> float:
    """The integration limit of AUPRO, or UserError outside (0, 1]."""
    if not 0 < limit <= 1:
        raise UserError(f"fpr_limit {limit} is outside (0, 1]; the usual value is 0.3")
    return float(limit)
