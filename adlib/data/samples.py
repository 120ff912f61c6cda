"""Samples, their table, and helpers of layouts: listing, splitting and pairing files."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from adlib.common.errors import UserError
from adlib.common.hashes import content_hashes
from adlib.common.paths import ODD

ENDINGS = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".pgm", ".ppm"}
SILENT_ENDINGS = {".txt", ".md", ".json", ".db", ".html", ".pdf", ""}  # licences and read-mes: no note worth


class Sample(NamedTuple):
    """One image. label: 0 normal, 1 anomalous; mask: None where there is none (always for normal images).

    reserved: a training image that the data set itself sets apart for the threshold, because it shares something with
    others of its kind (pixels, an object) and nothing with the rest of the training images. See `adlib.data.holdback`.
    """

    path: Path
    split: str
    label: int = 0
    defect: str = "good"
    mask: Path | None = None
    reserved: bool = False


def build(
    samples: Iterable[Sample], dataset: str, category: str, root: Path, notes: list[str], **attrs
) -> pd.DataFrame:
    """The table of design section 3: train before test, then by relative path; attrs as documented at `load`."""
    samples = sorted(samples, key=lambda s: (s.split != "train", s.path.relative_to(root).as_posix()))
    if not any(s.split == "train" for s in samples):
        raise UserError(f"no normal training image of {dataset}/{category} in {root}; valid are {_endings()} files")
    contents = _contents(samples, root)
    columns = list(zip(*samples, strict=True))
    table = pd.DataFrame(
        {
            "path": [str(path) for path in columns[0]],
            "split": columns[1],
            "label": columns[2],
            "defect": columns[3],
            # object, because pandas' string type would turn None into NaN
            "mask": pd.Series([str(mask) if mask else None for mask in columns[4]], dtype=object),
        }
    )
    table.attrs = {
        "dataset": dataset,
        "category": category,
        "root": str(root),
        "fingerprint": fingerprint(samples, root, contents),
        "duplicates": duplicates(samples, root, contents),
        "notes": list(notes),
        "reserved": [str(s.path) for s in samples if s.reserved],
        **attrs,
    }
    return table


def _contents(samples: Sequence[Sample], root: Path) -> dict[Path, str]:
    """sha256 (hex) of every image and mask."""
    files = [s.path for s in samples] + [s.mask for s in samples if s.mask]
    return dict(zip(files, content_hashes(root, files), strict=True))


def duplicates(samples: Sequence[Sample], root: Path, contents: Mapping[Path, str]) -> str | None:
    """One sentence on test images whose file is, byte for byte, one of training; None where there is none.

    What was learnt by heart is then tested. Copies under another compression are found by `inspection.verify` only.
    """
    train = {contents[s.path]: s for s in reversed(samples) if s.split == "train"}
    twins = [(s, train[contents[s.path]]) for s in samples if s.split == "test" and contents[s.path] in train]
    if not twins:
        return None
    tested, trained = (s.path.relative_to(root).as_posix() for s in twins[0])
    count = "1 test image is" if len(twins) == 1 else f"{len(twins)} test images are"
    wrong = sum(s.label for s, _ in twins)
    marked = f" ({wrong} of them called anomalous)" if wrong else ""
    return f"{count} in the training images, too{marked}, e.g. {tested} = {trained}; remove one of each pair"


def fingerprint(samples: Sequence[Sample], root: Path, contents: Mapping[Path, str]) -> str:
    """sha256 (hex) over relative paths, split, label and the contents of images and masks; independent of the place."""
    digest = hashlib.sha256()
    for s in samples:
        mask = (s.mask.relative_to(root).as_posix(), contents[s.mask]) if s.mask else ("", "")
        line = (s.path.relative_to(root).as_posix(), contents[s.path], s.split, str(s.label), s.defect, *mask)
        if s.reserved:
            line = (*line, "reserved")
        digest.update(("\t".join(line) + "\n").encode())
    return digest.hexdigest()


def is_folder(path: Path) -> bool:
    """Whether a folder is there; UserError where that cannot be known for lack of permission."""
    try:
        return path.is_dir()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}; every folder must be readable") from error


def exists(path: Path) -> bool:
    """Whether anything has that name, be it a link to nowhere; UserError where that cannot be known."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}; every folder must be readable") from error
    return True


