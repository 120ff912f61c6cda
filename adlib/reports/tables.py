"""Every table: the papers' own beside ours, and a summary of any runs, as DataFrame, Markdown, LaTeX and CSV.

A table is a DataFrame of numbers in 0..1. A measured column `x` has `x sd`, `x low`, `x high` (95 %) and `x n` (seeds)
beside it, in averages also `x of` ("3 of 15" categories). `printed` turns numbers into percent and joins such columns.
`attrs["notes"]` are sentences printed below, `attrs["decimals"]` those of a percent. `runs`: see adlib.measured.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from adlib.common.errors import UserError
from adlib.reports import measured, published, verdict

DASH = "-"
PARTS = ("sd", "low", "high", "n", "of")  # columns beside a measured one
SHORT = {"image_auroc": "I", "pixel_auroc": "P", "pixel_ap": "AP", "aupro": "AUPRO", "image_ap": "I-AP"}
LONG = {
    "image_auroc": "image AUROC",
    "pixel_auroc": "pixel AUROC",
    "image_ap": "image AP",
    "pixel_ap": "pixel AP",
    "aupro": "AUPRO",
    "aupro@0.3": "AUPRO (FPR <= 0.3)",
    "mean_grey_auroc": "mean grey AUROC (floor)",
    "image_size": "side",
}
FLOOR = "mean_grey_auroc"  # AUROC of the image's mean grey value: what no detector should fall below
MAIN = ("image_auroc", "pixel_auroc", "pixel_ap", "aupro@0.3", published.ORACLE.format("image_auroc"), FLOOR)


def paper_table(runs, paper: str, table: str = "table1") -> pd.DataFrame:
    """A table of the paper in its row and column order: every published number, then ours, in 0..1.

    Where image AUROC was measured, the floor `mean_grey_auroc` of the same images stands beside it.
    Rows are categories (with the paper's averages) or, in a table of averages only, systems. Published columns are
    named "system metric", ours "ours metric", rivals that were run "system (here) metric". `runs` may be None, or
    {published system: its runs} for an ablation table. Raises UserError for an unknown table.
    """
    cells = published.load(paper)
    if table not in set(cells["table"]):
        raise UserError(f"unknown table {table!r} of {paper}; valid: {', '.join(dict.fromkeys(cells['table']))}")
    cells, runs = cells[cells["table"] == table], _read(runs)
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
    percent = cells[~cells["metric"].isin(published.PLAIN)]
    out.attrs["decimals"] = max([1, *percent["column_decimals"]])
    out.attrs["notes"] = _notes(runs, paper, table) + _partial(cells, runs)
    return out


def _published(cell, by_system: bool) -> dict:
    scale = 1 if cell.metric in published.PLAIN else 100
    return {cell.metric if by_system else f"{cell.system} {cell.metric}": cell.value / scale}


def _read(runs):
    """The runs with their metrics read once; a mapping stays one."""
    return {k: measured.settings(v) for k, v in runs.items()} if isinstance(runs, Mapping) else measured.settings(runs)


def _runs_of(runs, paper: str, system: str):
    """The runs behind one published system: a variant of an ablation has its own, all others share one object."""
    if isinstance(runs, Mapping):
        return runs.get(system, [])
    is_other_variant = published.VARIANT.match(system) and system not in published.DEFAULTS.get(paper, ())
    return [] if is_other_variant else runs


def _ours(cells: pd.DataFrame, cell, runs, by_system: bool) -> dict:
    """Columns of our value for one published cell; of the paper's own system also where it was not run (NaN)."""
    method = published.method_of(cell.paper, cell.system)
    twice = cell.system in published.BESIDE.values()  # one method, two published columns: shown once
    own = _runs_of(runs, cell.paper, cell.system)
    value = None if method is None or twice else verdict.ours(own, method, cell.dataset, cell.category, cell.metric)
    reproduced = by_system or cell.system == published.SYSTEM[cell.paper]
    if value is None and not reproduced:
        return {}
    value = value or {}
    name = f"ours {cell.metric}" if reproduced else f"{cell.system} (here) {cell.metric}"
    out = {name: value.get("mean", np.nan), **{f"{name} {k}": value.get(k, np.nan) for k in ("sd", "low", "high")}}
    out[f"{name} n"] = value.get("n_seeds", 0)
    if cell.metric == "image_auroc" and reproduced:
        floor = verdict.ours(own, method, cell.dataset, cell.category, FLOOR) if method else None
        out |= {FLOOR: floor["mean"]} if floor else {}
    if cell.category in measured.AVERAGES:
        out[f"{name} of"] = f"{value.get('n_categories', 0)} of {verdict.n_categories(cells, cell)}"
    return out


def _partial(cells: pd.DataFrame, runs) -> list[str]:
    """What the paper's average is over the categories that we ran, where we did not run all of them."""
    notes = []
    own = cells[
        (cells["system"] == cells["paper"].map(published.SYSTEM)) & ~cells["category"].isin((*measured.AVERAGES, "all"))
    ]
    for (paper, system, metric), group in own.groupby(["paper", "system", "metric"], sort=False):
        used = _runs_of(runs, paper, system)
        both = [(c, verdict.ours(used, paper, c.dataset, c.category, metric)) for c in group.itertuples()]
        values = [c.value for c, ours in both if ours]
        if 0 < len(values) < len(group):
            over = f"{len(values)} of {len(group)} categories run here"
            notes.append(f"The paper's mean {_header(metric)} over the {over}: {np.mean(values):.1f}.")
    return notes


def _notes(runs, paper: str, table: str) -> list[str]:
    """Sentences below a table: what is reduced in our runs, and the errata of this table."""
    notes = []
    for own in runs.values() if isinstance(runs, Mapping) else [runs]:
        records = [r for setting in measured.settings(own) if setting.method == paper for r in setting.records]
        texts = [t for r in records for t in verdict.reduced(r, isinstance(runs, Mapping))]
        if texts:
            notes.append(f"Reduced runs of {paper}: {', '.join(dict.fromkeys(texts))}; not comparable with the paper.")
    errata = published.errata(paper)
    for e in errata[errata["table"] == table].itertuples():
        notes.append(f"Erratum: {e.system}, {e.category}, {e.metric}: {e.printed} -> {e.corrected}; {e.remark}.")
    return list(dict.fromkeys(notes))


def summary(runs, metrics: list[str] | None = None) -> pd.DataFrame:
    """One row per method, data set, setting and category of any runs, with an average where there are several; 0..1.

    Columns: method, dataset, category, backbone, image_size, epochs, setting ("paper" or "reduced: ..."), seeds,
    images, training (mean seconds of one run) and per metric `metric`, sd, low, high, n. `metrics` picks them; default:
    the main ones, the best epoch on the test set (oracle) and the floor `mean_grey_auroc`, as far as they were
    measured.
    """
    found = measured.settings(runs)
    if not found:
        raise UserError("no finished run to summarise; `adlib.reproduce(...)` or `python -m adlib batch` makes them")
    known = {m for setting in found for m in setting.metrics["metric"]}
    names = [m for m in metrics or MAIN if m in known]
    rows = []
    for setting in found:
        categories = sorted(set(setting.metrics["category"]))
        for category in categories + ["average"] * (len(categories) > 1):
            rows.append(_summary_row(setting, category, names, len(categories)))
    return pd.DataFrame(rows)


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
    own = [r for r in records if r.get("category") == category and "train" in r.get("seconds", {})]
    if not own:
        return DASH
    kinds = sorted({r["machine"]["device_type"] for r in own})
    return f"{np.mean([r['seconds']['train'] for r in own]):.0f} s, {' and '.join(kinds)}"


def _setting(found: list[dict]) -> dict:
    """backbone, image_size, epochs as text (joined where runs differ), and whether they are the paper's setting."""
    out = {}
    for field in ("backbone", "image_size", "epochs"):
        values = dict.fromkeys(str((r.get("config") or {}).get(field, DASH)) for r in found)
        out[field] = ", ".join(values) or DASH
    texts = dict.fromkeys(t for r in found for t in verdict.reduced(r))
    # size, backbone and epochs have columns of their own
    other = [t.partition(" (paper")[0] for t in texts if t.split()[0] not in published.CORE]
    return {**out, "setting": ": ".join(["reduced", *([", ".join(other)] if other else [])]) if texts else "paper"}


def verdict_table(judged: pd.DataFrame) -> pd.DataFrame:
    """What `verdict.verdict` or `check` returned, narrow enough to print: measured columns joined, the differences
    from the paper as letters whose meaning stands in the notes.
    """
    out = judged[
        [
            c
            for c in ("table", "dataset", "category", "system", "metric", "published", "beside", "oracle")
            if _tells(judged, c)
        ]
    ]
    out = out.assign(ours=judged["measured"], **{f"ours {k}": verdict[k] for k in ("sd", "low", "high")})
    out["ours n"] = judged["n_seeds"]
    texts = [t for t in dict.fromkeys(judged["differs"]) if t]
    letters = {t: f"({i + 1})" for i, t in enumerate(texts)}
    out = out.assign(
        differs=judged["differs"].map(letters).fillna(""), verdict=judged["verdict"], reason=judged["reason"]
    )
    counts = judged["verdict"].value_counts()
    errata = [e for e in dict.fromkeys(judged["erratum"]) if e]
    out.attrs["notes"] = [", ".join(f"{counts.get(v, 0)} {v}" for v in published.VERDICTS)]
    out.attrs["notes"] += [f"{letters[t]} {t}" for t in texts] + [f"Erratum: {e}" for e in errata]
    return out


def _tells(table: pd.DataFrame, column: str) -> bool:
    """Whether a column is worth printing: the published value and metric always, others where they vary or exist."""
    if column in ("beside", "oracle"):
        return bool(table[column].notna().any())
    return column in ("category", "metric", "published") or table[column].nunique() > 1


def number(value: float, metric: str = "", decimals: int = 1) -> str:
    """0.9764 -> "97.6" (percent); parameters, GMac and speed in their own unit; NaN -> a dash."""
    if value is None or pd.isna(value):
        return DASH
    if metric.endswith(published.PLAIN):
        return f"{value:.3f}".rstrip("0").rstrip(".")
    return f"{100 * value:.{decimals}f}"


def _measured_text(row, name: str, decimals: int) -> str:
    """Mean, sd over seeds, 95 % interval and number of seeds: "97.6 ± 0.3 [96.9, 98.2] (n=3)"."""
    if pd.isna(row[name]):
        return DASH
    mean, sd, low, high = (number(row[c], name, decimals) for c in (name, f"{name} sd", f"{name} low", f"{name} high"))
    spread = f" ± {sd}" if sd != DASH else ""
    interval = f" [{low}, {high}]" if low != DASH else ""
    of = row.get(f"{name} of")
    return f"{mean}{spread}{interval} (n={int(row[f'{name} n'])}{f', {of}' if isinstance(of, str) else ''})"


def _cell(value, row, name: str, decimals: int) -> str:
    if isinstance(value, float | np.floating):
        return number(value, str(row.get("metric", name)), decimals)
    return DASH if value is None or value == "" or value is pd.NA else str(value)


def _header(name: str) -> str:
    return " ".join(LONG.get(word, word) for word in name.split(" "))


def _pairs(columns: list[str], table: pd.DataFrame) -> dict[str, list[str]]:
    """{system: its published metric columns} where there are two or more, to be printed as one column "I/P"."""
    systems: dict[str, list[str]] = {}
    for c in columns:
        system, _, metric = c.rpartition(" ")
        if system and metric in SHORT and not system.endswith("(here)") and f"{c} sd" not in table:
            systems.setdefault(system, []).append(c)
    return {s: c for s, c in systems.items() if len(c) > 1}


def printed(table: pd.DataFrame) -> pd.DataFrame:
    """The table as text: percent, dashes for what is missing, sd and interval joined, "I/P" in one column."""
    decimals = table.attrs.get("decimals", 1)
    parts = {f"{c} {k}" for c in table.columns for k in PARTS if f"{c} sd" in table.columns}
    columns = [c for c in table.columns if c not in parts]
    pairs = _pairs(columns, table)
    joined = {c: system for system, group in pairs.items() for c in group}
    rows = []
    for _, row in table.iterrows():
        out: dict[str, str] = {}
        for c in columns:
            if f"{c} sd" in parts:
                out[_header(c)] = _measured_text(row, c, decimals)
            elif c in joined:
                metrics = "/".join(SHORT[x.rpartition(" ")[2]] for x in pairs[joined[c]])
                out[f"{joined[c]} {metrics}"] = "/".join(number(row[x], x, decimals) for x in pairs[joined[c]])
            else:
                out[_header(c)] = _cell(row[c], row, c, decimals)
        rows.append(out)
    text = pd.DataFrame(rows, dtype=str)
    text.attrs["notes"] = table.attrs.get("notes", [])
    return text


def to_markdown(table: pd.DataFrame) -> str:
    """The printed table in Markdown, its notes below as a list. Ends with a newline."""
    text = printed(table)
    escaped = text.rename(columns=_no_bar).map(_no_bar)
    body = escaped.to_markdown(index=False, disable_numparse=True)
    notes = "".join(f"- {note}\n" for note in text.attrs["notes"])
    return body + "\n" + ("\n" + notes if notes else "")


def _no_bar(text: str) -> str:
    return str(text).replace("|", "\\|")


LATEX = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        **{c: "\\" + c for c in "&%$#_{}"},
        "~": r"\textasciitilde{}",
        "^": r"\^{}",
        "±": r"$\pm$",
    }
    | {"<": "$<$", ">": "$>$"}
)


