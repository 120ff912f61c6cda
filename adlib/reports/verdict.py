"""The verdict: published beside measured, every protocol field that differs, and what may be said.

Measured values and verdicts are 0..1. What a `runs` argument is: see adlib.reports.measured.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
import pandas as pd

from adlib.common.errors import UserError, check_names
from adlib.data import plain
from adlib.metrics.names import MEASURED_AS, PLAIN, best_epoch, label
from adlib.reports import measured, printing
from adlib.reports.measured import AVERAGES, belongs
from adlib.reports.published import (
    NOT_STATED,
    VERDICTS,
    beside_system,
    errata,
    load,
    method_of,
    own_system,
    paper_of,
    protocol,
    protocol_of,
    role,
)

NEVER_JUDGED = ("seconds_per_image", "frames_per_second")  # other hardware and code (specs/common 5)
LENGTH = ("epochs", "steps")  # of training; a config has one of them
# fields that make a run another experiment than the published one
CORE = ("training", "image_size", "resize_mode", "resize", "stride", "backbone", *LENGTH)
# fields that a run may choose without becoming another system; they are listed where they differ
NEUTRAL = ("holdback", "mask_rule", "metric_size", "eval_every", "precision", "batch_size", "select", "cache_dtype")
PIXEL_ONLY = ("mask_rule", "metric_size", "smoothing")
NOTHING = "Nothing was comparable: the column `reason` says why for each cell."
CELL = ("table", "dataset", "category", "system", "metric")
COLUMNS = (*CELL, "published", "erratum", "beside", "measured", "sd", "n_seeds", "n_images", "low", "high")
COLUMNS += ("interval_method", "oracle", "differs", "verdict", "reason")


def ours(runs, method: str | None, dataset: str, category: str, metric: str) -> dict | None:
    """Our numbers for a published cell (published name of the metric), or None: see `measured.cell`."""
    return measured.cell(runs, method, dataset, category, MEASURED_AS.get(metric, metric))


def no_average(category: str, here: dict | None, of: int = 2) -> bool:
    """Whether our numbers for an average over `of` categories come from a single one, which is none."""
    return here is not None and category in AVERAGES and here["n_categories"] < min(2, of)


def _same(ours, theirs) -> bool:
    """Equality of a recorded value and a text of protocol.csv; a backbone's weights tag is shown, not compared."""
    ours, theirs = str(ours).lower(), str(theirs).lower()
    try:
        return float(ours) == float(theirs)
    except ValueError:
        return ours.partition(".")[0].removeprefix("tf_") == theirs.partition(".")[0].removeprefix("tf_")


def changed(record: dict) -> dict[str, tuple]:
    """{config field: (paper's value, ours)}; what the paper states for this data set overrides the Config's default."""
    expected = dict(record.get("paper_config") or {})
    paper = paper_of(record["method"])
    if paper:
        for field, row in protocol(paper, record["dataset"]).items():
            if row["dataset"] != "any" and row["stated"] != NOT_STATED and field in expected:
                expected[field] = int(row["stated"])
    return differing(record.get("config") or {}, expected)


def differing(config: dict, expected: dict) -> dict[str, tuple]:
    """{field: (expected value, that of the config)} of the fields that both have; epochs and steps are one of them."""
    pairs = {k: (v, config[k]) for k, v in sorted(expected.items()) if k in config and config[k] != v}
    if set(LENGTH) <= set(pairs):  # one counts epochs, the other steps: one difference, not two
        theirs = next(field for field in LENGTH if expected[field] is not None)
        here = next(field for field in LENGTH if config[field] is not None)
        del pairs[theirs]
        pairs[here] = (f"{expected[theirs]} {theirs}", config[here])
    return pairs


def _forbids(field: str, paper, here, core_only: bool) -> bool:
    """Whether a difference makes another experiment. Longer training and other weights of one backbone do not."""
    if field in LENGTH:
        other_unit = isinstance(paper, str) and not paper.isdigit()
        return other_unit or float(here) < float(paper)
    return (
        field not in NEUTRAL and (field in CORE or not core_only) and not (field == "backbone" and _same(here, paper))
    )


