"""What readers see of the committed evidence: the tables of README and of results/reference/README.md, and the times.

Every number here is read from copied run records or executed notebooks. Only what lies between a page's
marks is written.
"""

import json
import os
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from adlib.common.errors import UserError
from adlib.common.files import written_whole
from adlib.metrics.names import FLOOR
from adlib.reports import measured, published, tables, verdict
from adlib.reports.sections.shows import APART

HEADLINE = ["image_auroc", FLOOR, "pixel_auroc", "pixel_ap", "aupro@0.3"]
# README's rows: at most six, a line for each method and kind of data
FRONT = (
    ("improved_mae", "mvtec_ad", "bottle"),
    ("mmaerec", "mvtec_ad", "bottle"),
    ("simplenet", "mvtec_ad", "bottle"),
    ("draem", "mvtec_ad", "bottle"),
    ("simplenet", "mtd", "all"),
    ("validflow", "mtd", "all"),
)
NAMES = {"improved_mae": "Improved MAE", "mmaerec": "MMAERec", "simplenet": "SimpleNet", "draem": "DRAEM"}
NAMES |= {"validflow": "ValidFlow", "mvtec_ad": "MVTec AD", "mtd": "MTD"}
# README's three pages to begin with: executed notebook, what it is about
START = {
    "00_data": "**The data.** What defects look like, and what brightness alone gives away.",
    "03_simplenet-bottle": "**SimpleNet** (CVPR 2023). Noise on features takes the place of defects.",
    "04_draem-bottle": "**DRAEM** (ICCV 2021). Two networks learn from simulated damage.",
}
WORDS_A_MINUTE = 200


def insert(page: Path, name: str, text: str) -> None:
    """Put Markdown between <!-- name:begin --> and <!-- name:end --> of a page. Raises UserError without the marks."""
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    before, found, rest = page.read_text(encoding="utf-8").partition(begin)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        raise UserError(f"{page} has no {begin} ... {end}, between which {name} belongs; put both lines there")
    with written_whole(page) as scratch:
        scratch.write_text(f"{before}{begin}\n{text.strip()}\n{end}{after}", encoding="utf-8")


def long_table(copies) -> str:
    """Markdown: every data set, category and setting, notes on pictures and thresholds, and how long it took."""
    hours = sum(sum(run.record["seconds"].values()) for run in copies) / 3600
    took = f"- The {len(copies)} runs recorded {hours:.1f} hours of work, on the machines that their records name.\n"
    return tables.to_markdown(tables.summary(copies, HEADLINE)) + took


def short_table(copies) -> str:
    """Markdown: the rows of FRONT that were run, else of the first settings; below it, what limits their meaning.

    Of several settings the one with most seeds is shown, then the one trained longest.
    """
    settings = measured.settings(copies)
    wanted = FRONT if any(_best(settings, *row) for row in FRONT) else _first_rows(settings)
    chosen = [(row, setting) for row in wanted if (setting := _best(settings, *row))]
    lines = [_front_row(setting, *row) for row, setting in chosen]
    header = ["method", "data", "image AUROC [95 % interval]", "pixel AUROC", "paper: image / pixel"]
    body = pd.DataFrame(lines, columns=header).to_markdown(index=False, disable_numparse=True)
    records = [record for row, setting in chosen for record in _records(setting, row[2])]
    notes = list(
        filter(None, (note(setting, *row) for row, setting in chosen for note in (_floor, _apart, _perceptual)))
    )
    notes = list(dict.fromkeys(notes + measured.provenance(records)))
    return body + "\n\n" + "".join(f"- {note}\n" for note in notes)


def _first_rows(settings: list[measured.Setting]) -> list[tuple]:
    rows = [(s.method, s.dataset, c) for s in settings for c in sorted(set(s.metrics["category"]))]
    return list(dict.fromkeys(rows))[: len(FRONT)]


def _best(settings: list[measured.Setting], method: str, dataset: str, category: str) -> measured.Setting | None:
    having = [s for s in settings if _value(s, method, dataset, category, "image_auroc")]
    seeds = {id(s): _value(s, method, dataset, category, "image_auroc")["n_seeds"] for s in having}
    return max(having, key=lambda s: (seeds[id(s)], s.records[0]["config"].get("epochs") or 0), default=None)


def _value(setting: measured.Setting, method: str, dataset: str, category: str, metric: str) -> dict | None:
    """A cell of `measured`; one category is no average."""
    value = measured.cell([setting], method, dataset, category, metric)
    alone = value and value["n_categories"] < 2 and category in measured.AVERAGES
    return None if alone else value


def _records(setting: measured.Setting, category: str) -> list[dict]:
    """The records of a row: of one category, or all behind an average."""
    return [r for r in setting.records if category in (*measured.AVERAGES, r["category"])]


def _front_row(setting: measured.Setting, method: str, dataset: str, category: str) -> tuple[str, ...]:
    image, pixel = (_value(setting, method, dataset, category, m) for m in ("image_auroc", "pixel_auroc"))
    place = {"all": "", "average": f" (mean of {image['n_categories']} categories)"}.get(category, f" {category}")
    runs = f"{image['n_seeds']} run{'s' if image['n_seeds'] > 1 else ''}"
    low, high = (tables.number(image[side]) for side in ("low", "high"))
    return (
        NAMES.get(method, method),
        f"{NAMES.get(dataset, dataset)}{place}, {runs}",
        f"{tables.number(image['mean'])} [{low}, {high}]",
        tables.number(pixel["mean"]) if pixel else tables.number(float("nan")),
        _printed(setting, method, dataset, category),
    )


