"""Seconds that verification takes beside plain decoding of the same files, from a warm disk, on all cores.

    python benchmarks/data.py                 # every data set that is there; writes results/reference/benchmarks/
    python benchmarks/data.py mtd --repeats 9

The codes take turns, so that other load on the machine hits all of them alike. Goal: verification <= 1.5 x decoding.
"""

import argparse
import os
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import PIL
from PIL import Image

from adlib import data
from adlib.common.errors import UserError
from adlib.data.inspection import checks
from adlib.data.inspection.verify import verify

FOLDER = Path(__file__).resolve().parent.parent / "results" / "reference" / "benchmarks"
BASE = "decode, threads"


def decode(path: Path) -> None:
    with Image.open(path) as image:
        image.load()


def in_threads(work: Callable, files: list[Path]) -> None:
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(work, files))


def in_processes(work: Callable, files: list[Path]) -> None:
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(work, files, chunksize=32))


def files_of(dataset: str) -> list[Path]:
    """What `verify` decodes: all pictures that lie there, masks included."""
    root = data.DATASETS[dataset].place()
    return [path for path in checks.walk(root) if path.suffix.lower() in checks.ENDINGS]


def rows(dataset: str, repeats: int) -> list[dict]:
    """One row per code; `ratio` = its seconds / those of plain decoding in threads, medians of runs in turn."""
    files = files_of(dataset)
    codes = {
        BASE: lambda: in_threads(decode, files),
        "decode, one thread": lambda: [decode(path) for path in files],
        "decode and hash, threads": lambda: in_threads(checks.look, files),
        "decode and hash, processes": lambda: in_processes(checks.look, files),
        "verify": lambda: verify(dataset, progress=False),
    }
    codes["verify"]()  # fills the page cache
    seconds = {name: [] for name in codes}
    for _ in range(repeats):
        for name, code in codes.items():
            start = time.perf_counter()
            code()
            seconds[name].append(time.perf_counter() - start)
    base = np.median(seconds[BASE])
    size = sum(path.stat().st_size for path in files) / 1e6
    table = []
    for name, taken in seconds.items():
        median = float(np.median(taken))
        row = {"dataset": dataset, "files": len(files), "mb": size, "code": name, "seconds": median}
        table.append(row | {"files_per_s": len(files) / median, "ratio": median / base})
        print(f"{dataset:10s} {name:28s} {median:7.2f} s  {median / base:5.2f} x", flush=True)
    return table


def there() -> list[str]:
    """Data sets of which something lies on this machine."""
    names = []
    for name in data.datasets():
        try:
            verify(name, progress=False)
        except UserError:
            continue
        names.append(name)
    return names


def report(table: pd.DataFrame, repeats: int, load: float) -> str:
    """The table with the conditions it was measured under."""
    shown = table.copy()
    for name, form in {"mb": ".1f", "seconds": ".2f", "files_per_s": ".0f", "ratio": ".2f"}.items():
        shown[name] = [format(value, form) for value in table[name]]
    conditions = (
        f"{os.cpu_count()} cores, warm disk, Pillow {PIL.__version__}, load average {load:.1f} before; medians of "
        f"{repeats} runs in turn. ratio: seconds / plain decoding of the same files in as many threads as cores. "
        "Written by `python benchmarks/data.py`."
    )
    return f"# Speed of verification\n\n{conditions}\n\n{shown.to_markdown(index=False, disable_numparse=True)}\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("datasets", nargs="*", help="default: all that are there")
    parser.add_argument("--repeats", type=int, default=5, help="timed runs of each code; the median is reported")
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder that receives data.md and data.csv")
    options = parser.parse_args()
    load = os.getloadavg()[0]
    table = pd.DataFrame([row for name in options.datasets or there() for row in rows(name, options.repeats)])
    options.out.mkdir(parents=True, exist_ok=True)
    table.to_csv(options.out / "data.csv", index=False, float_format="%.6g")
    (options.out / "data.md").write_text(report(table, options.repeats, load))
    print(report(table, options.repeats, load))


if __name__ == "__main__":
    main()
