"""The verdict: published beside measured, every protocol field that differs, and what may be said."""

import numpy as np
import pandas as pd

from adlib.common.errors import UserError
from adlib.reports import measured
from adlib.reports.measured import AVERAGES, belongs
from adlib.reports.published import (
    BESIDE,
    CORE,
    DEFAULTS,
    N_CATEGORIES,
    NEUTRAL,
    NEVER_JUDGED,
    NOT_STATED,
    ORACLE,
    OUR_METRIC,
    PAPERS,
    PIXEL_ONLY,
    PLAIN,
    SYSTEM,
    VARIANT,
    errata,
    load,
    method_of,
    protocol,
)


def ours(runs, method: str | None, dataset: str, category: str, metric: str) -> dict | None:
    """Our numbers for a published cell (published name of the metric), or None: see `measured.cell`."""
    return measured.cell(runs, method, dataset, category, OUR_METRIC.get(metric, metric))


def _same(ours, theirs) -> bool:
    """Equality of a recorded value and a text of protocol.csv; a backbone's weights tag is shown, not compared."""
    ours, theirs = str(ours).lower(), str(theirs).lower()
    try:
        return float(ours) == float(theirs)
    except ValueError:
        return ours.partition(".")[0].removeprefix("tf_") == theirs.partition(".")[0].removeprefix("tf_")


def _changed(record: dict) -> dict[str, tuple]:
    """{config field: (paper's value, ours)}; what the paper states for this data set overrides the Config's default."""
    expected = dict(record.get("paper_config") or {})
    if record["method"] in PAPERS:
        for field, row in protocol(record["method"], record["dataset"]).items():
            if row["dataset"] != "any" and row["stated"] != NOT_STATED and field in expected:
                expected[field] = int(row["stated"])
    config = record.get("config") or {}
    return {k: (v, config[k]) for k, v in sorted(expected.items()) if k in config and config[k] != v}


def _forbids(field: str, paper, here, core_only: bool) -> bool:
    """Whether a difference makes another experiment. More epochs and other weights of the same backbone do not."""
    if field == "epochs":
        return float(here) < float(paper)
    return (
        field not in NEUTRAL and (field in CORE or not core_only) and not (field == "backbone" and _same(here, paper))
    )


def reduced(record: dict, core_only: bool = False) -> list[str]:
    """What makes a run another experiment than the paper's: "epochs 2 (paper 160)". Empty in the paper's setting.

    `core_only` looks at size, crop, backbone, epochs only: variants of an ablation differ elsewhere on purpose.
    """
    changed = _changed(record).items()
    return [f"{k} {here} (paper {paper})" for k, (paper, here) in changed if _forbids(k, paper, here, core_only)]


def _differences(record: dict, paper: str, metric: str, core_only: bool) -> tuple[dict, dict, list]:
    """({field: text of the difference}, the forbidding ones among them, fields of which nobody states the value)."""
    ours = {**(record.get("config") or {}), **(record.get("protocol") or {})}
    differ, forbid, silent = {}, {}, []
    for field, row in protocol(paper, record["dataset"]).items():
        stated, here = row["stated"] != NOT_STATED, ours.get(field)
        theirs = row["stated"] if stated else row["elsewhere"]
        if (field in PIXEL_ONLY and metric.startswith("image")) or (field == "aupro_limit" and metric != "aupro"):
            continue
        if not theirs:
            silent.append(field)
        elif here is not None and not _same(here, theirs):
            differ[field] = (
                f"{field} {here} ({f'paper {theirs}' if stated else theirs + ' in ' + row['source'].partition(',')[0]})"
            )
            if field in CORE and _forbids(field, theirs, here, core_only):
                forbid[field] = differ[field]
    for field, (theirs, here) in _changed(record).items():
        text = differ.setdefault(field, f"{field} {here} (paper {theirs})")
        if _forbids(field, theirs, here, core_only):
            forbid[field] = text
    return differ, forbid, silent


def _all_differences(found: list[dict], cell) -> tuple[str, list[str]]:
    """(text of every difference, names of the forbidding fields) over all records of a cell, without repetition."""
    variant = bool(VARIANT.match(cell.system)) and cell.system not in DEFAULTS.get(cell.paper, ())
    differ, forbid, silent = [], [], []
    for record in found:
        d, f, s = _differences(record, cell.paper, cell.metric, variant)
        differ, forbid, silent = [*differ, *d.values()], [*forbid, *f], [*silent, *s]
        if variant and not set(_changed(record)) - {*NEUTRAL, *CORE}:
            forbid.append("being the default setting, not this variant")
    if silent:
        differ.append("not stated: " + ", ".join(dict.fromkeys(silent)))
    return "; ".join(dict.fromkeys(differ)), list(dict.fromkeys(forbid))


def erratum_of(cell) -> tuple[str, float | None]:
    """(text, corrected value in the unit of `value`) of a row of `load`; ("", None) without an erratum."""
    table = errata(cell.paper)
    table = table[(table["table"] == cell.table) & (table["dataset"] == cell.dataset)]
    own = table[
        (table["system"] == cell.system) & (table["category"] == cell.category) & (table["metric"] == cell.metric)
    ]
    label = table[(table["system"] == cell.system) & (table["kind"] == "metric") & (table["printed"] == cell.metric)]
    texts = [f"{r.printed} -> {r.corrected}: {r.remark}" for r in pd.concat([own, label]).itertuples()]
    return "; ".join(texts), float(own["corrected"].iloc[0]) if len(own) else None


