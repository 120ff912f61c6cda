"""Executing one item's notebook by papermill, on a GPU of its own where it asks for one."""

import contextlib
import fcntl
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from adlib.batch.item import Item
from adlib.common.files import locked
from adlib.common.paths import PROJECT


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


if __name__ == "__main__":
    sys.exit(work(*sys.argv[1:3]))
