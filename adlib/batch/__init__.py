"""A batch file -> work items and report items, which Snakemake executes as notebooks.

A work item is `notebooks/run.ipynb` with the parameters of one run (or of several short ones): it calls `reproduce`. A
report item is a paper's notebook over finished runs. Targets of the engine are the executed notebooks, never files of a
run folder: Snakemake deletes the outputs of a failed job, and a finished run must outlive a fault in its sheet. Whether
a run is whole is decided by its folder alone (adlib.runs): the same command completes a batch stopped anywhere.
"""

import json
import os
import sys
import time
from dataclasses import asdict
from pathlib import Path

from adlib.batch import engine
from adlib.batch.file import expand, needs
from adlib.batch.item import Item, executed
from adlib.batch.notebook import execute_item
from adlib.common import paths
from adlib.common.files import locked

__all__ = ["Item", "execute_item", "expand", "main", "needs", "write_plan"]


def write_plan(file: str | Path, work: list[Item], reports: list[Item]) -> Path:
    """The expanded batch as JSON, for the Snakefile and for repeating one item: names, sheets, needs, roots."""
    items = {
        i.name: asdict(i) | {"sheet": str(i.sheet), "needs": [str(w.sheet) for w in needs(i, work)] * (not i.runs)}
        for i in [*work, *reports]
    }
    roots = {k: v for k, v in os.environ.items() if k.startswith("ADLIB_")} | {
        "ADLIB_RESULTS": str(paths.results_root())
    }
    path = executed() / "logs" / f"{Path(file).stem}.plan.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"roots": roots, "executed": str(executed()), "items": items}, indent=1) + "\n")
    return path


def main(file: str | Path, cores: int | None = None, profile: str = "local", dry_run: bool = False, extra=()) -> int:
    """Run a batch file and print what became of it. Returns 0, or 1 where something failed or is left.

    cores: None = all of this machine. profile: a name in profiles/ or a folder. extra: further options of Snakemake.
    Raises UserError before any work for bad input, and KeyboardInterrupt after a Ctrl-C, when all processes have ended.
    """
    start = time.monotonic()
    work, reports = expand(file)
    items = [*work, *reports]
    options = [*engine.profile_options(profile, cores, items), *extra]
    if dry_run:
        print("\n".join(f"{'done' if i.finished else 'left':5s} {i.name}" for i in items))
        return 0
    with locked(executed() / "batch.lock", _say_waiting) as lock:
        plan = write_plan(file, work, reports)
        for item in items:
            _settle(item)
        progress = Progress(items)
        whole = engine.snakemake(plan, options, lock, progress.show)
    print(summary(file, plan, work, reports, time.monotonic() - start), flush=True)
    if not whole:
        raise KeyboardInterrupt
    return 0 if all(i.finished for i in items) else 1


def _say_waiting(holder: str) -> None:
    print(f"waiting: process {holder} runs a batch in {executed()}; this one goes on after it", flush=True)


def _settle(item: Item) -> None:
    """Remove what would mislead the engine: a sheet without its runs, a report with other parameters, an old end."""
    item.log.with_suffix(".json").unlink(missing_ok=True)
    if not item.sheet.is_file():
        return
    try:
        made_with = json.loads(item.sheet.read_text())["metadata"]["papermill"]["parameters"]
    except (ValueError, KeyError):
        made_with = None
    if not item.finished or (not item.runs and made_with != item.parameters):
        item.sheet.unlink()


class Progress:
    """Prints one line for each item that ends while the engine is at work."""

    def __init__(self, items: list[Item]):
        self.items, self.told = items, set()
        print(f"{len(items)} items, {sum(i.finished for i in items)} of them done before", flush=True)

    def show(self) -> None:
        for item in [i for i in self.items if i.name not in self.told and i.outcome]:
            self.told.add(item.name)
            end, ended = item.outcome, sum(bool(i.finished or i.outcome) for i in self.items)
            word = "failed" if end["failed"] else "done"
            print(f"[{ended}/{len(self.items)}] {word} {item.name} ({end['seconds']:.0f} s)", flush=True)


def summary(file: str | Path, plan: Path, work: list[Item], reports: list[Item], seconds: float) -> str:
    """What was done, failed (with its log and how to repeat it alone) and left; the runs' table; what to open."""
    items = [*work, *reports]
    failed = [i for i in items if i.outcome.get("failed")]
    done = [i for i in items if i.finished and i not in failed]
    lines = []
    for item in failed:
        lines += [f"failed  {item.name}: {item.outcome['failed']}", f"  log     {item.log}"]
        lines += [f"  repeat  {sys.executable} -m adlib.batch.notebook {plan} {item.name}"]
    left = [i for i in items if i not in failed and not i.finished]
    lines += [f"left    {i.name}" for i in left]
    lines += ["", *_table(work)]
    lines += [f"open    {i.sheet}" for i in reports if i.finished]
    if any(i.finished for i in work):
        lines.append(f"        {executed() / 'runs'}/ (a sheet for each run)")
    if left and not failed:
        lines.append(f"why     {engine.engine_log(plan)}, unless you stopped it")
    counts = f"{len(done)} done, {len(failed)} failed, {len(left)} left"
    again = "; the same command goes on from here" if failed + left else ""
    lines.append(f"{file}: {counts} of {len(items)} in {seconds / 60:.1f} min{again}")
    return "\n".join(lines)


def _table(work: list[Item]) -> list[str]:
    from adlib import runs
    from adlib.reports import tables

    found = [runs.load(r) for i in work for r in i.runs if (Path(r) / "run.json").is_file()]
    return [tables.to_markdown(tables.summary(runs.Runs(found)))] if found else []