def to_latex(table: pd.DataFrame) -> str:
    """The printed table as a LaTeX tabular with the rules of booktabs, its notes below. Ends with a newline."""
    text = printed(table)
    lines = [text.columns, *text.itertuples(index=False)]
    head, *body = (" & ".join(str(v).translate(LATEX) for v in line) + r" \\" for line in lines)
    notes = [note.translate(LATEX) + r"\par" for note in text.attrs["notes"]]
    open_, close = rf"\begin{{tabular}}{{{'l' * len(text.columns)}}}", r"\end{tabular}"
    rows = [open_, r"\toprule", head, r"\midrule", *body, r"\bottomrule", close]
    return "\n".join(rows + ([r"\par\footnotesize", *notes] if notes else [])) + "\n"


def to_csv(table: pd.DataFrame) -> str:
    """The numbers in 0..1 with six decimals, empty where missing; the notes are not part of it."""
    return table.to_csv(index=False, float_format="%.6f", lineterminator="\n")


def save(table: pd.DataFrame, stem: str | Path) -> list[Path]:
    """Write stem.md, stem.tex and stem.csv, byte for byte the same for the same table. Returns the three paths."""
    stem = Path(stem)
    stem.parent.mkdir(parents=True, exist_ok=True)
    written = []
    for suffix, write in ((".md", to_markdown), (".tex", to_latex), (".csv", to_csv)):
        path = stem.with_name(stem.name + suffix)
        path.write_text(write(table), encoding="utf-8", newline="\n")
        written.append(path)
    return written
