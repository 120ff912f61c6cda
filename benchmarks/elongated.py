"""SimpleNet on elongated pictures: padded and in tiles against squashed.

    python benchmarks/elongated.py

Two sets. Cracks: made-up surfaces of 200 x 500 pixels with nearly level cracks two pixels thick, with masks. Cells: two
solar cells of elpv side by side, 300 x 600, anomalous where one of them is; no masks. One grid for all pixel numbers:
the longer side has 320 pixels. Tiles show each picture at several times the pixels of one input of the same side, so
squashed and padded inputs of twice the side stand beside them. The settings were written down before the first run and
none is chosen by its numbers. The cracks are fainter than in that run (30 grey levels instead of 55, where the noise
has a deviation of 10): there every setting reached 99.7 to 100 image AUROC, which tells none from another.
"""

import argparse
import os
import sys
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from turns import FOLDER, write

import adlib
from adlib import data, images
from adlib.common import paths

sys.path.append(str(paths.PROJECT / "tests" / "helpers"))
import made

BASE = {"backbone": "tf_efficientnet_lite0", "noise_relative": 0.5, "epochs": 20, "eval_every": 0, "metric_size": 320}
SETTINGS = {
    "squash, 128 px": {"image_size": 128, "resize_mode": "squash", "resize": None},
    "pad, 128 px": {"image_size": 128, "resize_mode": "pad", "resize": None},
    "tiles of 128 px": {"image_size": 128, "resize_mode": "tiles", "resize": None},
    "squash, 256 px": {"image_size": 256, "resize_mode": "squash", "resize": None},
    "pad, 256 px": {"image_size": 256, "resize_mode": "pad", "resize": None},
}
DEPTH = 30  # grey levels by which a crack is darker
TRAIN, TEST = 60, 39  # pictures; test pictures of each kind
METRICS = ("image_auroc", "pixel_auroc", "pixel_ap")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder that receives elongated.md and .csv")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for name in ("data", "results", "cache"):
            os.environ[f"ADLIB_{name.upper()}"] = str(Path(folder) / name)
        cells = partial(side_by_side, elpv_cells())
        counts = {"train": TRAIN, "normal": TEST, "anomalous": TEST}
        made.folder_dataset(
            Path(folder) / "data",
            category="cracks",
            draw=partial(made.elongated, shape=(200, 500), depth=DEPTH),
            **counts,
        )
        made.folder_dataset(Path(folder) / "data", category="cells", draw=cells, **counts)
        for mask in (Path(folder) / "data" / "folder" / "cells" / "masks").rglob("*.png"):
            mask.unlink()  # elpv says which cell is defective, not where
        rows = [row for category in ("cracks", "cells") for row in measured(category, args.seeds)]
    threads, load = torch.get_num_threads(), os.getloadavg()[0]
    seeds = ", ".join(map(str, args.seeds))
    conditions = (
        f"{BASE['backbone']}, {BASE['epochs']} epochs, noise_relative {BASE['noise_relative']}, seeds {seeds}; of each "
        f"set {TRAIN} normal training pictures, {TEST} normal and {TEST} anomalous test pictures; CPU, {threads} "
        f"threads, load average {load:.1f}. Percent, mean and standard deviation over the seeds; seconds: first seed, "
        f"all stages, nothing cached. cracks: 200 x 500 pixels, made up, cracks {DEPTH} grey levels darker than a "
        "surface whose noise has a deviation of 10 (at 55, in a first run, every setting reached 99.7 to 100 image "
        "AUROC); cells: two elpv cells, 300 x 600, without masks. No setting of the network is chosen by these "
        "numbers. Written by `python benchmarks/elongated.py`."
    )
    write(pd.DataFrame(rows), "SimpleNet on elongated pictures", conditions, args.out, "elongated")


def measured(category: str, seeds: list[int]) -> list[dict]:
    """A row per setting."""
    rows = []
    for name, setting in SETTINGS.items():
        runs = adlib.reproduce("simplenet", "folder", [category], seeds, BASE | setting, "cpu")
        values = runs.per_seed.groupby("metric").value
        row = {"set": category, "input": name}
        for metric in METRICS:
            known = values.get_group(metric) if metric in values.groups else pd.Series(dtype=float)
            row[metric] = f"{100 * known.mean():.1f} ± {100 * known.std(ddof=1):.1f}" if len(known) else "-"
        rows.append(row | {"seconds": round(sum(runs.runs[0].record["seconds"].values()))})
        print(rows[-1], flush=True)
    return rows


def elpv_cells() -> dict[str, list[str]]:
    """Files of mono cells: normal ones that train, normal ones of the test, defective ones; each in a fixed order."""
    table, rng = data.load("elpv", "mono"), np.random.default_rng(0)
    kinds = {
        "train": table[table.split == "train"],
        "normal": table[(table.split == "test") & (table.label == 0)],
        "defective": table[table.label == 1],
    }
    return {kind: list(rng.permutation(chosen.path)) for kind, chosen in kinds.items()}


def side_by_side(cells: dict[str, list[str]], number: int, defect: bool) -> tuple[np.ndarray, np.ndarray]:
    """Picture `number` of two cells, uint8 [300,600,3], and an empty mask; no cell is in two pictures."""
    if number < TRAIN:
        pair = cells["train"][2 * number : 2 * number + 2]
    elif not defect:
        pair = cells["normal"][2 * (number - TRAIN) :][:2]
    else:
        k = number - TRAIN - TEST
        pair = [cells["defective"][k], cells["normal"][2 * TEST + k]]
        pair = pair[:: 1 if k % 2 else -1]
    both = np.concatenate([images.decode(path) for path in pair], axis=1)
    return both, np.zeros(both.shape[:2], np.uint8)


if __name__ == "__main__":
    main()
