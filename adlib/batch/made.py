"""The runs of a batch file: those that are finished, and a name for each that is not."""

import itertools
from pathlib import Path
from typing import NamedTuple

from adlib.batch.file import expand
from adlib.batch.item import Item
from adlib.common.errors import UserError
from adlib.runs import proof
from adlib.runs.run import Run, Runs


class Gap(NamedTuple):
    """A run that is to exist; as an adlib.runs.Plan, which needs the pictures, names it."""

    method: str
    dataset: str
    categories: tuple[str, ...]
    category: str
    seed: int
    hash: str


def made(file: str | Path) -> Runs:
    """The finished runs of a batch file; `.missing` names the others. Nothing is executed or downloaded.

    A damaged run counts as missing and is named on stderr. Raises UserError for faults of the file, see `expand`, and
    where none of its runs is finished.
    """
    finished, missing = {}, {}
    for item in expand(file, download=False)[0]:
        for folder, gap in zip(map(Path, item.runs), _named(item), strict=True):
            if folder.is_dir() and proof.finished(folder, named=True):
                finished[folder] = Run(folder)
            else:
                missing[folder] = gap
    if not finished:
        raise UserError(f"no run of {file} is finished; `python -m adlib batch {file}` makes them")
    return Runs(list(finished.values()), list(missing.values()))


def _named(item: Item) -> list[Gap]:
    """What each run of a work item is, in the order of its folders: categories, then seeds."""
    categories, seeds = item.parameters["categories"], item.parameters["seeds"]
    groups = [tuple(categories)] if item.parameters["together"] else [(category,) for category in categories]
    gaps = []
    for (group, seed), folder in zip(itertools.product(groups, seeds), item.runs, strict=True):
        category = group[0] if len(group) == 1 else "together"
        run_hash = Path(folder).name.rpartition("-s")[0]
        gaps.append(Gap(item.parameters["method"], item.parameters["dataset"], group, category, seed, run_hash))
    return gaps
