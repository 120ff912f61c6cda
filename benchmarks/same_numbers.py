"""Did a change of the code change the numbers? Runs of one setting made before and after it, compared bit by bit.

    python benchmarks/same_numbers.py BEFORE AFTER      # two results folders

A pair is two runs of the same method, data set, category, seed and settings, as far as both records have them.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from safetensors.numpy import load_file
from turns import FOLDER, write

from adlib import runs

CONDITIONS = (
    "Scores, trained weights, history (without seconds) and every metric of run.json, equal in all bits or not. "
    "One CPU thread, one machine, the same library versions."
)


def pairs(before: runs.Runs, after: runs.Runs) -> list[tuple[runs.Run, runs.Run]]:
    """Runs of the same method, data, seed and settings; a field that only one of them has does not count."""
    return [(a, b) for a in before for b in after if _same(a.record, b.record)]


def _same(a: dict, b: dict) -> bool:
    keys = ("method", "dataset", "category", "seed", "data")
    shared = a["config"].keys() & b["config"].keys()
    return all(a[k] == b[k] for k in keys) and all(a["config"][k] == b["config"][k] for k in shared)


def compared(a: runs.Run, b: runs.Run) -> dict:
    """One row: what is equal, and the names of the metrics that are not."""
    weights = [load_file(run.path / "model.safetensors") for run in (a, b)]
    histories = [run.history.drop(columns="seconds") for run in (a, b)]
    metrics = [run.record["metrics"] for run in (a, b)]
    equal = {k: np.array_equal(v, metrics[1].get(k), equal_nan=True) for k, v in metrics[0].items()}
    differ = [name for name, same in equal.items() if not same]
    return {
        "run": f"{a.record['method']} {a.record['dataset']}/{a.record['category']} seed {a.record['seed']}",
        "setting": ", ".join(f"{k} {a.record['config'][k]}" for k in ("image_size", "epochs")),
        "scores": a.scores.equals(b.scores),
        "weights": weights[0].keys() == weights[1].keys()
        and all(np.array_equal(weights[0][k], weights[1][k]) for k in weights[0]),
        "history": histories[0].equals(histories[1]),
        "metrics that differ": ", ".join(differ) or "none",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("before", type=Path, help="results folder of the former code")
    parser.add_argument("after", type=Path, help="results folder of this code")
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder that receives same_numbers.md and .csv")
    parser.add_argument("--note", default="", help="sentence below the table: what was changed on purpose")
    options = parser.parse_args()
    rows = [compared(a, b) for a, b in pairs(runs.find(options.before), runs.find(options.after))]
    write(
        pd.DataFrame(rows),
        "The same numbers before and after",
        CONDITIONS,
        options.out,
        "same_numbers",
        f"\n{options.note}\n",
    )


if __name__ == "__main__":
    main()
