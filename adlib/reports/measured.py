"""Finished runs as the numbers of a table: settings kept apart, one value per cell, averages over categories.

A `runs` argument is any object with
    .metrics  DataFrame, one row per (method, dataset, category, metric), with the columns
              mean, sd, n_seeds, n_images, low, high, interval_method and, where settings are mixed, hash
    .runs     objects whose .record is the content of run.json
`settings` turns it into a list that all functions accept, so that its metrics are read once per call.
"""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from adlib.data import plain
from adlib.metrics.intervals import CEILING

TEXTURES = ("carpet", "grid", "leather", "tile", "wood")
AVERAGES = ("average", "avg_textures", "avg_objects")


@dataclass
class Setting:
    """Runs of one method on one data set with one configuration: rows of the metrics and the records behind them."""

    method: str
    dataset: str
    metrics: pd.DataFrame
    records: list[dict]

    def of(self, category: str) -> list[dict]:
        """The records with this category's part alone."""
        having = [r for r in self.records if category in (r.get("per_category") or {})]
        return [r | {"per_category": {category: r["per_category"][category]}} for r in having]

    @property
    def departures(self) -> int:
        """Number of configuration fields that are not the paper's."""
        paper = self.records[0].get("paper_config") or {}
        return sum(v != paper[k] for k, v in (self.records[0].get("config") or {}).items() if k in paper)


def belongs(category: str, average: str) -> bool:
    """Whether a category of MVTec AD is part of avg_textures, avg_objects or average."""
    return average == "average" or (category in TEXTURES) == (average == "avg_textures")


def _values(record: dict) -> dict[str, dict]:
    """{category: {metric: value}}; a model of all categories together has several."""
    if "per_category" in record:
        return {c: facts["metrics"] for c, facts in record["per_category"].items()}
    return {record["category"]: record["metrics"]}


def settings(runs) -> list[Setting]:
    """The settings in the runs, nearest to the paper's first. Altered data or other weights make another setting."""
    if isinstance(runs, list):
        return runs
    metrics = None if runs is None else runs.metrics
    if metrics is None or not len(metrics):
        return []
    groups: dict[tuple, list[dict]] = {}
    hashes: dict[tuple, list] = {}
    for record in (run.record for run in runs.runs):
        choices = [record.get("config"), (record.get("protocol") or {}).get("training")]
        key = (record["method"], record["dataset"], json.dumps(choices, sort_keys=True, default=str))
        known = hashes.setdefault((*key, record["category"]), [])
        if record.get("hash") not in known:
            known.append(record.get("hash"))
        groups.setdefault((*key, known.index(record.get("hash"))), []).append(record)
    every = [_setting(*key[:2], metrics, records) for key, records in groups.items()]
    return sorted(every, key=lambda s: (s.method, s.dataset, s.departures))


def _setting(method: str, dataset: str, metrics: pd.DataFrame, records: list[dict]) -> Setting:
    rows = metrics[(metrics["method"] == method) & (metrics["dataset"] == dataset)]
    if "hash" in rows:
        rows = rows[rows["hash"].isin([r.get("hash") for r in records])]
    return Setting(method, dataset, rows[~rows["category"].isin(AVERAGES)], records)


def provenance(records: list[dict]) -> list[str]:
    """Sentences on where the images came from, for data that carry a provenance (rescaled copies, say)."""
    return sentences(records, lambda facts: [facts.get("provenance")])


def sentences(records: list[dict], texts: Callable[[dict], list[str | None]]) -> list[str]:
    """One sentence per data set and text, with the categories it is true of: "mvtec_ad (bottle, screw): rescaled ...".

    texts: gives a category's texts from its entry in run.json; empty ones are left out.
    """
    places: dict[tuple[str, str], list[str]] = {}
    for record in records:
        for category, facts in (record.get("per_category") or {}).items():
            for text in filter(None, texts(facts)):
                categories = places.setdefault((record["dataset"], text), [])
                if category not in categories:
                    categories.append(category)
    return [f"{dataset} ({', '.join(sorted(c))}): {text}" for (dataset, text), c in places.items()]


def weights(record: dict) -> list[dict]:
    """Frozen or starting networks of a run: name, file, fingerprint of each. Older records have one mapping or null."""
    recorded = record.get("weights") or []
    return [recorded] if isinstance(recorded, dict) else list(recorded)