def listing(folder: Path) -> list[Path]:
    """Entries in order of name, without hidden ones; none where no such folder is.

    UserError, with the path: a file or a link to nowhere in its place, a folder that cannot be read, or a name in it
    that no text can hold.
    """
    try:
        entries = sorted(f for f in folder.iterdir() if not f.name.startswith("."))
    except OSError as error:
        for place in (folder, *folder.parents):
            if place.is_symlink() and not place.exists():
                raise UserError(f"link {place} leads nowhere; expected a folder") from error
            if place.is_file():
                raise UserError(f"{place} is a file; expected a folder") from error
        if isinstance(error, FileNotFoundError):
            return []
        raise UserError(f"cannot read {folder}: {error.strerror}; every folder must be readable") from error
    odd = [f.name for f in entries if ODD.search(f.name)]
    if odd:  # bytes of another encoding, as old archives leave them; a line break, which no list of names can have
        raise UserError(
            f"name {odd[0]!r} in {folder} is no UTF-8 or holds a control character; rename it (convmv does many)"
        )
    return entries


def folders(folder: Path) -> list[Path]:
    """Sub-folders in order of name, without hidden ones (.ipynb_checkpoints) and archive rubbish (__MACOSX).

    UserError for a link to nowhere, unless its name has an ending: a kind of defect must not vanish in silence.
    """
    inner = []
    for f in listing(folder):
        if is_folder(f) and not f.name.startswith("__"):
            inner.append(f)
        elif f.suffix == "" and f.is_symlink() and not f.exists():
            raise UserError(f"link {f} leads nowhere; mend or remove it")
    return inner


def images(folder: Path, notes: list[str] | None = None) -> list[Path]:
    """Image files of a folder in order of name, any case of the ending; others are ignored with a note."""
    # is_folder, not is_file: a dangling link must be named by the reader, not be left out in silence
    files = [f for f in listing(folder) if not is_folder(f)]
    pictures = [f for f in files if f.suffix.lower() in ENDINGS]
    odd = [f.name for f in files if f.suffix.lower() not in ENDINGS | SILENT_ENDINGS]
    if odd and notes is not None:
        notes.append(f"{len(odd)} files of {folder.name}/ ignored, no image ending: {some(odd)}")
    return pictures


def by_stem(files: Iterable[Path], suffix: str = "") -> dict[str, Path]:
    """Masks by the stem of their image; PNG wins over other endings of the same stem."""
    files = sorted(files, key=lambda f: f.suffix.lower() == ".png")
    return {f.stem.removesuffix(suffix): f for f in files if f.stem.endswith(suffix)}


def note_pairs(notes: list[str], kind: str, paths: list[Path], masks: dict[str, Path], normal: bool = False) -> None:
    """Note the anomalous images without mask and the masks without image, by stem."""
    stems = {path.stem for path in paths}
    missing = sorted(stems - set(masks)) if not normal else []
    extra = sorted(set(masks) - stems)
    if missing:
        notes.append(f"{len(missing)} anomalous images of {kind} without mask: {some(missing)}")
    if extra:
        notes.append(f"{len(extra)} masks of {kind} without image ignored: {some(extra)}")


def lines(path: Path) -> list[str]:
    """Lines of a text file that are not blank, without the blanks at their ends; UserError where it is no text."""
    try:
        return [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {path} ({error}); expected a text file") from error


def hashed_split(names: Sequence[str], seed: int, share: float = 0.8) -> set[str]:
    """The floor(share n) first names in the order of `hashed`: the training part, the same everywhere."""
    return set(hashed(names, seed)[: int(share * len(names) + 1e-9)])


def hashed(names: Sequence[str], seed: int | str) -> list[str]:
    """The names in the order of sha256("seed:name")."""
    return sorted(names, key=lambda name: hashlib.sha256(f"{seed}:{name}".encode()).hexdigest())


def some(names: Sequence[str], limit: int = 5) -> str:
    """The first names for a note, and how many more there are."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(str(name) for name in names[:limit]) + more


def _endings() -> str:
    return ", ".join(sorted(ENDINGS))
