"""The papers' numbers, their errata and protocols, and the verdict: published beside measured.

Published values stand in data/published/*.csv in percent, as printed; measured values and `verdict` are 0..1.
A published value v with d decimals stands for v +- 0.5 * 10^-d (specs/common 4.8).

What a `runs` argument is stands in adlib.measured.
"""

import re
from functools import cache

import numpy as np
import pandas as pd

from adlib import measured
from adlib.measured import AVERAGES, belongs
from adlib.settings import PROJECT, UserError

FOLDER = PROJECT / "data" / "published"
PAPERS = ("improved_mae", "mmaerec", "simplenet", "draem", "validflow")
VERDICTS = ("reproduced", "within noise", "not reproduced", "not comparable", "not run")
NOT_STATED = "not stated"

# paper -> the system that the paper presents and we reproduce, under its name in the published tables
SYSTEM = {
    "improved_mae": "Improved MAE",
    "mmaerec": "MMAERec",
    "simplenet": "SimpleNet (reproduction of the report)",
    "draem": "DRAEM",
    "validflow": "ValidFlow",
}
BESIDE = {"simplenet": "SimpleNet (original)"}  # shown in the same row, not judged
# rows of ablation tables that are the default setting under another name
DEFAULTS = {
    "improved_mae": ("E2D4 r=0.75",),
    "mmaerec": tuple(
        "MMAERec " + v for v in ("memory+edge", "attention=CA", "memory levels=1-4", "loss=l2+ssim+entropy")
    ),
    "validflow": ("ValidFlow n=3", "ValidFlow +CBAM +branches13"),
}
VARIANT = re.compile(r"E\d+D\d+ |MMAERec |ValidFlow |DRAEM ")

OUR_METRIC = {"aupro": "aupro@0.3"}
ORACLE = "{} (oracle best epoch)"
PLAIN = ("parameters_million", "gmac", "seconds_per_image", "frames_per_second")  # units of their own, no percent
NEVER_JUDGED = ("seconds_per_image", "frames_per_second")  # other hardware and code (specs/common 5)

N_CATEGORIES = {"mvtec_ad": 15, "btad": 3, "dagm": 10}

# fields that make a run another experiment than the published one
CORE = ("training", "image_size", "resize_mode", "resize", "backbone", "epochs")
# fields that a run may choose without becoming another system; they are listed where they differ
NEUTRAL = ("holdback", "mask_rule", "metric_size", "eval_every", "precision", "batch_size", "select", "cache_dtype")
PIXEL_ONLY = ("mask_rule", "metric_size", "smoothing")


@cache
def _read(name: str) -> pd.DataFrame:
    # keep_default_na: an empty text stays text; "01" stays a category
    return pd.read_csv(FOLDER / f"{name}.csv", dtype=str, keep_default_na=False)


def _check_paper(paper: str | None) -> None:
    if paper is not None and paper not in PAPERS:
        raise UserError(f"unknown paper {paper!r}; valid: {', '.join(PAPERS)}")


def _decimals(printed: str, value: float) -> int:
    """Decimals of the print on the scale of `value`: 0.994 for 99.4 percent has one."""
    decimals = len(printed.partition(".")[2])
    is_fraction = value != 0 and np.isclose(float(printed) * 100, value)
    return decimals - 2 if is_fraction else decimals


def load(paper: str | None = None) -> pd.DataFrame:
    """Every published cell of one paper, or of all.

    Columns: paper, table, dataset, category, system, metric, value (percent; NaN for a dash), printed, decimals (of the
    cell's print) and column_decimals (the most in its column: what "100" between 99.6 and 98.1 means).
    """
    _check_paper(paper)
    cells = pd.concat([_read(p) for p in ([paper] if paper else PAPERS)], ignore_index=True)
    cells["value"] = pd.to_numeric(cells["value"])
    known = cells["value"].notna()
    cells["decimals"] = [
        _decimals(p, v) if k else 0 for p, v, k in zip(cells["printed"], cells["value"], known, strict=True)
    ]
    column = cells.groupby(["paper", "table", "dataset", "system", "metric"])["decimals"]
    cells["column_decimals"] = column.transform("max")
    return cells


def errata(paper: str | None = None) -> pd.DataFrame:
    """Where a paper contradicts itself or its sources: printed and corrected (text, unit of `value`), remark, kind."""
    _check_paper(paper)
    table = _read("errata")
    return table[table["paper"].isin([paper] if paper else PAPERS)].reset_index(drop=True)


def systems() -> pd.DataFrame:
    """Every system that a table names: reference, public code, and our registry name in `method` where there is one."""
    return _read("systems").copy()


def method_of(paper: str, system: str) -> str | None:
    """Our registry name of a published system; the variants of an ablation table belong to the paper's own system."""
    _check_paper(paper)
    if system in DEFAULTS.get(paper, ()) or VARIANT.match(system):
        return paper
    return dict(zip(systems()["system"], systems()["method"], strict=True)).get(system) or None


_ROWS = {(row["paper"], row["dataset"], row["field"]): row for row in _read("protocol").to_dict("records")}
# PROTOCOL[paper][field]: what the paper itself states, else "not stated"
PROTOCOL = {p: {f: r["stated"] for (q, d, f), r in _ROWS.items() if (q, d) == (p, "any")} for p in PAPERS}


def protocol(paper: str, dataset: str) -> dict[str, dict]:
    """{field: row of protocol.csv} for a data set: `stated`, or where the paper is silent `elsewhere` and `source`."""
    _check_paper(paper)
    return {field: _ROWS.get((paper, dataset, field), _ROWS[paper, "any", field]) for field in PROTOCOL[paper]}


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
