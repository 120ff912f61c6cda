"""Finished runs written by hand: whole folders with one pixel metric, whose value and interval are chosen."""

from pathlib import Path

import numpy as np
from fake_runs import PAPER_CONFIG

from adlib.runs import fingerprint, proof, run

WEIGHTS = {"name": "wide_resnet50_2", "file": "w.pth", "fingerprint": "aaaaaaaaaaaa"}


def write_run(
    root: Path,
    value: float = 0.98,
    half: float = 0.01,
    seed: int = 0,
    method: str = "simplenet",
    dataset: str = "mvtec_ad",
    category: str = "bottle",
    run_hash: str = "h",
    config: dict | None = None,
    weights: str = WEIGHTS["fingerprint"],
    data: dict | None = None,
    current: bool = True,
    **fields,
) -> Path:
    """The folder root/METHOD/DATASET/CATEGORY/HASH-sSEED, with pixel AUROC `value` and 95 % interval value +- half.

    data: {category: fingerprint} of all categories of a common model, default: of the one; fields: other ones of
    run.json, as they are.
    """
    data = data or {category: "images"}
    folder = root / method / dataset / category / f"{run_hash}-s{seed}"
    folder.mkdir(parents=True)
    rows = [f"{one},{k}.png,{k},,{k},{k}" for one in data for k in (0, 1)]
    (folder / "scores.csv").write_text("\n".join(["category,path,label,defect,score,decision", *rows]) + "\n")
    (folder / "history.csv").write_text("epoch\n1\n")
    draws = np.array([value - half] * 50 + [value + half] * 50)
    np.savez(folder / "replicates.npz", **{f"{one}/pixel_auroc": draws for one in data})
    of_category = {"metrics": {"pixel_auroc": value}, "threshold": {"tau": 0.5}, "pixel": {}, "notes": []}
    of_category["counts"] = {"normal": 1, "anomalous": 1}
    training = "per category" if len(data) == 1 else "together"
    record = {
        "method": method,
        "dataset": dataset,
        "category": category if len(data) == 1 else "together",
        "categories": list(data),
        "seed": seed,
        "hash": run_hash,
        "config": {**PAPER_CONFIG, **(config or {})},
        "paper_config": PAPER_CONFIG,
        "protocol": {"training": training, "image_size": 288, "select": "last"},
        "data": data,
        "weights": [WEIGHTS | {"fingerprint": weights}],
        "texture_bank": None,
        "metrics": of_category["metrics"],
        "per_category": dict.fromkeys(data, of_category),
        "seconds": {},
        "code": fingerprint.code_fingerprint(method) if current else "older",
        "machine": {},
    }
    proof.write(folder, record | fields)
    return folder


def run_of(root: Path, **chosen) -> run.Run:
    """The run that `write_run` writes."""
    return run.Run(write_run(root, **chosen))
