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

from adlib.common.errors import UserError

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
        """Area under the ROC curve, ties count one half; NaN without a positive, as in a draw of few images."""
        with np.errstate(invalid="ignore"):
            return self._area(self.positives, 1.0) / self.positives.sum(axis=-1)

    def aupro(self, limit: float) -> np.ndarray:
        """Area under the PRO curve up to FPR = limit, divided by limit (common.md 4.4)."""
        return self._area(self.weight, limit)

    def average_precision(self) -> np.ndarray:
        """Sum over distinct thresholds of precision times the step in recall, no interpolation (common.md 4.3)."""
        hits = self.true_positives
        flagged = np.maximum(hits + self.above + self.ties, 1)  # empty bins above the first element: 0 / 1
        with np.errstate(invalid="ignore"):  # without a positive NaN, as `auroc`
            return (self.positives * (hits / flagged)).sum(axis=-1) / hits[..., -1]

    def f1(self) -> np.ndarray:
        """[..., m]: F1 of the decision "score >= u_j"."""
        hits = self.true_positives
        return 2.0 * hits / (hits + self.above + self.ties + hits[..., -1:])


def region_weights(masks: np.ndarray, valid: np.ndarray | None = None) -> tuple[np.ndarray, int]:
    """1/n_k for every anomalous pixel in raster order, and the number of regions.

    masks: [N,H,W] bool; n_k = size of its 8-connected region. A region never crosses images. valid: likewise; pixels
    outside count for no region, but they still connect one.
    """
    weights, n_regions = [], 0
    for i, mask in enumerate(masks):
        if mask.any():
            regions, count = ndimage.label(mask, structure=EIGHT_CONNECTED)
            place = regions[mask] if valid is None else regions[mask & valid[i]]
            sizes = np.bincount(place)
            weights.append(1.0 / sizes[place])
            n_regions += count if valid is None else int((sizes[1:] > 0).sum())
    return (np.concatenate(weights) if weights else np.zeros(0)), n_regions


def normal_chunks(
    truth: np.ndarray, scores: np.ndarray, size: int = CHUNK, valid: np.ndarray | None = None
) -> Iterator[np.ndarray]:
    """Copies of the normal scores, a few leading entries (images) at a time, about `size` elements each."""
    step = max(1, size * len(truth) // truth.size)
    for start in range(0, len(truth), step):
        part = slice(start, start + step)
        normal = ~truth[part] if valid is None else ~truth[part] & valid[part]
        yield scores[part][normal]


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


def rank_elements(truth: np.ndarray, scores: np.ndarray, valid: np.ndarray | None = None) -> Ranking:
    """Table without regions, for checked arrays of any shape."""
    anomalous = truth if valid is None else truth & valid
    return rank(scores[anomalous], None, normal_chunks(truth, scores, valid=valid))


def rank_images(masks: np.ndarray, maps: np.ndarray, valid: np.ndarray | None = None) -> Ranking:
    """Table with region weights, for checked [N,H,W] arrays."""
    weights, n_regions = region_weights(masks, valid)
    anomalous = masks if valid is None else masks & valid
    return rank(maps[anomalous], weights, normal_chunks(masks, maps, valid=valid), n_regions)


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
