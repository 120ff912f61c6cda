"""What every data set is made of: samples, their table, and helpers for listing, splitting and pairing files."""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from adlib.common.errors import UserError
from adlib.common.hashes import content_hashes

ENDINGS = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".pgm", ".ppm"}
SILENT_ENDINGS = {".txt", ".md", ".json", ".db", ".html", ".pdf", ""}  # licences and read-mes: no note worth
# set while `verify` lists samples: it looks at every file itself, so a layout opens none and refuses none
VERIFYING: ContextVar[bool] = ContextVar("verifying", default=False)


class Sample(NamedTuple):
    """One image. label: 0 normal, 1 anomalous; mask: None where there is none (always for normal images)."""

    path: Path
    split: str
    label: int = 0
    defect: str = "good"
    mask: Path | None = None


@dataclass(frozen=True)
class DataSet:
    """A data set is one function, `samples(root, category, **options) -> (samples, notes)`, and facts about it."""

    samples: Callable[..., tuple[list[Sample], list[str]]]
    categories: Callable[[Path], list[str]]  # valid names, given the root; none: the root itself is one
    root: Callable[[], Path]  # where it lies when the caller says nothing
    advice: str  # how to get it: ends the sentence "... not found at ...; "; empty: made on first use
    mask_threshold: int = 0  # mask pixels above it are anomalous
    inner: str = ""  # folder that the official archive puts around it, accepted as well

    def place(self, root: str | Path | None = None) -> Path:
        """The folder that holds the categories: the one given, or where it lies by itself; or `inner` within it."""
        try:
            folder = Path(root).expanduser().absolute() if root else self.root()
        except RuntimeError as error:
            raise UserError(f"root {str(root)!r} names the home of nobody; give a full path") from error
        return folder / self.inner if self.inner and is_folder(folder / self.inner) else folder


def build(
    samples: Iterable[Sample], dataset: str, category: str, root: Path, notes: list[str], **attrs
) -> pd.DataFrame:
    """The table of design section 3: train before test, then by relative path; attrs as documented at `load`."""
    samples = sorted(samples, key=lambda s: (s.split != "train", s.path.relative_to(root).as_posix()))
    if not any(s.split == "train" for s in samples):
        raise UserError(f"no normal training image of {dataset}/{category} in {root}; valid are {_endings()} files")
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
        "fingerprint": fingerprint(samples, root),
        "notes": list(notes),
        **attrs,
    }
    return table


def fingerprint(samples: Sequence[Sample], root: Path) -> str:
    """sha256 (hex) over relative paths, split, label and the contents of images and masks; independent of the place."""
    files = [s.path for s in samples] + [s.mask for s in samples if s.mask]
    contents = dict(zip(files, content_hashes(root, files), strict=True))
    digest = hashlib.sha256()
    for s in samples:
        mask = (s.mask.relative_to(root).as_posix(), contents[s.mask]) if s.mask else ("", "")
        line = (s.path.relative_to(root).as_posix(), contents[s.path], s.split, str(s.label), s.defect, *mask)
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
        found = sorted(f for f in folder.iterdir() if not f.name.startswith("."))
    except OSError as error:
        for place in (folder, *folder.parents):
            if place.is_symlink() and not place.exists():
                raise UserError(f"link {place} leads nowhere; expected a folder") from error
            if place.is_file():
                raise UserError(f"{place} is a file; expected a folder") from error
        if isinstance(error, FileNotFoundError):
            return []
        raise UserError(f"cannot read {folder}: {error.strerror}; every folder must be readable") from error
    odd = [f.name for f in found if any("\ud800" <= letter <= "\udfff" for letter in f.name)]
    if odd:  # bytes of another encoding, as old archives leave them
        raise UserError(f"name {odd[0]!r} in {folder} is no UTF-8; rename it (convmv does many at once)")
    return found


def folders(folder: Path) -> list[Path]:
    """Sub-folders in order of name, without hidden ones (.ipynb_checkpoints) and archive rubbish (__MACOSX).

    UserError for a link to nowhere, unless its name has an ending: a kind of defect must not vanish in silence.
    """
    found = []
    for f in listing(folder):
        if is_folder(f) and not f.name.startswith("__"):
            found.append(f)
        elif f.suffix == "" and f.is_symlink() and not f.exists():
            raise UserError(f"link {f} leads nowhere; mend or remove it")
    return found


def images(folder: Path, notes: list[str] | None = None) -> list[Path]:
    """Image files of a folder in order of name, any case of the ending; others are ignored with a note."""
    # is_folder, not is_file: a dangling link must be named by the reader, not be left out in silence
    files = [f for f in listing(folder) if not is_folder(f)]
    found = [f for f in files if f.suffix.lower() in ENDINGS]
    odd = [f.name for f in files if f.suffix.lower() not in ENDINGS | SILENT_ENDINGS]
    if odd and notes is not None:
        notes.append(f"{len(odd)} files of {folder.name}/ ignored, no image ending: {some(odd)}")
    return found


def by_stem(files: Iterable[Path], suffix: str = "") -> dict[str, Path]:
    """Masks by the stem of their image; PNG wins over other endings of the same stem."""
    files = sorted(files, key=lambda f: f.suffix.lower() == ".png")
    return {f.stem.removesuffix(suffix): f for f in files if f.stem.endswith(suffix)}


def hashed_split(names: Sequence[str], seed: int, share: float = 0.8) -> set[str]:
    """The floor(share n) first names in the order of sha256("seed:name"): the training part, the same everywhere."""
    order = sorted(names, key=lambda name: hashlib.sha256(f"{seed}:{name}".encode()).hexdigest())
    return set(order[: int(share * len(names) + 1e-9)])


def some(names: Sequence[str], limit: int = 5) -> str:
    """The first names for a note, and how many more there are."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(str(name) for name in names[:limit]) + more


def _endings() -> str:
    return ", ".join(sorted(ENDINGS))
