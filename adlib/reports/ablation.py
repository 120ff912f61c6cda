"""Ablations: one factor at a time against a base, on the same seeds and test images, so that differences are paired.

A result is {(factor, variant): Runs} with ("base", "") first. Differences are variant minus base; their 95 % intervals
resample the test images jointly for both (`metrics.paired_interval`; pixel metrics: the replicates of the run folders,
which draw the same images in every run on the same data). Source: specs/common 4.8.
"""

import numpy as np
import pandas as pd

from adlib import metrics, runs
from adlib.common.errors import UserError
from adlib.metrics.names import RESAMPLED, best_epoch
from adlib.reports import measured

BASE = ("base", "")


def variants(base: dict, grid: dict) -> dict[tuple[str, str], dict]:
    """{(factor, variant): config}, the base first; a value that is the base's own is left out.

    grid: {config field: [values]}, or {any name: [mappings of config fields]} where one step changes several fields.
    """
    configs = {BASE: dict(base)}
    for factor, values in grid.items():
        if not isinstance(values, list | tuple) or not values:
            raise UserError(f"grid entry {factor!r} is {values!r}; it must be a list of values or of mappings")
        for value in values:
            change = value if isinstance(value, dict) else {factor: value}
            if any(base.get(k, object()) != v for k, v in change.items()):
                name = ", ".join(f"{k}={v}" for k, v in change.items() if v is not None)
                configs[factor, name] = base | change
    return configs


def reproduce(method, dataset, categories, seeds, base: dict, grid: dict, device: str = "auto") -> dict:
    """Train or load the base and every variant: {(factor, variant): Runs}. Raises UserError before any training."""
    plans = variants(base, grid)
    for config in plans.values():
        runs.plans(method, dataset, categories, seeds, config)
    results, seen = {}, set()
    for key, config in plans.items():
        done = runs.reproduce(method, dataset, categories, seeds, config, device)
        identity = tuple(run.record["hash"] for run in done)
        if identity not in seen:  # a default spelt out is the base again
            results[key] = done
            seen.add(identity)
    return results


def differences(results: dict, names: tuple[str, ...] = ("image_auroc", "pixel_auroc")) -> pd.DataFrame:
    """One row per variant and metric: factor, variant, metric, base, value, difference, low, high, n_seeds, reading.

    `attrs["notes"]`: where the data came from, if they are no originals.
    """
    rows = []
    for (factor, variant), other in results.items():
        if (factor, variant) == BASE:
            continue
        for name in names:
            numbers = paired(results[BASE], other, name)
            if numbers is not None:
                row = {"factor": factor, "variant": variant, "metric": name} | numbers
                rows.append(row | {"reading": reading(numbers["low"], numbers["high"])})
    table = pd.DataFrame(rows)
    table.attrs["notes"] = measured.provenance([run.record for part in results.values() for run in part])
    return table


def reading(low: float, high: float) -> str:
    """What a paired 95 % interval of (variant - base) allows to say: better, worse, or that no difference is shown."""
    if np.isnan([low, high]).any():
        return "no interval"
    if low > 0:
        return "better"
    return "worse" if high < 0 else "no difference shown"


def paired(base, other, metric: str = "image_auroc") -> dict | None:
    """base, value, difference (other - base, mean over categories, seeds) with interval; None if not measured.

    Raises UserError where the two were not run on the same images and seeds.
    """
    a, b = measured.by_category(other), measured.by_category(base)
    seeds = {c: [r.record["seed"] for r in part] for c, part in b.items()}
    if {c: [r.record["seed"] for r in part] for c, part in a.items()} != seeds:
        raise UserError(f"a paired difference needs the same categories and seeds; the base has {seeds}")
    means = [np.mean([_value(r, c, metric) for c, part in side.items() for r in part]) for side in (b, a)]
    if np.isnan(means).any():
        return None
    if metric in RESAMPLED:
        low, high = _image_interval(a, b, RESAMPLED[metric])
    else:
        low, high = _pixel_interval(a, b, metric)
    values = {"base": means[0], "value": means[1], "difference": means[1] - means[0]}
    return values | {"low": low, "high": high, "n_seeds": len(next(iter(seeds.values())))}


def oracle_gap(finished) -> pd.DataFrame:
    """Last epoch against the best epoch on the test set (an oracle), per category: what selection on test labels adds.

    Columns: last, oracle, difference (means over seeds, 0..1), epochs (the chosen ones). Empty where no epoch but the
    last was looked at (config eval_every 0).
    """
    rows, names = [], ("image_auroc", best_epoch("image_auroc"))
    for category, part in measured.by_category(finished).items():
        last, best = (np.mean([_value(r, category, name) for r in part]) for name in names)
        chosen = ", ".join(str(r.record["oracle_epoch"]) for r in part)
        if not np.isnan(best):
            rows.append(
                {"category": category, "last": last, "oracle": best, "difference": best - last, "epochs": chosen}
            )
    table = pd.DataFrame(rows, columns=["category", "last", "oracle", "difference", "epochs"])
    table.attrs["notes"] = measured.provenance([run.record for run in finished])
    return table


def _value(run, category: str, metric: str) -> float:
    return run.record["per_category"][category]["metrics"].get(metric, np.nan)


def _stacked(runs_of: list, category: str) -> tuple[list[str], np.ndarray, np.ndarray]:
    """(paths, labels [N], scores [seeds, N]) of one category, in the order of the paths."""
    tables = [r.scores[r.scores.category == category].sort_values("path") for r in runs_of]
    return list(tables[0].path), tables[0].label.to_numpy(), np.stack([t.score.to_numpy() for t in tables])


def _image_interval(a: dict, b: dict, metric: str) -> tuple[float, float]:
    left, right = ([_stacked(part, c) for c, part in side.items()] for side in (a, b))
    if [x[0] for x in left] != [x[0] for x in right]:
        raise UserError("a paired difference needs the same test images; these runs were scored on different ones")
    low, high = metrics.paired_interval([x[1] for x in left], [x[2] for x in left], [x[2] for x in right], metric)
    return low, high


def _pixel_interval(a: dict, b: dict, metric: str) -> tuple[float, float]:
    try:
        draws = [
            np.mean([r.replicates[f"{c}/{metric}"] for r in a[c]], axis=0)
            - np.mean([r.replicates[f"{c}/{metric}"] for r in b[c]], axis=0)
            for c in a
        ]
    except KeyError:  # no replicates: streamed metrics of very large sets
        return np.nan, np.nan
    low, high = np.nanpercentile(np.mean(draws, axis=0), [2.5, 97.5])
    return float(low), float(high)
