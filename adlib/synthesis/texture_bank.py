"""Where simulated anomalies take their textures from: DTD, or what is at hand without a download.

`dtd`          the Describable Textures, `$ADLIB_DATA/dtd/images/<class>/*.jpg`, as in the authors' data_loader.py
`photographs`  crops of scikit-image's photographs, and normal training images of the data set's other categories
`auto`         dtd where it is present, else photographs

Fewer than ten textures suffice (DRAEM, section 4.2, figure 9). No test image is ever a texture: of the photographs
that the data set `textures` is cut from, those of other categories give their training half, the category's own none.
Spec: specs/draem.md sections 4 and 8.
"""

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from adlib import data, images
from adlib.common.errors import UserError, check_names
from adlib.common.hashes import content_hashes
from adlib.common.paths import data_root
from adlib.data import dtd, textures
from adlib.data.samples import some

NAMES = ("auto", "dtd", "photographs")
PHOTOGRAPHS = (  # what scikit-image's wheel carries, without drawings, and one picture of the stereo pair
    *("astronaut.png", "brick.png", "camera.png", "cell.png", "chelsea.png", "clock_motion.png", "coffee.png"),
    *("coins.png", "grass.png", "gravel.png", "hubble_deep_field.jpg", "ihc.png", "moon.png", "motorcycle_left.png"),
    *("page.png", "retina.jpg", "rocket.jpg", "text.png"),
)
WHOLE = (0.0, 0.0, 1.0, 1.0)
CROPS = (WHOLE, (0, 0, 0.5, 0.5), (0.5, 0, 1, 0.5), (0, 0.5, 0.5, 1), (0.5, 0.5, 1, 1))  # left, top, right, bottom
TRAINING_HALF = ((0, 0, 0.5, 0.5), (0, 0.25, 0.5, 0.75), (0, 0.5, 0.5, 1))  # squares of the left half, data/textures.py
PER_CATEGORY = 20  # images of each other category, evenly spaced: enough variety, and the bank stays small

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class TextureSource:
    """Pictures, or parts of them, that serve as anomaly textures; nothing is decoded before `bank`."""

    name: str  # "dtd" or "photographs"
    files: tuple[Path, ...]  # one per texture; a photograph once per crop
    boxes: tuple[Box, ...]  # the part of the file, as shares of its sides
    fingerprint: str  # sha256 (hex) over relative names, boxes and contents; independent of the place
    note: str  # in words, for the run's record

    def __len__(self) -> int:
        return len(self.files)

    def bank(self, side: int, resample: str = "antialias") -> Tensor:
        """All textures as uint8 [T,3,side,side]: RGB, stretched to the square, smaller pictures scaled up.

        resample: of `images.Geometry`, that of the pictures which the textures are blended into: antialias (PIL's
        low-pass) or plain (none, as in the authors' code). Whole files are kept in the image cache. UserError: unknown
        resample, or a picture that cannot be read, by name.
        """
        geometry = images.Geometry(side, resample=resample)
        bank = np.empty((len(self), 3, side, side), dtype=np.uint8)
        whole = [i for i, box in enumerate(self.boxes) if box == WHOLE]
        if whole:
            table = pd.DataFrame({"path": [str(self.files[i]) for i in whole]})
            table.attrs = {"fingerprint": self.fingerprint}
            bank[whole] = images.cached(table, geometry)
        parts: dict[Path, list[int]] = {}
        for i, box in enumerate(self.boxes):
            if box != WHOLE:
                parts.setdefault(self.files[i], []).append(i)

        def cut(path: Path) -> None:
            picture = images.decode(path)
            for i in parts[path]:
                bank[i] = images.resize(_cropped(picture, self.boxes[i]), geometry)

        with ThreadPoolExecutor() as pool:
            list(pool.map(cut, parts))
        return torch.from_numpy(bank)


def texture_source(
    name: str = "auto", dataset: str | None = None, categories: Sequence[str] = (), limit: int | None = None
) -> TextureSource:
    """The textures for simulated anomalies on the given categories of a data set.

    name: one of NAMES; limit: at most that many textures, evenly spaced, default all. UserError: unknown name, DTD
    missing or empty, limit below 1. Reads every file once for the fingerprint and remembers the hashes.
    """
    check_names("texture source", [name], NAMES)
    if limit is not None and limit < 1:
        raise UserError(f"limit {limit} leaves no texture; give 1 or more, or None for all")
    folder = data_root() / "dtd" / "images"
    if name == "photographs" or (name == "auto" and not folder.is_dir()):
        source = _photographs(dataset, categories, limit)
        return source if name == "photographs" else replace(source, note=f"{source.note}; DTD is not present")
    return _dtd(folder, limit)


