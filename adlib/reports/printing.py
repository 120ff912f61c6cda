"""A table of numbers as text: percent for readers, narrow for terminals, Markdown, LaTeX, CSV and JSON.

How a table is built (parts beside a measured column, notes, decimals): see adlib.reports.tables.
"""

import json
import textwrap
from pathlib import Path

import numpy as np
import pandas as pd

from adlib.common.errors import unknown
from adlib.common.files import written_whole
from adlib.metrics.names import METRICS, PLAIN, label

DASH = "-"
PARTS = ("sd", "low", "high", "n", "of")  # columns beside a measured one
FORMATS = ("text", "md", "csv", "json")
WIDTH = 100  # columns of a terminal
LONGEST = 25  # characters of a cell in a terminal; a longer one becomes a letter with its meaning below
# columns that describe a setting together; side by side they would fill a terminal
SETTING = ("backbone", "image_size", "epochs", "setting")
KEYS = ("table", "method", "dataset", "category", "system", "factor", "variant")  # they name a row
HEADERS = {"image_size": "side", "training": "training time"}


def number(value: float, metric: str = "", decimals: int = 1) -> str:
    """0.9764 -> "97.6" (percent); parameters, GMac and speed in their own unit; NaN -> a dash."""
    if value is None or pd.isna(value):
        return DASH
    if metric.endswith(PLAIN):
        return f"{value:.3f}".rstrip("0").rstrip(".")
    return f"{100 * value:.{decimals}f}"


def _measured_text(row, name: str, decimals: int) -> str:
    """Mean, sd over seeds, 95 % interval and number of seeds: "97.6 ± 0.3 [96.9, 98.2] (n=3)"."""
    if pd.isna(row[name]):
        return DASH
    mean, sd, low, high = (number(row[c], name, decimals) for c in (name, f"{name} sd", f"{name} low", f"{name} high"))
    text = mean
    if sd != DASH:
        text += f" ± {sd}"
    if low != DASH:
        text += f" [{low}, {high}]"
    count = f"n={int(row[f'{name} n'])}"
    of = row.get(f"{name} of")
    if isinstance(of, str):
        count += f", {of}"
    return f"{text} ({count})"


def _interval_text(row, name: str, decimals: int) -> str:
    """Mean and 95 % interval alone: "97.6 [96.9, 98.2]"."""
    mean, low, high = (number(row[c], name, decimals) for c in (name, f"{name} low", f"{name} high"))
    if low == DASH:
        return mean
    return f"{mean} [{low}, {high}]"


def _cell(value, row, name: str, decimals: int) -> str:
    if isinstance(value, float | np.floating):
        return number(value, str(row.get("metric", name)), decimals)
    return DASH if value is None or value == "" or value is pd.NA else str(value)


def _header(name: str, short: bool = False) -> str:
    return label(HEADERS.get(name, name), short)


def _pairs(columns: list[str], table: pd.DataFrame) -> dict[str, list[str]]:
    """{system: its published metric columns} where there are two or more, to be printed as one column "I/P"."""
    systems: dict[str, list[str]] = {}
    for column in columns:
        system, _, metric = column.rpartition(" ")
        if system and metric in METRICS and not system.endswith("(here)") and f"{column} sd" not in table:
            systems.setdefault(system, []).append(column)
    return {system: group for system, group in systems.items() if len(group) > 1}


def printed(table: pd.DataFrame, short: bool = False) -> pd.DataFrame:
    """The table as text: percent, dashes for what is missing, sd and interval joined, "I/P" in one column.

    short: short names of metrics, and of a measured value its mean and interval alone. attrs["plain"]: columns of
    numbers in a unit of their own, which are no shares and are not turned into percent.
    """
    decimals, plain = table.attrs.get("decimals", 1), table.attrs.get("plain", ())
    parts = {f"{c} {k}" for c in table.columns for k in PARTS if f"{c} sd" in table.columns}
    columns = [c for c in table.columns if c not in parts]
    pairs = _pairs(columns, table)
    joined = {c: system for system, group in pairs.items() for c in group}
    measured_text = _interval_text if short else _measured_text
    rows = []
    for _, row in table.iterrows():
        out: dict[str, str] = {}
        for c in columns:
            if f"{c} sd" in parts:
                out[_header(c, short)] = measured_text(row, c, decimals)
            elif c in joined:
                metrics = "/".join(METRICS[x.rpartition(" ")[2]].short for x in pairs[joined[c]])
                out[f"{joined[c]} {metrics}"] = "/".join(number(row[x], x, decimals) for x in pairs[joined[c]])
            elif c in plain:
                out[_header(c, short)] = DASH if pd.isna(row[c]) else f"{row[c]:.3g}"
            else:
                out[_header(c, short)] = _cell(row[c], row, c, decimals)
        rows.append(out)
    text = pd.DataFrame(rows, dtype=str)
    text.attrs["notes"] = table.attrs.get("notes", [])
    text.attrs["row_of_note"] = table.attrs.get("row_of_note", {})
    return text


