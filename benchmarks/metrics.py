"""Seconds and memory of all pixel metrics of one category, on one core, beside scikit-learn and anomalib.

    python benchmarks/metrics.py    # 83 maps of 256 x 256 and of 512 x 512; writes results/reference/benchmarks/
    python benchmarks/metrics.py --sides 256 --no-anomalib

Every row of one side comes from the same process and the same maps. Goals: < 1 s at 256, < 4 s at 512.
"""

# ruff: noqa: E402
import os

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_variable] = "1"  # one thread, and it has to be said before NumPy loads

import argparse
import time
import tracemalloc
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.ndimage import gaussian_filter

from adlib import metrics

ANOMALIB_HINT = (
    "anomalib not installed: pip install --no-deps --target DIR -r benchmarks/requirements.txt, then set PYTHONPATH=DIR"
)
GOALS = {256: 1.0, 512: 4.0}  # seconds for all metrics together
FOLDER = Path(__file__).resolve().parent.parent / "results" / "reference" / "benchmarks"


def simulate(side: int, n: int = 83, n_anomalous: int = 63, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Counts of mvtec_ad's bottle: masks bool and smooth maps float32 in 0..1, [n,side,side]; blobs on 0.5 to 10 %."""
    rng = np.random.default_rng(seed)
    masks, maps = np.zeros((n, side, side), bool), np.empty((n, side, side), np.float32)
    for i in range(n):
        field = gaussian_filter(rng.standard_normal((side, side), dtype=np.float32), side / 64)
        maps[i] = field / field.std()
        if i < n_anomalous:
            blobs = gaussian_filter(rng.standard_normal((side, side), dtype=np.float32), side / 24)
            masks[i] = blobs > np.quantile(blobs, 1 - rng.uniform(0.005, 0.1))
            maps[i] += rng.uniform(1, 5) * gaussian_filter(masks[i].astype(np.float32), side / 80)
    return masks, (maps - maps.min()) / np.ptp(maps)


def ours(masks, maps) -> dict[str, float]:
    return metrics.pixel_metrics(masks, maps)


def streaming(masks, maps) -> dict[str, float]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its bounds stand in the table's source, not in the timing
        return metrics.PixelMetrics().update(masks, maps).compute()


def sklearn_pair(masks, maps) -> dict[str, float]:
    from sklearn.metrics import average_precision_score, roc_auc_score

    truth, scores = masks.ravel(), maps.ravel()
    return {"pixel_auroc": roc_auc_score(truth, scores), "pixel_ap": average_precision_score(truth, scores)}


def anomalib_aupro(masks, maps) -> dict[str, float]:
    import torch
    from anomalib.metrics.aupro import _AUPRO

    torch.set_num_threads(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        metric = _AUPRO(fpr_limit=0.3)
        metric.update(torch.from_numpy(maps), torch.from_numpy(masks).long())
        return {"aupro@0.3": float(metric.compute())}


def available(name: str) -> bool:
    """Whether the rival can be imported; a sentence on how to get it if not."""
    try:
        warnings.simplefilter("ignore")
        __import__(name)
        return True
    except ImportError as error:
        print(f"{ANOMALIB_HINT} ({error})")
        return False


def measure(call: Callable, masks, maps, repeats: int) -> tuple[float, float, dict[str, float]]:
    """Median seconds, peak MB allocated above the inputs (in a run of its own: tracing costs time), values."""
    call(masks[[0, -1]], maps[[0, -1]])  # imports and first calls are nobody's seconds
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        values = call(masks, maps)
        seconds.append(time.perf_counter() - start)
    if call is anomalib_aupro:
        return float(np.median(seconds)), float("nan"), values  # torch's allocations are not seen by tracemalloc
    tracemalloc.start()
    call(masks, maps)
    peak = tracemalloc.get_traced_memory()[1] / 1e6
    tracemalloc.stop()
    return float(np.median(seconds)), peak, values


def rows(side: int, repeats: int, rivals: list[tuple[str, Callable]]) -> list[dict]:
    """One row per code at this side; `ratio` = its seconds / ours."""
    masks, maps = simulate(side)
    table = []
    systems = [("adlib, all metrics", ours), ("adlib, streaming (20 bits)", streaming), *rivals]
    for name, call in systems:
        seconds, peak, values = measure(call, masks, maps, repeats if call in (ours, streaming) else 1)
        row = {"side": side, "pixels": masks.size, "anomalous": masks.mean(), "code": name, "seconds": seconds}
        row |= {"peak_mb": peak, "goal_s": GOALS.get(side) if call is ours else None}
        row |= {name: values.get(name) for name in ("pixel_auroc", "pixel_ap", "aupro@0.3")}
        table.append(row)
        print(f"{side} px  {name:32s} {seconds:8.2f} s  {peak:8.0f} MB", flush=True)
    return [row | {"ratio": row["seconds"] / table[0]["seconds"]} for row in table]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sides", type=int, nargs="+", default=[256, 512], help="pixels per side of the 83 maps")
    parser.add_argument("--repeats", type=int, default=5, help="timed runs of ours; the median is reported")
    parser.add_argument("--no-anomalib", action="store_true", help="leave anomalib out (minutes at 512)")
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder that receives metrics.md and metrics.csv")
    options = parser.parse_args()
    rivals = [("scikit-learn, AUROC + AP", sklearn_pair)]
    if not options.no_anomalib and available("anomalib.metrics.aupro"):
        rivals.append(("anomalib, AUPRO", anomalib_aupro))
    load = os.getloadavg()[0]
    table = pd.DataFrame([row for side in options.sides for row in rows(side, options.repeats, rivals)])
    options.out.mkdir(parents=True, exist_ok=True)
    table.to_csv(options.out / "metrics.csv", index=False, float_format="%.6g")
    (options.out / "metrics.md").write_text(report(table, load))
    print(report(table, load))


def report(table: pd.DataFrame, load: float) -> str:
    """The table with the conditions it was measured under."""
    forms = {"seconds": ".2f", "goal_s": ".0f", "ratio": ".1f", "peak_mb": ".0f"}
    forms |= dict.fromkeys(("pixel_auroc", "pixel_ap", "aupro@0.3"), ".6f")
    shown = table[["side", "code"]].copy()
    for name, form in forms.items():
        shown[name] = ["-" if pd.isna(value) else format(value, form) for value in table[name]]
    conditions = (
        f"83 maps, 63 of them anomalous ({table.anomalous.mean():.1%} of the pixels), float32, one thread, "
        f"NumPy {np.__version__}, load average {load:.1f} before. seconds: median of ours, one run of others; "
        "ratio: seconds / ours in the same process; peak_mb: allocated above the inputs, where NumPy tells. "
        "Written by `python benchmarks/metrics.py`."
    )
    body = shown.to_markdown(index=False, disable_numparse=True)
    return f"# Speed of the pixel metrics\n\n{conditions}\n\n{body}\n"


if __name__ == "__main__":
    main()
