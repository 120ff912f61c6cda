"""Executing one item's notebook by papermill: `python -m adlib.batch.notebook PLAN NAME`.

PLAN is the file that the batch wrote (`engine.write_plan`), NAME an item in it. Exit status: 0 done; 1 failed; 2 bad
input; 75 (EX_TEMPFAIL) left: the run reached its time budget or the process got SIGTERM, and the same command goes on;
130 interrupted.

Time budget: `ADLIB_MINUTES` (minutes of all runs of an item; 0 or absent = none) reaches the notebook's process. A run
that reaches it saves its checkpoint and raises `Unfinished`. In a job of a cluster that ends after `resources:
{runtime: minutes}`, the budget is that time less 5 %, at least 2 minutes less (for starting and saving) but never less
than half of it. ADLIB_MINUTES, where the user set it, wins.
"""

import contextlib
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from adlib.batch import gpus
from adlib.batch.item import Item, Outcome
from adlib.common.errors import UserError, check_names
from adlib.common.files import locked, written_whole
from adlib.common.paths import PROJECT

STATUS = {"done": 0, "failed": 1, "left": os.EX_TEMPFAIL}
SOCKETS = "adlib-kernel-"  # a folder of sockets is called so, followed by the process id of its owner
SHORT = Path("/tmp")  # a socket's path may have 107 bytes, so not where TMPDIR says


def execute_item(item: Item) -> None:
    """Execute an item's notebook; its sheet is put in place when all went through. Raises what the notebook raises.

    Two processes on the same item take turns: a batch that was killed may leave one behind that is still at work.
    """
    import nbformat  # with papermill a second of imports, which a batch's own process never needs
    import papermill
    from traitlets.config import Config  # with papermill

    os.environ["OMP_NUM_THREADS"] = str(item.resources["threads"])  # the same numbers whatever else runs beside it
    os.environ["JUPYTER_PREFER_ENV_PATH"] = "1"  # this environment's kernel, not one of the user's folder
    os.environ.pop("JUPYTER_PATH", None)
    os.environ["PYTHONWARNINGS"] = "ignore:IProgress not found"  # huggingface_hub wants widgets that no page here shows
    with locked(item.log.with_name(f"{item.name}.lock")), gpus.reserved(item.resources["gpu"]), _sockets() as folder:
        # Ports are chosen before they are bound and may collide; socket files cannot, each run in a folder of its own.
        config = Config({"KernelManager": {"transport": "ipc", "ip": f"{folder}/k"}})
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
    with written_whole(item.sheet) as scratch, scratch.open("w", encoding="utf-8") as file:
        nbformat.write(done, file)


@contextlib.contextmanager
def _sockets() -> Iterator[Path]:
    """A folder for a kernel's sockets; those whose owner was killed are removed."""
    for folder in SHORT.glob(f"{SOCKETS}*-*"):
        owner = folder.name.removeprefix(SOCKETS).split("-")[0]
        if owner.isdecimal() and not psutil.pid_exists(int(owner)):
            shutil.rmtree(folder, ignore_errors=True)  # another user's stays
    with tempfile.TemporaryDirectory(prefix=f"{SOCKETS}{os.getpid()}-", dir=SHORT) as folder:
        yield Path(folder)


def work(plan: str | Path, name: str) -> int:
    """Execute one item of a plan file; its end is written beside its log. Returns the exit status, see above.

    Raises UserError for a plan file that is missing or broken, or an item that is not in it.
    """
    plan_file = _read_plan(Path(plan))
    for variable, value in plan_file["environment"].items():
        os.environ.setdefault(variable, value)
    check_names(f"item of {plan}", [name], plan_file["items"])
    item = Item.from_json(plan_file["items"][name])
    if plan_file["cluster"]:
        os.environ.setdefault("ADLIB_MINUTES", f"{budget(item):g}")
    start, outcome = time.monotonic(), ("done", None)
    with _sigterm_to_the_kernel() as terminated:
        try:
            execute_item(item)
        except KeyboardInterrupt:
            return 130
        except Exception as error:
            outcome = _end(error, bool(terminated))
            print(outcome[1], file=sys.stderr)
    item.set_outcome(Outcome(*outcome, round(time.monotonic() - start, 1)))
    return STATUS[outcome[0]]


def _read_plan(path: Path) -> dict:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"plan file {path} cannot be read ({error}); `python -m adlib batch FILE` writes it") from error


def budget(item: Item) -> float:
    """Minutes that the runs of an item may take together in a job that ends after its `runtime`."""
    runtime = item.resources["runtime"]
    return max(runtime - max(0.05 * runtime, 2), runtime / 2)


def _end(error: Exception, terminated: bool) -> tuple[str, str]:
    """("failed" or "left", sentence) for what an execution raised; papermill's error carries the notebook's."""
    kind = getattr(error, "ename", type(error).__name__)
    sentence = str(getattr(error, "evalue", error)).partition("\n")[0]
    if kind == "Unfinished":
        return "left", sentence
    if kind == "KeyboardInterrupt" or terminated:
        return "left", "stopped by a signal; the same command goes on"
    return "failed", f"{kind}: {sentence}"


@contextlib.contextmanager
def _sigterm_to_the_kernel() -> Iterator[list[int]]:
    """Inside, SIGTERM goes on to the kernel, whose run then saves and ends; before it has one, it is a Ctrl-C.

    Yields a list that is empty as long as no SIGTERM came. Only the main thread may set handlers.
    """
    received: list[int] = []

    def forward(number, _frame):
        received.append(number)
        children = psutil.Process().children()
        if not children:
            raise KeyboardInterrupt
        for child in children:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.terminate()

    before = signal.signal(signal.SIGTERM, forward)
    try:
        yield received
    finally:
        signal.signal(signal.SIGTERM, before)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python -m adlib.batch.notebook PLAN NAME")
    try:
        sys.exit(work(*sys.argv[1:]))
    except UserError as problem:
        print(f"adlib: {problem}", file=sys.stderr)
        sys.exit(2)
