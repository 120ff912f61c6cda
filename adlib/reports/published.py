"""The papers' numbers, their errata and protocols, and the verdict: published beside measured.

Published values lie beside this file in papers/*.csv in percent, as printed; measured values and `verdict` are 0..1.
A published value v with d decimals stands for v +- 0.5 * 10^-d (specs/common 4.8).

What a `runs` argument is stands in adlib.measured.
"""

import re
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from adlib.common.errors import UserError

FOLDER = Path(__file__).parent / "papers"
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
