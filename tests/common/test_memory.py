"""What is not free is refused before it is taken, with both numbers."""

from types import SimpleNamespace

import pandas as pd
import pytest

from adlib import images
from adlib.common import memory
from adlib.common.errors import UserError


def test_memory_and_disk_name_what_is_needed_and_what_is_free(monkeypatch, tmp_path):
    """3.1 GB free: 3 GB are no question, 12.4 GB are refused; a folder to be made lies on its parent's disk."""
    free = SimpleNamespace(available=3.1e9, free=3.1e9)
    monkeypatch.setattr(memory.psutil, "virtual_memory", lambda: free)
    monkeypatch.setattr(memory.shutil, "disk_usage", lambda place: free)
    memory.check_memory(3e9, "it")
    with pytest.raises(UserError, match=r"^it needs 12\.4 GB, 3\.1 GB are free in memory;"):
        memory.check_memory(12.4e9, "it")
    with pytest.raises(UserError, match=rf"^it needs 12\.4 GB, 3\.1 GB are free in {tmp_path};"):
        memory.check_disk(12.4e9, tmp_path / "a" / "b", "it")


def test_masks_and_the_image_cache_ask_first(monkeypatch):
    """A million pictures at side 4096: 17 TB of masks, 50 TB of pictures, and not one file is opened."""
    table = pd.DataFrame({"path": ["x"] * 1_000_000, "label": 0, "mask": None})
    table.attrs["fingerprint"] = "a"
    with pytest.raises(UserError, match=r"masks of 1000000 images .* needs? 16777\.2 GB"):
        images.masks(table, 4096)
    with pytest.raises(UserError, match=r"image cache .* needs 50331\.6 GB"):
        images.cached(table, images.Geometry(4096))
