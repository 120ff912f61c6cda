"""The run folder: identity, train or load, and finished runs as a table.

`reproduce` is the only entry that notebooks, batches and tests use. A run's folder is made under a temporary name and
renamed when complete, so it is either whole or absent; the same identity and seed is never trained again.
"""

import os
import sys
from collections.abc import Iterable
from pathlib import Path

from adlib import models
from adlib.common import files
from adlib.common.errors import UserError
from adlib.runs.plan import Plan, plans
from adlib.runs.run import Run, Runs

__all__ = ["Plan", "Run", "Runs", "find", "load", "plans", "reproduce"]


def reproduce(
    method: str,
    dataset: str,
    categories: str | Iterable[str] | None = None,
    seeds: int | Iterable[int] = (0,),
    config: dict | None = None,
    device: str = "auto",
    together: bool = False,
    train: bool = True,
) -> "Runs":
    """Train what is missing, load what is finished, and return the runs as a table.

    categories: None = all of the data set; config: changes of the paper's setting; together: one model for all
    categories; train=False: only load, and name what is missing in `.missing`. Raises UserError before any work for a
    wrong name.
    """
    from adlib.common.seeds import pick_device

    device = pick_device(device)
    if together and method in models.ALONE:
        print(f"{method} is meant for one category at a time: {models.ALONE[method]}", file=sys.stderr)
    runs, missing = [], []
    for plan in plans(method, dataset, categories, seeds, config, together):
        if not _whole(plan.folder) and train:
            _train(plan, device)
        (runs.append(Run(plan.folder)) if _whole(plan.folder) else missing.append(plan))
    return Runs(runs, missing)


def _whole(folder: Path) -> bool:
    return (folder / "run.json").is_file()


def _train(plan: Plan, device: str) -> None:
    """Under a lock, so that a second process waits and then finds the first one's run."""
    from adlib.runs.execution import Execution

    partial = plan.folder.with_name(plan.folder.name + ".partial")
    try:
        with files.locked(plan.folder.with_name(f".{plan.folder.name}.lock")):
            if _whole(plan.folder):
                return
            partial.mkdir(parents=True, exist_ok=True)
            if not _whole(partial):  # else it was stopped between its last file and its name
                Execution(plan, device).finish(partial)
            _finish(partial, plan.folder)
    except OSError as error:
        if error.errno not in files.UNWRITABLE:
            raise
        raise UserError(
            f"run folder {plan.folder} cannot be written ({error.strerror}); free space or set ADLIB_RESULTS"
        ) from error


def _finish(partial: Path, folder: Path) -> None:
    """Everything is on the disk before the name says so; the checkpoint has served."""
    for path in partial.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
    os.replace(partial, folder)
    for name in ("checkpoint.pt", "made_by.txt"):
        (folder / name).unlink(missing_ok=True)


def load(path: str | Path) -> "Run":
    """A finished run anywhere on disk. Raises UserError where run.json, or later a needed file, is missing."""
    return Run(path)


def find(folder: str | Path) -> "Runs":
    """All finished runs below a folder, in order of path. Raises UserError where there is none."""
    folder = Path(folder)
    found = (
        []
        if not folder.is_dir()
        else sorted(p.parent for p in folder.rglob("run.json") if p.parent.suffix != ".partial")
    )
    if not found:
        raise UserError(f"no finished run below {folder}; `python -m adlib batch batch/quick.yml` makes some")
    kept = {}
    for run in map(Run, found):  # a copy in results/reference counts once
        kept.setdefault((run.record["method"], run.record["category"], run.record["hash"], run.record["seed"]), run)
    return Runs(list(kept.values()))
