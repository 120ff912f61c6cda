"""What can be wrong with the files of a data set: one look at every file, one function for every kind of fault.

The checks know the samples and, from the data set's `Rules`, what its layout holds besides: masks of normal images,
images that were dropped, lists, licences. Anything else beside the images is stray.
"""

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from PIL import Image
from tqdm import tqdm

from adlib.data.dataset import Counts, DataSet, at_root
from adlib.data.samples import ENDINGS, SILENT_ENDINGS, Sample, listing, some

UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, IndexError, TypeError, Image.DecompressionBombError)
PAPERS = {"license", "licence", "readme", "copying"}  # files without an ending that every data set may hold


@dataclass(frozen=True)
class Fault:
    """One thing to mend. kind: one word or two; path: the file or folder; text: what is wrong, without the path."""

    kind: str
    path: Path
    text: str


class Look(NamedTuple):
    """What one pass over a file tells. error: why it cannot be decoded; then nothing else is known."""

    error: str | None = None
    digest: bytes = b""  # of the decoded pixels, so a copy is found under any name, ending or compression
    mode: str = ""
    size: tuple[int, int] = (0, 0)  # width, height
    highest: int = 0  # grey level, 0..255


@dataclass
class Part:
    """One category as it lies on the disk. samples: as `load` takes them; spare: files that it leaves out on purpose,
    as samples too; known: files that are no pictures of the data set but belong there.
    """

    category: str
    place: Path
    samples: list[Sample] = field(default_factory=list)
    spare: list[Sample] = field(default_factory=list)
    known: set[Path] = field(default_factory=set)
    notes: list[str] = field(default_factory=list)
    error: str | None = None  # why the layout could not be read; then there are no samples

    def every(self) -> list[Sample]:
        return self.samples + self.spare

    def files(self) -> list[Path]:
        """Every picture to look at, masks included; where the layout is broken, whatever picture lies there."""
        if self.error:
            return [path for path in walk(self.place) if path.suffix.lower() in ENDINGS]
        return list(dict.fromkeys(file for s in self.every() for file in (s.path, s.mask) if file))


def look(path: Path) -> Look:
    """Decode a file completely and hash its pixels; never raises for what lies in a file."""
    try:
        if path.stat().st_size == 0:
            return Look("is empty (0 bytes)")
        with Image.open(path) as image:
            image.load()
            digest = hashlib.sha256(image.tobytes())
            digest.update(repr((image.mode, image.size)).encode())
            return Look(None, digest.digest(), image.mode, image.size, image.convert("L").getextrema()[1])
    except FileNotFoundError:
        return Look("is a link to a file that is not there" if path.is_symlink() else "is listed but not there")
    except Image.UnidentifiedImageError:
        return Look("is no picture, whatever its ending says")
    except UNREADABLE as error:
        return Look(f"cannot be decoded ({str(error).rstrip('.')})")


def look_at(files: Iterable[Path], progress: bool) -> dict[Path, Look]:
    """Every file once, on all cores (decoding and hashing let go of Python's lock), with a bar on stderr."""
    files = list(dict.fromkeys(files))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        done = tqdm(pool.map(look, files), total=len(files), unit="file", disable=None if progress else True)
        return dict(zip(files, done, strict=True))


def walk(place: Path) -> Iterator[Path]:
    """All files below a folder in order of name, without hidden ones and archive rubbish."""
    for folder, inner, names in os.walk(place):
        inner[:] = sorted(name for name in inner if not name.startswith((".", "__")))
        yield from (Path(folder) / name for name in sorted(names) if not name.startswith("."))


def unreadable(looks: dict[Path, Look]) -> Iterator[Fault]:
    """Files that cannot be decoded to the last pixel."""
    for path, seen in looks.items():
        if seen.error:
            yield Fault("unreadable", path, seen.error)


def counts(dataset: DataSet, part: Part, official: Counts) -> Iterator[Fault]:
    """Images per split and defect that are too few, too many, or of a kind that the official data do not have."""
    present = Counter(f"{s.split}/{s.defect}" for s in part.samples)
    if part.category in dataset.rules.dropped:
        present["dropped"], official = len(part.spare), official | {"dropped": dataset.rules.dropped[part.category]}
    for key in sorted({*present, *official}, key=lambda key: (not key.startswith("train"), key)):
        due = official.get(key, 0)
        if present[key] == due:
            continue
        homes = sorted({s.path.parent for s in part.samples if f"{s.split}/{s.defect}" == key})
        path = homes[0] if len(homes) == 1 else part.place
        kind = "defective training images" if key == "dropped" else f"images of {key}"
        gaps = _gaps(part, path, due - present[key])
        # where several categories share one folder, its path does not tell them apart
        owner = f" ({part.category})" if len(dataset.official) > 1 and dataset.folder is at_root else ""
        yield Fault("count", path, f"{present[key]} of {due} official {kind}{owner}{gaps}")


def _gaps(part: Part, folder: Path, missing: int) -> str:
    """The numbers left out in a folder's row of names, where they are exactly what is missing."""
    stems = [s.path.stem for s in part.every() if s.path.parent == folder]
    if not stems or missing < 1 or not all(stem.isdigit() for stem in stems):
        return ""
    numbers, width = {int(stem) for stem in stems}, len(stems[0])
    gaps = [f"{n:0{width}d}" for n in range(min(numbers), max(numbers)) if n not in numbers]
    return f"; not there: {some(gaps)}" if len(gaps) == missing else ""


