"""A stand-in for adlib.runs.Runs: what the reports read of it, and nothing more."""

from types import SimpleNamespace

import numpy as np
import pandas as pd

PAPER_CONFIG = {"image_size": 288, "resize_mode": "short_crop", "resize": 329, "epochs": 160, "holdback": 0.1}
PAPER_CONFIG |= {"backbone": "wide_resnet50_2.tv_in1k", "mask_rule": "nearest", "noise_std": 0.015}


def fake_runs(
    cells,
    method="simplenet",
    dataset="mvtec_ad",
    config=None,
    protocol=None,
    half=0.01,
    paper_config=None,
    run_hash="h",
    provenance=None,
):
    """Runs from {(category, metric): [value of seed 0, of seed 1, ...]} in 0..1; every interval is mean +- half."""
    paper_config = paper_config or PAPER_CONFIG
    rows, records = [], {}
    for (category, metric), values in cells.items():
        mean, n = float(np.mean(values)), len(values)
        sd = float(np.std(values, ddof=1)) if n > 1 else np.nan
        row = {
            "method": method,
            "dataset": dataset,
            "category": category,
            "metric": metric,
            "mean": mean,
            "sd": sd,
            "hash": run_hash,
        }
        row |= {"n_seeds": n, "n_images": 80, "low": mean - half, "high": mean + half, "interval_method": "bootstrap"}
        rows.append(row)
        for seed, value in enumerate(values):
            record = records.setdefault(
                (category, seed),
                {
                    "method": method,
                    "dataset": dataset,
                    "category": category,
                    "seed": seed,
                    "hash": run_hash,
                    "config": {**paper_config, **(config or {})},
                    "protocol": {"training": "per category", "select": "last", **(protocol or {})},
                    "metrics": {},
                    "paper_config": paper_config,
                },
            )
            record["metrics"][metric] = value
            if provenance:  # {category: text}: where its images came from
                facts = {"provenance": provenance.get(category), "metrics": record["metrics"]}
                record["per_category"] = {category: facts}
    return SimpleNamespace(metrics=pd.DataFrame(rows), runs=[SimpleNamespace(record=r) for r in records.values()])
