"""What is free, asked before much is taken: a sentence at once instead of a full disk or a killed process later."""

import shutil
from pathlib import Path

import psutil

from adlib.common.errors import UserError

MARGIN = 1e6  # bytes that are never worth a question


def check_memory(needed: float, what: str, device: str = "cpu") -> None:
    """Raises UserError where `what` needs more bytes than are free in this machine's memory, or its GPU's."""
    if needed > MARGIN:
        _compare(needed, _free_on(device), what, "memory of the GPU" if device.startswith("cuda") else "memory")


def check_disk(needed: float, folder: Path, what: str) -> None:
    """Raises UserError where `what` needs more bytes than are free on the disk that holds `folder`, made or not."""
    if needed > MARGIN:
        existing = next(place for place in (folder, *folder.parents) if place.exists())
        _compare(needed, shutil.disk_usage(existing).free, what, str(existing))


def _free_on(device: str) -> float:
    if not device.startswith("cuda"):
        return psutil.virtual_memory().available
    import torch  # heavy; who asks for a GPU has it already

    return torch.cuda.mem_get_info(device)[0]


def _compare(needed: float, free: float, what: str, where: str) -> None:
    if needed > free:
        raise UserError(
            f"{what} needs {_size(needed)}, {_size(free)} are free in {where}; make room or choose smaller settings"
        )


def _size(count: float) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
