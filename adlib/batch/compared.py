"""README's first table and figure: every system on the same test images, from copied runs. Nothing is typed."""

import numpy as np
import pandas as pd

from adlib import figures
from adlib.reports import comparison, floors, printing, verdict

# heading: data set and category of the committed comparison
PLACES = {
    "MTD": ("mtd", "all"),
    "bottle": ("mvtec_ad", "bottle"),
    "transistor": ("mvtec_ad", "transistor"),
    "pill": ("mvtec_ad", "pill"),
    "screw": ("mvtec_ad", "screw"),
    "DAGM 8": ("dagm", "Class8"),
}
DRAWN = "MTD"  # has most test images, so the narrowest intervals
METRIC = "image_auroc"
MEAN = "mean, unsolved"


def parts_of(copies) -> dict[str, list[comparison.Contender]]:
    """{heading: contenders} of the places on which two systems or more were run; the largest set of equal images."""
    found = {name: comparison.groups(copies, *place) for name, place in PLACES.items()}
    return {name: groups[0] for name, groups in found.items() if groups and len(groups[0]) > 1}


def grounds(parts: dict[str, list[comparison.Contender]]) -> dict[str, pd.Series]:
    """{heading: image AUROC of each floor}; without the pictures mean grey alone, as runs recorded it."""
    return {
        name: floors.known(*PLACES[name], comparison.floor_of(contenders)).image_auroc
        for name, contenders in parts.items()
    }


def table(parts: dict[str, list[comparison.Contender]], ground: dict[str, pd.Series]) -> pd.DataFrame:
    """Image AUROC, 0..1: a row per system with its input, a column per place, and the mean over those that no floor
    solves; last rows the floors. Sorted by that mean, then by name; NaN where there is no run.
    """
    inputs = {one.name: f"{one.side} px, {one.weights}" for row in reversed(parts.values()) for one in row}
    values = {
        name: {one.name: one.numbers.loc[METRIC, "mean"] for one in contenders} for name, contenders in parts.items()
    }
    out = pd.DataFrame(values).rename_axis("system").reset_index()
    out.insert(1, "input", out.system.map(inputs))
    open_ = [name for name in parts if name not in _solved(ground)]
    out[MEAN] = out[open_].mean(axis=1, skipna=False) if open_ else np.nan
    out = out.sort_values([MEAN, "system"], ascending=[False, True], ignore_index=True)
    kinds = dict.fromkeys(kind for values in ground.values() for kind in values.index)
    rows = [
        {"system": f"{kind} alone", "input": printing.DASH} | {name: ground[name].get(kind, np.nan) for name in parts}
        for kind in kinds
    ]
    for row in rows:
        row[MEAN] = np.mean([row[name] for name in open_]) if open_ else np.nan
    return pd.concat([out, pd.DataFrame(rows)], ignore_index=True)


def _solved(ground: dict[str, pd.Series]) -> list[str]:
    return [name for name, values in ground.items() if values.max() >= comparison.SOLVED]


def text(parts: dict[str, list[comparison.Contender]], ground: dict[str, pd.Series]) -> str:
    """Markdown: the table in percent with ranges of ranks, and what must be known to read it."""
    shown = table(parts, ground).map(lambda v: printing.number(v) if isinstance(v, float) else v)
    for name, contenders in parts.items():
        places = comparison.rank_ranges({one.name: one.draws(METRIC) for one in contenders})
        seeds = {one.name: len(one.runs) for one in contenders}
        marks = {
            one: f" ({place})" + (" ¹" if seeds[one] == 1 else "") if place else "" for one, place in places.items()
        }
        shown[name] += shown.system.map(lambda system, of=marks: of.get(system, ""))
    every = [one for contenders in parts.values() for one in contenders]
    shorter = sum(bool(verdict.reduced(one.record)) for one in every)
    notes = [
        "Image AUROC in percent; in brackets the ranks that the test images leave open; ¹ one seed, others more.",
        f"{shorter} of the {len(every)} cells are runs in a smaller setting than their paper's. `input`: side and "
        "pretrained weights in the first column that has a run; they explain much of a lead, and page 06 has all.",
    ]
    if _solved(ground):
        notes.append(f"What needs no model solves {', '.join(_solved(ground))}: left out of the mean.")
    body = shown.to_markdown(index=False, disable_numparse=True)
    return body + "\n\n" + "".join(f"- {note}\n" for note in notes)


def figure(parts: dict[str, list[comparison.Contender]], ground: dict[str, pd.Series]) -> figures.Page | None:
    """Every system's interval on DRAWN, with the floors; None where there is no comparison on it."""
    if DRAWN not in parts:
        return None
    seen = comparison.table(parts[DRAWN], (METRIC,))
    return figures.intervals(seen, ground[DRAWN].to_dict(), note=f"{DRAWN}: magnetic tiles with real defects.")