def reduced(record: dict, core_only: bool = False) -> list[str]:
    """What makes a run another experiment than the paper's: "epochs 2 (paper 160)". Empty in the paper's setting.

    `core_only` looks at size, crop, backbone, length of training only: variants of an ablation differ elsewhere on
    purpose.
    """
    return [
        f"{k} {here} (paper {paper})"
        for k, (paper, here) in changed(record).items()
        if _forbids(k, paper, here, core_only)
    ]


def concerns(field: str, metric: str) -> bool:
    """Whether a field of the protocol has a part in a metric."""
    if field == "aupro_limit":
        return metric.startswith("aupro")
    return not (field in PIXEL_ONLY and metric.startswith("image"))


def _differences(record: dict, cell, core_only: bool) -> tuple[dict, dict, list]:
    """({field: text of the difference}, the forbidding ones among them, fields of which nobody states the value).

    Of the quoting paper's protocol counts what holds for the cell's system (`protocol_of`), and the system's own
    published setting always (`changed`): "paper 160" means the paper of the system, which of a rival is another one.
    """
    recorded = {**(record.get("config") or {}), **(record.get("protocol") or {})}
    differ, forbid, silent = {}, {}, []
    for field, row in protocol_of(cell.paper, cell.system, record["dataset"]).items():
        stated, here = row["stated"] != NOT_STATED, recorded.get(field)
        theirs = row["stated"] if stated else row["elsewhere"]
        if not concerns(field, cell.metric):
            continue
        if not theirs:
            silent.append(field)
        elif here is not None and not _same(here, theirs):
            source = f"paper {theirs}" if stated else f"{theirs} in {row['source'].partition(',')[0]}"
            differ[field] = f"{field} {here} ({source})"
            if field in CORE and _forbids(field, theirs, here, core_only):
                forbid[field] = differ[field]
    for field, (theirs, here) in changed(record).items():
        text = differ.setdefault(field, f"{field} {here} (paper {theirs})")
        if _forbids(field, theirs, here, core_only):
            forbid[field] = text
    return differ, forbid, silent


def _all_differences(records: list[dict], cell) -> tuple[str, list[str]]:
    """(text of every difference, names of the forbidding fields) over all records of a cell, without repetition."""
    variant = role(cell.paper, cell.system) == "variant"
    differ, forbid, silent = [], [], []
    for record in records:
        d, f, s = _differences(record, cell, variant)
        differ, forbid, silent = [*differ, *d.values()], [*forbid, *f], [*silent, *s]
        if variant and not set(changed(record)) - {*NEUTRAL, *CORE}:
            forbid.append("being the default setting, not this variant")
    if silent:
        differ.append("not stated: " + ", ".join(dict.fromkeys(silent)))
    return "; ".join(dict.fromkeys(differ)), list(dict.fromkeys(forbid))


def erratum_of(cell) -> tuple[str, float | None]:
    """(text, corrected value in the unit of `value`) of a row of `load`; ("", None) without an erratum."""
    table = _errata(cell)
    of_cell = table[
        (table["system"] == cell.system) & (table["category"] == cell.category) & (table["metric"] == cell.metric)
    ]
    of_column = _of_column(cell)
    texts = [f"{r.printed} -> {r.corrected}: {r.remark}" for r in pd.concat([of_cell, of_column]).itertuples()]
    return "; ".join(texts), float(of_cell["corrected"].iloc[0]) if len(of_cell) else None


def _errata(cell) -> pd.DataFrame:
    table = errata(cell.paper)
    return table[(table["table"] == cell.table) & (table["dataset"] == cell.dataset)]


def _of_column(cell) -> pd.DataFrame:
    """The errata that say that the cell's column shows another metric than its heading."""
    table = _errata(cell)
    return table[(table["system"] == cell.system) & (table["kind"] == "metric") & (table["printed"] == cell.metric)]


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
    reasons = [f"the printed column is {label(metric)}" for metric in _of_column(cell)["corrected"]]
    if cell.category in AVERAGES and here["n_categories"] < of:
        reasons.append(f"{here['n_categories']} of {of} categories")
    if forbid:
        reasons.append(f"differs in {', '.join(forbid)}")
    if reasons:
        return "not comparable", "; ".join(reasons)
    return _judge(value, half, here)


