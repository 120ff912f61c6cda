"""What the benchmarks share: calls that take turns, and a table with the conditions it was measured under."""

import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from adlib.common import paths

FOLDER = paths.PROJECT / "results" / "reference" / "benchmarks"


def alternate(*calls, device: str, rounds: int) -> list[float]:
    """Median seconds of calls that take turns, so that another load of the machine meets all; one round warms up."""
    seconds = [[] for _ in calls]
    for _ in range(rounds + 1):
        for call, taken in zip(calls, seconds, strict=True):
            start = time.perf_counter()
            call()
            if device.startswith("cuda"):
                torch.cuda.synchronize()
            taken.append(time.perf_counter() - start)
    return [float(np.median(taken[1:])) for taken in seconds]


def write(table: pd.DataFrame, title: str, conditions: str, out: Path, stem: str, more: str = "") -> None:
    """The table as out/stem.csv and, with title and conditions, as out/stem.md, which is printed too."""
    out.mkdir(parents=True, exist_ok=True)
    table.to_csv(out / f"{stem}.csv", index=False, lineterminator="\n")
    text = f"# {title}\n\n{conditions}\n\n{table.to_markdown(index=False, floatfmt='.3g')}\n{more}"
    (out / f"{stem}.md").write_text(text, encoding="utf-8")
    print(text)
