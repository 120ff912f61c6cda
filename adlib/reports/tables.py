"""Every table: the papers' own beside ours, and a summary of any runs; as DataFrame, and by `printing` as text.

A table is a DataFrame of numbers in 0..1. A measured column `x` has `x sd`, `x low`, `x high` (95 %) and `x n` (seeds)
beside it, in averages also `x of` ("3 of 15" categories). `printed` turns numbers into percent and joins such columns.
`attrs["notes"]` are sentences printed below, `attrs["decimals"]` those of a percent. `runs`: see
adlib.reports.measured.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from adlib.common.errors import UserError, unknown
from adlib.metrics.names import FLOOR, PLAIN, best_epoch, label
from adlib.reports import cautions, measured, published, verdict
from adlib.reports.printing import (
    DASH,
    narrow,
    number,
    printed,
    save,
    to_csv,
    to_json,
    to_latex,
    to_markdown,
    to_text,
)
from adlib.reports.verdict import verdict_table

__all__ = [
    "FLOOR",
    "MAIN",
    "narrow",
    "number",
    "paper_table",
    "printed",
    "save",
    "summary",
    "to_csv",
    "to_json",
    "to_latex",
    "to_markdown",
    "to_text",
    "verdict_table",
]

COLUMNS = ("training", "image_size", "backbone", *verdict.LENGTH)  # settings that are not among "what else differs"
MAIN = ("image_auroc", "pixel_auroc", "pixel_ap", "aupro@0.3", best_epoch("image_auroc"), FLOOR)


def paper_table(runs, paper: str, table: str = "table1") -> pd.DataFrame:
    """A table of the paper in its row and column order: every published number, then ours, in 0..1.

    Where image AUROC was measured, the floor `mean_grey_auroc` of the same images stands beside it.
    Rows are categories (with the paper's averages) or, in a table of averages only, systems. Published columns are
    named "system metric", ours "ours metric", rivals that were run "system (here) metric". `runs` may be None, or
    {published system: its runs} for an ablation table. Raises UserError for an unknown table.
    """
    cells = published.load(paper)
    if table not in set(cells["table"]):
        raise unknown(f"table of {paper}", table, dict.fromkeys(cells["table"]))
    cells, runs = cells[cells["table"] == table], _settings_of(runs)
    by_system = set(cells["category"]) <= {"average", "all"}
    rows: dict[tuple, dict] = {}
    for cell in cells.itertuples(index=False):
        row = rows.setdefault((cell.dataset, cell.system if by_system else cell.category), {})
        row.update(_published(cell, by_system))
    for cell in cells.itertuples(index=False):
        rows[cell.dataset, cell.system if by_system else cell.category].update(_ours(cells, cell, runs, by_system))
    out = pd.DataFrame(
        [{"dataset": d, ("system" if by_system else "category"): k, **row} for (d, k), row in rows.items()]
    )
    order = [c for c in out.columns if not c.startswith("ours ") and "(here)" not in c]
    out = out[[c for c in order if c != FLOOR] + [c for c in out.columns if c not in order or c == FLOOR]]
    if out["dataset"].nunique() == 1:
        out = out.drop(columns="dataset")
    percent = cells[~cells["metric"].isin(PLAIN)]
    out.attrs["decimals"] = max([1, *percent["column_decimals"]])
    out.attrs["notes"] = _notes(runs, paper, table) + _partial(cells, runs)
    return out


def _published(cell, by_system: bool) -> dict:
    scale = 1 if cell.metric in PLAIN else 100
    return {cell.metric if by_system else f"{cell.system} {cell.metric}": cell.value / scale}


def _settings_of(runs):
    """The runs with their metrics read once; a mapping stays one."""
    return {k: measured.settings(v) for k, v in runs.items()} if isinstance(runs, Mapping) else measured.settings(runs)


def _runs_of(runs, paper: str, system: str):
    """The runs behind one published system: a variant of an ablation has its own, all others share one object."""
    if isinstance(runs, Mapping):
        return runs.get(system, [])
    return [] if published.role(paper, system) == "variant" else runs


def _ours(cells: pd.DataFrame, cell, runs, by_system: bool) -> dict:
    """Columns of our value for one published cell; of the paper's own system also where it was not run (NaN)."""
    method = published.method_of(cell.paper, cell.system)
    # one method, two published columns: shown once
    twice = published.role(cell.paper, cell.system) == "beside"
    settings = _runs_of(runs, cell.paper, cell.system)
    value = None
    if method is not None and not twice:
        value = verdict.ours(settings, method, cell.dataset, cell.category, cell.metric)
    if not by_system and verdict.no_average(cell.category, value):
        value = None
    reproduced = by_system or published.role(cell.paper, cell.system) == "own"
    if value is None and not reproduced:
        return {}
    value = value or {}
    name = f"ours {cell.metric}" if reproduced else f"{cell.system} (here) {cell.metric}"
    out = {name: value.get("mean", np.nan), **{f"{name} {k}": value.get(k, np.nan) for k in ("sd", "low", "high")}}
    out[f"{name} n"] = value.get("n_seeds", 0)
    if cell.metric == "image_auroc" and reproduced and method:
        floor = verdict.ours(settings, method, cell.dataset, cell.category, FLOOR) if value else None
        out |= {FLOOR: floor["mean"]} if floor else {}
    if cell.category in measured.AVERAGES:
        out[f"{name} of"] = f"{value.get('n_categories', 0)} of {verdict.n_categories(cells, cell)}"
    return out


def _partial(cells: pd.DataFrame, runs) -> list[str]:
    """What the paper's average is over the categories that we ran, where we did not run all of them."""
    notes = []
    reproduced = [published.own_system(paper) for paper in cells["paper"]]
    single = cells[(cells["system"] == reproduced) & ~cells["category"].isin((*measured.AVERAGES, "all"))]
    for (paper, system, metric), group in single.groupby(["paper", "system", "metric"], sort=False):
        method, settings = published.method_of(paper, system), _runs_of(runs, paper, system)
        both = [(c, verdict.ours(settings, method, c.dataset, c.category, metric)) for c in group.itertuples()]
        values = [c.value for c, ours in both if ours]
        if 0 < len(values) < len(group):
            over = f"{len(values)} of {len(group)} categories run here"
            notes.append(f"The paper's mean {label(metric)} over the {over}: {np.mean(values):.1f}.")
    return notes


def _notes(runs, paper: str, table: str) -> list[str]:
    """Sentences below a table: what is reduced in our runs, data that are no originals, the errata of this table."""
    notes, method = [], published.method_of(paper, published.own_system(paper))
    for part in runs.values() if isinstance(runs, Mapping) else [runs]:
        records = [r for setting in measured.settings(part) if setting.method == method for r in setting.records]
        texts = [t for r in records for t in verdict.reduced(r, isinstance(runs, Mapping))]
        if texts:
            notes.append(f"Reduced runs of {paper}: {', '.join(dict.fromkeys(texts))}; not comparable with the paper.")
        notes += measured.provenance(records)
    errata = published.errata(paper)
    for e in errata[errata["table"] == table].itertuples():
        notes.append(f"Erratum: {e.system}, {e.category}, {e.metric}: {e.printed} -> {e.corrected}; {e.remark}.")
    return list(dict.fromkeys(notes))


def summary(runs, metrics: list[str] | None = None) -> pd.DataFrame:
    """One row per method, data set, setting and category of any runs, with an average where there are several; 0..1.

    Columns: method, dataset, category, backbone, image_size, epochs, setting ("paper" or "reduced: ..."), seeds,
    images, training (mean seconds of one run) and per metric `metric`, sd, low, high, n. `metrics` picks them; default:
    the main ones, the best epoch on the test set (oracle) and the floor `mean_grey_auroc`, as far as they were
    measured. `attrs["notes"]`: where the data came from, if they are no originals, and the runs' `cautions`;
    `attrs["row_of_note"]`: {note: number of the row that it is about}, of those on one row.
    """
    settings = measured.settings(runs)
    if not settings:
        raise UserError("no finished run to summarise; `adlib.reproduce(...)` or `python -m adlib batch` makes them")
    known = {m for setting in settings for m in setting.metrics["metric"]}
    names = [m for m in metrics or MAIN if m in known]
    rows, row_of_note = [], {}
    for setting in settings:
        categories = sorted(set(setting.metrics["category"]))
        for category in categories:
            row_of_note |= dict.fromkeys(cautions.thresholds(setting.of(category)), len(rows))
            rows.append(_summary_row(setting, category, names, len(categories)))
        if len(categories) > 1:
            rows.append(_summary_row(setting, "average", names, len(categories)))
    table = pd.DataFrame(rows)
    records = [r for setting in settings for r in setting.records]
    table.attrs["notes"] = measured.provenance(records) + cautions.cautions(records)
    table.attrs["row_of_note"] = row_of_note
    return table


def _summary_row(setting: measured.Setting, category: str, names: list[str], n_categories: int) -> dict:
    values = {m: measured.cell([setting], setting.method, setting.dataset, category, m) or {} for m in names}
    known = [v for v in values.values() if v]
    row = {"method": setting.method, "dataset": setting.dataset, "category": category, **_setting(setting.records)}
    row |= {k: max((v[n] for v in known), default=0) for k, n in (("seeds", "n_seeds"), ("images", "n_images"))}
    row["training"] = _cost(setting.records, category)
    for name, value in values.items():
        row[name] = value.get("mean", np.nan)
        if name != FLOOR:
            row |= {f"{name} {k}": value.get(k, np.nan) for k in ("sd", "low", "high")}
            row[f"{name} n"] = value.get("n_seeds", 0)
            if category == "average":
                row[f"{name} of"] = f"{value.get('n_categories', 0)} of {n_categories}"
    return row


def _cost(records: list[dict], category: str) -> str:
    """Mean training time of one run and the kind of device: "64 s, cpu"; a dash for averages and where none is
    recorded.
    """
    timed = [r for r in records if r.get("category") == category and "train" in r.get("seconds", {})]
    if not timed:
        return DASH
    kinds = sorted({r["machine"]["device_type"] for r in timed})
    return f"{np.mean([r['seconds']['train'] for r in timed]):.0f} s, {' and '.join(kinds)}"


def _setting(records: list[dict]) -> dict:
    """backbone, image_size, epochs as text (joined where runs differ), and whether they are the paper's setting."""
    values = {
        "backbone": [_field(r, "backbone") for r in records],
        "image_size": [_field(r, "image_size") for r in records],
        "epochs": [_length(r) for r in records],
    }
    texts = dict.fromkeys(t for r in records for t in verdict.reduced(r))
    other = [t.partition(" (paper")[0] for t in texts if t.split()[0] not in COLUMNS]
    other = [t for t in other if t != "resize None"]  # follows from the mode
    setting = "reduced" if texts else "paper"
    if other:
        setting += f": {', '.join(other)}"
    return {**{field: ", ".join(dict.fromkeys(v)) for field, v in values.items()}, "setting": setting}


def _field(record: dict, name: str) -> str:
    value = (record.get("config") or {}).get(name)
    return DASH if value is None else str(value)


def _length(record: dict) -> str:
    """Length of training: "160" epochs, or "5000 steps" where the config counts steps."""
    steps = _field(record, "steps")
    return _field(record, "epochs") if steps == DASH else f"{steps} steps"
