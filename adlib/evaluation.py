"""From a trained detector to numbers: scores and maps on one grid for all systems, the threshold from normal images,
the metrics.

Nothing before this file reads a test label. Protocol: specs/common, sections 2-4.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F

from adlib import images, metrics
from adlib.common.errors import UserError
from adlib.models.base import Scores
from adlib.views import Stitcher, Views

SMALL = 64  # pixels per side of the maps that a run folder keeps for pictures
IN_MEMORY = (
    300_000_000  # pixels of maps that are kept at once (float32: 1.2 GB); beyond, the streaming metrics take over
)
ALPHA = 0.05  # share of normal images that may be flagged, specs/common 4.7


@dataclass
class Scored:
    """Scores [N] and maps of N images; `maps` [N,S,S] is None where the system has none or they are too large.

    Maps are NaN where a picture was padded.
    """

    scores: np.ndarray
    maps: np.ndarray | None
    small: np.ndarray | None  # float32 [N,64,64], for pictures
    peaks: np.ndarray | None  # [N] largest map value of each image


@torch.inference_mode()
def score_all(
    detector, embeddings, size: int, device: str = "cpu", consume=None, batch_size: int = 16, views: Views | None = None
) -> Scored:
    """Score embeddings in batches; maps are brought to size x size (bilinear). Raises UserError for a score that is not
    finite.

    consume(start, maps [n,S,S] float32): takes the maps away instead of keeping them (bounded memory). views: of the
    pictures whose embeddings these are; None: each is a picture of its own.
    """
    detector.eval()
    scores, maps, small, peaks, done = [], [], [], [], 0
    for image, full, reduced in _pictures(detector, embeddings, size, device, batch_size, views):
        scores.append(image.float().cpu().numpy())
        if full is not None:
            small.append(reduced.cpu().numpy())
            within = full if views is None or views.plain else full.nan_to_num(nan=-torch.inf)
            peaks.append(within.flatten(1).amax(1).cpu().numpy())
            if consume is None:
                maps.append(full.cpu().numpy())
            else:
                consume(done, full.cpu().numpy())
        done += len(image)
    return Scored(np.concatenate(scores), _joined(maps), _joined(small), _joined(peaks))


def _pictures(
    detector, embeddings, size: int, device: str, batch_size: int, views: Views | None
) -> Iterator[tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]]:
    """(scores [n], maps on the grid [n,S,S], small maps [n,64,64]) of the pictures that each batch completes."""
    order = np.array_split(np.arange(len(embeddings)), range(batch_size, len(embeddings), batch_size))
    stitcher = None if views is None or views.plain else Stitcher(views)
    for rows, batch in zip(order, embeddings.batches(order, device), strict=True):
        out = detector.score(batch)
        if not _finite(out):
            raise UserError(f"a score of the images {rows[0]} to {rows[-1]} is not finite; the training diverged")
        if stitcher is None:
            full = None if out.map is None else to_grid(out.map.float(), size)
            yield out.image, full, None if full is None else to_grid(full, SMALL, antialias=True)
            continue
        first = stitcher.picture
        finished = stitched(detector, stitcher, out)
        if not finished:
            continue
        image, grids = torch.stack([score for score, _ in finished]), {}
        if out.map is not None:
            for side in (size, SMALL):
                parts = [
                    views.on_grid(first + k, whole, side, antialias=side == SMALL)
                    for k, (_, whole) in enumerate(finished)
                ]
                grids[side] = torch.stack(parts)
        yield image, grids.get(size), grids.get(SMALL)


def _finite(out: Scores) -> bool:
    return bool(torch.isfinite(out.image).all()) and (out.map is None or bool(torch.isfinite(out.map).all()))


def stitched(detector, stitcher: Stitcher, out: Scores) -> list[tuple[torch.Tensor, torch.Tensor | None]]:
    """What the system says of the next views -> (score, map [h,w] of the resized picture) of each completed picture.

    Where pictures are padded the image score is pooled again, from the cells inside the picture; a system without cells
    or a map cannot leave padding out.
    """
    geometry, image, cells = stitcher.views.geometry, out.image, out.map if out.cells is None else out.cells
    if geometry.resize_mode == "pad" and cells is not None:
        valid = torch.from_numpy(stitcher.views.cells(stitcher.view, tuple(cells.shape)))
        image = detector.pool(cells, valid.to(cells.device))
    return stitcher.add(image, None if out.map is None else to_grid(out.map.float(), geometry.image_size))


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
        values = normal.small[~np.isnan(normal.small)]  # NaN: padding
        out["map_scale"] = [float(v) for v in np.percentile(values, [50, 99.9])]
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
    """AUROC of an image's mean grey level in its better direction (an oracle): what brightness alone gives away.

    pictures: [N,...], or the levels themselves [N].
    """
    value = metrics.image_auroc(labels, pictures.reshape(len(pictures), -1).mean(1), one_class="nan")
    return max(value, 1 - value)


class PixelTruth:
    """Masks of a test table on the evaluation grid, without the anomalous images that have none.

    views: of these pictures; where they are padded, `valid` (bool [N,S,S]) says which pixels count; None: all.
    """

    def __init__(self, test: pd.DataFrame, geometry: images.Geometry, rule: str, views: Views | None = None):
        self.rule = rule
        self.masks, info = images.masks(test, geometry, rule)
        self.valid = None if views is None else views.valid(geometry.image_size)
        self.rows = np.setdiff1d(np.arange(len(test)), info["no_mask"])
        self.labels = test.label.to_numpy()[self.rows]
        normal = ~self.masks[self.rows] if self.valid is None else ~self.masks[self.rows] & self.valid[self.rows]
        self.usable = bool(self.masks[self.rows].any()) and bool(normal.any())
        self.facts = {
            "regions_lost": info["regions_lost"],
            "images_without_mask": len(info["no_mask"]),
            "masks_emptied": len(info["emptied"]),
            "images": len(self.rows),
        }

    def counting(self, rows) -> np.ndarray | None:
        """Bool [n,S,S], which pixels of the rows count; None: all."""
        return None if self.valid is None else self.valid[rows]


def pixel_metrics(truth: PixelTruth, maps: np.ndarray) -> dict[str, float]:
    """Exact pixel metrics, 0..1, over the images that have masks (normal ones included)."""
    return metrics.pixel_metrics(truth.masks[truth.rows], maps[truth.rows], valid=truth.counting(truth.rows))


def streamed_pixel_metrics(
    truth: PixelTruth, detector, embeddings, size: int, device: str, views: Views | None = None
) -> tuple[Scored, dict]:
    """Scores and pixel metrics with bounded memory; each value comes with its rigorous error bound."""
    stream, wanted = metrics.PixelMetrics(), np.zeros(len(truth.masks), bool)
    wanted[truth.rows] = True

    def consume(start: int, maps: np.ndarray) -> None:
        keep = np.flatnonzero(wanted[start : start + len(maps)])
        if len(keep):
            stream.update(truth.masks[start + keep], maps[keep], truth.counting(start + keep))

    return score_all(detector, embeddings, size, device, consume, views=views), stream.compute()


def pixel_replicates(truth: PixelTruth, maps: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """Bootstrap replicates [2000] of each pixel metric; seeded by the data, so that all seeds of a run draw the same
    images.
    """
    rows = truth.rows
    return metrics.pixel_replicates(
        truth.masks[rows], maps[rows], seed=seed, labels=truth.labels, valid=truth.counting(rows)
    )
