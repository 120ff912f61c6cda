"""Snakemake: the plan file that our Snakefile reads, the options of a profile, and the child process.

Nothing here schedules: order, cores and clusters are Snakemake's, by the Snakefile and a profile. This file holds what
surrounds it: what it is told, its log, stopping it cleanly.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import yaml

from adlib.batch import gpus
from adlib.batch.item import Item, executed, logs
from adlib.common import paths
from adlib.common.errors import UserError
from adlib.common.files import written_whole
from adlib.common.paths import PROJECT
from adlib.data.mixtures import slug

GRACE = 4.0  # seconds in which a Ctrl-C of the terminal, which reaches all processes, ends Snakemake by itself
SAVING = 60.0  # seconds in which runs may save after SIGTERM; schedulers wait 30 to 90 before they kill
LOOK = 0.3  # seconds between two looks at what has ended


def write_plan(file: str | Path, work: list[Item], reports: list[Item], cluster: bool) -> Path:
    """The expanded batch as JSON, for the Snakefile and for repeating one item; returns its path.

    environment: the variables ADLIB_* of this process, for processes on other machines. cluster: whether jobs end after
    their `runtime`. items: name -> the item (`Item.to_json`), its sheet, and for a report the sheets that it needs.
    """
    items = {item.name: item.to_json() | {"sheet": str(item.sheet)} for item in [*work, *reports]}
    for report in reports:
        items[report.name]["needs"] = [items[item.name]["sheet"] for item in needs(report, work)]
    environment = {name: value for name, value in os.environ.items() if name.startswith("ADLIB_")}
    environment["ADLIB_RESULTS"] = str(paths.results_root())
    plan = {"environment": environment, "cluster": cluster, "executed": str(executed()), "items": items}
    path = logs() / f"{slug(Path(file).stem)}.plan.json"
    with written_whole(path) as scratch:
        scratch.write_text(json.dumps(plan, indent=1) + "\n", encoding="utf-8")
    return path


def needs(report: Item, work: list[Item]) -> list[Item]:
    """The work items whose sheets a report waits for: those of the method in its notebook's name, and of the methods
    that its parameter `rivals` names; else all.
    """
    notebook, rivals = Path(report.notebook).stem, report.parameters.get("rivals") or {}
    named = [item for item in work if item.parameters["method"] in notebook or item.parameters["method"] in rivals]
    return named or work


def engine_log(plan: Path) -> Path:
    """Where Snakemake's own words about a plan go."""
    return plan.with_name(plan.name.replace(".plan.json", ".snakemake.log"))


def profile_folder(profile: str) -> Path:
    """The folder of a profile: a name in profiles/, or a path with a slash. Raises UserError without config.yaml."""
    if not (PROJECT / "Snakefile").is_file():
        raise UserError(f"{PROJECT} has no Snakefile; a batch needs the project's folder, not only the package")
    folder = Path(profile) if "/" in profile else PROJECT / "profiles" / profile
    if not (folder / "config.yaml").is_file():
        valid = sorted(path.parent.name for path in (PROJECT / "profiles").glob("*/config.yaml"))
        raise UserError(f"profile {folder} has no config.yaml; valid: {', '.join(valid)}, or a folder of your own")
    return folder.resolve()


def is_cluster(profile: str) -> bool:
    """Whether a profile's items run on other machines. Raises UserError for a profile that cannot be read."""
    path = profile_folder(profile) / "config.yaml"
    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        return settings.get("executor", "local") != "local"
    except (yaml.YAMLError, AttributeError, OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is no mapping of Snakemake's options: {' '.join(str(error).split())}") from error


def options(profile: str, cores: int | None, items: list[Item]) -> list[str]:
    """Snakemake's options for a profile. cores: None = all of this machine, or as the profile of a cluster says.

    On this machine cores, memory and GPUs are limits, each at least what the largest item asks for. Raises UserError.
    """
    chosen = ["--profile", str(profile_folder(profile))]
    if is_cluster(profile):
        return [*chosen, "--jobs", str(cores)] if cores else chosen

    memory = max([int(psutil.virtual_memory().total * 0.9 / 2**20), *(item.resources["mem_mb"] for item in items)])
    limits = [f"mem_mb={memory}"]
    if gpus.visible():
        limits.append(f"gpu={len(gpus.visible())}")
    return [*chosen, "--cores", str(cores or _usable_cores()), "--resources", *limits]


def _usable_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def snakemake(plan: Path, chosen: list[str], lock: int, look: Callable[[], None]) -> bool:
    """Run Snakemake on a plan to its end; `look` is called now and then. Returns False when it was interrupted.

    chosen: further options. lock: descriptor that Snakemake inherits, so that the results folder stays locked if this
    process is killed alone. After SIGTERM running items save and end; after Ctrl-C they end.
    """
    places = ["--snakefile", str(PROJECT / "Snakefile"), "--directory", str(paths.results_root())]
    # --nolock: ours is held, and unlike Snakemake's it does not outlive a killed process.
    # --ignore-incomplete: a sheet is put in place whole, so one that is there is finished whatever was killed after it.
    fixed = ["--nolock", "--ignore-incomplete", "--rerun-triggers", "mtime", "--keep-going", "--config", f"plan={plan}"]
    python_path = os.pathsep.join([str(PROJECT), *filter(None, [os.environ.get("PYTHONPATH")])])
    with engine_log(plan).open("w") as log, _terminated_is_interrupted() as terminated:
        child = subprocess.Popen(
            [sys.executable, "-m", "snakemake", *places, *fixed, *chosen],
            stdout=log,
            stderr=subprocess.STDOUT,
            env=os.environ | {"PYTHONPATH": python_path},
            pass_fds=(lock,),
        )
        try:
            while child.poll() is None:
                look()
                time.sleep(LOOK)
            return True
        except KeyboardInterrupt:
            if terminated:
                _let_save(child)
            _stop(child)
            return False
        finally:
            look()


def _let_save(child: subprocess.Popen) -> None:
    """After SIGTERM to us: Snakemake starts nothing more, and the items' runs save and end."""
    for process in _family(child, items_only=True):
        process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(SAVING)


def _stop(child: subprocess.Popen) -> None:
    """After a Ctrl-C: the terminal told all processes; after a signal to us alone, we tell them."""
    try:
        child.wait(GRACE)
    except subprocess.TimeoutExpired:
        for process in _family(child):
            process.send_signal(signal.SIGINT)
        child.wait()


def _family(child: subprocess.Popen, items_only: bool = False) -> Iterator:
    """Snakemake, then its descendants (items_only: those that execute an item); ended ones are passed over."""
    try:
        root = psutil.Process(child.pid)
        family = [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return
    for process in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            is_item = process.cmdline()[1:3] == ["-m", "adlib.batch.notebook"]
            if process == root or is_item or not items_only:
                yield process


@contextlib.contextmanager
def _terminated_is_interrupted() -> Iterator[list[int]]:
    """Inside, SIGTERM raises KeyboardInterrupt; yields a list that is empty as long as none came.

    Only the main thread may set handlers.
    """
    received: list[int] = []

    def interrupt(number, _frame):
        received.append(number)
        if len(received) == 1:  # a second one must not cut short what the first began
            raise KeyboardInterrupt

    try:
        before = signal.signal(signal.SIGTERM, interrupt)
    except ValueError:
        yield received
        return
    try:
        yield received
    finally:
        signal.signal(signal.SIGTERM, before)