def to_text(table: pd.DataFrame, format: str = "text") -> str:
    """A table for the command line, ending with a newline. Raises UserError for an unknown format.

    text: at most 100 columns wide (`narrow`); md: Markdown; csv, json: numbers in 0..1, for programs.
    """
    if format not in FORMATS:
        raise unknown("format", format, FORMATS)
    write = {"text": narrow, "md": to_markdown, "csv": to_csv, "json": to_json}[format]
    return write(table)


def narrow(table: pd.DataFrame, width: int = WIDTH) -> str:
    """The table for a terminal of `width` columns, ending with a newline.

    Above it stands what is the same in every row; settings and long cells become letters with their meaning below. A
    measured value is its mean with the 95 % interval. Columns that find no room continue in a second block.
    """
    if not len(table):
        return "no rows\n"
    text = _settings_joined(printed(table, short=True))
    same = [c for c in text.columns if len(text) > 1 and text[c].nunique() == 1]
    above = [f"{c}: {text[c].iloc[0]}" for c in same]
    text = text.drop(columns=same)
    keys = [c for c in text.columns if c in KEYS]
    text, meanings = _abbreviated(text, keys)
    lines = textwrap.wrap("; ".join(above), width)
    if len(text.columns) > len(keys):
        body = text.set_index(keys) if keys else text
        # pandas breaks the table into blocks of columns and repeats the index in each
        block = body.to_string(line_width=width, index=bool(keys), max_colwidth=None)
        lines += [line.rstrip() for line in block.split("\n")] + [""]
    notes = [*meanings, *(_with_letter(note, text) for note in text.attrs["notes"])]
    short = [c for c in table.columns if c in METRICS and METRICS[c].short != METRICS[c].long]
    if short:
        named = {METRICS[c].short: METRICS[c].long for c in short}
        notes.append("; ".join(f"{k}: {v.removesuffix(f' ({k})')}" for k, v in named.items()) + ".")
    if any(f"{c} low" in table and table[f"{c} low"].notna().any() for c in table.columns):
        notes.append("Percent; in brackets the 95 % interval.")
    for note in notes:
        lines += textwrap.wrap(f"- {note}", width, subsequent_indent="  ")
    return "\n".join(lines) + "\n"


def _settings_joined(text: pd.DataFrame) -> pd.DataFrame:
    """The columns of a setting in one: "resnet18, 224 px, 40 epochs, reduced"."""
    units = {_header("image_size"): " px", "epochs": " epochs"}
    columns = [_header(c) for c in SETTING if _header(c) in text.columns]
    if len(columns) < 2:
        return text
    joined = []
    for _, row in text[columns].iterrows():
        cells = [row[c] if row[c].endswith("steps") else row[c] + units.get(c, "") for c in columns if row[c] != DASH]
        cells = ["1 epoch" if cell == "1 epochs" else cell for cell in cells]
        joined.append(", ".join(cells))
    out = text.drop(columns=columns)
    out.insert(list(text.columns).index(columns[0]), "setting", joined)
    return out


def _abbreviated(text: pd.DataFrame, keys: list[str]) -> tuple[pd.DataFrame, list[str]]:
    """Columns with a long cell get letters instead, of the keys the long cells alone (a mixture of data sets): (the
    table, what each letter means).
    """
    meanings: dict[str, str] = {}
    out = text.copy()
    for column in text.columns:
        long = text[column].str.len() > LONGEST
        if long.any():
            for cell in dict.fromkeys(text[column][long] if column in keys else text[column]):
                if cell != DASH:
                    meanings.setdefault(cell, _letter(len(meanings)))
            out[column] = text[column].map(lambda cell: meanings.get(cell, cell))
    return out, [f"{letter}: {cell}" for cell, letter in meanings.items()]


def _with_letter(note: str, text: pd.DataFrame) -> str:
    """A note on one row names the letter of the row's setting, where the table has one."""
    row = text.attrs["row_of_note"].get(note)
    letter = text["setting"].iloc[row] if row is not None and "setting" in text else ""
    if not (letter.isalpha() and letter.isupper()):
        return note
    place, _, said = note.partition(": ")
    return f"{place}, setting {letter}: {said}"


def _letter(k: int) -> str:
    """0 -> "A", 25 -> "Z", 26 -> "AA": as a spreadsheet names its columns."""
    text = ""
    while k >= 0:
        text = chr(ord("A") + k % 26) + text
        k = k // 26 - 1
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
        "<": "$<$",
        ">": "$>$",
    }
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


def to_json(table: pd.DataFrame) -> str:
    """{"rows": [{column: value}], "notes": [sentence]}; numbers in 0..1 with six decimals, null where missing."""
    rows = json.loads(table.to_json(orient="records", double_precision=6))
    return json.dumps({"rows": rows, "notes": table.attrs.get("notes", [])}, indent=1, ensure_ascii=False) + "\n"


def save(table: pd.DataFrame, stem: str | Path) -> list[Path]:
    """Write stem.md, stem.tex and stem.csv, byte for byte the same for the same table. Returns the three paths."""
    stem = Path(stem)
    paths = []
    for suffix, write in ((".md", to_markdown), (".tex", to_latex), (".csv", to_csv)):
        path = stem.with_name(stem.name + suffix)
        with written_whole(path) as scratch:
            scratch.write_text(write(table), encoding="utf-8", newline="\n")
        paths.append(path)
    return paths
