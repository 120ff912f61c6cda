"""Executing notebooks: one item by papermill, all items of a plan by Snakemake as a child process.

Nothing here schedules: order, cores and clusters are Snakemake's, by the Snakefile and a profile. This file holds what
surrounds it: one batch at a time per results folder, one GPU per item, logs, stopping cleanly. The unit is an `Item`;
adlib.batch makes them from a batch file. `python -m adlib.batch.notebook PLAN NAME` executes one item of a plan alone.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from adlib.batch.item import Item
from adlib.batch.notebook import visible_gpus
from adlib.common import paths
from adlib.common.errors import UserError
from adlib.common.paths import PROJECT

GRACE = 4.0  # seconds in which a Ctrl-C of the terminal, which reaches all processes, ends Snakemake by itself


def engine_log(plan: Path) -> Path:
    """Where Snakemake's own words about a plan go."""
    return plan.with_name(plan.name.replace(".plan.json", ".snakemake.log"))


def snakemake(plan: Path, options: list[str], lock: int, watch: Callable[[], None]) -> bool:
    """Run Snakemake on a plan to its end; `watch` is called now and then. Returns False when it was interrupted.

    lock: descriptor that Snakemake inherits, so that the results folder stays locked if this process is killed alone.
    """
    where = ["--snakefile", str(PROJECT / "Snakefile"), "--directory", str(paths.results_root())]
    # --nolock: ours is held, and unlike Snakemake's it does not outlive a killed process.
    # --ignore-incomplete: a sheet is put in place whole, so one that is there is finished whatever was killed after it.
    how = ["--nolock", "--ignore-incomplete", "--rerun-triggers", "mtime", "--keep-going", "--config", f"plan={plan}"]
    python_path = os.pathsep.join([str(PROJECT), *filter(None, [os.environ.get("PYTHONPATH")])])
    with engine_log(plan).open("w") as log:
        child = subprocess.Popen(
            [sys.executable, "-m", "snakemake", *where, *how, *options],
            stdout=log,
            stderr=subprocess.STDOUT,
            env=os.environ | {"PYTHONPATH": python_path},
            pass_fds=(lock,),
        )
        with _terminated_is_interrupted():
            try:
                while child.poll() is None:
                    watch()
                    time.sleep(0.3)
                return True
            except KeyboardInterrupt:
                _stop(child)
                return False
            finally:
                watch()


def _stop(child: subprocess.Popen) -> None:
    """After a Ctrl-C: the terminal told all processes; after a signal to us alone, we tell them."""
    import psutil

    try:
        child.wait(GRACE)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(psutil.NoSuchProcess):
            family = psutil.Process(child.pid)
            for process in [*family.children(recursive=True), family]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.send_signal(signal.SIGINT)
        child.wait()


@contextlib.contextmanager
def _terminated_is_interrupted() -> Iterator[None]:
    """Inside, SIGTERM is handled as Ctrl-C is (only the main thread may set handlers)."""

    def interrupt(_signal, _frame):
        raise KeyboardInterrupt

    try:
        before = signal.signal(signal.SIGTERM, interrupt)
    except ValueError:
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def profile_options(profile: str, cores: int | None, items: list[Item]) -> list[str]:
    """Snakemake's options for a profile: a name in profiles/ or a folder with a config.yaml. Raises UserError."""
    folder = Path(profile) if "/" in profile else PROJECT / "profiles" / profile
    if not (folder / "config.yaml").is_file():
        valid = sorted(p.parent.name for p in (PROJECT / "profiles").glob("*/config.yaml"))
        raise UserError(f"profile {folder} has no config.yaml; valid: {', '.join(valid)}, or a folder of your own")
    options = ["--profile", str(folder.resolve())]
    if folder.name != "local":
        return options + (["--jobs", str(cores)] if cores else [])
    import psutil

    memory = max([int(psutil.virtual_memory().total * 0.9 / 2**20), *(i.resources["mem_mb"] for i in items)])
    limits = [f"mem_mb={memory}"]
    if visible_gpus():
        limits.append(f"gpu={max([len(visible_gpus()), *(i.resources['gpu'] for i in items)])}")
    return [*options, "--cores", str(cores or _usable_cores()), "--resources", *limits]


def _usable_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
