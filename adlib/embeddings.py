"""What the frozen part of a system makes of each image: computed once, kept on disk, handed out in batches."""

import contextlib
import functools
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from adlib.common import paths
from adlib.common.errors import UserError
from adlib.common.files import locked, sync
from adlib.common.memory import check_disk

TENSOR, TUPLE = "tensor", "tuple"  # a tuple of one map (one layer) is not the same as a bare tensor
RESIDENT_SHARE = 0.5  # of a GPU's free memory that embeddings may take to stay there


class Embeddings:
    """Embeddings of N images, in order: one array [N,...] per map, on disk or in memory; `take` gives a batch.

    parts: a list of arrays (one per map) for each category; rows: which of all their images, counted through. single:
    whether a batch is one tensor or a tuple of them. Images themselves are embeddings of one uint8 map.
    """

    def __init__(self, parts: Sequence[Sequence[np.ndarray | Tensor]], single: bool, rows: np.ndarray | None = None):
        self.parts, self.single = [list(part) for part in parts], single
        self.ends = np.cumsum([len(part[0]) for part in self.parts])
        self.rows = np.arange(self.ends[-1]) if rows is None else rows

    def __len__(self) -> int:
        return len(self.rows)

    def subset(self, rows) -> "Embeddings":
        """The same embeddings restricted to some rows, without a copy of the data."""
        return Embeddings(self.parts, self.single, self.rows[np.asarray(rows)])

    def take(self, rows, device: str = "cpu") -> Tensor | tuple[Tensor, ...]:
        """Batch of the given rows on a device, float32; uint8 images become 0..1."""
        return self.converted([stored.to(device) for stored in self.stored(rows)])

    def stored(self, rows) -> list[Tensor]:
        """Batch of the given rows as they are stored, one tensor [B,...] per map, where they lie."""
        places = self.rows[np.asarray(rows)]
        if len(self.parts) == 1:
            return [_rows_of(array, places) for array in self.parts[0]]
        owner = np.searchsorted(self.ends, places, side="right")
        starts = self.ends - [len(part[0]) for part in self.parts]
        batch = [
            torch.empty((len(places), *m.shape[1:]), dtype=_rows_of(m, [0]).dtype, device=_place(m))
            for m in self.parts[0]
        ]
        for k in np.unique(owner):
            chosen = torch.from_numpy(np.flatnonzero(owner == k))
            for whole, array in zip(batch, self.parts[k], strict=True):
                whole[chosen.to(whole.device)] = _rows_of(array, places[owner == k] - starts[k])
        return batch

    def converted(self, batch: list[Tensor]) -> Tensor | tuple[Tensor, ...]:
        """Stored tensors as the system gets them."""
        maps = tuple(x.float().div_(255) if x.dtype == torch.uint8 else x.float() for x in batch)
        return maps[0] if self.single else maps

    @property
    def nbytes(self) -> int:
        """Bytes of the chosen rows."""
        each = sum(m.nbytes // max(len(m), 1) for m in self.parts[0])
        return each * len(self)

    def batches(self, order: Sequence[np.ndarray], device: str) -> Iterator[Tensor | tuple[Tensor, ...]]:
        """The batches of an epoch, one after the other, on a device.

        On a GPU what is resident is taken there; else the next batch is copied from pinned memory while this one is
        used.
        """
        if torch.device(device).type != "cuda" or _place(self.parts[0][0]).type == "cuda":
            yield from (self.take(rows, device) for rows in order)
            return
        waiting = None
        for rows in order:
            arriving = [x.pin_memory().to(device, non_blocking=True) for x in self.stored(rows)]
            if waiting is not None:
                yield self.converted(waiting)
            waiting = arriving
        if waiting is not None:
            yield self.converted(waiting)

    def resident(self, device: str) -> "Embeddings":
        """On a GPU: the chosen rows held there as they are stored, if they take less than half of its free memory.

        Else, and on the CPU, the same embeddings.
        """
        if torch.device(device).type != "cuda":
            return self
        free, _ = torch.cuda.mem_get_info(device)
        if self.nbytes > RESIDENT_SHARE * free:
            return self
        held = [
            torch.empty((len(self), *m.shape[1:]), dtype=_rows_of(m, [0]).dtype, device=device) for m in self.parts[0]
        ]
        for start in range(0, len(self), 64):  # in pieces, so that the host never holds a second copy
            for whole, piece in zip(held, self.stored(range(start, min(start + 64, len(self)))), strict=True):
                whole[start : start + len(piece)] = piece.to(device)
        return Embeddings([held], self.single)


def joined(parts: Sequence[Embeddings]) -> Embeddings:
    """Several embeddings one after the other, as one: all categories of a data set together."""
    sizes = [part.ends[-1] for part in parts]
    rows = [part.rows + start for part, start in zip(parts, np.cumsum([0, *sizes[:-1]]), strict=True)]
    return Embeddings([arrays for part in parts for arrays in part.parts], parts[0].single, np.concatenate(rows))


def _rows_of(array: np.ndarray | Tensor, rows) -> Tensor:
    if isinstance(array, Tensor):
        return array.index_select(0, torch.as_tensor(np.asarray(rows), device=array.device))
    return torch.from_numpy(np.ascontiguousarray(array[np.asarray(rows)]))


def _place(array: np.ndarray | Tensor) -> torch.device:
    return array.device if isinstance(array, Tensor) else torch.device("cpu")


@torch.inference_mode()
def embeddings(detector, images: np.ndarray, image_key: str, device: str = "cpu", batch_size: int = 16) -> Embeddings:
    """Run `detector.embed` once per image and keep the result on disk, in the system's `embedding_dtype`.

    images: uint8 [N,3,S,S]; image_key: what identifies them, e.g. `images.cache_key`. A system whose embedding is the
    identity gets the images themselves. The cache is written under a temporary name, so half of one is never used; of
    processes that want the same features one computes and the others find them.
    """
    if detector.embedding_key is None:
        return Embeddings([[images]], single=True)
    key = [image_key, detector.embedding_key, torch.device(device).type, detector.config.precision == "tf32"]
    folder = paths.cache_root() / "features" / hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:24]
    stored = _opened(folder, len(images))
    if stored is None:
        with _writing(folder), locked(folder.with_name(f".{folder.name}.lock")):
            stored = _opened(folder, len(images))  # by a process that had the lock before
            if stored is None:
                for left in folder.parent.glob(f"{folder.name}.*.tmp"):  # by processes that were killed
                    shutil.rmtree(left, ignore_errors=True)
                _fill(folder, detector.eval(), images, device, batch_size)
                stored = _opened(folder, len(images))
    if stored is None:
        raise UserError(f"features in {folder} change while they are read; is it used by something else?")
    return stored


