"""elpv: electroluminescence images of solar cells, carried by the package `elpv-dataset` (Buerhop-Lutz et al. 2018).

Image labels only, no masks. Experts gave a defect probability: 0 is normal, 1 is anomalous; 1/3 and 2/3 are doubt and
left out. The package has no split: normal cells are split 80/20 by hash, defective ones are all test.
"""

from importlib.util import find_spec
from pathlib import Path

from adlib.common.errors import UserError
from adlib.data.samples import DataSet, Sample, hashed_split


def elpv(root: Path, category: str, split_seed: int = 0) -> tuple[list[Sample], list[str]]:
    """Cells of one wafer type, mono or poly, from `labels.csv` (name, probability, type; separated by blanks)."""
    listed = root / "labels.csv"
    if not listed.is_file():
        raise UserError(f"no labels.csv in {root}; expected the data folder of the package elpv-dataset")
    rows = [line.split() for line in listed.read_text(encoding="utf-8").splitlines() if line.strip()]
    cells = {name: round(3 * float(probability)) for name, probability, kind in rows if kind == category}
    normal = [name for name, thirds in cells.items() if thirds == 0]
    train = hashed_split(normal, split_seed)
    samples = [Sample(root / name, "train" if name in train else "test") for name in normal]
    samples += [Sample(root / name, "test", 1, "defective") for name, thirds in cells.items() if thirds == 3]
    doubt = [sum(thirds == k for thirds in cells.values()) for k in (1, 2)]
    notes = [
        f"left out as doubtful: {doubt[0]} cells with defect probability 1/3 and {doubt[1]} with 2/3",
        f"no official split: 80 % of the normal cells train, by hash with split_seed={split_seed}; no masks",
    ]
    return samples, notes


def _root() -> Path:
    package = find_spec("elpv_dataset")
    return Path(package.submodule_search_locations[0] if package else "elpv_dataset") / "data"


DATASETS = {"elpv": DataSet(elpv, lambda root: ["mono", "poly"], _root, "install it with `pip install elpv-dataset`")}
