"""Means over categories, with and without those that a floor already solves; their intervals, ranks and floors."""

import numpy as np
import pandas as pd

from adlib.metrics.intervals import TAILS
from adlib.reports import ranks
from adlib.reports.comparison import SOLVED, Contender


def averages(
    parts: dict[str, list[Contender]], floors: dict[str, pd.Series], metric: str = "image_auroc"
) -> pd.DataFrame:
    """A row per system, 0..1: mean over all categories, and over those that no floor solves with its 95 % interval
    (images drawn within categories) and the ranks that images and seeds leave open. The floors come last.

    parts: {category: its contenders}; floors: {category: the metric of each floor}. A floor of 90 % and more solves a
    category. Only a system that was run on all of them has a mean; others say on how many they were run.
    """
    open_ = [name for name in parts if not floors[name].max() >= SOLVED]
    placed = _placed(parts, metric)
    measured = {
        name: {category: one.numbers.loc[metric, "mean"] for category, one in of.items()} for name, of in placed.items()
    }
    out = pd.DataFrame([{"system": name, **_means(values, list(parts), open_)} for name, values in measured.items()])
    whole = {name: of for name, of in placed.items() if open_ and set(open_) <= set(of)}
    drawn = {name: _draws(of, open_, metric, seeds=False) for name, of in whole.items()}
    for end, tail in zip(("low", "high"), TAILS, strict=True):
        out[end] = out.system.map({name: np.nanpercentile(draws, tail) for name, draws in drawn.items()})
    places = ranks.rank_ranges({name: _draws(of, open_, metric, seeds=True) for name, of in whole.items()})
    out["rank"] = out.system.map(places).fillna("")
    out = out.sort_values("without solved", ascending=False, kind="stable")
    grounds = [
        {"system": f"{kind} alone", **_means(values, list(parts), open_), "rank": ""}
        for kind, values in _by_kind(floors).items()
    ]
    out = pd.concat([out, pd.DataFrame(grounds)], ignore_index=True)
    solved = [name for name in parts if name not in open_]
    out.attrs["notes"] = [f"A floor reaches {100 * SOLVED:.0f} % and more on: {', '.join(solved) or 'none'}."]
    return out


def _placed(parts: dict[str, list[Contender]], metric: str) -> dict[str, dict[str, Contender]]:
    """{system: {category: its contender}} where the metric is defined."""
    out: dict[str, dict[str, Contender]] = {}
    for category, contenders in parts.items():
        for one in contenders:
            if metric in one.numbers.index and not np.isnan(one.numbers.loc[metric, "mean"]):
                out.setdefault(one.name, {})[category] = one
    return out


def _by_kind(floors: dict[str, pd.Series]) -> dict[str, dict[str, float]]:
    """{floor: {category: value}} of what is known."""
    table = pd.DataFrame(floors)
    return {kind: row.dropna().to_dict() for kind, row in table.iterrows()}


def _means(values: dict[str, float], every: list[str], open_: list[str]) -> dict:
    """Of {category: value}: on how many it is known, and the means where it is known on all."""
    known = lambda names: bool(names) and set(names) <= set(values)
    return {
        "categories": f"{len(values)} of {len(every)}",
        "all": np.mean([values[c] for c in every]) if known(every) else np.nan,
        "without solved": np.mean([values[c] for c in open_]) if known(open_) else np.nan,
    }


def _draws(of: dict[str, Contender], names: list[str], metric: str, seeds: bool) -> np.ndarray:
    """Draws [2000] of the mean over the named categories."""
    return ranks.averaged({name: of[name].draws(metric, seeds) for name in names})
