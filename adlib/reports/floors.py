"""What needs no model: brightness, and the distance to the mean training picture. A number near them proves little."""

import numpy as np
import pandas as pd

from adlib import data, evaluation, images, metrics
from adlib.common.errors import UserError
from adlib.common.seeds import stream
from adlib.evaluation import PixelTruth, Scored

SIDE = 128  # pixels
MEAN_PICTURE, MEAN_GREY = "mean picture", "mean grey"


def mean_picture(dataset: str, category: str, side: int = SIDE) -> Scored:
    """Each test picture's distance to the mean of the training pictures: |x - mean|, mean over colours [N,side,side].

    The image score is the mean over pixels: what a model must beat that is to know more than the average picture.
    """
    table = data.load(dataset, category)
    pictures = images.cached(table, images.Geometry(side))
    train, test = (np.flatnonzero(table.split == split) for split in ("train", "test"))
    mean = np.mean([pictures[i] for i in train], axis=0, dtype=np.float64) / 255
    maps = np.stack([np.abs(pictures[i] / 255 - mean).mean(0) for i in test]).astype(np.float32)
    return Scored(maps.mean((1, 2)), maps, None, None)


def floors(dataset: str, category: str, side: int = SIDE) -> pd.DataFrame:
    """Rows mean grey and mean picture, columns image_auroc, pixel_auroc, pixel_ap, aupro@0.3 with low and high, 0..1.

    Mean grey ranks by brightness in the better direction, an oracle, and has no map. Pixel metrics are NaN without
    masks.
    """
    table, scored = data.load(dataset, category), mean_picture(dataset, category, side)
    test = table[table.split == "test"]
    pictures = images.cached(table, images.Geometry(side))
    grey = np.array([pictures[i].mean() for i in np.flatnonzero(table.split == "test")])
    value = metrics.image_auroc(test.label, grey, one_class="nan")
    grey = grey if value >= 0.5 else -grey
    rows = {
        MEAN_GREY: _interval("image_auroc", test.label, grey),
        MEAN_PICTURE: _interval("image_auroc", test.label, scored.scores),
    }
    truth = PixelTruth(test, images.Geometry(side), "nearest")
    if truth.usable:
        draws = evaluation.pixel_replicates(truth, scored.maps, stream(0, table.attrs["fingerprint"]))
        found = evaluation.pixel_metrics(truth, scored.maps)
        for metric, drawn in draws.items():
            low, high = np.nanpercentile(drawn, [2.5, 97.5])
            rows[MEAN_PICTURE] |= {metric: found[metric], f"{metric} low": low, f"{metric} high": high}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("floor")


def _interval(name: str, labels, scores) -> dict:
    if len(set(labels)) < 2:
        return {name: np.nan, f"{name} low": np.nan, f"{name} high": np.nan}
    interval = metrics.bootstrap_interval(labels, scores)
    return {name: metrics.image_auroc(labels, scores), f"{name} low": interval.low, f"{name} high": interval.high}


def known(dataset: str, category: str, recorded: float) -> pd.DataFrame:
    """`floors`; where the pictures are not at hand, mean grey alone as runs recorded it (image AUROC, no interval)."""
    try:
        return floors(dataset, category)
    except UserError:
        row = {"image_auroc": recorded, "image_auroc low": np.nan, "image_auroc high": np.nan}
        return pd.DataFrame([row], index=pd.Index([MEAN_GREY], name="floor"))
