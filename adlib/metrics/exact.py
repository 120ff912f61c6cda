"""Image and pixel metrics, thresholds from normal images, intervals: values in 0..1, higher score = more anomalous.

Exact definitions and their reasons: specs/common.md section 4. AUROC and AP agree with scikit-learn, AUPRO with MVTec's
official evaluation code; all are one pass over the scores (`adlib.metrics.ranking`). Arrays, sequences and tensors are
accepted. NaN or infinite scores, grey masks and unequal shapes raise UserError. Where one class is absent a metric has
no value: UserError naming that class, or NaN with one_class="nan". Pixel metrics take `valid` (0/1) of the maps' shape:
pixels outside, such as padding, count nowhere, whatever their score.

Public names: `adlib.metrics`.
"""

from collections.abc import Sequence

import numpy as np

from adlib.common.errors import UserError
from adlib.metrics import ranking
from adlib.metrics.inputs import check_images, check_limit, check_pair, check_scores, check_valid
from adlib.metrics.ranking import Ranking, defined

IMAGE = ("labels", "scores")
PIXEL = ("masks", "maps")


def image_auroc(labels, scores, one_class: str = "error") -> float:
    """P(anomalous image scores higher than a normal one) + half P(equal). labels, scores: [N], label 1 = anomalous."""
    return _auroc(labels, scores, IMAGE, one_class)


def pixel_auroc(masks, maps, one_class: str = "error", valid=None) -> float:
    """AUROC over all pixels of all images pooled, normal images included. masks (0/1), maps: [N,H,W]."""
    return _auroc(masks, maps, PIXEL, one_class, valid)


def average_precision(labels, scores, one_class: str = "error") -> float:
    """Sum over distinct thresholds of (R_n - R_(n-1)) P_n, scikit-learn's definition, no interpolation. Inputs [N]."""
    return _average_precision(labels, scores, IMAGE, one_class)


def pixel_average_precision(masks, maps, one_class: str = "error", valid=None) -> float:
    """Average precision over all pixels pooled. masks (0/1), maps: [N,H,W]."""
    return _average_precision(masks, maps, PIXEL, one_class, valid)


def f1_max(labels, scores, one_class: str = "error") -> tuple[float, float]:
    """ORACLE: (largest F1, its threshold), chosen with the test labels; to compare with papers, never for decisions.

    Anomalous iff score >= threshold; of equal F1 the lowest threshold, as scikit-learn's curve gives it. Any shape.
    """
    ranks = ranking.rank_elements(*check_pair(labels, scores, IMAGE))
    return _f1_max(ranks) if defined(ranks, "F1", "labels", one_class) else (np.nan, np.nan)


def aupro(masks, maps, fpr_limit: float = 0.3, one_class: str = "error", valid=None) -> float:
    """Area under the per-region-overlap curve up to FPR = fpr_limit, divided by it; exact, 8-connected regions.

    masks (0/1), maps: [N,H,W]. Every region counts once, FPR is over the normal pixels of all images (common.md 4.4).
    """
    limit, ranks = check_limit(fpr_limit), ranking.rank_images(*check_images(masks, maps, valid))
    return float(ranks.aupro(limit)) if defined(ranks, "AUPRO", "masks", one_class) else np.nan


def pixel_metrics(
    masks, maps, limits: Sequence[float] = (0.3,), one_class: str = "error", valid=None
) -> dict[str, float]:
    """Every pixel metric in one pass: pixel_auroc, pixel_ap, aupro@L per limit, pixel_f1_max (oracle), counts.

    masks (0/1), maps: [N,H,W]. Memory above the inputs: about 60 bytes per anomalous pixel and 30 MB;
    masks that are not bool cost 2 bytes per pixel more.
    """
    limits = [check_limit(limit) for limit in limits]
    masks, maps, valid = check_images(masks, maps, valid)
    ranks = ranking.rank_images(masks, maps, valid)
    both = defined(ranks, "a pixel metric", "masks", one_class)
    f1, cut = _f1_max(ranks) if both else (np.nan, np.nan)
    return {
        "pixel_auroc": float(ranks.auroc()) if both else np.nan,
        "pixel_ap": float(ranks.average_precision()) if both else np.nan,
        **{f"aupro@{limit:g}": float(ranks.aupro(limit)) if both else np.nan for limit in limits},
        "pixel_f1_max (oracle)": f1,
        "pixel_f1_threshold (oracle)": cut,
        "n_images": len(masks),
        "n_regions": ranks.n_regions,
        "n_pixels": masks.size if valid is None else int(valid.sum()),
        "n_anomalous_pixels": int(ranks.positives.sum()),
    }


def threshold(normal_scores, alpha: float = 0.05) -> tuple[float, float]:
    """Split-conformal threshold from held-back normal scores [n]: (tau, level). Anomalous iff score > tau (strict).

    tau is the k-th smallest, k = min(n, ceil((n + 1)(1 - alpha))). A new exchangeable normal image is flagged with
    probability at most level = 1 - k/(n + 1), which exceeds alpha where n < 1/alpha - 1 (common.md 4.7).
    """
    scores = np.sort(check_scores(normal_scores, "normal_scores").ravel())
    if not len(scores):
        raise UserError("normal_scores is empty; a threshold needs at least one held-back normal image")
    if not 0 < alpha < 1:
        raise UserError(f"alpha {alpha} is outside (0, 1); the usual value is 0.05")
    n = len(scores)
    k = min(n, int(np.ceil((n + 1) * (1 - alpha) - 1e-9)))  # the guard: 20 * 0.95 is 19.000000001 in floating point
    return float(scores[k - 1]), 1.0 - k / (n + 1)


def decisions(labels, scores, tau: float) -> dict[str, float]:
    """Precision, recall, FPR, F1 and counts of the decision "anomalous iff score > tau"; 0/0 is NaN. Inputs [N]."""
    labels, scores = check_pair(labels, scores, IMAGE)
    flagged = scores > tau
    tp, fp = int((flagged & labels).sum()), int((flagged & ~labels).sum())
    fn, tn = int((~flagged & labels).sum()), int((~flagged & ~labels).sum())
    return {
        "precision": _ratio(tp, tp + fp),
        "recall": _ratio(tp, tp + fn),
        "fpr": _ratio(fp, fp + tn),
        "f1": _ratio(2 * tp, 2 * tp + fp + fn),
        **{"n": labels.size, "tp": tp, "fp": fp, "fn": fn, "tn": tn},
    }


def _auroc(truth, scores, names: tuple[str, str], one_class: str, valid=None) -> float:
    ranks = ranking.rank_elements(*check_valid(truth, scores, valid, names))
    return float(ranks.auroc()) if defined(ranks, "AUROC", names[0], one_class) else np.nan


def _average_precision(truth, scores, names: tuple[str, str], one_class: str, valid=None) -> float:
    ranks = ranking.rank_elements(*check_valid(truth, scores, valid, names))
    return float(ranks.average_precision()) if defined(ranks, "average precision", names[0], one_class) else np.nan


def _f1_max(ranks: Ranking) -> tuple[float, float]:
    f1 = ranks.f1()
    best = len(f1) - 1 - np.argmax(f1[::-1])
    return float(f1[best]), float(ranks.scores[best])


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else np.nan