def n_categories(cells: pd.DataFrame, cell) -> int:
    """Over how many categories a published average runs: the rows beside it, else all of the data set in any table."""
    column = cells[
        (cells["table"] == cell.table) & (cells["dataset"] == cell.dataset) & (cells["system"] == cell.system)
    ]
    column = column[(column["metric"] == cell.metric) & column["value"].notna()]
    names = _categories(column)
    if not names:
        return _categories_of(cell.dataset)
    return sum(belongs(name, cell.category) for name in names)


@cache
def _categories_of(dataset: str) -> int:
    cells = load()
    return max(1, len(_categories(cells[cells["dataset"] == dataset])))


def _categories(cells: pd.DataFrame) -> set[str]:
    return {plain(name) for name in cells["category"] if name not in (*AVERAGES, "all")}


def _beside(cells: pd.DataFrame, cell) -> float:
    same = cells[
        (cells["table"] == cell.table) & (cells["category"] == cell.category) & (cells["metric"] == cell.metric)
    ]
    values = same.loc[same["system"] == beside_system(cell.paper), "value"]
    return float(values.iloc[0]) / 100 if len(values) else np.nan


def _row(cells: pd.DataFrame, cell, runs) -> dict:
    method = method_of(cell.paper, cell.system)
    scale = 1 if cell.metric in PLAIN else 100
    erratum, corrected = erratum_of(cell)
    value = (cell.value if corrected is None else corrected) / scale
    here, of = ours(runs, method, cell.dataset, cell.category, cell.metric), n_categories(cells, cell)
    if no_average(cell.category, here, of):
        here = None
    at_best = best_epoch(MEASURED_AS.get(cell.metric, cell.metric))
    oracle = measured.cell(runs, method, cell.dataset, cell.category, at_best)
    differ, forbid = _all_differences(here["records"] if here else [], cell)
    half = 0.5 * 10.0**-cell.column_decimals / scale
    decision, reason = _decide(cell, here, value, half, of, forbid)
    missing = dict.fromkeys(("sd", "low", "high"), np.nan) | {"n_seeds": 0, "n_images": 0, "interval_method": ""}
    order = ("sd", "n_seeds", "n_images", "low", "high", "interval_method")
    return {
        **{k: getattr(cell, k) for k in CELL},
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
    differs, verdict, reason. Where an erratum has another value, that one is judged. A column that
    shows another metric than its heading is never judged. `systems` picks other published systems: rivals (by their own
    setting, see `_differences`), or, with the runs of that variant, a row of an ablation table. `attrs["notes"]`: where
    the data came from, if they are no originals. Raises UserError for an unknown paper or system.
    """
    cells, settings = load(paper), measured.settings(runs)
    wanted = [own_system(paper)] if systems is None else list(systems)
    check_names(f"system in the tables of {paper}", wanted, dict.fromkeys(cells["system"]))
    chosen = cells[cells["system"].isin(wanted)]
    table = pd.DataFrame([_row(cells, cell, settings) for cell in chosen.itertuples(index=False)])
    methods = {method_of(paper, system) for system in wanted}
    records = [r for setting in settings if setting.method in methods for r in setting.records]
    table.attrs["notes"] = measured.provenance([r for r in records if r["dataset"] in set(table["dataset"])])
    return table


def verdict_table(judged: pd.DataFrame) -> pd.DataFrame:
    """What `verdict` returned, narrow enough to print: measured columns joined, the differences from the paper as
    numbers whose meaning stands in the notes.
    """
    order = (*CELL, "published", "beside", "oracle")
    out = judged[[c for c in order if _tells(judged, c)]]
    out = out.assign(ours=judged["measured"], **{f"ours {k}": judged[k] for k in ("sd", "low", "high")})
    out["ours n"] = judged["n_seeds"]
    numbers, meanings = numbered(judged["differs"])
    out = out.assign(differs=numbers, verdict=judged["verdict"], reason=judged["reason"])
    errors = [e for e in dict.fromkeys(judged["erratum"]) if e]
    out.attrs["notes"] = [counted(judged), *meanings, *(f"Erratum: {e}" for e in errors)]
    out.attrs["notes"] += judged.attrs.get("notes", [])
    return out


def numbered(texts: pd.Series) -> tuple[pd.Series, list[str]]:
    """Long texts as "(1)", "(2)", and a line with the meaning of each; an empty text stays empty."""
    meanings = [text for text in dict.fromkeys(texts) if text]
    numbers = {text: f"({i + 1})" for i, text in enumerate(meanings)}
    return texts.map({"": "", **numbers}), [f"{numbers[text]} {text}" for text in meanings]


def counted(judged: pd.DataFrame, verdicts: tuple[str, ...] = VERDICTS) -> str:
    """How often each verdict was given: "2 reproduced, 0 within noise, ..."."""
    counts = judged["verdict"].value_counts()
    return ", ".join(f"{counts.get(v, 0)} {v}" for v in verdicts)


def _tells(table: pd.DataFrame, column: str) -> bool:
    """Whether a column is worth printing: the published value and metric always, others where they vary or exist."""
    if column in ("beside", "oracle"):
        return bool(table[column].notna().any())
    return column in ("category", "metric", "published") or table[column].nunique() > 1


@dataclass(frozen=True)
class Check:
    """Whether a paper's numbers were reproduced: every published cell, and what is said of all of them.

    table: what `verdict` returned. ok: exit status 0.
    """

    table: pd.DataFrame
    ok: bool
    sentences: tuple[str, ...]

    def text(self, format: str = "text") -> str:
        """The cells that were run, as `tables.to_text` prints them, and the sentences; ends with a newline.

        csv and json, which programs read, hold every cell; json has the sentences among its notes.
        """
        if format in ("csv", "json"):
            table = self.table.copy()
            table.attrs["notes"] = [*self.sentences, *self.table.attrs["notes"]]
            return printing.to_text(table, format)
        shown = verdict_table(self.table[self.table["verdict"] != "not run"])
        shown.attrs["notes"] = shown.attrs["notes"][1:]  # the counts are a sentence
        return printing.to_text(shown, format) + "\n" + "".join(f"{s}\n" for s in self.sentences)


def check(runs, paper: str, allow_incomparable: bool = False) -> Check:
    """Judge every published cell of a paper's own system, see `checked`. Raises UserError where none of it was run."""
    table = verdict(runs, paper)
    if (table["verdict"] == "not run").all():
        raise UserError(f"no finished run of {paper} on a data set of its paper; `python -m adlib batch` makes them")
    return checked(table, allow_incomparable)


def checked(table: pd.DataFrame, allow_incomparable: bool = False) -> Check:
    """What `verdict` returned, as a check: `ok` if no cell is "not reproduced" and at least one was comparable.

    allow_incomparable: runs of which none is comparable (all reduced, say) are no failure.
    """
    sentences = [counted(table, VERDICTS[:-1]) + "."]
    missing = int((table["verdict"] == "not run").sum())
    if missing:
        sentences.append(f"{missing} of {len(table)} cells not run.")
    if not comparable(table):
        sentences.append(NOTHING)
    return Check(table, passed(table, allow_incomparable), tuple(sentences))


def comparable(judged: pd.DataFrame) -> bool:
    """Whether any cell has a verdict on its numbers."""
    return bool(judged["verdict"].isin(VERDICTS[:3]).any())


def passed(judged: pd.DataFrame, allow_incomparable: bool = False) -> bool:
    """Whether no cell is "not reproduced" and, unless that is allowed, at least one was comparable."""
    failed = (judged["verdict"] == "not reproduced").any()
    return not failed and (comparable(judged) or allow_incomparable)


def systems_run(runs, paper: str) -> list[str]:
    """The systems of a paper's tables, its own and rivals, of which there are runs on data it prints them for."""
    here = {(setting.method, setting.dataset) for setting in measured.settings(runs)}
    cells = load(paper)[["system", "dataset"]].drop_duplicates()
    names = [
        cell.system
        for cell in cells.itertuples(index=False)
        if role(paper, cell.system) in ("own", "rival") and (method_of(paper, cell.system), cell.dataset) in here
    ]
    return list(dict.fromkeys(names))
