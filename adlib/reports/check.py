"""What `adlib check` says of runs: each paper's table, the comparison with reference runs, gaps and stale runs."""

import textwrap
from collections.abc import Iterable
from dataclasses import dataclass

import pandas as pd

from adlib.common.errors import UserError
from adlib.reports import measured, printing, published, reference, systems, verdict
from adlib.runs.run import Runs

REFERENCE = "reference"  # in the column `against`, beside the papers' keys


@dataclass(frozen=True)
class Report:
    """Verdicts against papers and against reference runs.

    papers: {key: its verdicts}; compared: what `reference.compare` returned, or None; sentences: on all runs; ok: exit
    status 0; named: whether a paper's title stands above its table.
    """

    papers: dict[str, verdict.Check]
    compared: pd.DataFrame | None
    sentences: tuple[str, ...]
    ok: bool
    named: bool = True

    @property
    def notes(self) -> list[str]:
        """What a table of numbers alone cannot say, each with what it is about."""
        notes = [
            f"{paper}: {sentence}" if self.named else sentence
            for paper, check in self.papers.items()
            for sentence in (*check.sentences, *check.table.attrs.get("notes", []))
        ]
        if self.compared is not None:
            notes += [f"{REFERENCE}: {sentence}" for sentence in _said(self.compared)]
        return [*notes, *self.sentences]

    @property
    def table(self) -> pd.DataFrame:
        """Every cell, in 0..1: the columns of `verdict.verdict`, then `against` (a paper's key or "reference"), the
        hash of our runs and the reference's numbers, see `reference.compare`.
        """
        parts = [check.table.assign(against=paper) for paper, check in self.papers.items()]
        if self.compared is not None and len(self.compared):
            compared = self.compared.assign(against=REFERENCE, system=self.compared["method"].map(systems.bare_name))
            parts.append(compared.drop(columns="method"))
        rows = [row for part in parts for row in part.to_dict("records")]
        table = pd.DataFrame(rows, columns=[*verdict.COLUMNS, "against", "hash", *reference.OF_REFERENCE])
        table["reference_n"] = table["reference_n"].astype("Int64")  # no number where no reference stands beside
        table.attrs["notes"] = self.notes
        return table

    def text(self, format: str = "text") -> str:
        """For readers (text, md) the cells that were run, a part per paper; for programs (csv, json) one table of all.

        Ends with a newline. Raises UserError for an unknown format.
        """
        if format in ("csv", "json"):
            return printing.to_text(self.table, format)
        parts = [self._heading(paper, format) + check.text(format) for paper, check in self.papers.items()]
        if self.compared is not None:
            parts.append(_heading("Against the reference runs", format) + _compared_text(self.compared, format))
        if self.sentences:
            parts.append(_lines(self.sentences, format))
        return "\n".join(parts)

    def _heading(self, paper: str, format: str) -> str:
        titles = published.papers().set_index("paper")["title"]
        return _heading(f"Against {paper}: {titles[paper]}", format) if self.named else ""


def _heading(text: str, format: str) -> str:
    if format == "md":
        return f"## {text}\n\n"
    text = textwrap.shorten(text, printing.WIDTH, placeholder=" ...")
    return f"{text}\n{'-' * len(text)}\n\n"


def _lines(sentences: Iterable[str], format: str) -> str:
    """A line each, in a terminal as many as it needs; in Markdown a list."""
    if format == "md":
        return "".join(f"- {sentence}\n" for sentence in sentences)
    return "".join(textwrap.fill(sentence, printing.WIDTH, subsequent_indent="  ") + "\n" for sentence in sentences)


def _said(compared: pd.DataFrame) -> list[str]:
    """What was found against the reference, and what was left out."""
    counts = []
    if len(compared):
        counts.append(verdict.counted(compared) + ".")
        if not verdict.comparable(compared):
            counts.append(verdict.NOTHING)
    return counts + compared.attrs["notes"]