def _judge(value: float, half: float, here: dict) -> tuple[str, str]:
    """(verdict, reason) for comparable numbers of one scale: the published band value +- half against ours."""
    low, high = here["low"], here["high"]
    if np.isnan([low, high]).any():
        return "not comparable", "no interval was computed"
    if low <= value + half + 1e-12 and high >= value - half - 1e-12:
        return "reproduced", "published value inside the 95 % interval"
    distance = max(0.0, abs(value - here["mean"]) - half)
    if here["n_seeds"] >= 2 and distance <= 2 * here["sd"]:
        return "within noise", "outside the interval, within 2 sd over seeds"
    return "not reproduced", f"{distance:.3g} away from the mean, outside the interval"


def _decide(cell, here: dict | None, value: float, half: float, of: int, forbid: list[str]) -> tuple[str, str]:
    if here is None:
        return "not run", "no run"
    if cell.metric in NEVER_JUDGED:
        return "not comparable", "other hardware and code: shown, never judged"
    if np.isnan(value):
        return "not comparable", "the paper has no number here"
    some = cell.category in AVERAGES and here["n_categories"] < of
    reasons = [f"{here['n_categories']} of {of} categories"] * some + [f"differs in {', '.join(forbid)}"] * bool(forbid)
    if reasons:
        return "not comparable", "; ".join(reasons)
    return _judge(value, half, here)


def n_categories(cells: pd.DataFrame, cell) -> int:
    """Over how many categories a published average runs: the rows beside it, else the data set's own number."""
    beside = cells[
        (cells["table"] == cell.table) & (cells["dataset"] == cell.dataset) & (cells["system"] == cell.system)
    ]
    beside = beside[(beside["metric"] == cell.metric) & ~beside["category"].isin((*AVERAGES, "all"))]
    names = set(beside.loc[beside["value"].notna(), "category"])
    if not names:
        return N_CATEGORIES.get(cell.dataset, 1)
    return sum(belongs(name, cell.category) for name in names)


def _beside(cells: pd.DataFrame, cell) -> float:
    same = cells[
        (cells["table"] == cell.table) & (cells["category"] == cell.category) & (cells["metric"] == cell.metric)
    ]
    found = same.loc[same["system"] == BESIDE.get(cell.paper), "value"]
    return float(found.iloc[0]) / 100 if len(found) else np.nan


def _row(cells: pd.DataFrame, cell, runs) -> dict:
    method = method_of(cell.paper, cell.system)
    scale = 1 if cell.metric in PLAIN else 100
    erratum, corrected = erratum_of(cell)
    value = (cell.value if corrected is None else corrected) / scale
    here = ours(runs, method, cell.dataset, cell.category, cell.metric)
    oracle = ours(runs, method, cell.dataset, cell.category, ORACLE.format(OUR_METRIC.get(cell.metric, cell.metric)))
    differ, forbid = _all_differences(here["records"] if here else [], cell)
    half = 0.5 * 10.0**-cell.column_decimals / scale
    decision, reason = _decide(cell, here, value, half, n_categories(cells, cell), forbid)
    missing = dict.fromkeys(("sd", "low", "high"), np.nan) | {"n_seeds": 0, "n_images": 0, "interval_method": ""}
    order = ("sd", "n_seeds", "n_images", "low", "high", "interval_method")
    return {
        **{k: getattr(cell, k) for k in ("table", "dataset", "category", "system", "metric")},
        "published": cell.value / scale,
        "erratum": erratum,
        "beside": _beside(cells, cell),
        "measured": here["mean"] if here else np.nan,
        **{k: (here or missing)[k] for k in order},
        "oracle": oracle["mean"] if oracle else np.nan,
        "differs": differ,
        "verdict": decision,
        "reason": reason,
    }


def verdict(runs, paper: str, systems: list[str] | None = None) -> pd.DataFrame:
    """Every published cell of the reproduced system beside ours, in 0..1 (parameters, GMac, speed in their own unit).

    Columns: table, dataset, category, system, metric, published, erratum, beside (the original authors' value),
    measured, sd, n_seeds, n_images, low, high, interval_method, oracle (best epoch on the test set, never judged),
    differs, verdict, reason. Where an erratum has another value, that one is judged. `systems` picks other published
    systems: rivals, or, with the runs of that variant, a row of an ablation table. Raises UserError for an unknown
    paper or system.
    """
    cells, runs = load(paper), measured.settings(runs)
    wanted = [SYSTEM[paper]] if systems is None else list(systems)
    valid = list(dict.fromkeys(cells["system"]))
    for system in wanted:
        if system not in valid:
            raise UserError(f"unknown system {system!r} in the tables of {paper}; valid: {', '.join(valid)}")
    rows = [_row(cells, cell, runs) for cell in cells[cells["system"].isin(wanted)].itertuples(index=False)]
    return pd.DataFrame(rows)


def check(runs, paper: str) -> tuple[pd.DataFrame, bool]:
    """(verdict table, True if no cell is "not reproduced"). Raises UserError where nothing of the paper was run."""
    table = verdict(runs, paper)
    if (table["verdict"] == "not run").all():
        raise UserError(f"no finished run of {paper} on a data set of its paper; `python -m adlib batch` makes them")
    return table, not (table["verdict"] == "not reproduced").any()
