"""The run folder: identity, train or load, and finished runs as a table.

`reproduce` is the only entry that notebooks, batches and tests use. A run's folder is made under a temporary name and
renamed when complete, so it is either whole or absent; what is damaged later is set aside and made again (see
`proof`). The same identity and seed is never trained again.
"""

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import torch

from adlib import models
from adlib.common import files
from adlib.common.environment import minutes_allowed
from adlib.common.errors import UserError
from adlib.common.seeds import pick_device
from adlib.runs import fingerprint, proof
from adlib.runs.execution import execute
from adlib.runs.plan import Plan, plans, settings
from adlib.runs.run import Run, Runs
from adlib.training import Unfinished

__all__ = ["Plan", "Run", "Runs", "check", "find", "load", "plans", "reproduce"]


def reproduce(
    method: str,
    dataset: str,
    categories: str | Iterable[str] | None = None,
    seeds: int | Iterable[int] = (0,),
    config: dict | None = None,
    device: str = "auto",
    together: bool = False,
    train: bool = True,
    report: Callable[[str], None] = lambda line: None,
) -> Runs:
    """Train what is missing, load what is finished, and return the runs as a table.

    categories: None = all of the data set; config: changes of the paper's setting; together: one model for all
    categories; train=False: only load, and name what is missing in `.missing`; report: told one line per stage of
    training, and before it "note: ..." per caution about the pictures. Raises UserError before any work for a wrong
    name. With `ADLIB_MINUTES` set, training saves and leaves after that many minutes and raises
    `adlib.training.Unfinished`; the same call goes on.
    """
    device, deadline = pick_device(device), time.monotonic() + 60 * minutes_allowed()
    alone = models.get(method)[0].alone
    if together and alone:
        print(f"{method} is meant for one category at a time: {alone}", file=sys.stderr)
    runs, missing, made = [], [], 0
    for plan in plans(method, dataset, categories, seeds, config, together):
        whole = plan.folder.is_dir() and proof.finished(plan.folder, weights=train, named=not train)
        if train and not whole:
            if made and time.monotonic() >= deadline:
                raise Unfinished(f"unfinished, {plan} not begun; the same command goes on from here")
            if plan.config.precision == "tf32" and torch.device(device).type != "cuda":
                raise UserError("precision tf32 exists on NVIDIA GPUs only; use float32 or bfloat16 on the CPU")
            _make(plan, device, deadline, report)
            made, whole = made + 1, True
        if whole:
            runs.append(Run(plan.folder))
        else:
            missing.append(plan)
    return Runs(runs, missing)


def check(method: str, seeds: Iterable[int], config: dict, device: str) -> None:
    """UserError for a wrong setting, seed, device or ADLIB_MINUTES, before `reproduce` looks at any data."""
    settings(method, seeds, config)
    pick_device(device)
    minutes_allowed()


def _make(plan: Plan, device: str, deadline: float, report: Callable[[str], None]) -> None:
    """Under a lock, so that a second process waits and then finds the first one's run."""
    partial = plan.folder.with_name(plan.folder.name + ".partial")
    try:
        with _terminated_is_unfinished(plan), files.locked(plan.folder.with_name(f".{plan.folder.name}.lock")):
            if os.path.lexists(plan.folder) and not plan.folder.is_dir():
                raise UserError(f"{plan.folder} is no folder, but the run belongs there; rename or remove it")
            if plan.folder.is_dir():
                try:
                    return proof.check(plan.folder, weights=True)
                except proof.Damaged as damage:
                    proof.set_aside(plan.folder, damage)
            partial.mkdir(parents=True, exist_ok=True)
            for left in partial.glob(".*.tmp"):  # of a process that was killed while it wrote
                left.unlink()
            if not proof.finished(partial, weights=True):  # else it was stopped between its last file and its name
                (partial / proof.RECORD).unlink(missing_ok=True)
                code = fingerprint.code_fingerprint(plan.method)
                _sort_checkpoints(plan, partial, f"{code}-{torch.device(device).type}")
                execute(plan, partial, device, code, deadline, report)
            _finish(partial, plan.folder)
    except OSError as error:
        if error.errno not in files.UNWRITABLE:
            raise
        place = error.filename or plan.folder
        raise UserError(f"{place} cannot be written ({error.strerror}); free space or set ADLIB_RESULTS") from error


@contextlib.contextmanager
def _terminated_is_unfinished(plan: Plan) -> Iterator[None]:
    """Inside, SIGTERM, as schedulers send it, ends with `Unfinished`; training, which has a state to save, does that
    first. Only the main thread may set handlers.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(_signal, _frame):
        raise Unfinished(f"unfinished, {plan} was asked to end; the same command goes on from here")

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _sort_checkpoints(plan: Plan, partial: Path, made_by: str) -> None:
    """A checkpoint of other code or another kind of device is set aside: the run would be neither. One that was set
    aside when this code was another is taken up again.
    """
    checkpoint, stamp = partial / "checkpoint.pt", partial / "made_by.txt"
    former = stamp.read_text(errors="replace").strip() if stamp.is_file() else "unknown"
    if checkpoint.is_file() and former != made_by:
        aside = _aside(plan, former)
        os.replace(checkpoint, aside)
        print(f"the checkpoint was made by other code or on another kind of device: {aside} keeps it, this run starts "
              "over", file=sys.stderr)  # fmt: skip
    if _aside(plan, made_by).is_file() and not checkpoint.is_file():
        os.replace(_aside(plan, made_by), checkpoint)
    with files.written_whole(stamp) as scratch:
        scratch.write_text(made_by + "\n")


def _aside(plan: Plan, made_by: str) -> Path:
    name = made_by.replace("/", "-").replace(" ", "-")
    return plan.folder.with_name(f"{plan.folder.name}.checkpoint-{name}.pt")


def _finish(partial: Path, folder: Path) -> None:
    """Everything is on the disk before the name says so; the checkpoint has served."""
    for path in partial.iterdir():
        files.sync(path)
    os.replace(partial, folder)
    files.sync(folder.parent)  # the checkpoint goes when the new name is on the disk
    for name in proof.WORKING:
        (folder / name).unlink(missing_ok=True)


def load(path: str | Path) -> "Run":
    """A finished run anywhere on disk. Raises UserError where run.json, or later a needed file, is missing."""
    return Run(path)


def find(folder: str | Path) -> "Runs":
    """All finished runs below a folder, in order of path; a damaged one is named on stderr and left out.

    Raises UserError where there is no whole one.
    """
    folder = Path(folder)
    below = sorted(path.parent for path in folder.rglob(proof.RECORD)) if folder.is_dir() else []
    folders = [path for path in below if proof.is_run(path) and proof.finished(path, named=True)]
    if not folders:
        raise UserError(f"no finished run below {folder}; `python -m adlib batch batch/quick.yml` makes some")
    kept = {}
    for run in map(Run, folders):  # a copy in results/reference counts once
        kept.setdefault((run.record["method"], run.record["category"], run.record["hash"], run.record["seed"]), run)
    return Runs(list(kept.values()))
