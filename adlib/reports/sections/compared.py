"""Sentences of the comparison: floors, who is told apart from whom, what nobody finds, what is missing."""

import numpy as np
import pandas as pd

from adlib import data
from adlib.common.errors import UserError
from adlib.metrics.names import SHOWN, label
from adlib.reports import comparison, printing
from adlib.reports.comparison import Contender

FEW = 6  # names that a sentence still lists


def gaps(runs) -> str:
    """A sentence on the runs of a batch that are not there, `runs.missing`: each is a gap with a name."""
    missing = [f"{gap.method} {gap.dataset} {gap.category} seed {gap.seed}" for gap in runs.missing]
    if not missing:
        return "None is missing."
    more = f" and {len(missing) - FEW} more" if len(missing) > FEW else ""
    return f"**Missing: {len(missing)}**, {'; '.join(missing[:FEW])}{more}. They are gaps below, not zeros."


def floor_line(floors: pd.DataFrame) -> str:
    """Markdown: the floors of a category (from `adlib.reports.floors.floors`), metric by metric, with intervals."""
    parts = []
    for name, row in floors.iterrows():
        values = [
            f"{label(metric)} {printing.number(row[metric])} % [{printing.number(row[f'{metric} low'])}, "
            f"{printing.number(row[f'{metric} high'])}]"
            for metric in SHOWN
            if metric in row and not pd.isna(row[metric])
        ]
        parts.append(f"**{name}**: {', '.join(values) or 'one class only, no AUROC'}")
    return "Floors. " + "; ".join(parts) + "."


def reading(place: str, groups: list[list[Contender]], floors: pd.DataFrame) -> str:
    """Markdown: who may be first, who is not told apart from a floor, and which seeds differ most, a list item."""
    contenders = groups[0]
    table = comparison.table(contenders)
    first = comparison.may_be_first(table)
    highest = floors.image_auroc.max()
    if np.isnan(highest) or table.image_auroc.isna().all():
        return f"- **{place}**: {len(contenders)} systems; the test has one class only, so there is no AUROC."
    said = f"- **{place}**: {len(contenders)} systems. May be first by image AUROC: {', '.join(first)}."
    below = [f"{r.system} ({printing.number(r.image_auroc)} %)" for r in table.itertuples() if r.image_auroc <= highest]
    near = [r["system"] for _, r in table.iterrows() if r["image_auroc low"] <= highest < r["image_auroc"]]
    which = f"the higher floor, {floors.image_auroc.idxmax()}, {printing.number(highest)} %"
    said += f" Not above {which}: {', '.join(below) or 'none'}."
    said += f" Above it, but not with their whole interval: {', '.join(near)}." if near else ""
    apart = table["image_auroc sd"].fillna(0)
    if apart.max() > 0.02:
        worst = table.system[apart.idxmax()]
        said += f" Seeds differ most in {worst}: sd {printing.number(apart.max())} points."
    maps = _below(table, floors)
    said += f" Maps no better than the mean picture's: {', '.join(maps)}." if maps else ""
    single = [one.name for one in contenders if len(one.runs) == 1 and not one.deterministic]
    said += f" One seed only: {', '.join(single)}." if single else ""
    others = f" {len(groups) - 1} more sets of test images have tables of their own." if len(groups) > 1 else ""
    return said + others


def _below(table: pd.DataFrame, floors: pd.DataFrame) -> list[str]:
    """Systems whose maps the mean picture's reach, with the metrics: "MKD (pixel AP, AUPRO)"."""
    known = [metric for metric in SHOWN[1:] if metric in floors and not np.isnan(floors[metric].max())]
    found = {}
    for _, row in table.iterrows():
        for metric in known:
            if row[metric] <= floors[metric].max():
                found.setdefault(row["system"], []).append(label(metric, short=True))
    return [f"{name} ({', '.join(metrics)})" for name, metrics in found.items()]


def pictures_of(dataset: str, category: str) -> str:
    """A sentence on a category: how many pictures, and what its notes say of their origin; or that it is not here."""
    try:
        table = data.load(dataset, category)
    except UserError:
        return f"The pictures of {dataset} are not at hand."
    counts = table.groupby(["split", "label"]).size()
    train, normal, odd = (counts.get(key, 0) for key in (("train", 0), ("test", 0), ("test", 1)))
    notes = [*table.attrs.get("notes", []), table.attrs.get("provenance")]
    origin = "; ".join(note for note in notes if note)
    said = f"{train} normal pictures for training; {normal} normal and {odd} anomalous ones for the test"
    return f"{said}; {origin}." if origin else f"{said}."


def by_ranks(auroc: pd.DataFrame, order: pd.DataFrame) -> str:
    """Sentences: does an average of ranks order the systems otherwise than one of AUROCs, and which category decides?

    auroc: percent, a row per system, a column per category. order: columns "by mean AUROC" and "by mean rank", 1 first.
    """
    moved = int((order["by mean AUROC"] != order["by mean rank"]).sum())
    spread = auroc.std()
    return (
        f"{moved} of {len(order)} systems change their place. Among AUROCs the category counts most on which systems "
        f"differ most, here {spread.idxmax()} (sd over systems {spread.max():.1f} points) and least {spread.idxmin()} "
        f"({spread.min():.1f}). Among ranks all count alike, and a lead of 0.1 points as much as one of 20."
    )


def seldom_found(found: pd.DataFrame) -> str:
    """A sentence on the anomalous images that most systems miss, from `comparison.found_by`."""
    if not len(found):
        return "no anomalous image."
    none, half = int((found.found == 0).sum()), int((found.found <= found.of / 2).sum())
    most = int(np.quantile(found.found, 0.1))
    kinds = found[found.found <= most].defect.value_counts()
    listed = ", ".join(f"{kind} ({count})" for kind, count in kinds.head(3).items())
    return (
        f"of {len(found)} anomalous images {none} are flagged by none of {found.of.iloc[0]} systems, {half} by half of "
        f"them or fewer. Flagged by {most} or fewer: {listed}. (A system that flags much of everything flags defects "
        "without seeing them.)"
    )
