"""README's first table and figure: every system on the same test images, from copied runs. Nothing is typed."""

import pandas as pd

from adlib import figures
from adlib.metrics.names import label
from adlib.reports import comparison, floors, printing, verdict
from adlib.reports.averages import averages

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
RANK = f"rank by {label(METRIC)}"
MEAN = "mean, unsolved"
SCATTERED = 0.05  # sd over seeds from which on it is printed


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
    """Image AUROC, 0..1: a row per system with its input, a column per place (beside it sd, low, high, n and rank), and
    the mean over those that no floor solves; last rows the floors. Sorted by that mean, then by name; NaN and "" where
    there is no run.
    """
    each = {name: comparison.table(contenders, (METRIC,)).set_index("system") for name, contenders in parts.items()}
    means = averages(parts, ground, METRIC).set_index("system")
    out = pd.DataFrame({"system": means.index})
    out["input"] = out.system.map(inputs(parts)).fillna(printing.DASH)
    for name, rows in each.items():
        floor = {f"{kind} alone": value for kind, value in ground[name].items()}
        out[name] = out.system.map(rows[METRIC].to_dict() | floor)
        for part in ("sd", "low", "high"):
            out[f"{name} {part}"] = out.system.map(rows[f"{METRIC} {part}"])
        out[f"{name} n"] = out.system.map(rows[f"{METRIC} n"]).fillna(0).astype(int)
        out[f"{name} rank"] = out.system.map(rows[RANK].str.partition(" ")[0]).fillna("")  # among all inputs
    out[MEAN], out[f"{MEAN} rank"] = means["without solved"].to_numpy(), means["rank"].to_numpy()
    alone = out.input == printing.DASH
    ordered = out[~alone].sort_values([MEAN, "system"], ascending=[False, True])
    return pd.concat([ordered, out[alone]], ignore_index=True)


def inputs(parts: dict[str, list[comparison.Contender]]) -> dict[str, str]:
    """{system: "64-128 px, resnet18.tv_in1k"}: over all places, with the categories of one model for several."""
    found: dict[str, list[comparison.Contender]] = {}
    for contenders in parts.values():
        for one in contenders:
            found.setdefault(one.name, []).append(one)
    out = {}
    for name, of in found.items():
        sides, together = ({value(one) for one in of} for value in (lambda c: c.side, lambda c: c.trained_on))
        weights = " or ".join(dict.fromkeys(one.weights for one in of))
        one_model = f", one model of {_span(together)} categories" if max(together) > 1 else ""
        out[name] = f"{_span(sides)} px, {weights}{one_model}"
    return out


def _span(values: set[int]) -> str:
    return str(min(values)) if len(values) == 1 else f"{min(values)}-{max(values)}"


def _solved(ground: dict[str, pd.Series]) -> list[str]:
    return [name for name, values in ground.items() if values.max() >= comparison.SOLVED]


def text(parts: dict[str, list[comparison.Contender]], ground: dict[str, pd.Series]) -> str:
    """Markdown: the table in percent with ranges of ranks, and what must be known to read it."""
    full = table(parts, ground)
    shown = full[["system", "input"]].copy()
    fixed = {one.name for contenders in parts.values() for one in contenders if one.deterministic}
    for name in (*parts, MEAN):
        shown[name] = [_cell(row, name, row["system"] in fixed) for _, row in full.iterrows()]
    every = [one for contenders in parts.values() for one in contenders]
    shorter = sum(bool(verdict.reduced(one.record)) for one in every)
    notes = [
        "Image AUROC in percent, mean over seeds; in brackets the ranks that test images and seeds leave open. "
        f"± sd over seeds from {100 * SCATTERED:.0f} points on; ¹ one seed; others have more, or nothing random.",
        f"{shorter} of the {len(every)} cells are runs in a smaller setting than their paper's. `input`: side and "
        "pretrained weights. They explain much of a lead: page 06 has the ranks among equal inputs.",
    ]
    if _solved(ground):
        notes.append(f"What needs no model solves {', '.join(_solved(ground))}: left out of the mean.")
    body = shown.to_markdown(index=False, disable_numparse=True)
    return body + "\n\n" + "".join(f"- {note}\n" for note in notes)


def _cell(row: pd.Series, name: str, fixed: bool) -> str:
    """A number with the scatter of its seeds, its range of ranks, and a mark for one seed."""
    sd, rank, count = (row.get(f"{name} {part}") for part in ("sd", "rank", "n"))
    scatter = f" ± {100 * sd:.0f}" if sd is not None and sd >= SCATTERED else ""
    single = " ¹" if count == 1 and not fixed else ""
    return printing.number(row[name]) + scatter + (f" ({rank}){single}" if rank else "")


def figure(parts: dict[str, list[comparison.Contender]], ground: dict[str, pd.Series]) -> figures.Page | None:
    """Every system's interval on DRAWN, with the floors; None where there is no comparison on it."""
    if DRAWN not in parts:
        return None
    seen = comparison.table(parts[DRAWN], (METRIC,))
    images, sides = parts[DRAWN][0].numbers.loc[METRIC, "n_images"], {one.side for one in parts[DRAWN]}
    note = f"{DRAWN}: magnetic tiles with real defects, {images} test images; {_span(sides)} px, reduced settings."
    return figures.intervals(seen, ground[DRAWN].to_dict(), note=note)
