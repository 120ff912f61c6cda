"""What a data set is: one `DATASET = DataSet(...)` in a file of this folder, and all that is known about it.

The file is registered by being there (`adlib.data` looks for `DATASET`). General code never asks for a name; it asks
the `DataSet` for its layout, counts, rules and source.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from adlib.common.errors import UserError
from adlib.common.paths import data_root
from adlib.data.samples import Sample, is_folder

Counts = dict[str, int]  # "train/good", "test/good", "test/<kind>" -> images
Listed = tuple[list[Sample], list[str]]  # samples, and notes: what was dropped or decided, and why


@dataclass(frozen=True)
class Archive:
    """One file to fetch: its addresses in the order of trying, and what its bytes must be, as far as published."""

    name: str
    urls: tuple[str, ...]
    checksum: str | None = None  # "sha256:<hex>" or "md5:<hex>" of the whole file
    size: int | None = None  # bytes, where published


@dataclass(frozen=True)
class Source:
    """Where a data set comes from: archives, licence, which of their files belong to the layout, and how many.

    Behind every address stands where it was read. None is guessed; they move, so each is one of a list.
    """

    archives: tuple[Archive, ...]
    licence: str
    homepage: str
    unpacked: int  # bytes, estimated and rounded up: for the disk-space check; twice as much is refused as a bomb
    keep: str  # regular expression over member names: group 1 is the path in the data set's folder
    unpacks_to: str  # a folder that a complete copy holds
    counts: dict[str, int] = field(default_factory=dict)  # glob pattern -> files of a complete copy
    listing: str | None = None  # Zenodo's record, as JSON: addresses and checksums of the current version
    extras: tuple[Archive, ...] = ()  # small files put beside the images; their absence is a note, no error


def _no_samples(place: Path, samples: list[Sample]) -> list[Sample]:
    return []


def _no_files(place: Path) -> set[Path]:
    return set()


@dataclass(frozen=True)
class Rules:
    """What a layout promises beyond its samples, so that `verify` can tell a fault from a habit."""

    masks: str = "all"  # "all" anomalous images have one, "kind": all of a kind or none, "none"
    one_size: bool = True  # all images of a category have the same size
    empty_masks: Sequence[str] = ()  # "<folder>/<stem>" of the anomalous images whose mask is published empty
    dropped: Mapping[str, int] = field(default_factory=dict)  # category -> official number of defective training images
    # (folder of the category, samples) -> pictures that lie there and are left out on purpose
    spare: Callable[[Path, list[Sample]], list[Sample]] = _no_samples
    # (samples) -> the same with the masks that the layout passes over
    mend: Callable[[list[Sample]], list[Sample]] = lambda samples: samples
    # (folder of the category) -> files that are no pictures and belong there
    known: Callable[[Path], set[Path]] = _no_files


def in_category(root: Path, category: str) -> Path:
    """The usual place of a category: a folder of its name."""
    return root / category


def at_root(root: Path, category: str) -> Path:
    """The place of a category that is not a folder: the data set's own folder."""
    return root


def fetched(name: str) -> str:
    """The advice for a data set with a download: ends the sentence "... not found at ...; "."""
    command = f"`python -m adlib data download {name} --accept-licence`"
    return f"fetch it with {command}, or set ADLIB_DATA to the folder that holds {name}/"


@dataclass(frozen=True)
class DataSet:
    """A data set: a layout, `samples(root, category, **options) -> (samples, notes)`, and facts about it.

    The layout lists files and opens no picture. A check that must open some is `checked`: `load` runs it, `verify`,
    which looks at every file itself, does not.
    """

    name: str
    samples: Callable[..., Listed]
    categories: Callable[[Path], list[str]]  # valid names, given the root; none: the root itself is one
    advice: str  # how to get it: ends the sentence "... not found at ...; "; empty: made on first use
    root: Callable[[], Path] | None = None  # where it lies when the caller says nothing; default $ADLIB_DATA/<name>
    folder: Callable[[Path, str], Path] = in_category  # (root, category) -> where the category's pictures lie
    inner: str = ""  # folder that the official archive puts around it, accepted as well
    checked: Callable[[list[Sample], list[str]], Listed] | None = None  # opens files; UserError for bad ones
    mask_threshold: int = 0  # mask pixels above it are anomalous
    anomalies: bool = True  # False: no data set to detect anomalies in, so `load` refuses it
    official: dict[str, Counts] = field(default_factory=dict)  # category -> images of a complete copy
    sizes: Mapping[str, tuple[int, int]] = field(default_factory=dict)  # category -> official (width, height), pixels
    quirks: tuple[str, ...] = ()  # what is odd about it, in words
    rules: Rules = Rules()
    source: Source | None = None
    no_download: str = ""  # why none is needed, where there is none

    def place(self, root: str | Path | None = None) -> Path:
        """The folder that holds the categories: the one given, or where it lies by itself; or `inner` within it."""
        try:
            folder = Path(root).expanduser().absolute() if root else self._default_root()
        except RuntimeError as error:
            raise UserError(f"root {str(root)!r} names the home of nobody; give a full path") from error
        return folder / self.inner if self.inner and is_folder(folder / self.inner) else folder

    def _default_root(self) -> Path:
        return self.root() if self.root else data_root() / self.name


def official_counts(texts: Mapping[str, str]) -> dict[str, Counts]:
    """Counts per category from "<train> <normal test> <kind> <n> <kind> <n> ..."."""
    return {category: _counts(text) for category, text in texts.items()}


def _counts(text: str) -> Counts:
    train, good, *kinds = text.split()
    tests = zip(kinds[::2], kinds[1::2], strict=True)
    return {"train/good": int(train), "test/good": int(good), **{f"test/{kind}": int(n) for kind, n in tests}}
