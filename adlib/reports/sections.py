"""What every paper's notebook shows in the same way, each called in one line: who ran what, errata, verdicts, origin.

Functions return Markdown text or a DataFrame; a notebook displays them.
"""

import pandas as pd

from adlib.metrics.names import label
from adlib.reports import measured, printing, published
from adlib.reports.verdict import verdict_table


def work_done(runs, title: str) -> str:
    """Markdown: how many runs of which system on which data, their training time, device and library versions.

    title: the system's name as the paper writes it.
    """
    records = [run.record for run in runs]
    machine = records[0]["machine"]
    seconds = sum(record["seconds"].get("train", 0) for record in records)
    categories = dict.fromkeys(c for record in records for c in record["per_category"])
    seeds = sorted({record["seed"] for record in records})
    packages = ", ".join(f"{p} {machine['versions'][p]}" for p in ("torch", "timm"))
    return (
        f"**{len(records)} runs** of {title} on {records[0]['dataset']} ({', '.join(categories)}), seeds "
        f"{', '.join(map(str, seeds))}; trained on {machine['device']} in {seconds:.0f} s altogether; {packages}."
    )


def mean_text(cell: dict | None) -> str:
    """A cell of `verdict.ours` as text: "92.5 % [90.4, 94.5], n = 3 seeds"; None where nothing was measured."""
    if cell is None:
        return "not measured (no masks)"
    mean, low, high = (printing.number(cell[k]) for k in ("mean", "low", "high"))
    return f"{mean} % [{low}, {high}], n = {cell['n_seeds']} seeds"


def judged_cells(verdicts: pd.DataFrame) -> str:
    """Markdown table of the published cells that were run, verdict and differences; a sentence where none was."""
    judged = verdicts[verdicts["verdict"] != "not run"]
    if not len(judged):
        return "No published cell was run."
    return printing.to_markdown(verdict_table(judged))


def closing_counts(verdicts: pd.DataFrame) -> str:
    """Markdown: how many published cells have each verdict."""
    counts = verdicts["verdict"].value_counts()
    return ", ".join(f"**{counts.get(v, 0)} {v}**" for v in published.VERDICTS) + "."


def closing_table(verdicts: pd.DataFrame, merged: dict[str, str] | None = None) -> pd.DataFrame:
    """Every published cell as "published → ours: verdict": rows are table and category, columns the metrics.

    merged: {table of the paper: name of the row group}, where two tables print parts of one. A paper with one table has
    rows of categories alone.
    """
    cells = [
        f"{printing.number(r.published, r.metric)} → {printing.number(r.measured, r.metric)}: {r.verdict}"
        for r in verdicts.itertuples()
    ]
    shown = verdicts.assign(cell=cells, table=verdicts["table"].replace(merged or {}))
    rows = ["table", "category"] if shown["table"].nunique() > 1 else ["category"]
    wide = shown.pivot_table(index=rows, columns="metric", values="cell", aggfunc="first", sort=False)
    return wide.fillna("").rename(columns=label).rename_axis(columns=None)


def errata_table(paper: str) -> str:
    """Markdown: where the paper contradicts itself or its sources, and how we know. Raises UserError: unknown paper."""
    table = published.errata(paper)[["table", "system", "category", "metric", "printed", "corrected", "remark", "kind"]]
    if not len(table):
        return "We know of no error in the printed numbers."
    return printing.to_markdown(table)


def provenance(runs, notebook_seconds: float | None = None) -> pd.DataFrame:
    """What the numbers of a notebook come from, a row per fact: versions, device, weights, data, code, seconds.

    The first seed's runs name weights and data; `notebook_seconds` is the time of the notebook itself.
    """
    every = list(runs)
    first = [run for run in every if run.record["seed"] == every[0].record["seed"]]
    record, machine = first[0].record, first[0].record["machine"]
    networks = [f"{w['name']}, {w['fingerprint'][:12]}" for w in measured.weights(record)]
    data = dict.fromkeys(f"{c} {f[:12]}" for run in first for c, f in run.record["data"].items())
    facts = {
        "python": machine["python"],
        **machine["versions"],
        "device": f"{machine['device']} ({machine['device_type']}), {machine['threads']} thread(s)",
        "weights": "; ".join(networks) or "none",
        "data": ", ".join(data),
        "code": record["code"],
        "seconds": f"training {sum(run.record['seconds'].get('train', 0) for run in every):.0f}",
    }
    origin = measured.provenance([run.record for run in every])
    if origin:
        facts["data come from"] = "; ".join(origin)
    bank = record.get("texture_bank")
    if bank:
        facts["textures"] = f"{bank['name']}, {bank['count']}, {bank['fingerprint'][:12]}"
    if any(run.stale for run in first):
        facts["code"] += " (stale: the code changed since)"
    if notebook_seconds is not None:
        facts["seconds"] += f", this notebook {notebook_seconds:.0f}"
    return pd.Series(facts, name="value").to_frame()
