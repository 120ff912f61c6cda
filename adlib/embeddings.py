"""What the frozen part of a system makes of each image: computed once, kept on disk, handed out in batches."""

import contextlib
import hashlib
import json
import os
import shutil
import uuid
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from adlib.common import paths
from adlib.common.errors import UserError


class Embeddings:
    """Embeddings of N images, in order, one array [N,...] per map; on disk or in memory. `take` gives a batch on a
    device.
    """

    def __init__(self, arrays: list[np.ndarray], single: bool):
        self.arrays, self.single = arrays, single

    def __len__(self) -> int:
        return len(self.arrays[0])

    def subset(self, rows) -> "Embeddings":
        """The same embeddings restricted to some rows, without a copy of the data."""
        return _Subset(self, np.asarray(rows))

    def take(self, rows, device="cpu"):
        """Batch of the given rows: one tensor, or a tuple for several maps; uint8 images become float in 0..1."""
        out = tuple(_tensor(a[np.asarray(rows)], device) for a in self.arrays)
        return out[0] if self.single else out


class _Subset(Embeddings):
    def __init__(self, parent: Embeddings, rows: np.ndarray):
        self.parent, self.rows = parent, rows

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, rows, device="cpu"):
        return self.parent.take(self.rows[np.asarray(rows)], device)


class Joined(Embeddings):
    """Several embeddings one after the other, as one: all categories of a data set together."""

    def __init__(self, parts: list[Embeddings]):
        self.parts, self.ends = parts, np.cumsum([len(p) for p in parts])

    def __len__(self) -> int:
        return int(self.ends[-1])

    def take(self, rows, device="cpu"):
        rows = np.asarray(rows)
        owner = np.searchsorted(self.ends, rows, side="right")
        order = np.argsort(owner, kind="stable")
        back = torch.from_numpy(np.argsort(order))
        starts = self.ends - [len(p) for p in self.parts]
        got = [self.parts[k].take(rows[owner == k] - starts[k], device) for k in np.unique(owner)]
        if isinstance(got[0], Tensor):
            return torch.cat(got)[back]
        return tuple(torch.cat(maps)[back] for maps in zip(*got, strict=True))


def _tensor(array: np.ndarray, device) -> Tensor:
    tensor = torch.from_numpy(np.ascontiguousarray(array)).to(device, non_blocking=True)
    return tensor.float().div_(255) if tensor.dtype == torch.uint8 else tensor


@torch.inference_mode()
def embeddings(detector, images: np.ndarray, image_key: str, device: str = "cpu", batch_size: int = 16) -> Embeddings:
    """Run `detector.embed` once per image and keep the result on disk, as float32.

    images: uint8 [N,3,S,S]; image_key: what identifies them (content and geometry). A system whose embedding is the
    identity gets the images themselves. The cache is written under a temporary name, so half of one is never used.
    """
    if detector.embedding_key is None:
        return Embeddings([images], single=True)
    text = json.dumps([image_key, detector.embedding_key, str(torch.device(device).type)], sort_keys=True)
    folder = paths.cache_root() / "features" / hashlib.sha256(text.encode()).hexdigest()[:24]
    if not (folder / "done").is_file():
        _fill(folder, detector, images, device, batch_size)
    files = sorted(folder.glob("map*.npy"))
    # a tuple of one map (one layer) is not the same as a bare tensor
    single = (folder / "done").read_text() == "tensor"
    return Embeddings([np.load(f, mmap_mode="c") for f in files], single)


def _fill(folder: Path, detector, images: np.ndarray, device: str, batch_size: int) -> None:
    """Write one .npy per map under a temporary name; plain appending writes, so that a full disk is an error, not a
    crash.
    """
    scratch = folder.with_name(f"{folder.name}.{uuid.uuid4().hex}.tmp")
    try:
        scratch.mkdir(parents=True)
        with contextlib.ExitStack() as stack:
            kind = _append_maps(scratch, detector, images, device, batch_size, stack)
        (scratch / "done").write_text(kind)
        if folder.exists() and not (folder / "done").is_file():
            shutil.rmtree(folder)  # pieces that something else left
        if not folder.exists():  # else a run beside this one was faster
            os.replace(scratch, folder)
    except OSError as error:
        raise UserError(
            f"features cannot be written to {folder} ({error.strerror}); free space or set ADLIB_CACHE"
        ) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _append_maps(scratch: Path, detector, images: np.ndarray, device: str, batch_size: int, stack) -> str:
    """Write the maps; returns what `embed` gave: "tensor" or "tuple"."""
    from tqdm import tqdm

    source, files = Embeddings([images], single=True), []
    for start in tqdm(range(0, len(images), batch_size), "features", disable=None, leave=False):
        out = detector.embed(source.take(range(start, min(start + batch_size, len(images))), device))
        kind = "tensor" if isinstance(out, Tensor) else "tuple"
        out = [out] if kind == "tensor" else out
        for i, x in enumerate(out):
            if start == 0:
                files.append(stack.enter_context((scratch / f"map{i}.npy").open("wb")))
                header = {"descr": "<f4", "fortran_order": False, "shape": (len(images), *x.shape[1:])}
                np.lib.format.write_array_header_1_0(files[i], header)
            files[i].write(x.float().cpu().numpy().astype("<f4").tobytes())
    return kind
