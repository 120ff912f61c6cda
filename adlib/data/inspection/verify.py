"""Is this copy of a data set the published one? Every file is decoded once; one line for every fault."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from adlib import data
from adlib.common.errors import UserError
from adlib.common.paths import data_root
from adlib.data import mixtures
from adlib.data.inspection import checks
from adlib.data.inspection.checks import Fault, Look, Part
from adlib.data.official import COUNTS
from adlib.data.samples import VERIFYING, DataSet, Sample, images, is_folder, listing, some

DTD_CLASSES, DTD_IMAGES = 47, 120  # images per class


@dataclass(frozen=True)
class Report:
    """What was found. table: category, split, defect, images, official (NA where unknown), masks, mode, size."""

    dataset: str
    root: Path
    faults: list[Fault]
    notes: list[str]
    table: pd.DataFrame
    files: int  # decoded, masks included

    @property
    def ok(self) -> bool:
        return not self.faults

    def lines(self) -> list[str]:
        """One line per fault: the file, relative to the root, and what is wrong with it."""
        return [_printable(f"{_relative(fault.path, self.root)}: {fault.text}") for fault in self.faults]

    def __str__(self) -> str:
        shown = self.table.astype(object).where(self.table.notna(), "-")
        notes = [_printable(f"note: {note}") for note in self.notes]
        verdict = {0: "no fault", 1: "1 fault"}.get(len(self.faults), f"{len(self.faults)} faults")
        last = f"{self.dataset} at {self.root}: {verdict} in {self.files} files"
        return "\n".join(
            [
                *self.lines(),
                *[""] * bool(self.faults),
                shown.to_markdown(index=False, disable_numparse=True),
                "",
                *notes,
                last,
            ]
        )


def verify(
    dataset: str,
    root: str | Path | None = None,
    categories: str | Sequence[str] | None = None,
    progress: bool = True,
) -> Report:
    """Check a data set against what is published: counts, decoding, masks, duplicates, strays, modes and sizes.

    categories: default all that are there; others are a note. Faults never raise. UserError: unknown data set or
    category; nothing of it at root. Pixels are compared, so a copy is found under any name. Spec: datasets.md.
    """
    source = _source(dataset)
    root = source.place(root)
    parts, absent = _parts(dataset, source, root, categories)
    looks = checks.look_at((file for part in parts for file in part.files()), progress)
    faults = [fault for part in parts for fault in _of_part(dataset, part, looks, source.mask_threshold)]
    doubled, notes = checks.duplicates(parts, looks, root)
    faults += [*checks.unreadable(looks), *doubled, *checks.stray(parts)]
    if source.advice and not categories:
        faults += checks.unclaimed(root / "images" if dataset == "dtd" else root, parts)
    notes = [*_notes(dataset, parts, absent), *notes]
    table = pd.DataFrame([row for part in parts for row in _rows(dataset, part, looks)], columns=COLUMNS)
    table["official"] = table["official"].astype("Int64")
    return Report(dataset, root, _unique(faults), notes, table, len(looks))


COLUMNS = ["category", "split", "defect", "images", "official", "masks", "mode", "size"]


def _dtd(root: Path, category: str) -> tuple[list[Sample], list[str]]:
    """One class of textures; no test, no label."""
    notes = []
    return [Sample(path, "train") for path in images(root / "images" / category, notes)], notes


DTD = DataSet(_dtd, checks.classes, lambda: data_root() / "dtd", "`python -m adlib data download dtd` gets it")


def _source(dataset: str) -> DataSet:
    """What `load` knows, and dtd, which is no data set but can be as broken as one."""
    if mixtures.is_mixture(dataset):
        raise UserError(f"{dataset!r} is a mixture; verify its data sets one by one, with --category for some of each")
    return DTD if dataset == "dtd" else data._source(dataset)


def _official(dataset: str, category: str) -> dict[str, int] | None:
    return {"train/good": DTD_IMAGES} if dataset == "dtd" else COUNTS.get(dataset, {}).get(category)


def _parts(dataset: str, source: DataSet, root: Path, categories) -> tuple[list[Part], list[str]]:
    """Categories that are there, or were asked for, and the names of those that are not."""
    if source.advice and not is_folder(root):
        listing(root)  # names a file or a broken link in its place
        raise UserError(f"data set {dataset} not found at {root}; {source.advice}")
    valid = source.categories(root) or [root.name]
    wanted = [categories] if isinstance(categories, str) else list(categories or valid)
    wanted = list(dict.fromkeys(data._category(dataset, valid, category) for category in wanted))
    place = checks.rules(dataset).place
    absent = [c for c in wanted if source.advice and not (place(root, c).exists() or place(root, c).is_symlink())]
    if absent == wanted:
        raise UserError(f"no category of {dataset} ({some(wanted)}) found in {root}; {source.advice}")
    parts = [_part(dataset, source, root, c) for c in wanted if categories or c not in absent]
    return parts, absent


def _part(dataset: str, source: DataSet, root: Path, category: str) -> Part:
    rules = checks.rules(dataset)
    part = Part(category, rules.place(root, category))
    token = VERIFYING.set(True)
    try:
        if part.place.is_file():
            raise UserError("is a file where a folder should be")
        if source.advice and not part.place.is_dir():
            raise UserError("is not there")
        samples, part.notes = source.samples(root, category)
        part.samples = rules.mend(samples)
        part.spare = rules.spare(part.place, part.samples)
        part.known = rules.known(part.place)
    except (UserError, OSError, ValueError, LookupError) as error:
        # what the layout refuses is a fault like others, and its pictures are looked at all the same
        text = str(error) if isinstance(error, UserError) else f"its layout cannot be read ({error})"
        part.error, part.samples, part.spare = text, [], []
    finally:
        VERIFYING.reset(token)
    return part


def _of_part(dataset: str, part: Part, looks: dict[Path, Look], threshold: int) -> Iterator[Fault]:
    official = _official(dataset, part.category)
    if part.error:
        yield Fault("layout", part.place, part.error)
    elif not part.samples:
        due = f"; {sum(official.values())} are official" if official else ""
        yield Fault("count", part.place, f"holds no image{due}")
    else:
        if official:
            yield from checks.counts(dataset, part, official)
        elif not any(s.split == "train" for s in part.samples):
            yield Fault("count", part.place, "holds no normal training image")
        yield from checks.masks(dataset, part, looks, threshold)
        yield from checks.modes_and_sizes(dataset, part, looks)


def _notes(dataset: str, parts: list[Part], absent: list[str]) -> list[str]:
    absent = [category for category in absent if category not in {part.category for part in parts}]
    notes = [f"not there, so not checked: {some(absent, 15)}"] if absent else []
    if dataset == "dtd":
        notes.append(f"{len(parts)} of {DTD_CLASSES} classes checked")
    for part in parts:
        if part.error:
            notes.append(f"{part.category}: counts, masks and duplicates were not checked; mend its layout first")
            continue
        if not _official(dataset, part.category):
            notes.append(f"{part.category}: no official counts to compare with")
        empty = [s.path.stem for s in part.samples if s.mask and checks.known_empty(dataset, s)]
        if empty:
            notes.append(f"{part.category}: {len(empty)} masks are empty as published: {some(empty)}")
        notes += [f"{part.category}: {note}" for note in part.notes if "empty mask" not in note]
    return notes


def _rows(dataset: str, part: Part, looks: dict[Path, Look]) -> Iterator[dict]:
    """One row per split and defect, those included of which nothing is there."""
    official = _official(dataset, part.category) or {}
    groups = {key: [] for key in official}
    for s in part.samples:
        groups.setdefault(f"{s.split}/{s.defect}", []).append(s)
    for key, samples in groups.items():
        seen = [looks[s.path] for s in samples if not looks[s.path].error]
        split, defect = key.split("/", 1)
        row = {"category": part.category, "split": split, "defect": defect, "images": len(samples)}
        row |= {"official": official.get(key), "masks": sum(s.mask is not None for s in samples)}
        yield row | {"mode": " ".join(sorted({x.mode for x in seen})), "size": checks.span([x.size for x in seen])}


def _unique(faults: list[Fault]) -> list[Fault]:
    """In order of files; without a layout's complaint about a file that has a line of its own."""
    named = [str(fault.path) for fault in faults if fault.kind != "layout"]
    kept = [f for f in faults if f.kind != "layout" or not any(name in f.text for name in named)]
    return sorted(dict.fromkeys(kept), key=lambda fault: (str(fault.path), fault.kind))


def _printable(line: str) -> str:
    """One line, whatever a file is called: line ends and bytes that are no text as Python writes them."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in line)


def _relative(path: Path, root: Path) -> str:
    return str(path.relative_to(root)) if path != root and path.is_relative_to(root) else str(path)
