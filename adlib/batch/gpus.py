"""The NVIDIA devices of this machine: which there are, and one of them for each item that asks for one."""

import contextlib
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from adlib.common.files import locked


class Taken(Exception):
    """Another process holds the device."""


def visible() -> list[str]:
    """Names for CUDA_VISIBLE_DEVICES, without importing torch; empty where there is no NVIDIA device."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return [name for name in chosen.split(",") if name and name != "-1"]
    return [str(number) for number, _ in enumerate(Path("/dev").glob("nvidia[0-9]*"))]


@contextlib.contextmanager
def reserved(count: int) -> Iterator[None]:
    """Inside, CUDA_VISIBLE_DEVICES names one device that no other item of this machine has; waits for a free one.

    count: 0 or 1. With 0, without devices, and in a job of SLURM, which gives devices out itself, nothing changes.
    """
    names = visible()
    if not count or not names or "SLURM_JOB_ID" in os.environ:
        yield
        return
    with contextlib.ExitStack() as held:
        name = _free(names, held)
        while name is None:
            time.sleep(1)
            name = _free(names, held)
        os.environ["CUDA_VISIBLE_DEVICES"] = name
        yield


def _free(names: list[str], held: contextlib.ExitStack) -> str | None:
    """The first device that could be locked; `held` keeps its lock."""
    for name in names:
        file = Path(tempfile.gettempdir()) / f"adlib-gpu-{name}-{os.getuid()}"
        with contextlib.suppress(Taken):
            held.enter_context(locked(file, _refuse))
            return name
    return None


def _refuse(holder: str) -> None:
    raise Taken(holder)
