"""The one list of metric names, as they stand in run.json and in the papers' tables: labels, units, direction.

A name in run.json may carry a remark behind a blank: "image_f1_max (oracle)", "pixel_auroc (oracle best epoch)",
"pixel_ap (exact_one masks)". `label` keeps it.
"""

from dataclasses import dataclass

PERCENT = "%"  # values are 0..1 in code and files, percent in print; every other unit is printed as it is stored


@dataclass(frozen=True)
class Metric:
    """One metric: how tables and axes call it, and what its values mean."""

    long: str
    short: str
    unit: str = PERCENT
    higher_is_better: bool = True


METRICS = {
    "image_auroc": Metric("image AUROC", "I"),
    "image_ap": Metric("image AP", "I-AP"),
    "image_f1_max": Metric("image F1-max", "I-F1"),
    "precision@threshold": Metric("precision at the threshold", "precision"),
    "recall@threshold": Metric("recall at the threshold", "recall"),
    "fpr@threshold": Metric("FPR at the threshold", "FPR", higher_is_better=False),
    "f1@threshold": Metric("F1 at the threshold", "F1"),
    "mean_grey_auroc": Metric("mean grey AUROC (floor)", "floor"),
    "pixel_auroc": Metric("pixel AUROC", "P"),
    "pixel_ap": Metric("pixel AP", "AP"),
    "aupro@0.3": Metric("AUPRO (FPR <= 0.3)", "AUPRO"),
    "pixel_f1_max": Metric("pixel F1-max", "P-F1"),
    # names that only published tables use
    "aupro": Metric("AUPRO", "AUPRO"),
    "accuracy": Metric("accuracy", "accuracy"),
    "tpr": Metric("TPR", "TPR"),
    "tnr": Metric("TNR", "TNR"),
    "parameters_million": Metric("parameters", "parameters", "million", higher_is_better=False),
    "gmac": Metric("GMAC", "GMAC", "1e9 multiply-adds", higher_is_better=False),
    "seconds_per_image": Metric("seconds per image", "seconds", "s", higher_is_better=False),
    "frames_per_second": Metric("frames per second", "frames/s", "images / s"),
}

IMAGE_METRICS = ("image_auroc", "image_ap")
PIXEL_METRICS = ("pixel_auroc", "pixel_ap", "aupro@0.3", "pixel_f1_max (oracle)")
# measured a second time with the weights of the best epoch on the test set: an oracle, never judged
BEST_EPOCH_METRICS = (*IMAGE_METRICS, "pixel_auroc", "pixel_ap", "aupro@0.3")
BEST_EPOCH = "(oracle best epoch)"
# AUROC of the image's mean grey value: what no detector should fall below
FLOOR = "mean_grey_auroc"
SHOWN = ("image_auroc", "pixel_auroc", "pixel_ap", "aupro@0.3")  # the columns of most tables
# name in run.json -> name of `metrics.bootstrap_interval`: metrics whose interval comes from the image scores
RESAMPLED = {"image_auroc": "image_auroc", "image_ap": "average_precision"}
# name in a published table -> name in run.json, where they differ
MEASURED_AS = {"aupro": "aupro@0.3"}
PLAIN = tuple(name for name, metric in METRICS.items() if metric.unit != PERCENT)


def best_epoch(name: str) -> str:
    """Name of the same metric at the best epoch on the test set, an oracle."""
    return f"{name} {BEST_EPOCH}"


def label(name: str, short: bool = False) -> str:
    """A metric, or words around it, for readers: "ours pixel_ap" -> "ours pixel AP" (short: "ours AP")."""
    words = []
    for word in name.split(" "):
        metric = METRICS.get(word)
        if metric is not None:
            word = metric.short if short else metric.long
        words.append(word)
    return " ".join(words)


def axis_label(name: str) -> str:
    """Label of an axis with its unit: "image AUROC [%]"."""
    return f"{label(name)} [{METRICS[name].unit}]"
