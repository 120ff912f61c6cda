"""Published beside ours: the headline, the paper's tables, the closing list of verdicts, and all of it in Chinese."""

import pandas as pd

from adlib.data import plain
from adlib.metrics.names import PLAIN, label
from adlib.reports import measured, printing, published, tables
from adlib.reports.sections.facts import mean_text
from adlib.reports.sections.page import folded
from adlib.reports.verdict import n_categories, no_average, ours, verdict, verdict_table

QUOTED = ("image_auroc", "pixel_auroc", "pixel_ap", "aupro")  # of a headline, under their published names
FEW = 4  # categories that a headline still names one by one
CHINESE = {
    "reproduced": "已复现",
    "within noise": "在误差范围内",
    "not reproduced": "未复现",
    "not comparable": "不可比",
    "not run": "未运行",
}


def headline(runs, method: str) -> str:
    """Markdown: the paper's number, ours and the verdict, a row per metric and category, and why no more can be said.

    An average needs two categories. For data of which the paper has no numbers: one line, and ours alone.
    """
    judged, every = _own(runs, method), measured.settings(runs)
    dataset, categories = _data_of(runs)
    rows = _rows(judged, every, method, dataset, categories)
    paper = published.paper_of(method)
    beside = published.beside_system(paper)
    if not len(judged[judged.dataset == dataset]):
        rows = [{k: row[k] for k in ("metric", "of", "ours")} for row in rows if row["run"]]
        return _elsewhere(judged, method, dataset) + "\n\n" + _markdown(rows)
    kept = ["metric", "of", *([beside] if beside else []), "published", "ours", "verdict"]
    names = {"published": published.own_system(paper)} if beside else {}  # two systems are published
    reasons = [row["reason"] for row in rows if row["verdict"] == "not comparable"]
    told = [row for row in rows if row["run"] or row["published"] != printing.DASH]
    text = _markdown([{names.get(k, k): row[k] for k in kept} for row in told])
    for reason in dict.fromkeys(reasons):
        text += f"\n\n**Not comparable:** {reason}."
    return text


def _own(runs, method: str) -> pd.DataFrame:
    """Every published cell of the paper's system with its verdict; of a number that stands in two tables the first."""
    paper = published.paper_of(method)
    return verdict(runs, paper).drop_duplicates(["dataset", "category", "metric"])


def _data_of(runs) -> tuple[str, list[str]]:
    records = [run.record for run in runs.runs]
    return records[0]["dataset"], list(dict.fromkeys(c for r in records for c in r["per_category"]))


def _rows(judged: pd.DataFrame, every, method: str, dataset: str, categories: list[str]) -> list[dict]:
    beside = published.beside_system(published.paper_of(method)) or ""
    alone = categories if len(categories) <= FEW else []
    rows = []
    for metric in QUOTED:
        for category in [*alone, "average"]:
            here = ours(every, method, dataset, category, metric)
            here = None if no_average(category, here) else here
            cell = judged[(judged.dataset == dataset) & (judged.metric == metric)]
            cell = cell[[plain(name) == plain(category) for name in cell.category]]
            row = {"metric": label(metric), "of": category, "run": here is not None, "published": printing.DASH}
            row |= {beside: printing.DASH, "verdict": "no published number", "reason": ""}
            row["ours"] = mean_text(here) if here else "not run"
            if len(cell):
                found = cell.iloc[0]
                row |= {"published": _percent(found.published), beside: _percent(found.beside)}
                row |= {"verdict": found.verdict, "reason": found.reason}
            if category == "average":
                row |= _average_words(here, len(cell), dataset, method, metric)
            rows.append(row)
    return rows


def _average_words(here: dict | None, printed: int, dataset: str, method: str, metric: str) -> dict:
    """How many categories an average has, in the paper and here."""
    cells = published.load(published.paper_of(method))
    found = cells[(cells.dataset == dataset) & (cells.metric == metric) & (cells.category == "average")]
    of = f"average of {n_categories(cells, next(found.itertuples()))}" if len(found) else "average"
    if here is None:
        return {"of": of, "ours": "one category is no average"}
    words = f"{of} (here {here['n_categories']})" if printed else f"average of {here['n_categories']}"
    return {"of": words}


def _percent(value: float) -> str:
    return printing.DASH if pd.isna(value) else f"{printing.number(value)} %"


def _elsewhere(judged: pd.DataFrame, method: str, dataset: str) -> str:
    """One line on the paper's averages where it has no number for the data of the runs."""
    means = judged[(judged.category == "average") & judged.metric.isin(QUOTED)]
    told = [
        f"{name}: " + ", ".join(f"{label(r.metric)} {_percent(r.published)}" for r in group.itertuples())
        for name, group in means.groupby("dataset", sort=False)
    ]
    return (
        f"The paper has no number for `{dataset}`, so there is no verdict. It prints averages for other data "
        f"({'; '.join(told)})."
    )


def _markdown(rows: list[dict]) -> str:
    return pd.DataFrame(rows, dtype=str).to_markdown(index=False, disable_numparse=True)


