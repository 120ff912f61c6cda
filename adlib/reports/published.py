"""The papers' numbers, their errata and protocols, as printed; the verdict on them is `adlib.reports.verdict`.

Published values lie beside this file in papers/*.csv in percent; papers/README.md documents every column. A published
value v with d decimals means v +- 0.5 * 10^-d (specs/common 4.8).
"""

import json
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from adlib.common.errors import check_names

FOLDER = Path(__file__).parent / "papers"
VERDICTS = ("reproduced", "within noise", "not reproduced", "not comparable", "not run")
NOT_STATED = "not stated"
ROLES = ("own", "beside", "default", "variant", "rival")
EVALUATION = ("mask_rule", "metric_size", "aupro_limit")  # fields of a protocol that hold for all systems of a table


@cache
def _read(name: str) -> pd.DataFrame:
    # keep_default_na: an empty text stays text; "01" stays a category
    return pd.read_csv(FOLDER / f"{name}.csv", dtype=str, keep_default_na=False)


PAPERS = tuple(_read("papers")["paper"])


def papers() -> pd.DataFrame:
    """The papers in the order of the notebooks: paper (key), title, citation."""
    return _read("papers").copy()


def _decimals(printed: str, value: float) -> int:
    """Decimals of the print on the scale of `value`: 0.994 for 99.4 percent has one."""
    decimals = len(printed.partition(".")[2])
    is_fraction = value != 0 and np.isclose(float(printed) * 100, value)
    return decimals - 2 if is_fraction else decimals


def load(paper: str | None = None) -> pd.DataFrame:
    """Every published cell of one paper, or of all. Raises UserError for an unknown paper.

    Columns: paper, table, dataset, category, system, metric, value (percent; NaN for a dash), printed, decimals (of the
    cell's print) and column_decimals (the most in its column: what "100" between 99.6 and 98.1 means).
    """
    cells = pd.concat([_read(p) for p in _papers(paper)], ignore_index=True)
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
    table = _read("errata")
    return table[table["paper"].isin(_papers(paper))].reset_index(drop=True)


def systems() -> pd.DataFrame:
    """Every system that a table names: reference, public code, and our registry name in `method` where there is one."""
    return _read("systems").copy()


def roles(paper: str | None = None) -> pd.DataFrame:
    """What each system is to a paper that prints it: paper, system, role (one of ROLES), config.

    config: the change to our Config that makes a row of an ablation table, {} for the default; None where our Config
    cannot make it.
    """
    table = _read("roles")
    table = table[table["paper"].isin(_papers(paper))].reset_index(drop=True)
    return table.assign(config=[json.loads(text) if text else None for text in table["config"]])


@cache
def _roles(paper: str) -> dict[str, str]:
    return dict(roles(paper)[["system", "role"]].itertuples(index=False))


def role(paper: str, system: str) -> str:
    """What a published system is to the paper, one of ROLES. Raises UserError for an unknown paper or system."""
    check_names("paper", [paper], PAPERS)
    check_names(f"system in the tables of {paper}", [system], _roles(paper))
    return _roles(paper)[system]


def own_system(paper: str) -> str:
    """The system that the paper presents and we reproduce, under its name in the published tables."""
    return _with_role(paper, "own")


def beside_system(paper: str) -> str | None:
    """The system whose value is shown in the same row, without a verdict: the original of a reproduction; or None."""
    return _with_role(paper, "beside")


def _with_role(paper: str, wanted: str) -> str | None:
    check_names("paper", [paper], PAPERS)
    return next((system for system, given in _roles(paper).items() if given == wanted), None)


def method_of(paper: str, system: str) -> str | None:
    """Our registry name of a published system; the variants of an ablation table belong to the paper's own system."""
    if role(paper, system) in ("default", "variant"):
        system = own_system(paper)
    return dict(zip(systems()["system"], systems()["method"], strict=True)).get(system) or None


@cache
def paper_of(method: str) -> str | None:
    """The paper that presents a registered system; None for a rival or a baseline."""
    return next((paper for paper in PAPERS if method_of(paper, own_system(paper)) == method), None)


def _papers(paper: str | None) -> list[str]:
    if paper is None:
        return list(PAPERS)
    check_names("paper", [paper], PAPERS)
    return [paper]


_ROWS = {(row["paper"], row["dataset"], row["field"]): row for row in _read("protocol").to_dict("records")}
# PROTOCOL[paper][field]: what the paper itself states, else "not stated"
PROTOCOL = {p: {f: r["stated"] for (q, d, f), r in _ROWS.items() if (q, d) == (p, "any")} for p in PAPERS}


def protocol(paper: str, dataset: str) -> dict[str, dict]:
    """{field: row of protocol.csv} for a data set: `stated`, or where the paper is silent `elsewhere` and `source`."""
    check_names("paper", [paper], PAPERS)
    return {field: _ROWS.get((paper, dataset, field), _ROWS[paper, "any", field]) for field in PROTOCOL[paper]}


def protocol_of(paper: str, system: str, dataset: str) -> dict[str, dict]:
    """`protocol` as far as it holds for one system of the paper's tables.

    All of it for the paper's own system, its variants and its original. Of a rival only what the paper itself states of
    the evaluation (EVALUATION): its sizes, backbone, training are not the paper's own system's, and tables quote them
    without a word. Those fields are "not stated" here; what the rival's own publication says is its default Config.
    A rival's model is of one category, as in the publications of all of them.
    """
    rows = protocol(paper, dataset)
    if role(paper, system) != "rival":
        return rows
    silent = {"stated": NOT_STATED, "elsewhere": "", "source": ""}
    rows = {
        field: row if field in EVALUATION and row["stated"] != NOT_STATED else row | silent
        for field, row in rows.items()
    }
    return rows | {"training": rows["training"] | {"elsewhere": "per category", "source": "the rival's publication"}}