def _printed(setting: measured.Setting, method: str, dataset: str, category: str) -> str:
    """The paper's image and pixel AUROC for a row and the verdict on ours: "99.8 / 98.1, not comparable"."""
    paper = published.paper_of(method)
    if paper is None:
        return "none printed"
    cells = verdict.verdict([setting], paper)
    cells = cells[(cells["dataset"] == dataset) & (cells["category"] == category)]
    firsts = [cells[cells["metric"] == m].head(1) for m in ("image_auroc", "pixel_auroc")]
    if not any(len(first) for first in firsts):
        return "none printed"
    values = " / ".join(tables.number(first["published"].iloc[0] if len(first) else float("nan")) for first in firsts)
    verdicts = dict.fromkeys(v for first in firsts for v in first["verdict"])
    return f"{values}, {' and '.join(verdicts)}"


def _floor(setting: measured.Setting, method: str, dataset: str, category: str) -> str | None:
    image, grey = (_value(setting, method, dataset, category, m) for m in ("image_auroc", FLOOR))
    if not grey or grey["mean"] < image["mean"]:
        return None
    return (
        f"{NAMES.get(dataset, dataset)} {category}: ranking the pictures by mean brightness alone reaches an image "
        f"AUROC of {tables.number(grey['mean'])}. An image AUROC below that proves little here."
    )


def _apart(setting: measured.Setting, method: str, dataset: str, category: str) -> str | None:
    """Where the runs of a row differ by more than the limit that the notebooks warn from."""
    parts = [record["per_category"].get(category) for record in setting.of(category)]
    values = [part["metrics"]["image_auroc"] for part in parts if part]
    if len(values) < 2 or max(values) - min(values) <= APART:
        return None
    low, high, gap = (tables.number(value) for value in (min(values), max(values), max(values) - min(values)))
    return (
        f"{NAMES.get(method, method)} on {NAMES.get(dataset, dataset)} {category}: the {len(values)} runs differ by "
        f"{gap} points of image AUROC ({low} to {high}). Their mean says little."
    )


def _perceptual(setting: measured.Setting, method: str, dataset: str, category: str) -> str | None:
    """Which network took the place of AlexNet in the perceptual term of the loss, where one did."""
    network = setting.records[0]["config"].get("lpips", "alex")
    if network == "alex":
        return None
    used = "without the perceptual term LPIPS" if network == "off" else f"with LPIPS of {network} in place of AlexNet"
    return f"{NAMES.get(method, method)} on {NAMES.get(dataset, dataset)} {category}: trained {used}."


def times(notebooks: Iterable[Path], training: dict[str, float]) -> pd.DataFrame:
    """One row per executed notebook: notebook, words, seconds, training_seconds, cores.

    words: of its text; seconds: that papermill measured, with the runs finished before; training_seconds: of the runs
    behind it ({name: seconds}, 0 where it trains none); cores: of this machine, on which the batch is run.
    """
    rows = []
    for path in sorted(notebooks):
        notebook = json.loads(path.read_text(encoding="utf-8"))
        seconds = notebook.get("metadata", {}).get("papermill", {}).get("duration")
        text = " ".join("".join(c["source"]) for c in notebook.get("cells", []) if c["cell_type"] == "markdown")
        if seconds is not None:
            row = {"notebook": path.stem, "words": len(text.split()), "seconds": round(seconds)}
            rows.append(row | {"training_seconds": round(training.get(path.stem, 0)), "cores": os.cpu_count()})
    return pd.DataFrame(rows, columns=["notebook", "words", "seconds", "training_seconds", "cores"])


def times_table(table: pd.DataFrame) -> str:
    """Markdown: each executed notebook with its minutes."""
    rows = [
        (f"[{r.notebook}](notebooks/{r.notebook}.ipynb)", _read(r), _minutes(r.seconds), _minutes(r.training_seconds))
        for r in table.itertuples()
    ]
    header = ["notebook", "minutes to read", "minutes to run, runs finished", "minutes of training before"]
    return pd.DataFrame(rows, columns=header).to_markdown(index=False, disable_numparse=True)


def start(table: pd.DataFrame) -> str:
    """Markdown: the three pages to begin with, each with its minutes where they were measured."""
    known = {row.notebook: row for row in table.itertuples()}
    lines = []
    for number, (name, about) in enumerate(START.items(), 1):
        row = known.get(name)
        spent = f" {_read(row)} min to read, {_minutes(row.seconds)} min to run{_before(row)}." if row else ""
        lines.append(f"{number}. [{name}](results/reference/notebooks/{name}.ipynb): {about}{spent}")
    return "\n".join(lines)


def _before(row) -> str:
    """The runs of a page are trained first, and only once."""
    return f" after {_minutes(row.training_seconds)} min of training" if row.training_seconds else ""


def _read(row) -> str:
    return _minutes(60 * row.words / WORDS_A_MINUTE)


def _minutes(seconds: float) -> str:
    return "0" if seconds <= 0 else str(max(1, round(seconds / 60)))