def paper_tables(runs, method: str, names: dict[str, str] | None = None) -> str:
    """Markdown: the paper's tables with what we measured; those of which nothing was run fold into one line.

    names: {table: heading} of the tables to show, in this order; all tables of the paper without it.
    """
    paper = published.paper_of(method)
    names = names or {table: table for table in dict.fromkeys(published.load(paper)["table"])}
    judged = verdict(runs, paper)
    with_ours = set(judged.table[judged.verdict != "not run"])
    shown, hidden = [], []
    for table, heading in names.items():
        text = tables.to_markdown(tables.paper_table(runs if table in with_ours else None, paper, table))
        (shown if table in with_ours else hidden).append((heading, table, text))
    parts = [f"**{heading}**\n\n{text}" for heading, _, text in shown]
    if hidden:
        needs = "; ".join(f"{heading} needs {_needs(judged, table)}" for heading, table, _ in hidden)
        printed = "\n\n".join(f"**{heading}**\n\n{text}" for heading, _, text in hidden)
        parts.append(f"Nothing of these tables was run here: {needs}.\n\n" + folded("The printed numbers", printed))
    return "\n\n".join(parts)


def _needs(judged: pd.DataFrame, table: str) -> str:
    cells = judged[judged.table == table]
    if not len(cells):  # rivals alone
        return "systems that are not part of this page"
    names = cells.category[~cells.category.isin(measured.AVERAGES)].nunique()
    # a table of averages alone names no category
    return " and ".join(cells.dataset.unique()) + (f" ({names} categories)" if names else " (all categories)")


def closing(runs, method: str) -> str:
    """Markdown: how many published cells have each verdict, the cells that were run, one line on the others."""
    judged = verdict(runs, published.paper_of(method))
    missing = judged[judged.verdict == "not run"]
    text = closing_counts(judged) + "\n\n" + judged_cells(judged)
    if len(missing):
        text += f"\n{len(missing)} cells were not run. They need {_missing(missing)}."
    return text


def _missing(cells: pd.DataFrame) -> str:
    """ "mvtec_ad (cable, capsule and 11 more), dagm (averages)"."""
    words = []
    for dataset, group in cells.groupby("dataset", sort=False):
        names = [c for c in group.category.unique() if c not in measured.AVERAGES]
        some = ", ".join(names[:2]) + (f" and {len(names) - 2} more" if len(names) > 2 else "")
        words.append(f"{dataset} ({some or 'all categories, for the averages'})")
    return ", ".join(words)


def judged_cells(verdicts: pd.DataFrame) -> str:
    """Markdown table of the published cells that were run, verdict and differences; a sentence where none was."""
    judged = verdicts[verdicts["verdict"] != "not run"]
    if not len(judged):
        return "No published cell was run."
    table = verdict_table(judged)
    table["metric"] = [name if name in PLAIN else label(name) for name in table["metric"]]  # PLAIN: in its own unit
    table.attrs["notes"] = table.attrs["notes"][1:]  # the counts have a line of their own
    return printing.to_markdown(table)


def closing_counts(verdicts: pd.DataFrame) -> str:
    """Markdown: how many published cells have each verdict."""
    counts = verdicts["verdict"].value_counts()
    return ", ".join(f"**{counts.get(v, 0)} {v}**" for v in published.VERDICTS) + "."


def errata_table(paper: str) -> str:
    """Markdown: where the paper contradicts itself or its sources, and how we know. Raises UserError: unknown paper."""
    table = published.errata(paper)[["table", "system", "category", "metric", "printed", "corrected", "remark", "kind"]]
    if not len(table):
        return "We know of no error in the printed numbers."
    return printing.to_markdown(table)


def chinese(runs, method: str, claim: str) -> str:
    """Markdown in Chinese: the paper's claim (given in Chinese), the numbers of this run, the verdict."""
    dataset, categories = _data_of(runs)
    every, judged = measured.settings(runs), _own(runs, method)
    whole = "average" if len(categories) > 1 else categories[0]
    values = []
    for metric in QUOTED:
        here = ours(every, method, dataset, whole, metric)
        values.append(f"{label(metric)} " + (f"{printing.number(here['mean'])} %" if here else "未测(无掩码)"))
    seeds = len({run.record["seed"] for run in runs.runs})
    cell = judged[(judged.dataset == dataset) & (judged.metric == "image_auroc")]
    cell = cell[[plain(name) == plain(whole) for name in cell.category]]
    answer = CHINESE[cell.iloc[0].verdict] if len(cell) else f"不作判定(论文没有 {dataset} 上相应的数字)"
    of = f"{len(categories)} 个类别的平均值" if whole == "average" else f"类别 {whole}"
    return (
        f"**论文的结论**:{claim}\n\n**本次运行**:数据集 {dataset},{of},{seeds} 个随机种子,取最后一轮的模型"
        f"(不用测试集挑选):{','.join(values)}。\n\n**判定**(图像级 AUROC):{answer}。"
    )
