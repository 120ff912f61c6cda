"""What makes a notebook a page to be published: each check takes a notebook and returns its faults as sentences."""

import functools
import re
from collections.abc import Iterator

from adlib import models
from adlib.reports import published

IMAGES = ("image/png", "image/jpeg", "image/svg+xml")
SHORTEST_ALT = 20  # characters; less names a figure and says nothing that is seen in it
LONGEST_CELL = 15  # lines of code
TERMS = {
    "AUROC": "area under the (receiver|ROC)|area under its receiver",
    "AP": "average precision",
    "AUPRO": "per-region[- ]overlap",
}
BANNED = {
    r"\b(Were|Had|Should) (it|they|this|the|all|one)\b(?![^.]*\?)": "an inverted conditional; write `if`",
    r"\bwould the \w+ [^.?]*,[^.?]*(\.|$)": "an inverted conditional; write `if`",
    r"(^|[.:] )Is [a-z]+ (small|large)\b[^.?]*,": "an inverted conditional; write `if`",
    r"\bmere(ly)?\b": "`only` or nothing",
    r"\bstands? (at|in)\b": "`is`, `replaces` or a verb that says what happens",
}
LEVELS = {"95"}  # of an interval: a convention, not a measurement
NUMBER = r"(?<![\w.,])(\d+(?:[.,]\d+)?)"
PERCENT = re.compile(NUMBER + r" ?(?:%|percent\b|points?\b|percentage points?\b)")
SCORE = re.compile(r"(?<![\w.,])(\d+\.\d+)(?![\w.]*\d)")


def prose(notebook, outputs: bool = True) -> Iterator[tuple[str, str]]:
    """(place, text) of every Markdown cell and, with `outputs`, of every Markdown output, in the reader's order.

    Code, in blocks or in a line, is left out.
    """
    for number, cell in enumerate(notebook.cells):
        if cell.cell_type == "markdown":
            yield f"cell {number}", _without_code(cell.source)
        for output in cell.get("outputs", []) if outputs else []:
            if "text/markdown" in output.get("data", {}):
                yield f"output of cell {number}", _without_code("".join(output.data["text/markdown"]))


def _without_code(text: str) -> str:
    return re.sub(r"`[^`\n]+`", "", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S))


def headings(notebook) -> list[str]:
    """One first-level heading, and none that skips a level: an outline and a screen reader walk this tree."""
    found = [
        (place, len(marks)) for place, text in prose(notebook) for marks in re.findall(r"^(#{1,6}) ", text, flags=re.M)
    ]
    levels = [level for _, level in found]
    faults = [] if levels.count(1) == 1 else [f"{levels.count(1)} first-level headings"]
    for before, (place, level) in zip([0, *levels], found, strict=False):
        if level > before + 1:
            faults.append(f"{place}: a heading of level {level} below one of level {before}")
    return faults


def alternative_texts(notebook) -> list[str]:
    """Every picture says what is seen in it, and two pictures do not say the same."""
    faults, told = [], {}
    for number, cell in enumerate(notebook.cells):
        for output in cell.get("outputs", []):
            for kind in set(IMAGES) & set(output.get("data", {})):
                alt = output.metadata.get(kind, output.metadata).get("alt", "")
                if len(alt) < SHORTEST_ALT:
                    faults.append(f"cell {number}: a picture with the alternative text {alt!r}")
                elif told.setdefault(alt, output.data[kind]) != output.data[kind]:
                    faults.append(f"cell {number}: another picture has the same alternative text {alt!r}")
    return faults


def cell_lengths(notebook) -> list[str]:
    """At most 15 lines of code; the cells of parameters may list more."""
    return [
        f"cell {number} has {len(cell.source.splitlines())} lines"
        for number, cell in enumerate(notebook.cells)
        if cell.cell_type == "code" and len(cell.source.splitlines()) > LONGEST_CELL
        if not {"parameters", "injected-parameters"} & set(cell.metadata.get("tags", []))
    ]


def terms(notebook) -> list[str]:
    """AUROC, AP and AUPRO are in bold (a list of terms) or spelled out where they are first used, or before."""
    faults = []
    for term, spelled in TERMS.items():
        for place, text in prose(notebook):
            if re.search(rf"\*\*[^*]*\b{term}\b[^*]*\*\*|{spelled}", text, flags=re.I):
                break
            if re.search(rf"\b{term}\b", text):
                faults.append(f"{place}: {term} is used before it is defined")
                break
    return faults


def wording(notebook) -> list[str]:
    """None of the phrases that a reader stumbles over."""
    return [
        f"{place}: {found[0]!r}, {advice}"
        for place, text in prose(notebook)
        for pattern, advice in BANNED.items()
        if (found := re.search(pattern, text, flags=re.M))
    ]


def typed_numbers(notebook) -> list[str]:
    """A percentage, points, or a decimal beside the name of a metric, that was typed and that no paper printed.

    A number in a formula ($...$) or in a paragraph that says "by hand" is derived where it is read; the level of an
    interval is a convention; a share that is the default of a setting is no result. Outputs are made from runs.
    """
    known = _printed() | _shares_of_settings()
    faults = []
    for place, text in prose(notebook, outputs=False):
        for paragraph in re.split(r"\n\s*\n|\n(?=[-|] )", re.sub(r"\$\$?[^$]+\$\$?", "", text)):
            if "by hand" in paragraph.lower():
                continue
            numbers = PERCENT.findall(paragraph)
            for sentence in re.split(r"(?<=[.:;]) ", paragraph):
                if re.search(r"\b(AUROC|AP|AUPRO)\b", sentence):
                    numbers += SCORE.findall(sentence)
            faults += [f"{place}: {n} in {paragraph.strip()[:90]!r}" for n in dict.fromkeys(numbers) if n not in known]
    return faults


@functools.cache
def _printed() -> set[str]:
    """Every number of the papers' tables, as printed and with one decimal, and the values of their errata."""
    cells = published.load()
    texts = {*cells["printed"].astype(str), *(f"{value:.1f}" for value in cells["value"].dropna())}
    errata = published.errata()
    said = " ".join(str(text) for column in ("printed", "corrected", "remark") for text in errata[column])
    texts |= set(re.findall(r"\d+(?:\.\d+)?", said))
    return texts | {text.rstrip("0").rstrip(".") for text in texts if "." in text} | LEVELS


@functools.cache
def _shares_of_settings() -> set[str]:
    """Defaults of all systems that are a share of one, in percent: "10" of holdback 0.1."""
    values = [v for name in models.SYSTEMS for v in models.get(name)[1]().to_dict().values() if isinstance(v, float)]
    return {f"{100 * value:g}" for value in values if 0 < value < 1}


CHECKS = (headings, alternative_texts, cell_lengths, terms, wording, typed_numbers)


def faults(notebook) -> list[str]:
    """All that is wrong with an executed page."""
    return [f"{check.__name__}: {fault}" for check in CHECKS for fault in check(notebook)]
