"""A batch: many notebooks, described by a YAML file, executed by Snakemake, resumed wherever it was stopped.

    file      a batch file -> items, checked; checks: what can be wrong with an entry
    sources   finished runs, by a batch file or a folder
    item      one notebook to execute: parameters, resources, the runs it makes, what became of it
    notebook  executing one item by papermill; gpus: a device for each
    engine    Snakemake as a child process, over a plan file
    evidence  finished runs and notebooks -> results/reference

Targets of the engine are the executed notebooks, never files of a run folder: Snakemake deletes the outputs of a failed
job, and a finished run must outlive a fault in its sheet. Whether a run is whole is decided by its folder alone
(adlib.runs): the same command completes a batch stopped anywhere.

`ADLIB_MINUTES` limits the minutes of each item; what it stops is left, not failed. See adlib.batch.notebook.
"""

import os
import shlex
import sys
import time
from pathlib import Path

from adlib import runs
from adlib.batch import engine
from adlib.batch.file import expand
from adlib.batch.item import Item, executed, logs
from adlib.batch.sources import finished
from adlib.common.environment import minutes_allowed
from adlib.common.files import locked
from adlib.reports import tables
from adlib.runs import proof

__all__ = ["Item", "expand", "finished", "main"]


def main(file: str | Path, cores: int | None = None, profile: str = "local", dry_run: bool = False, extra=()) -> int:
    """Run a batch file and print what became of it; with `dry_run` only check it and list what is done and left.

    cores: None = all of this machine. profile: a name in profiles/ or a folder. extra: further options of Snakemake.
    Returns 0 where all is done; 1 where something failed or is left; 75 where nothing failed and runs reached their
    time budget, so that the same command goes on. Raises UserError before any work with all that is missing or wrong, a
    line for each entry, and KeyboardInterrupt after a Ctrl-C or SIGTERM, when all processes have ended. A dry run
    downloads nothing.
    """
    start = time.monotonic()
    cluster = engine.is_cluster(profile)
    minutes_allowed()  # raises for what is no number
    work, reports = expand(file, download=not dry_run, local=not cluster)
    items = [*work, *reports]
    _name_damaged(work)
    if dry_run:
        _list(items)
        return 0
    options = [*engine.options(profile, cores, items), *extra]
    with locked(executed() / "batch.lock", _say_waiting) as lock:
        plan = engine.write_plan(file, work, reports, cluster)
        for item in items:
            item.clear()
        whole = engine.snakemake(plan, options, lock, Progress(items).show)
    print(summary(file, plan, work, reports, time.monotonic() - start), flush=True)
    if not whole:
        raise KeyboardInterrupt
    return status(items)


def _name_damaged(work: list[Item]) -> None:
    """Runs that are there and not whole count as left; each is named, since nobody expects it."""
    for folder in (Path(run) for item in work for run in item.runs):
        if folder.is_dir():
            proof.finished(folder, named=True)


def _list(items: list[Item]) -> None:
    done = 0
    for item in items:
        if item.finished:
            done += 1
            print(f"done  {item.name}")
        else:
            print(f"left  {item.name}")
    print(f"{done} done, {len(items) - done} left of {len(items)}")


def _say_waiting(holder: str) -> None:
    print(f"waiting: process {holder} runs a batch in {executed()}; this one goes on after it", flush=True)


def status(items: list[Item]) -> int:
    """0 where all items are finished; 75 (EX_TEMPFAIL) where some are left that can go on and none failed; else 1."""
    if all(item.finished for item in items):
        return 0
    ends = {item.outcome.end for item in items if item.outcome}
    return os.EX_TEMPFAIL if "left" in ends and "failed" not in ends else 1


class Progress:
    """Prints one line for each item that ends while the engine is at work."""

    def __init__(self, items: list[Item]):
        self.total = len(items)
        self.waiting = {item.name: item for item in items if not item.finished}
        print(f"{self.total} items, {self.total - len(self.waiting)} of them done before", flush=True)

    def show(self) -> None:
        """One look at the folder of logs, however many items there are."""
        for file in os.scandir(logs()):
            item = self.waiting.get(file.name.removesuffix(".json"))
            if item is not None and file.name.endswith(".json") and (outcome := item.outcome):
                del self.waiting[item.name]
                ended = f"[{self.total - len(self.waiting)}/{self.total}]"
                print(f"{ended} {outcome.end} {item.name} ({outcome.seconds:.0f} s)", flush=True)


def summary(file: str | Path, plan: Path, work: list[Item], reports: list[Item], seconds: float) -> str:
    """What was done, failed (with its log and how to repeat it alone) and left; the runs' table; what to open."""
    failed, done, left = [], [], []
    for item in [*work, *reports]:
        if item.outcome and item.outcome.end == "failed":
            failed.append(item)
        elif item.finished:
            done.append(item)
        else:
            left.append(item)
    lines = [line for item in failed for line in _failed_lines(item, plan)]
    lines += [_left_line(item) for item in left]
    lines += ["", *_table(work)]
    lines += [f"open    {item.sheet}" for item in done if not item.runs]
    if any(item.runs for item in done):
        lines.append(f"        {executed() / 'runs'}/ (a sheet for each run)")
    if not failed and any(item.outcome is None for item in left):
        lines.append(f"why     {engine.engine_log(plan)}, unless you stopped it")
    again = "; the same command goes on from here" if failed or left else ""
    counts = f"{len(done)} done, {len(failed)} failed, {len(left)} left"
    lines.append(f"{file}: {counts} of {len(done + failed + left)} in {seconds / 60:.1f} min{again}")
    return "\n".join(lines)


def _failed_lines(item: Item, plan: Path) -> list[str]:
    repeat = shlex.join([sys.executable, "-m", "adlib.batch.notebook", str(plan), item.name])
    return [f"failed  {item.name}: {item.outcome.reason}", f"  log     {item.log}", f"  repeat  {repeat}"]


def _left_line(item: Item) -> str:
    return f"left    {item.name}: {item.outcome.reason}" if item.outcome else f"left    {item.name}"


def _table(work: list[Item]) -> list[str]:
    """The finished runs' numbers as Markdown, [] where there are none."""
    folders = [Path(run) for item in work for run in item.runs]
    finished = [runs.load(folder) for folder in folders if proof.finished(folder)]
    return [tables.to_markdown(tables.summary(runs.Runs(finished)))] if finished else []