def _dtd(folder: Path, limit: int | None) -> TextureSource:
    advice = "`python -m adlib data download dtd` gets it, and texture source 'photographs' needs no download"
    if not folder.is_dir():
        raise UserError(f"texture source dtd not found at {folder}; {advice}")
    files = sorted(f for f in folder.glob("*/*.jpg") if not f.name.startswith("."))
    if not files:
        raise UserError(f"texture source dtd at {folder} holds no <class>/*.jpg; {advice}")
    kept = _spaced(files, limit)
    pictures, classes = len(dtd.CLASSES) * dtd.PER_CLASS, len(dtd.CLASSES)
    note = f"{len(kept)} of DTD's {pictures} Describable Textures, {len({f.parent for f in kept})} of {classes} classes"
    return _source("dtd", folder, [(f, f.relative_to(folder).as_posix(), WHOLE) for f in kept], note)


def _photographs(dataset: str | None, categories: Sequence[str], limit: int | None) -> TextureSource:
    folder = _skimage()
    photographs = [folder / name for name in PHOTOGRAPHS if (folder / name).is_file()]
    parts = [(f, f"skimage/{f.name}", box) for f in photographs for box in _crops(f.stem, dataset, categories)]
    others, names = _others(dataset, categories) if dataset and dataset != "textures" else ([], [])
    kept = _spaced(parts + others, limit)
    if not kept:
        raise UserError(f"no photograph found in {folder}; reinstall scikit-image, or use texture source 'dtd'")
    count = sum(file.parent == folder for file, _, _ in kept)
    note = f"{count} crops of {len({file for file, _, _ in kept if file.parent == folder})} scikit-image photographs"
    if len(kept) > count:
        note += f" and {len(kept) - count} normal training images of other categories of {dataset} ({some(names)})"
    return _source("photographs", folder, kept, note)


def _crops(photograph: str, dataset: str | None, categories: Sequence[str]) -> Sequence[Box]:
    """Which parts of a photograph may be textures: of one that test images are cut from none, of the others of the
    data set `textures` the training half, else all.
    """
    tested = [c.removeprefix("textures:") for c in categories if dataset == "textures" or c.startswith("textures:")]
    if photograph in tested:
        return ()
    return TRAINING_HALF if tested and photograph in textures.CATEGORIES else CROPS


def _others(dataset: str, categories: Sequence[str]) -> tuple[list[tuple[Path, str, Box]], list[str]]:
    """Some normal training images of every other category that is there: (file, relative name, WHOLE), and names."""
    parts, names = [], []
    for category in data.categories(dataset):
        if category in categories:
            continue
        try:
            table = data.load(dataset, category)
        except UserError:  # a category that was never downloaded; the note names those that were used
            continue
        root = Path(table.attrs["root"])
        files = [Path(p) for p in table.path[(table.split == "train") & (table.label == 0)]]
        name = table.attrs["dataset"]
        parts += [(f, f"{name}/{f.relative_to(root).as_posix()}", WHOLE) for f in _spaced(files, PER_CATEGORY)]
        names.append(category)
    return parts, names


def _source(name: str, root: Path, parts: Sequence[tuple[Path, str, Box]], note: str) -> TextureSource:
    files, names, boxes = zip(*parts, strict=True)
    distinct = list(dict.fromkeys(files))
    contents = dict(zip(distinct, content_hashes(root, distinct), strict=True))
    digest = hashlib.sha256()
    for file, relative, box in zip(files, names, boxes, strict=True):
        digest.update("\t".join((relative, ",".join(f"{edge:g}" for edge in box), contents[file])).encode() + b"\n")
    return TextureSource(name, files, boxes, digest.hexdigest(), note)


def _spaced(items: Sequence, limit: int | None) -> list:
    """At most `limit` items, evenly spaced, in order."""
    if limit is None or limit >= len(items):
        return list(items)
    return [items[i * len(items) // limit] for i in range(limit)]


def _cropped(picture: np.ndarray, box: Box) -> np.ndarray:
    height, width = picture.shape[:2]
    left, top, right, bottom = (round(edge * side) for edge, side in zip(box, (width, height) * 2, strict=True))
    return picture[top:bottom, left:right]


def _skimage() -> Path:
    return Path(find_spec("skimage").origin).parent / "data"
