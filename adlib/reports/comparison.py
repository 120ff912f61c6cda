"""Many systems on the same test images: their numbers, ranks that say what the images can tell apart, what is missing.

Runs stand side by side only where their test images are the same, by the content of data and split. Each group of
equal images is a table of its own. What a system sees (side, weights) differs by nature and stands beside its numbers;
ranks are given among all systems and among those with equal input. Of a system's settings one is shown: see `chosen`.
"""

import functools
import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from adlib import metrics
from adlib.data import mixtures
from adlib.metrics.intervals import TAILS
from adlib.metrics.names import FLOOR, RESAMPLED, SHOWN, label
from adlib.reports import measured, published, systems, verdict
from adlib.runs.run import Runs

SOLVED = 0.9  # image AUROC of a floor from which on a category counts as solved by it


@dataclass(frozen=True)
class Contender:
    """One system in one setting on one category: its finished runs, a seed each. category: as the runs spell it."""

    method: str
    category: str
    runs: tuple

    @property
    def name(self) -> str:
        """As the papers print it."""
        return systems.bare_name(self.method)

    @property
    def record(self) -> dict:
        """That of the first seed's run."""
        return self.runs[0].record

    @property
    def side(self) -> int:
        """Pixels per side of the network's input."""
        return self.record["protocol"]["image_size"]

    @property
    def weights(self) -> str:
        """The pretrained networks it uses."""
        return ", ".join(w["name"] for w in measured.weights(self.record)) or "none"

    @property
    def grid(self) -> tuple:
        """Pixels per side of the grid of its pixel metrics, and the rule that brings masks to it."""
        return self.record["protocol"].get("metric_size"), self.record["protocol"].get("mask_rule")

    @property
    def stale(self) -> bool:
        """Whether the code of any of its runs has changed since."""
        return any(run.stale for run in self.runs)

    @functools.cached_property
    def numbers(self) -> pd.DataFrame:
        """Rows of `Runs.metrics` of this category, by metric."""
        table = Runs(list(self.runs)).metrics
        return table[table.category == self.category].set_index("metric")

    def draws(self, metric: str) -> np.ndarray | None:
        """Bootstrap draws [2000] of a metric, mean over seeds; None where it is not defined. Equal images are paired
        with those of another contender.
        """
        if metric not in self.numbers.index or np.isnan(self.numbers.loc[metric, "mean"]):
            return None
        if metric in RESAMPLED:
            parts = [run.scores[run.scores.category == self.category].sort_values("path") for run in self.runs]
            scores = np.stack([part.score.to_numpy() for part in parts])
            return metrics.image_replicates(parts[0].label.to_numpy(), scores, RESAMPLED[metric])
        known = [run.replicates.get(f"{self.category}/{metric}") for run in self.runs]
        return None if any(draw is None for draw in known) else np.mean(known, axis=0)


def place_of(record: dict, category: str) -> tuple[str, str]:
    """(data set, category) of a part of a run, whether it was a part of a mixture or not."""
    return tuple(category.split(":", 1)) if mixtures.is_mixture(record["dataset"]) else (record["dataset"], category)


def groups(runs, dataset: str, category: str) -> list[list[Contender]]:
    """The contenders on a category, a list for each set of equal test images, the largest first; by system's name.

    runs: finished runs of any kind. Of each system the setting of `chosen`.
    """
    found: dict[str, dict[str, dict[str, list]]] = {}
    for run in runs:
        for own in run.record["per_category"]:
            if place_of(run.record, own) == (dataset, category):
                tests = found.setdefault(_images(run, own), {})
                settings = tests.setdefault(run.record["method"], {})
                settings.setdefault(f"{run.record['hash']} {own}", []).append(run)
    parts = [
        sorted((chosen(method, settings) for method, settings in of.items()), key=lambda c: c.name.lower())
        for of in found.values()
    ]
    return sorted(parts, key=len, reverse=True)


def _images(run, category: str) -> str:
    """What the test images of a part of a run are: contents, split and labels."""
    tests = run.scores[run.scores.category == category].sort_values("path")
    said = run.record["data"][category] + tests[["path", "label"]].to_csv(index=False)
    return hashlib.sha256(said.encode()).hexdigest()


def chosen(method: str, settings: dict[str, list]) -> Contender:
    """The setting with most seeds; of equals the one that was trained longest, as in README. No score takes part.

    settings: {hash and category: runs}.
    """

    def order(item) -> tuple:
        config = item[1][0].record["config"]
        return -len(item[1]), -(config.get("epochs") or 0), -(config.get("steps") or 0), item[0]

    key, runs = min(settings.items(), key=order)
    runs = sorted(runs, key=lambda run: run.record["seed"])
    return Contender(method, key.partition(" ")[2], tuple(runs))


