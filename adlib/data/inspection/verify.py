"""Is this copy of a data set the published one? Every file is decoded once; one line for every fault."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from adlib.common.errors import UserError, unknown
from adlib.data import CATALOGUE, mixtures, names, provenance
from adlib.data.dataset import DataSet
from adlib.data.inspection import checks
from adlib.data.inspection.checks import Fault, Look, Part
from adlib.data.samples import exists, is_folder, listing, some

COLUMNS = ["category", "split", "defect", "images", "official", "masks", "mode", "size"]


@dataclass(frozen=True)
class Report:
    """The faults, and what else to know.

    table: category, split, defect, images, official (NA where unknown), masks, mode, size; altered: categories whose
    pictures have not the official size, so that counts and pairing are verified but not the original pixels.
    """

    dataset: str
    root: Path
    faults: list[Fault]
    notes: list[str]
    table: pd.DataFrame
    files: int  # decoded, masks included
    altered: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        return not self.faults

    def lines(self) -> list[str]:
        """One line per fault: the file, relative to the root, and what is wrong with it."""
        return [_printable(f"{_relative(fault.path, self.root)}: {fault.text}") for fault in self.faults]

    def __str__(self) -> str:
        shown = self.table.astype(object).where(self.table.notna(), "-")
        verdict = {0: "no fault", 1: "1 fault"}.get(len(self.faults), f"{len(self.faults)} faults")
        last = f"{self.dataset} at {self.root}: {verdict} in {self.files} files"
        if self.altered:
            last += f"; rescaled or cropped copies ({some(self.altered)}): counts and pairing are verified, not the "
            last += "original pixels"
        faults = self.lines()
        if faults:
            faults.append("")
        notes = [_printable(f"note: {note}") for note in self.notes]
        return "\n".join([*faults, shown.to_markdown(index=False, disable_numparse=True), "", *notes, last])


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
    parts, absent = _parts(source, root, categories)
    looks = checks.look_at((file for part in parts for file in part.files()), progress)
    faults = [fault for part in parts for fault in _of_part(source, part, looks)]
    doubled, notes = checks.duplicates(parts, looks, root)
    faults += [*checks.unreadable(looks), *doubled, *checks.stray(parts)]
    if source.advice and not categories:
        faults += checks.unclaimed(root, parts)
    notes = [*_notes(source, root, parts, absent), *notes]
    table = pd.DataFrame([row for part in parts for row in _rows(source, part, looks)], columns=COLUMNS)
    table["official"] = table["official"].astype("Int64")
    altered = [p.category for p in parts if p.samples and provenance.altered(source, p.category, p.samples[0].path)]
    return Report(dataset, root, _unique(faults), notes, table, len(looks), tuple(altered))


def _source(dataset: str) -> DataSet:
    if mixtures.is_mixture(dataset):
        raise UserError(f"{dataset!r} is a mixture; verify its data sets one by one, with --category for some of each")
    if dataset not in CATALOGUE:
        raise unknown("data set", dataset, CATALOGUE)
    return CATALOGUE[dataset]


def _parts(source: DataSet, root: Path, categories) -> tuple[list[Part], list[str]]:
    """Categories that are there, or were asked for, and the names of those that are not."""
    if source.advice and not is_folder(root):
        listing(root)  # names a file or a broken link in its place
        raise UserError(f"data set {source.name} not found at {root}; {source.advice}")
    valid = source.categories(root) or [root.name]
    wanted = [categories] if isinstance(categories, str) else list(categories or valid)
    wanted = list(dict.fromkeys(names.spelled(f"{source.name} category", c, valid) for c in wanted))
    absent = [c for c in wanted if source.advice and not exists(source.folder(root, c))]
    if absent == wanted:
        raise UserError(f"no category of {source.name} ({some(wanted)}) found in {root}; {source.advice}")
    parts = [_part(source, root, c) for c in wanted if categories or c not in absent]
    return parts, absent


def _part(source: DataSet, root: Path, category: str) -> Part:
    rules = source.rules
    part = Part(category, source.folder(root, category))
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
    return part


def _of_part(source: DataSet, part: Part, looks: dict[Path, Look]) -> Iterator[Fault]:
    official = source.official.get(part.category)
    if part.error:
        yield Fault("layout", part.place, part.error)
    elif not part.samples:
        due = f"; {sum(official.values())} are official" if official else ""
        yield Fault("count", part.place, f"holds no image{due}")
    else:
        if official:
            yield from checks.counts(source, part, official)
        elif not any(s.split == "train" for s in part.samples):
            yield Fault("count", part.place, "holds no normal training image")
        yield from checks.masks(source, part, looks)
        yield from checks.modes_and_sizes(source, part, looks)


def _notes(source: DataSet, root: Path, parts: list[Part], absent: list[str]) -> list[str]:
    absent = [category for category in absent if category not in {part.category for part in parts}]
    notes = [f"not there, so not checked: {some(absent, 15)}"] if absent else []
    for part in parts:
        if part.error:
            notes.append(f"{part.category}: counts, masks and duplicates were not checked; mend its layout first")
            continue
        if part.samples:
            origin = provenance.sentence(source, root, part.category, part.samples[0].path)
            notes += [f"{part.category}: {origin}"] if origin else []
        if part.category not in source.official:
            notes.append(f"{part.category}: no official counts to compare with")
        empty = [s.path.stem for s in part.samples if s.mask and checks.known_empty(source, s)]
        if empty:
            notes.append(f"{part.category}: {len(empty)} masks are empty as published: {some(empty)}")
        notes += [f"{part.category}: {note}" for note in part.notes]
    return notes


def _rows(source: DataSet, part: Part, looks: dict[Path, Look]) -> Iterator[dict]:
    """One row per split and defect, those included of which nothing is there."""
    official = source.official.get(part.category, {})
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
