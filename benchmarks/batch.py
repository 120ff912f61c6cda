"""Seconds to expand, plan and check a batch of many different settings, and what 100,000 runs would take.

    python benchmarks/batch.py                    # 100 and 1,000 settings; writes results/reference/benchmarks/
    python benchmarks/batch.py --items 20 100     # fewer

Every setting is another one (a grid over noise_std), on one embedded category; nothing is trained. WRN-50 has random
weights, so that no download is needed. Goal: 1,000 settings of WRN-50 expanded in less than 30 s.
"""

import argparse
import contextlib
import io
import itertools
import os
import tempfile
import time
from pathlib import Path

import pandas as pd
import yaml

from adlib import batch, data
from adlib.batch import engine
from adlib.common.files import written_whole

FOLDER = Path(__file__).resolve().parent.parent / "results" / "reference" / "benchmarks"
GOAL = 30.0  # seconds for the expansion of 1,000 settings of WRN-50
PAPER_RUNS = 100_000
NETWORKS = {
    "tf_efficientnet_lite0": {"backbone": "tf_efficientnet_lite0"},
    "wide_resnet50_2, random": {"backbone": "wide_resnet50_2.tv_in1k", "pretrained": False},
}


_numbers = itertools.count()  # no setting comes twice in this process, where it would be remembered


def batch_file(folder: Path, config: dict, count: int) -> Path:
    """One entry whose grid has `count` settings that are new to this process, and one report over all of them."""
    grid = {"noise_std": [round(0.001 + 0.00001 * next(_numbers), 6) for _ in range(count)]}
    entry = {"method": "simplenet", "dataset": "textures", "categories": ["brick"], "device": "cpu"}
    path = folder / f"grid{count}.yml"
    path.write_text(yaml.safe_dump([entry | {"config": config, "grid": grid}, {"notebook": "03_simplenet"}]))
    return path


def measure(name: str, config: dict, count: int, folder: Path) -> list[dict]:
    """A row for each step, in the order of a batch's start."""
    path, seconds = batch_file(folder, config, count), {}
    start = time.perf_counter()
    work, reports = batch.expand(path)
    seconds["expand"] = time.perf_counter() - start
    assert len({item.name for item in work}) == count

    start = time.perf_counter()
    engine.write_plan(path, work, reports, cluster=False)
    seconds["write plan"] = time.perf_counter() - start

    start = time.perf_counter()
    for item in [*work, *reports]:
        item.clear()
    seconds["clear old ends"] = time.perf_counter() - start

    start = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        assert batch.main(batch_file(folder, config, count), dry_run=True) == 0
    seconds["dry run"] = time.perf_counter() - start
    for step, value in seconds.items():
        print(f"{name:26s} {count:6d} items  {step:16s} {value:8.2f} s", flush=True)
    return [{"network": name, "items": count, "step": step, "seconds": value} for step, value in seconds.items()]


def extrapolated(table: pd.DataFrame) -> pd.DataFrame:
    """One row per network and step: seconds at each count, the slope between the second and the last, and what that
    slope gives for 100,000 runs. No batch was that large: it is arithmetic on the slope.
    """
    wide = table.pivot(index=["network", "step"], columns="items", values="seconds")
    few, many = sorted(wide.columns)[1], max(wide.columns)
    slope = (wide[many] - wide[few]) / (many - few)
    wide = wide.rename(columns=lambda count: f"{count} items, s")
    return wide.assign(**{"ms per item": 1000 * slope, f"{PAPER_RUNS:,} on paper, min": slope * PAPER_RUNS / 60})


def report(table: pd.DataFrame, load: float) -> str:
    """The table with the conditions it was measured under."""
    body = extrapolated(table).reset_index().to_markdown(index=False, floatfmt=".2f")
    return (
        "# Speed of a batch's start\n\n"
        "Different settings of SimpleNet on one embedded category, nothing trained, load average "
        f"{load:.1f} before. One item, the first of its network, pays for imports and for reading the weights. ms per "
        f"item: slope between the second and the last count; on paper: that slope times {PAPER_RUNS:,}, not measured. "
        f"A dry run expands settings of its own. Goal: {GOAL:.0f} s for the expansion of 1,000 settings of WRN-50. "
        f"Written by `python benchmarks/batch.py`.\n\n{body}\n"
    )


def main() -> None:
    """Measure, print and write batch.csv and batch.md."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, nargs="+", default=[100, 1000], help="settings; at least two counts")
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder that receives batch.md and batch.csv")
    options = parser.parse_args()
    load, rows = os.getloadavg()[0], []
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["ADLIB_RESULTS"], os.environ["ADLIB_CACHE"] = f"{scratch}/results", f"{scratch}/cache"
        data.load("textures", "brick")  # makes the pictures, which is nobody's second
        for name, config in NETWORKS.items():
            start = time.perf_counter()
            batch.expand(batch_file(Path(scratch), config, 1))
            rows.append({"network": name, "items": 1, "step": "expand", "seconds": time.perf_counter() - start})
            for count in options.items:
                rows += measure(name, config, count, Path(scratch))
    table = pd.DataFrame(rows)
    with written_whole(options.out / "batch.csv") as path:
        table.to_csv(path, index=False, float_format="%.6g")
    with written_whole(options.out / "batch.md") as path:
        path.write_text(report(table, load))
    print(report(table, load))


if __name__ == "__main__":
    main()