def table(contenders: list[Contender], shown: tuple[str, ...] = SHOWN) -> pd.DataFrame:
    """A row per system, 0..1: system, input (side, weights), fitting (seconds), and per metric mean, sd, low, high, n,
    rank. Sorted by the first metric; floors are not among the rows.

    Rank of an image metric: "2-5" among all rows; where the input is the same, in brackets among those. Of a pixel
    metric: "1-2 of 4", among the systems with the same grid and rule for masks, because grids make other truths.
    attrs["notes"]: stale runs, where there are any.
    """
    ranks = {metric: _ranks(contenders, metric) for metric in shown}
    rows = [_row(one, shown, ranks) for one in contenders]
    out = pd.DataFrame(rows).sort_values(shown[0], ascending=False, kind="stable", ignore_index=True)
    stale = [c.name for c in contenders if c.stale]
    out.attrs["notes"] = [f"Stale, made by older code: {', '.join(stale)}."] if stale else []
    return out


def _ranks(contenders: list[Contender], metric: str) -> dict[str, str]:
    draws = {one.method: one.draws(metric) for one in contenders}
    if metric not in RESAMPLED:
        return {
            name: f"{place} of {sum(draws[c.method] is not None for c in same)}" if place else ""
            for same in _alike(contenders, lambda one: one.grid)
            for name, place in rank_ranges({c.method: draws[c.method] for c in same}).items()
        }
    ranks = rank_ranges(draws)
    for same in _alike(contenders, lambda one: (one.side, one.weights)):
        if len(same) > 1:
            for name, place in rank_ranges({c.method: draws[c.method] for c in same}).items():
                ranks[name] += f" ({place})" if place else ""
    return ranks


def _alike(contenders: list[Contender], key: Callable[[Contender], tuple]) -> list[list[Contender]]:
    groups: dict[tuple, list[Contender]] = {}
    for one in contenders:
        groups.setdefault(key(one), []).append(one)
    return list(groups.values())


def may_be_first(ranked: pd.DataFrame) -> list[str]:
    """The systems of a `table` whose range of ranks by image AUROC begins with 1."""
    return ranked.system[ranked[f"rank by {label('image_auroc')}"].str.match(r"1(\D|$)")].tolist()


def _row(one: Contender, shown: tuple[str, ...], ranks: dict) -> dict:
    row = {"system": one.name, "input": f"{one.side} px, {one.weights}", "fitting": _fitting(one)}
    for metric in shown:
        values = one.numbers.loc[metric] if metric in one.numbers.index else None
        row[metric] = np.nan if values is None else values["mean"]
        row |= {f"{metric} {k}": np.nan if values is None else values[k] for k in ("sd", "low", "high")}
        row[f"{metric} n"] = len(one.runs)
        row[f"rank by {label(metric)}"] = ranks[metric][one.method]
    return row


def _fitting(one: Contender) -> str:
    """Mean seconds of gradient steps and of statistics, without the frozen network's pass over the pictures."""
    seconds = np.mean([sum(run.record["seconds"].get(k, 0) for k in ("train", "fit")) for run in one.runs])
    return f"{seconds:.0f} s" if seconds >= 1 else "under 1 s"


def rank_ranges(draws: dict[str, np.ndarray | None]) -> dict[str, str]:
    """{name: "2-5"}: the ranks that the test images leave open, 1 the best; "" without draws.

    A system's best rank counts those whose paired 95 % interval lies wholly above it; its worst those wholly below.
    """
    known = {name: values for name, values in draws.items() if values is not None}
    out = dict.fromkeys(draws, "")
    for name, own in known.items():
        gaps = [np.nanpercentile(own - other, TAILS) for key, other in known.items() if key != name]
        best = 1 + sum(high < 0 for _, high in gaps)
        worst = len(known) - sum(low > 0 for low, _ in gaps)
        out[name] = str(best) if best == worst else f"{best}-{worst}"
    return out