def _opened(folder: Path, count: int) -> Embeddings | None:
    """The embeddings of `count` images in a folder, mapped; None where they are absent, not whole or not as written."""
    try:
        facts = json.loads((folder / "done").read_text())
        maps = [_mapped(folder / f"map{i}.npy", **stored) for i, stored in enumerate(facts["maps"])]
        single = facts["kind"] == TENSOR
    except (OSError, ValueError, EOFError, LookupError, TypeError):  # something outside this program was at work
        return None
    if not maps or any(len(each) != count for each in maps):
        return None
    return Embeddings([maps], single=single)


def _mapped(path: Path, shape: list[int], dtype: str, sha256: str) -> np.ndarray:
    """An array file, mapped. Raises ValueError where it is not the one that was written."""
    found = path.stat()
    array = np.load(path, mmap_mode="r")
    if [*array.shape] != shape or array.dtype.str != dtype or _digest(path, found.st_size, found.st_mtime_ns) != sha256:
        raise ValueError(f"{path} is not what was written")
    return array


@functools.cache
def _digest(path: Path, size: int, changed: int) -> str:
    """sha256 of a file; read once a process while size and time of change (ns) stay."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(
            f"features cannot be written to {folder} ({error.strerror}); free space or set ADLIB_CACHE"
        ) from error


def _fill(folder: Path, detector, images: np.ndarray, device: str, batch_size: int) -> None:
    """Write one .npy per map under a temporary name; plain appending writes, so that a full disk is an error, not a
    crash.
    """
    scratch = folder.with_name(f"{folder.name}.{uuid.uuid4().hex}.tmp")
    try:
        scratch.mkdir(parents=True)
        with contextlib.ExitStack() as stack:
            kind = _append_maps(scratch, detector, images, device, batch_size, stack)
        (scratch / "done").write_text(json.dumps({"kind": kind, "maps": _described(scratch)}))
        for file in scratch.iterdir():
            sync(file)  # else a power cut could leave whole names of empty files
        shutil.rmtree(folder, ignore_errors=True)  # pieces that something else left
        os.replace(scratch, folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _described(folder: Path) -> list[dict]:
    """Shape, dtype and sha256 of each map in a folder: what `_mapped` checks."""
    described = []
    for path in sorted(folder.glob("map*.npy"), key=lambda path: int(path.stem[3:])):
        array, found = np.load(path, mmap_mode="r"), path.stat()
        digest = _digest(path, found.st_size, found.st_mtime_ns)
        described.append({"shape": [*array.shape], "dtype": array.dtype.str, "sha256": digest})
    return described


def _append_maps(scratch: Path, detector, images: np.ndarray, device: str, batch_size: int, stack) -> str:
    """Write the maps; returns what `embed` gave, TENSOR or TUPLE."""
    source, files, kind = Embeddings([[images]], single=True), [], TENSOR
    dtype = np.dtype(detector.embedding_dtype).newbyteorder("<")
    for start in tqdm(range(0, len(images), batch_size), "features", disable=None, leave=False):
        maps = detector.embed(source.take(range(start, min(start + batch_size, len(images))), device))
        if not isinstance(maps, Tensor):
            kind = TUPLE
        if start == 0:
            per_image = sum(x[0].numel() for x in _as_tuple(maps)) * dtype.itemsize
            check_disk(per_image * len(images), scratch, f"the feature cache {scratch.parent}")
        for i, x in enumerate(_as_tuple(maps)):
            if start == 0:
                files.append(stack.enter_context((scratch / f"map{i}.npy").open("wb")))
                header = {"descr": dtype.str, "fortran_order": False, "shape": (len(images), *x.shape[1:])}
                np.lib.format.write_array_header_1_0(files[i], header)
            files[i].write(_as_stored(x, dtype).tobytes())
    return kind


def _as_stored(x: Tensor, dtype: np.dtype) -> np.ndarray:
    largest = float(np.finfo(dtype).max)
    if float(x.abs().max()) > largest:
        raise UserError(f"an embedding holds {float(x.abs().max()):.3g}, more than {dtype} can store; use float32")
    return x.float().cpu().numpy().astype(dtype)


def _as_tuple(maps: Tensor | Iterable[Tensor]) -> tuple[Tensor, ...]:
    return (maps,) if isinstance(maps, Tensor) else tuple(maps)
