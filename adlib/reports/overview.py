"""Every number that the papers print, in one table: what they print twice and differently, and means recomputed."""

import numpy as np
import pandas as pd

from adlib.common.errors import unknown
from adlib.metrics.names import axis_label
from adlib.reports import measured, published

CELL = ["dataset", "category", "system", "metric"]
FILTERS = ("paper", "table", *CELL)


def numbers(**chosen) -> pd.DataFrame:
    """Every published cell, as printed: paper, table, dataset, category, system, metric, value, elsewhere, erratum.

    chosen: column = a value or a list of values, e.g. dataset="mvtec_ad", metric=["image_auroc", "aupro"]. value: in
    percent, or the metric's own unit; elsewhere: what other tables print for the same cell, if it differs; erratum: the
    corrected value. Raises UserError for an unknown column or value.
    """
    table = published.load()
    twice = double_prints()
    other = {key: said for key, said in zip(twice[CELL].itertuples(index=False, name=None), twice.printed, strict=True)}
    errors = {(e.paper, e.table, *(getattr(e, k) for k in CELL)): e.corrected for e in published.errata().itertuples()}
    keys = list(table[CELL].itertuples(index=False, name=None))
    places = list(table[["paper", "table"]].itertuples(index=False, name=None))
    table = table.assign(
        elsewhere=[other.get(key, "") for key in keys],
        erratum=[errors.get((*place, *key), "") for place, key in zip(places, keys, strict=True)],
    )
    for column, wanted in chosen.items():
        if column not in FILTERS:
            raise unknown("column of the published numbers", column, FILTERS)
        wanted = [wanted] if isinstance(wanted, str) else list(wanted)
        for value in wanted:
            if value not in set(table[column]) | set(published.load()[column]):
                raise unknown(column, value, dict.fromkeys(published.load()[column]))
        table = table[table[column].isin(wanted)]
    out = table[[*FILTERS, "value", "elsewhere", "erratum"]].reset_index(drop=True)
    out.attrs["plain"] = ["value"]
    return out


def wide(**chosen) -> pd.DataFrame:
    """`numbers` as a table: a row per system and paper (and data set, metric, where several), a column per category.

    "*": another table prints another value; "+": a known error, see the errata. Rows of ablation tables are left out;
    of a cell that one paper prints in two tables the first is shown.
    """
    table = numbers(**chosen)
    kept = [published.role(p, s) not in ("default", "variant") for p, s in zip(table.paper, table.system, strict=True)]
    table = table[kept]
    whole = published.errata().query("kind == 'metric'")  # of a column that shows another metric
    wrong = set(whole[["paper", "system", "printed"]].itertuples(index=False, name=None))
    text = [
        f"{row.value:g}"
        + "*" * bool(row.elsewhere)
        + "+" * bool(row.erratum or (row.paper, row.system, row.metric) in wrong)
        if not np.isnan(row.value)
        else ""
        for row in table.itertuples()
    ]
    rows = ["system", "paper", *(c for c in ("dataset", "metric") if table[c].nunique() > 1)]
    first = table.assign(text=text).drop_duplicates([*rows, "category"])
    names = list(dict.fromkeys(first.category))
    order = [n for n in names if n not in measured.AVERAGES] + [n for n in names if n in measured.AVERAGES]
    keys = pd.MultiIndex.from_frame(first[rows].drop_duplicates())
    out = first.pivot(index=rows, columns="category", values="text").reindex(keys)
    return out[order].fillna("").rename_axis(columns=None)


def double_prints() -> pd.DataFrame:
    """Cells that several tables print with different values: dataset, category, system, metric, printed ("91.7 in
    mmaerec table1; 89 in ...").
    """
    table = published.load()
    table = table[table.value.notna()]
    rows = []
    for key, cells in table.groupby(CELL, sort=False):
        # 96.1 and 96.13 are one number, printed with different decimals
        coarse = min(cells.column_decimals)
        if cells.value.round(coarse).nunique() > 1:
            said = "; ".join(f"{c.printed} in {c.paper} {c.table}" for c in cells.itertuples())
            rows.append(dict(zip(CELL, key, strict=True)) | {"printed": said})
    return pd.DataFrame(rows, columns=[*CELL, "printed"])


def recomputed() -> pd.DataFrame:
    """Printed means that the printed rows do not give: paper, table, dataset, system, metric, category, printed,
    recomputed [same unit], points. Only those off by more than rounding allows.
    """
    rows = []
    for key, cells in published.load().groupby(["paper", "table", "dataset", "system", "metric"], sort=False):
        single = cells[~cells.category.isin((*measured.AVERAGES, "all"))]
        for mean in cells[cells.category.isin(measured.AVERAGES)].itertuples():
            of = single[[measured.belongs(name, mean.category) for name in single.category]]
            if len(of) < 2 or of.value.isna().any() or np.isnan(mean.value):
                continue
            value, rounding = of.value.mean(), 10.0**-mean.column_decimals
            if abs(value - mean.value) > rounding + 1e-9:  # half a digit of the mean, half of each row
                row = dict(zip(("paper", "table", "dataset", "system", "metric"), key, strict=True))
                row |= {"category": mean.category, "printed": mean.value, "recomputed": round(value, 2)}
                rows.append(row | {"points": round(value - mean.value, 2)})
    return pd.DataFrame(rows)


def unit(metrics: str | list[str]) -> str:
    """What `numbers` gives metrics in: "image AUROC [%]", "frames per second [images / s]"."""
    return ", ".join(axis_label(metric) for metric in ([metrics] if isinstance(metrics, str) else metrics))