def averages(parts: dict[str, list[Contender]], floors: dict[str, float], metric: str = "image_auroc") -> pd.DataFrame:
    """Means over categories, 0..1, a row per system: all categories, and those that no floor solves.

    parts: {category: its contenders}; floors: {category: the highest image AUROC of a floor}. A floor of 90 % and more
    solves a category. Only a system that was run on all of them has a mean; others say on how many they were run.
    """
    open_ = [name for name in parts if not floors[name] >= SOLVED]
    names = dict.fromkeys(c.name for contenders in parts.values() for c in contenders)
    rows = []
    for name in names:
        values = {
            category: one.numbers.loc[metric, "mean"]
            for category, contenders in parts.items()
            for one in contenders
            if one.name == name and metric in one.numbers.index and not np.isnan(one.numbers.loc[metric, "mean"])
        }
        row = {"system": name, "categories": f"{len(values)} of {len(parts)}"}
        row["all"] = np.mean(list(values.values())) if len(values) == len(parts) else np.nan
        whole = open_ and all(category in values for category in open_)
        row["without solved"] = np.mean([values[category] for category in open_]) if whole else np.nan
        rows.append(row)
    out = pd.DataFrame(rows).sort_values("without solved", ascending=False, kind="stable", ignore_index=True)
    solved = [name for name in parts if name not in open_]
    said = f"A floor reaches {100 * SOLVED:.0f} % and more on: {', '.join(solved) or 'none'}."
    out.attrs["notes"] = [said]
    return out


def floor_of(contenders: list[Contender]) -> float:
    """Image AUROC of mean grey, the best over the sides that the contenders see; NaN where no run has it."""
    known = [c.numbers.loc[FLOOR, "mean"] for c in contenders if FLOOR in c.numbers.index]
    return float(np.nanmax(known)) if known else np.nan


def missing(contenders: list[Contender], methods) -> list[str]:
    """Names of registered systems that have no run here: gaps, not zeros."""
    here = {c.method for c in contenders}
    return [systems.name_of(method) for method in methods if method not in here]


def every_system(runs) -> pd.DataFrame:
    """A row per system that a paper names: year, kind, named in, and on what it was run, or why it was not."""
    places: dict[str, dict[str, None]] = {}
    for run in runs:
        for own in run.record["per_category"]:
            name = " ".join(place_of(run.record, own))
            places.setdefault(run.record["method"], {}).setdefault(name.removesuffix(" all"))
    rows = published.systems()
    here = [", ".join(places.get(method, {})) for method in rows.method]
    said = [
        f"measured: {where}" if where else f"published only: {reason}" if not method else "no finished run here"
        for where, method, reason in zip(here, rows.method, rows.reason, strict=True)
    ]
    return rows[["system", "year", "kind", "published_where"]].assign(here=said)


def failures(contenders: list[Contender]) -> pd.DataFrame:
    """Where each system fails, a row each: false alarms and misses at its own threshold (first seed), its hardest kind
    of defect by image AUROC, 0..1, against all normal test images.
    """
    rows = []
    for one in contenders:
        tests = one.runs[0].scores[one.runs[0].scores.category == one.category]
        normal, odd = tests[tests.label == 0], tests[tests.label == 1]
        row = {"system": one.name, "false alarms": f"{int(normal.decision.sum())} of {len(normal)}"}
        row["missed"] = f"{int((odd.decision == 0).sum())} of {len(odd)}"
        of = {
            kind: metrics.image_auroc(both.label, both.score, one_class="nan")
            for kind, images in odd.groupby("defect")
            for both in [pd.concat([normal, images])]
        }
        of = {kind: value for kind, value in of.items() if not np.isnan(value)}
        if of:
            row["hardest kind"] = min(of, key=of.get) if min(of.values()) < 1 else "none, all at 100 %"
            row["image_auroc"] = min(of.values())
        rows.append(row)
    return pd.DataFrame(rows)


def found_by(contenders: list[Contender]) -> pd.DataFrame:
    """A row per anomalous test image, least found first: path, defect, found (systems, first seed), of."""
    flags = [
        one.runs[0].scores.query("category == @one.category and label == 1").set_index(["path", "defect"]).decision
        for one in contenders
    ]
    table = pd.concat(flags, axis=1).sum(axis=1).rename("found").reset_index()
    return table.assign(of=len(contenders)).sort_values(["found", "path"], kind="stable", ignore_index=True)


def places(runs) -> dict[str, list[str]]:
    """{data set: [categories]} on which two systems or more were run, by name."""
    seen: dict[tuple[str, str], set[str]] = {}
    for run in runs:
        for own in run.record["per_category"]:
            seen.setdefault(place_of(run.record, own), set()).add(run.record["method"])
    out: dict[str, list[str]] = {}
    for (dataset, category), methods in sorted(seen.items()):
        if len(methods) > 1:
            out.setdefault(dataset, []).append(category)
    return out


def settings(contenders: list[Contender]) -> pd.DataFrame:
    """What each run changes of its paper's setting: system, seeds, changes ("epochs 20 (paper 160), ...")."""
    rows = []
    for one in contenders:
        said = [f"{field} {here} (paper {paper})" for field, (paper, here) in verdict.changed(one.record).items()]
        seeds = ", ".join(str(run.record["seed"]) for run in one.runs)
        rows.append({"system": one.name, "seeds": seeds, "changes": ", ".join(said) or "none"})
    return pd.DataFrame(rows)