def masks(dataset: DataSet, part: Part, looks: dict[Path, Look]) -> Iterator[Fault]:
    """Masks that are missing, of another size than their image, empty on a defect, or marked on a normal image."""
    promise = dataset.rules.masks
    paired = {s.defect for s in part.samples if s.mask}
    for s in part.every():
        if not s.mask:
            due = (s.label or paired >= {"good"}) and (promise == "all" or (promise == "kind" and s.defect in paired))
            if due:
                yield Fault("mask missing", s.path, "has no mask")
        elif not (looks[s.path].error or looks[s.mask].error):
            yield from _mask_against_image(dataset, s, looks[s.path], looks[s.mask])


def _mask_against_image(dataset: DataSet, s: Sample, image: Look, mask: Look) -> Iterator[Fault]:
    threshold = dataset.mask_threshold
    if mask.size != image.size:
        text = f"is {_by(mask.size)}, but its image {s.path.name} is {_by(image.size)}"
        yield Fault("mask size", s.mask, text)
    if s.label and mask.highest <= threshold and not known_empty(dataset, s):
        text = f"marks no pixel (highest grey {mask.highest}, anomalous above {threshold}), but {s.path.name} shows"
        yield Fault("mask empty", s.mask, f"{text} {s.defect}")
    if not s.label and mask.highest > threshold:
        yield Fault("mask of normal", s.mask, f"marks pixels, but {s.path.name} is normal")


def known_empty(dataset: DataSet, s: Sample) -> bool:
    """Whether this mask is published empty."""
    return f"{s.path.parent.parent.name}/{s.path.stem}" in dataset.rules.empty_masks


def duplicates(parts: list[Part], looks: dict[Path, Look], root: Path) -> tuple[list[Fault], list[str]]:
    """Equal pixels in train and test, or under two labels: faults; within one split and label: notes."""
    copies = defaultdict(list)
    for s in {s.path: s for part in parts for s in part.samples}.values():
        if not looks[s.path].error:
            copies[looks[s.path].digest].append(s)
    faults, notes = [], []
    for same in (group for group in copies.values() if len(group) > 1):
        first, *others = sorted(same, key=lambda s: (s.split != "train", s.path))
        for s in others:
            twin = f"the same pixels as {first.path.relative_to(root)}"
            if (s.split, s.label) == (first.split, first.label):
                notes.append(f"{s.path.relative_to(root)} has {twin}, both in {s.split}")
            else:
                facts = [f"{x.split}, {'anomalous' if x.label else 'normal'}" for x in (s, first)]
                faults.append(Fault("duplicate", s.path, f"({facts[0]}) has {twin} ({facts[1]})"))
    return faults, notes


def stray(parts: list[Part]) -> Iterator[Fault]:
    """Files that no sample uses and that the layout does not explain, e.g. a mask under another name."""
    used = {file for part in parts for file in (*part.files(), *part.known)}
    broken = {part.place for part in parts if part.error}
    for place in dict.fromkeys(part.place for part in parts):
        for path in walk(place) if place not in broken else ():
            if path not in used and not _explained(path):
                yield Fault("stray", path, "belongs to no image")


def unclaimed(root: Path, parts: list[Part]) -> Iterator[Fault]:
    """What lies beside the categories and holds pictures that nobody will ever see, e.g. a misspelt category."""
    places = {part.place for part in parts}
    for entry in listing(root) if root not in places else ():
        if entry in places or entry.name.startswith("__"):
            continue
        if entry.suffix.lower() in ENDINGS and entry.is_file():
            yield Fault("stray", entry, "belongs to no image")
        elif entry.is_dir() and any(path.suffix.lower() in ENDINGS for path in walk(entry)):
            yield Fault("stray", entry, "is no category, so its pictures are not used")


def _explained(path: Path) -> bool:
    return path.suffix.lower() in SILENT_ENDINGS - {""} or path.name.lower() in PAPERS


def modes_and_sizes(dataset: DataSet, part: Part, looks: dict[Path, Look]) -> Iterator[Fault]:
    """Images, or masks, whose mode or size differs from that of most others of the category."""
    every = part.every()
    for kind, files in (("images", {s.path for s in every}), ("masks", {s.mask for s in every if s.mask})):
        seen = {path: looks[path] for path in sorted(files) if not looks[path].error}
        for path, usual, value in _odd({path: look.mode for path, look in seen.items()}):
            yield Fault("mode", path, f"has mode {value}, most {kind} here have {usual}")
        if dataset.rules.one_size and kind == "images":
            for path, usual, value in _odd({path: look.size for path, look in seen.items()}):
                yield Fault("size", path, f"is {_by(value)}, most images here are {_by(usual)}")


def _odd(values: dict[Path, object]) -> Iterator[tuple[Path, object, object]]:
    """(file, usual value, its own) of the files whose value is not the commonest; of equally common, the first."""
    if values:
        usual = Counter(values.values()).most_common(1)[0][0]
        yield from ((path, usual, value) for path, value in values.items() if value != usual)


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


def span(sizes: Iterable[tuple[int, int]]) -> str:
    """Sizes of several pictures as one word: 256x256, or 103-632x222-403."""
    ranges = [
        f"{min(side)}-{max(side)}" if min(side) < max(side) else str(min(side)) for side in zip(*sizes, strict=True)
    ]
    return "x".join(ranges)