def stale(runs: Iterable, which: str = "") -> list[str]:
    """One sentence that names the runs whose code has changed since, with their seeds; none where there are none."""
    seeds: dict[str, list[int]] = {}
    for run in runs:
        if run.stale:
            place = f"{run.record['method']} {run.record['dataset']} {run.record['category']} {run.record['hash']}"
            seeds.setdefault(place, []).append(run.record["seed"])
    listed = [f"{place} (seed {', '.join(map(str, sorted(numbers)))})" for place, numbers in seeds.items()]
    return [f"{which}stale, made by older code: {'; '.join(listed)}."] if listed else []


def cell(runs, method: str | None, dataset: str, category: str, metric: str) -> dict | None:
    """One cell from the first setting that has it, or None: mean, sd, n_seeds, n_images, low, high (0..1),
    interval_method, n_categories, records.

    An average is the unweighted mean over the categories that were run, with the sd over seeds of the per-seed average
    (specs/common 4.8). "all" is the only category of a data set without categories.
    """
    for setting in settings(runs):
        if (setting.method, setting.dataset) == (method, dataset):
            numbers = _cell(setting, category, metric)
            if numbers:
                return numbers
    return None


def _cell(setting: Setting, category: str, metric: str) -> dict | None:
    rows = setting.metrics[(setting.metrics["metric"] == metric) & setting.metrics["mean"].notna()]
    rows = rows.set_axis([plain(c) for c in rows["category"]])
    if category in AVERAGES:
        rows = rows[[belongs(c, category) for c in rows["category"]]]
        return None if rows.empty else _average(setting, rows, metric)
    name = rows.index[0] if category == "all" and len(rows) == 1 else plain(category)
    if name not in rows.index:
        return None
    numbers = rows.loc[name, ["mean", "sd", "n_seeds", "n_images", "low", "high", "interval_method"]].to_dict()
    return {**numbers, "n_categories": 1, "records": _records(setting, {name})}


def _records(setting: Setting, names: set[str]) -> list[dict]:
    return [r for r in setting.records if names & {plain(c) for c in _values(r)}]


def _average(setting: Setting, rows: pd.DataFrame, metric: str) -> dict:
    names = set(rows.index)
    per_seed: dict[int, dict[str, float]] = {}
    for record in setting.records:
        for category, values in _values(record).items():
            if plain(category) in names and values.get(metric) is not None:
                per_seed.setdefault(record["seed"], {})[plain(category)] = values[metric]
    means = [np.mean(list(v.values())) for v in per_seed.values() if set(v) == names]
    low, high = _mover(rows)
    return {
        "mean": float(rows["mean"].mean()),
        "sd": float(np.std(means, ddof=1)) if len(means) > 1 else np.nan,
        "n_seeds": len(means) or int(rows["n_seeds"].min()),
        "n_images": int(rows["n_images"].sum()),
        "low": low,
        "high": high,
        "interval_method": "mover of " + "+".join(sorted(set(rows["interval_method"].astype(str)))),
        "n_categories": len(rows),
        "records": _records(setting, names),
    }


def _mover(rows: pd.DataFrame) -> tuple[float, float]:
    """95 % interval of a mean of independent estimates from their own intervals (MOVER: Zou and Donner 2008)."""
    mean = float(rows["mean"].mean())
    low = np.sqrt(((rows["mean"] - rows["low"]) ** 2).sum(skipna=False)) / len(rows)
    high = np.sqrt(((rows["high"] - rows["mean"]) ** 2).sum(skipna=False)) / len(rows)
    return mean - float(low), mean + float(high)


def by_category(finished) -> dict[str, list]:
    """{category: its runs, by seed}, sorted."""
    out: dict[str, list] = {}
    for run in sorted(finished, key=lambda r: r.record["seed"]):
        for category in run.record["per_category"]:
            out.setdefault(category, []).append(run)
    return dict(sorted(out.items()))


def interval_words(methods) -> str:
    """How 95 % intervals over test images were made, for captions: from the column interval_method of the metrics.

    Above `metrics.intervals.CEILING` an AUROC has a score interval, since the bootstrap is too narrow there.
    """
    known = {part for text in methods for part in str(text).removeprefix("mover of ").split("+")}
    words = {"bootstrap": "bootstrap over test images", "score": f"score interval from {100 * CEILING:.0f} % on"}
    said = [text for name, text in words.items() if name in known]
    return f"95 % interval ({', '.join(said)})" if said else "95 % interval, where one is defined"
