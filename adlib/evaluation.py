"""From a trained detector to numbers: scores and maps on one grid for all systems, the threshold from normal images,
the metrics.

Nothing before this file reads a test label. Protocol: specs/common, sections 2-4.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F

from adlib import images, metrics
from adlib.common.errors import UserError

SMALL = 64  # pixels per side of the maps that a run folder keeps for pictures
IN_MEMORY = (
    300_000_000  # pixels of maps that are kept at once (float32: 1.2 GB); beyond, the streaming metrics take over
)
ALPHA = 0.05  # share of normal images that may be flagged, specs/common 4.7


@dataclass
class Scored:
    """Scores [N] and maps of N images; `maps` [N,S,S] is None where the system has none or they are too large."""

    scores: np.ndarray
    maps: np.ndarray | None
    small: np.ndarray | None  # float32 [N,64,64], for pictures
    peaks: np.ndarray | None  # [N] largest map value of each image


@torch.inference_mode()
def score_all(detector, embeddings, size: int, device: str = "cpu", consume=None, batch_size: int = 16) -> Scored:
    """Score embeddings in batches; maps are brought to size x size (bilinear). Raises UserError for a score that is not
    finite.

    consume(start, maps [n,S,S] float32): takes the maps away instead of keeping them (bounded memory).
    """
    detector.eval()
    scores, maps, small, peaks = [], [], [], []
    order = np.array_split(np.arange(len(embeddings)), range(batch_size, len(embeddings), batch_size))
    for rows, batch in zip(order, embeddings.batches(order, device), strict=True):
        out = detector.score(batch)
        scores.append(out.image.float().cpu().numpy())
        if not np.isfinite(scores[-1]).all() or (out.map is not None and not bool(torch.isfinite(out.map).all())):
            raise UserError(f"a score of the images {rows[0]} to {rows[-1]} is not finite; the training diverged")
        if out.map is None:
            continue
        full = to_grid(out.map.float(), size)
        small.append(to_grid(full, SMALL, antialias=True).cpu().numpy())
        peaks.append(full.flatten(1).amax(1).cpu().numpy())
        if consume is None:
            maps.append(full.cpu().numpy())
        else:
            consume(int(rows[0]), full.cpu().numpy())
    return Scored(np.concatenate(scores), _joined(maps), _joined(small), _joined(peaks))


def _joined(parts: list[np.ndarray]) -> np.ndarray | None:
    return np.concatenate(parts) if parts else None


def to_grid(maps: torch.Tensor, size: int, antialias: bool = False) -> torch.Tensor:
    """Maps [N,h,w] on the evaluation grid [N,size,size]: bilinear, align_corners=False, the same for every system."""
    if maps.shape[-2:] == (size, size):
        return maps
    return F.interpolate(maps[:, None], size=(size, size), mode="bilinear", antialias=antialias)[:, 0]


def thresholds(normal: Scored, source: str) -> dict:
    """Threshold and drawing scale from normal images only.

    Returns score threshold `tau` (anomalous iff score > tau) with its guaranteed level, the same for the maps' maxima
    (pictures only), and the 50th and 99.9th percentile of normal map values, the common scale of all pictures.
    """
    tau, level = metrics.threshold(normal.scores, ALPHA)
    out = {"tau": tau, "level": level, "alpha": ALPHA, "n": len(normal.scores), "source": source}
    if normal.small is not None:
        out["map_tau"] = metrics.threshold(normal.peaks, ALPHA)[0]
        out["map_scale"] = [float(v) for v in np.percentile(normal.small, [50, 99.9])]
    return out


def image_metrics(labels: np.ndarray, scores: np.ndarray, tau: float) -> dict[str, float]:
    """Image-level metrics, 0..1; NaN where one class is absent."""
    both = len(set(labels)) == 2
    out = {
        "image_auroc": metrics.image_auroc(labels, scores, one_class="nan"),
        "image_ap": metrics.average_precision(labels, scores, one_class="nan"),
        "image_f1_max (oracle)": metrics.f1_max(labels, scores)[0] if both else float("nan"),
    }
    chosen = metrics.decisions(labels, scores, tau)
    return out | {f"{k}@threshold": chosen[k] for k in ("precision", "recall", "fpr", "f1")}


def mean_grey_floor(pictures: np.ndarray, labels: np.ndarray) -> float:
    """AUROC of an image's mean grey level in its better direction (an oracle): what brightness alone gives away."""
    value = metrics.image_auroc(labels, pictures.reshape(len(pictures), -1).mean(1), one_class="nan")
    return max(value, 1 - value)


class PixelTruth:
    """Masks of a test table on the evaluation grid, without the anomalous images that have none."""

    def __init__(self, test: pd.DataFrame, geometry: images.Geometry, rule: str):
        self.rule = rule
        self.masks, info = images.masks(test, geometry, rule)
        self.rows = np.setdiff1d(np.arange(len(test)), info["no_mask"])
        self.labels = test.label.to_numpy()[self.rows]
        self.usable = bool(self.masks[self.rows].any()) and not self.masks[self.rows].all()
        self.facts = {
            "regions_lost": info["regions_lost"],
            "images_without_mask": len(info["no_mask"]),
            "masks_emptied": len(info["emptied"]),
            "images": len(self.rows),
        }


def pixel_metrics(truth: PixelTruth, maps: np.ndarray) -> dict[str, float]:
    """Exact pixel metrics, 0..1, over the images that have masks (normal ones included)."""
    return metrics.pixel_metrics(truth.masks[truth.rows], maps[truth.rows])


def streamed_pixel_metrics(truth: PixelTruth, detector, embeddings, size: int, device: str) -> tuple[Scored, dict]:
    """Scores and pixel metrics with bounded memory; each value comes with its rigorous error bound."""
    stream, wanted = metrics.PixelMetrics(), np.zeros(len(truth.masks), bool)
    wanted[truth.rows] = True

    def consume(start: int, maps: np.ndarray) -> None:
        keep = wanted[start : start + len(maps)]
        if keep.any():
            stream.update(truth.masks[start : start + len(maps)][keep], maps[keep])

    return score_all(detector, embeddings, size, device, consume), stream.compute()


def pixel_replicates(truth: PixelTruth, maps: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """Bootstrap replicates [2000] of each pixel metric; seeded by the data, so that all seeds of a run draw the same
    images.
    """
    return metrics.pixel_replicates(truth.masks[truth.rows], maps[truth.rows], seed=seed, labels=truth.labels)