def _compared_text(compared: pd.DataFrame, format: str) -> str:
    """The table narrow enough to print: numbers with their intervals, seeds as "ours/reference's", differences as
    numbers whose meaning stands below.
    """
    sentences = _lines(_said(compared), format)
    if not len(compared):
        return sentences
    shown = compared[["method", "dataset", "category"]]
    if compared.groupby(["method", "dataset", "category"])["hash"].nunique().max() > 1:
        shown = shown.assign(run=compared["hash"])
    shown = shown.assign(metric=compared["metric"], reference=compared["reference"], ours=compared["measured"])
    for part in ("sd", "low", "high", "n"):
        shown[f"reference {part}"] = compared[f"reference_{part}"]
        shown[f"ours {part}"] = compared["n_seeds" if part == "n" else part]
    shown["seeds"] = [f"{ours}/{theirs}" for ours, theirs in compared[["n_seeds", "reference_n"]].to_numpy()]
    numbers, meanings = verdict.numbered(compared["differs"])
    shown = shown.assign(differs=numbers, verdict=compared["verdict"], reason=compared["reason"])
    shown.attrs["notes"] = [*meanings, "Seeds: ours/reference."]
    return printing.to_text(shown, format) + "\n" + sentences


def check(
    runs, paper: str | None = None, known=None, allow_incomparable: bool = False, allow_missing: bool = False
) -> Report:
    """Judge runs (an adlib.runs.Runs) against papers and reference runs.

    paper: None = each that prints one of their systems, its own or a rival, on their data; else that paper's own system
    alone is judged. known: the reference, an adlib.runs.Runs, or None. `Report.ok`: no cell is "not reproduced", at
    least one was comparable, or allow_incomparable, and no run is missing, or allow_missing. Raises UserError where
    there is nothing to compare: no run of `paper`, or without it neither a published cell nor a reference run.
    """
    if paper is not None:
        runs = _of_method(runs, published.method_of(paper, published.own_system(paper)))
    settings = measured.settings(runs if len(runs) else None)
    if paper is not None:
        papers = {paper: verdict.check(settings, paper, allow_incomparable)}
    else:
        judged = {
            name: verdict.verdict(settings, name, verdict.systems_run(settings, name)) for name in published.PAPERS
        }
        papers = {name: verdict.checked(table, allow_incomparable) for name, table in judged.items() if _was_run(table)}
    compared = None if known is None else reference.compare(runs, known)
    if not papers and (compared is None or not len(compared)):
        raise UserError(_nothing(runs, compared))
    sentences = [f"missing: {one.method} {one.dataset} {one.category} seed {one.seed}" for one in runs.missing]
    if paper is None:
        sentences += _unpublished(settings, papers)
    sentences += measured.stale(runs)
    tables = [check.table for check in papers.values()] + ([compared] if compared is not None else [])
    passed = verdict.passed(pd.concat([table[["verdict"]] for table in tables]), allow_incomparable)
    ok = passed and (allow_missing or not runs.missing)
    return Report(papers, compared, tuple(sentences), ok, named=paper is None)


def _of_method(runs, method: str | None):
    """Those of one method, and its gaps."""
    gaps = [gap for gap in runs.missing if gap.method == method]
    return Runs([run for run in runs if run.record["method"] == method], gaps)


def _was_run(table: pd.DataFrame) -> bool:
    return len(table) > 0 and bool((table["verdict"] != "not run").any())


def _unpublished(settings: list, papers: dict[str, verdict.Check]) -> list[str]:
    """A sentence on the systems and data sets of which no paper prints a cell that was run."""
    judged = {
        (published.method_of(paper, cell.system), cell.dataset)
        for paper, check in papers.items()
        for cell in check.table[check.table["verdict"] != "not run"].itertuples()
    }
    names = dict.fromkeys(
        f"{systems.bare_name(setting.method)} on {setting.dataset}"
        for setting in settings
        if (setting.method, setting.dataset) not in judged
    )
    return [f"No paper prints numbers of {', '.join(names)}."] if names else []


def _nothing(runs, compared: pd.DataFrame | None) -> str:
    places = dict.fromkeys(f"{run.record['method']} on {run.record['dataset']}" for run in runs)
    asked = "no reference was asked for"
    if compared is not None:
        asked = "the reference has no other run of the same system on the same data set and category"
    return f"nothing to compare with: no paper prints {', '.join(places)}, and {asked}"
