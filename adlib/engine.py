"""Executing notebooks: one item by papermill, all items of a plan by Snakemake as a child process.

Nothing here schedules: order, cores and clusters are Snakemake's, by the Snakefile and a profile. This file holds what
surrounds it: one batch at a time per results folder, one GPU per item, logs, stopping cleanly. The unit is an `Item`;
adlib.batch makes them from a batch file. `python -m adlib.engine PLAN NAME` executes one item of a plan alone.
"""

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from adlib import settings
from adlib.settings import PROJECT, UserError

RESOURCES = {"threads": 1, "gpu": 0, "mem_mb": 2000, "runtime": 600}  # runtime in minutes; see profiles/
GRACE = 4.0  # seconds in which a Ctrl-C of the terminal, which reaches all processes, ends Snakemake by itself


@dataclass(frozen=True)
class Item:
    """One notebook to execute: what, with which parameters, and for a work item the run folders that it makes."""

    name: str
    notebook: str
    parameters: dict
    resources: dict = field(default_factory=lambda: dict(RESOURCES))
    runs: tuple[str, ...] = ()  # () for a report

    @property
    def sheet(self) -> Path:
        """The executed notebook, there only when it went through."""
        return executed() / ("runs" if self.runs else "") / f"{self.name}.ipynb"

    @property
    def log(self) -> Path:
        """The notebook as far as it has come; .out and .json beside it are the process's output and its end."""
        return executed() / "logs" / f"{self.name}.ipynb"

    @property
    def finished(self) -> bool:
        return self.sheet.is_file() and all((Path(r) / "run.json").is_file() for r in self.runs)

    @property
    def outcome(self) -> dict:
        """{"failed": sentence or None, "seconds": ...} of the last execution; {} where there was none."""
        path = self.log.with_suffix(".json")
        return json.loads(path.read_text()) if path.is_file() else {}


def executed() -> Path:
    """Where executed notebooks go: `$ADLIB_RESULTS/executed`."""
    return settings.results_root() / "executed"


def execute_item(item: Item) -> None:
    """Execute an item's notebook; its sheet is put in place when all went through. Raises what the notebook raises.

    Two processes on the same item take turns: a batch that was killed may leave one behind that is still at work.
    """
    import nbformat
    import papermill
    from traitlets.config import Config

    for folder in (item.log.parent, item.sheet.parent):
        folder.mkdir(parents=True, exist_ok=True)
    os.environ["OMP_NUM_THREADS"] = str(item.resources["threads"])  # the same numbers whatever else runs beside it
    os.environ["JUPYTER_PREFER_ENV_PATH"] = "1"  # this environment's kernel, not one of the user's folder
    os.environ.pop("JUPYTER_PATH", None)
    os.environ["PYTHONWARNINGS"] = "ignore:IProgress not found"  # huggingface_hub wants widgets that no page here shows
    with locked(item.log.with_suffix(".lock")), _own_gpu(item), tempfile.TemporaryDirectory(dir="/tmp") as sockets:
        # Ports are chosen before they are bound and may collide; socket files cannot, each run in a folder of its own.
        config = Config({"KernelManager": {"transport": "ipc", "ip": f"{sockets}/k"}})
        done = papermill.execute_notebook(
            item.notebook,
            str(item.log),
            parameters=item.parameters,
            kernel_name="python3",
            progress_bar=False,
            coalesce_streams=True,
            start_timeout=300,
            cwd=str(PROJECT),
            config=config,
        )
    done.metadata.papermill.update(input_path=Path(item.notebook).name, output_path=item.sheet.name)
    scratch = item.sheet.with_name(f".{item.name}.{os.getpid()}")
    nbformat.write(done, scratch)
    os.replace(scratch, item.sheet)


@contextlib.contextmanager
def locked(path: Path, waiting: Callable[[str], None] | None = None) -> Iterator[int]:
    """Hold an exclusive lock on a file; yields its descriptor. `waiting` is told the holder's process id, once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if waiting:
                file.seek(0)
                waiting(file.read().strip())
            fcntl.flock(file, fcntl.LOCK_EX)
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield file.fileno()


def visible_gpus() -> list[str]:
    """Names for CUDA_VISIBLE_DEVICES, found without importing torch; empty where there is no NVIDIA device."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return [name for name in chosen.split(",") if name and name != "-1"]
    return [str(i) for i, _ in enumerate(Path("/dev").glob("nvidia[0-9]*"))]


@contextlib.contextmanager
def _own_gpu(item: Item) -> Iterator[None]:
    """Reserve a free GPU of this machine for an item that asks for one; SLURM does that by itself."""
    names = visible_gpus()
    if not item.resources["gpu"] or not names or "SLURM_JOB_ID" in os.environ:
        yield
        return
    with contextlib.ExitStack() as stack:
        while True:
            for name in names:
                file = stack.enter_context((Path(tempfile.gettempdir()) / f"adlib-gpu-{name}-{os.getuid()}").open("w"))
                with contextlib.suppress(BlockingIOError):
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    os.environ["CUDA_VISIBLE_DEVICES"] = name
                    yield
                    return
                file.close()
            time.sleep(1)


def work(plan: str | Path, name: str) -> int:
    """Execute one item of a plan file; its end is written beside its log. Returns the exit status."""
    found = json.loads(Path(plan).read_text())
    for variable, value in found["roots"].items():
        os.environ.setdefault(variable, value)
    if name not in found["items"]:
        print(f"adlib: unknown item {name!r} of {plan}; valid: {', '.join(found['items'])}", file=sys.stderr)
        return 2
    fields = {k: found["items"][name][k] for k in ("name", "notebook", "parameters", "resources", "runs")}
    item = Item(**fields | {"runs": tuple(fields["runs"])})
    start, failed = time.monotonic(), None
    try:
        execute_item(item)
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        # papermill's own error carries the notebook's exception
        kind = getattr(error, "ename", type(error).__name__)
        failed = f"{kind}: {getattr(error, 'evalue', error)}".splitlines()[0]
        print(failed, file=sys.stderr)
    end = {"failed": failed, "seconds": round(time.monotonic() - start, 1)}
    item.log.parent.mkdir(parents=True, exist_ok=True)
    scratch = item.log.with_suffix(".tmp")
    scratch.write_text(json.dumps(end) + "\n")
    os.replace(scratch, item.log.with_suffix(".json"))  # the batch reads it while it is written
    return int(failed is not None)


def engine_log(plan: Path) -> Path:
    """Where Snakemake's own words about a plan go."""
    return plan.with_name(plan.name.replace(".plan.json", ".snakemake.log"))


def snakemake(plan: Path, options: list[str], lock: int, watch: Callable[[], None]) -> bool:
    """Run Snakemake on a plan to its end; `watch` is called now and then. Returns False when it was interrupted.

    lock: descriptor that Snakemake inherits, so that the results folder stays locked if this process is killed alone.
    """
    where = ["--snakefile", str(PROJECT / "Snakefile"), "--directory", str(settings.results_root())]
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


if __name__ == "__main__":
    sys.exit(work(*sys.argv[1:3]))
