"""Image and pixel metrics, thresholds from normal images, intervals: values in 0..1, higher score = more anomalous."""

from adlib.metrics.exact import (
    aupro,
    average_precision,
    decisions,
    f1_max,
    image_auroc,
    pixel_auroc,
    pixel_average_precision,
    pixel_metrics,
    threshold,
)
from adlib.metrics.intervals import (
    Interval,
    bootstrap_interval,
    image_replicates,
    paired_interval,
    pixel_replicates,
    score_interval,
)
from adlib.metrics.streaming import PixelMetrics

__all__ = [
    "Interval",
    "PixelMetrics",
    "aupro",
    "average_precision",
    "bootstrap_interval",
    "decisions",
    "f1_max",
    "image_auroc",
    "image_replicates",
    "paired_interval",
    "pixel_auroc",
    "pixel_average_precision",
    "pixel_metrics",
    "pixel_replicates",
    "score_interval",
    "threshold",
]
