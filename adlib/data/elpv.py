"""elpv: electroluminescence images of solar cells, carried by the package `elpv-dataset` (Buerhop-Lutz et al. 2018).

Image labels only, no masks. Experts gave a defect probability: 0 is normal, 1 is anomalous; 1/3 and 2/3 are doubt and
left out. The package has no split: normal cells are split 80/20 by hash, defective ones are all test.
"elpv?images=200" is a sample of each category, for quick trials.
"""

from importlib.util import find_spec
from pathlib import Path

from adlib.common.errors import UserError, shown
from adlib.data.dataset import DataSet, Rules, at_root, official_counts
from adlib.data.samples import Sample, hashed, hashed_split, lines

FEWEST = 20  # cells of a sample: with fewer, hardly one of a kind would be left


def samples(
    root: Path, category: str, split_seed: int = 0, images: int | None = None
) -> tuple[list[Sample], list[str]]:
    """Cells of one wafer type, mono or poly, from `labels.csv` (name, probability, type; separated by blanks).

    images: only so many of those not in doubt, by hash, each in its part of the whole. UserError below FEWEST.
    """
    rows = _rows(root)
    cells = {name: round(3 * float(probability)) for name, probability, wafer in rows if wafer == category}
    normal = [name for name, thirds in cells.items() if thirds == 0]
    train = hashed_split(normal, split_seed)
    listed = [Sample(root / name, "train" if name in train else "test") for name in normal]
    listed += [Sample(root / name, "test", 1, "defective") for name, thirds in cells.items() if thirds == 3]
    doubt = [sum(thirds == k for thirds in cells.values()) for k in (1, 2)]
    notes = [
        f"left out as doubtful: {doubt[0]} cells with defect probability 1/3 and {doubt[1]} with 2/3",
        f"no official split: 80 % of the normal cells train, by hash with split_seed={split_seed}; no masks",
    ]
    if images is not None:
        listed = _sample(listed, images)
        notes.append(f"a sample: {len(listed)} cells, by hash, with images={images}")
    return listed, notes


def _sample(listed: list[Sample], images: object) -> list[Sample]:
    """So many of them by hash of their names, in the order of the list."""
    if not isinstance(images, int) or images < FEWEST:
        raise UserError(f"elpv images {shown(images)} is no whole number from {FEWEST}; 200 is a quick trial")
    chosen = set(hashed([s.path.name for s in listed], "sample")[:images])
    return [s for s in listed if s.path.name in chosen]


def _rows(root: Path) -> list[list[str]]:
    """[name, probability, wafer type] of every cell."""
    table = root / "labels.csv"
    if not table.is_file():
        raise UserError(f"no labels.csv in {root}; expected the data folder of the package elpv-dataset")
    rows = [line.split() for line in lines(table)]
    bad = [" ".join(row) for row in rows if len(row) != 3 or not row[1].replace(".", "", 1).isdecimal()]
    if bad:
        raise UserError(f"line {bad[0]!r} of {table} is not `name, defect probability 0 to 1, mono or poly`")
    return rows


def _doubtful(place: Path, taken: list[Sample]) -> list[Sample]:
    """Cells of the list that the layout leaves out, and those of the other wafer type."""
    used = {s.path for s in taken}
    paths = [place / row[0] for row in _rows(place)]
    return [Sample(path, "test") for path in paths if path not in used]


def _root() -> Path:
    package = find_spec("elpv_dataset")
    return Path(package.submodule_search_locations[0] if package else "elpv_dataset") / "data"


DATASET = DataSet(
    "elpv",
    samples,
    lambda root: ["mono", "poly"],
    "install it with `pip install elpv-dataset`",
    root=_root,
    folder=at_root,
    official=official_counts({"mono": "470 118 defective 313", "poly": "736 184 defective 402"}),
    quirks=(
        "no masks; no official split; no list says which cells come from one module",
        "defect probabilities 1/3 and 2/3 are doubt and left out",
    ),
    rules=Rules("none", spare=_doubtful, known=lambda place: {place / "labels.csv"}),
    no_download="it comes with the package elpv-dataset",
)
