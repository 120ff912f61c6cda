"""dagm: ten classes of generated textures with weak labels (DAGM 2007; Wieler, Hahn, Hamprecht).

Counts: per-image list of dataset-ninja (industrial-optical-inspection), without the defective training images.
"""

from pathlib import Path

from adlib.common.errors import UserError
from adlib.data.dataset import Archive, DataSet, Rules, Source, fetched, official_counts
from adlib.data.samples import Sample, by_stem, images, lines, listing, note_pairs, some

CATEGORIES = [f"Class{n}" for n in range(1, 11)]
PNG = "*.[Pp][Nn][Gg]"
OFFICIAL = official_counts(
    {
        "Class1": "496 504 defective 71",
        "Class2": "509 491 defective 84",
        "Class3": "509 491 defective 84",
        "Class4": "493 507 defective 68",
        "Class5": "505 495 defective 80",
        "Class6": "492 508 defective 67",
        **dict.fromkeys(CATEGORIES[6:], "1000 1000 defective 150"),
    }
)
# defective training images, which one-class methods must not see: 1046 in all
DEFECTIVE_TRAIN = dict(zip(CATEGORIES, [79, 66, 66, 82, 70, 83, 150, 150, 150, 150], strict=True))


def samples(root: Path, category: str) -> tuple[list[Sample], list[str]]:
    """`<category>/{Train,Test}/<number>.PNG` and, of defective images, `Label/<number>_label.PNG`.

    Defective: flag 1 in `Label/Labels.txt`, or a label picture of that number. Such training images are dropped,
    because a one-class method must not see them.
    """
    listed, notes = [], []
    for part in ("Train", "Test"):
        folder = root / category / part
        paths = images(folder, notes)
        flagged, masks = _labels(folder / "Label", notes) if paths else (set(), {})
        stems = flagged | set(masks)
        defective = [path for path in paths if path.stem in stems]
        listed += [Sample(path, part.lower()) for path in paths if path.stem not in stems]
        if part == "Test":
            listed += [Sample(path, "test", 1, "defective", masks.get(path.stem)) for path in defective]
            note_pairs(notes, "defective", defective, masks)
        elif defective:
            dropped = some([path.stem for path in defective])
            notes.append(f"{len(defective)} defective training images left out: {dropped}")
    return listed, [*notes, "labels are weak: filled ellipses much larger than the defects"]


def _labels(folder: Path, notes: list[str]) -> tuple[set[str], dict[str, Path]]:
    """Stems flagged as defective, and label pictures by the stem of their image."""
    masks = by_stem(images(folder, notes), "_label")
    texts = [f for f in listing(folder) if f.name.lower() == "labels.txt"]
    if not texts and not masks:
        raise UserError(f"no Labels.txt and no label picture in {folder}; without them no image is known to be normal")
    flagged = set()
    for count, line in enumerate(lines(texts[0]) if texts else ()):
        fields = line.split()
        if not count and len(fields) == 1:
            continue  # the first line is a single 1; some copies go without
        if len(fields) < 3 or fields[1] not in ("0", "1"):
            raise UserError(f"line {line!r} of {texts[0]} is not `number, flag 0 or 1, image name, ...`")
        if fields[1] == "1":
            flagged.add(Path(fields[2]).stem)
    return flagged, masks


def _dropped(place: Path, taken: list[Sample]) -> list[Sample]:
    """Defective training images, known by their number, with their labels."""
    used = {s.path for s in taken}
    labels = by_stem(images(place / "Train" / "Label"), "_label")
    paths = [path for path in images(place / "Train") if path not in used and path.stem.isdigit()]
    return [Sample(path, "train", 1, "defective", labels.get(path.stem)) for path in paths]


DATASET = DataSet(
    "dagm",
    samples,
    lambda root: list(CATEGORIES),
    fetched("dagm"),
    official=OFFICIAL,
    sizes=dict.fromkeys(CATEGORIES, (512, 512)),
    quirks=(
        "training folders hold defective images, which are dropped",
        "labels are filled ellipses much larger than the defects",
        "numbering is 1-based and Test comes first; some copies hold classes 1 to 6 only",
    ),
    rules=Rules(dropped=DEFECTIVE_TRAIN, spare=_dropped),
    source=Source(
        tuple(
            # file names: dataset-ninja/industrial-optical-inspection, src/settings.py; no checksum there
            Archive(f"{category}.zip", (f"https://zenodo.org/record/8086136/files/{category}.zip?download=1",))
            for category in CATEGORIES
        ),
        licence="CC BY 4.0; cite Wieler, Hahn, Hamprecht 2007 (doi 10.5281/zenodo.8086136)",
        homepage="https://zenodo.org/records/12750201",
        unpacked=6_000_000_000,
        keep=r"^(?:.*/)?(Class\d+/(?:Train|Test)/.+)$",
        unpacks_to="Class1/Train",
        counts={f"Class*/Train/{PNG}": 8050, f"Class*/Test/{PNG}": 8050, f"Class*/*/Label/{PNG}": 2100},
        # the newer version of the record; Zenodo's interface lists names, sizes and md5 of any record
        listing="https://zenodo.org/api/records/12750201",
    ),
)
