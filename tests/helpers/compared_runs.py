"""Runs on six made images, as the comparison of systems reads them."""

from types import SimpleNamespace

import pandas as pd

PATHS = ["n0", "n1", "n2", "a0", "a1", "a2"]
LABELS = [0, 0, 0, 1, 1, 1]


def run_of(method, scores, seed=0, dataset="mvtec_ad", category="bottle", data="d", **fields):
    """A run on three normal and three anomalous images, as comparison reads it; above 0.5 is called anomalous."""
    table = pd.DataFrame({"path": PATHS, "label": LABELS, "score": scores, "category": category})
    table = table.assign(defect=["good"] * 3 + ["crack", "crack", "hole"], decision=(table.score > 0.5).astype(int))
    metrics = {"image_auroc": fields.pop("auroc", 0.9), "mean_grey_auroc": fields.pop("grey", 0.5)}
    facts = {"metrics": metrics, "counts": {"normal": 3, "anomalous": 3}}
    record = {"method": method, "dataset": dataset, "category": category, "seed": seed, "hash": method, "weights": []}
    record |= {
        "config": {"epochs": 5},
        "paper_config": {"epochs": 9},
        "data": {category: data},
        "seconds": {"train": 4},
    }
    record |= {"protocol": {"image_size": 64}, "per_category": {category: facts}}
    run = SimpleNamespace(record=record | fields, scores=table, replicates={}, maps=None, stale=False)
    return run


GOOD, FAIR = [0.1, 0.2, 0.3, 0.7, 0.8, 0.9], [0.1, 0.2, 0.6, 0.4, 0.8, 0.9]
