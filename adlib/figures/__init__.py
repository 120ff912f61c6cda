"""Every picture: a function each, that returns a matplotlib figure of fixed size with its caption."""

from adlib.figures.ablation import differences, heatmaps, sweep
from adlib.figures.comparison import intervals
from adlib.figures.diagrams import Box, diagram
from adlib.figures.maps import anomaly_maps, choose, sample_images, scale, worst_cases, worst_rows
from adlib.figures.results import (
    compare,
    feature_cloud,
    grids,
    lines,
    score_histograms,
    speed_against_auroc,
    training_curves,
)
from adlib.figures.side_by_side import heat_maps, speed_and_auroc
from adlib.figures.style import ANOMALOUS, NORMAL, OTHERS, STYLE, Page, canvas, caption, compact, described, save
from adlib.inference import overlay

__all__ = [
    "ANOMALOUS",
    "Box",
    "NORMAL",
    "OTHERS",
    "Page",
    "STYLE",
    "anomaly_maps",
    "canvas",
    "caption",
    "choose",
    "compact",
    "compare",
    "described",
    "diagram",
    "differences",
    "feature_cloud",
    "grids",
    "heat_maps",
    "heatmaps",
    "intervals",
    "lines",
    "overlay",
    "sample_images",
    "save",
    "scale",
    "score_histograms",
    "speed_against_auroc",
    "speed_and_auroc",
    "sweep",
    "training_curves",
    "worst_cases",
    "worst_rows",
]
