"""Data sets that lie in folders: MVTec AD, the magnetic tiles (MTD), and the user's own images."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image

from adlib.data.table import DataSet, Sample, by_stem, folders, hashed_split, images, some
from adlib.settings import UserError, data_root

MVTEC_CATEGORIES = (
    "bottle cable capsule carpet grid hazelnut leather metal_nut pill screw tile toothbrush transistor wood zipper"
).split()
RESERVED = {"normal", "test", "masks"}  # folders of the user's data that are no kind of defect


def mvtec_ad(root: Path, category: str) -> tuple[list[Sample], list[str]]:
    """`<category>/train/good`, `test/<good or kind>`, `ground_truth/<kind>/<stem>_mask.png`; the published split."""
    folder, notes = root / category, []
    samples = [Sample(path, "train") for path in images(folder / "train" / "good", notes)]
    for kind in folders(folder / "test"):
        masks = by_stem(images(folder / "ground_truth" / kind.name), "_mask")
        paths = images(kind, notes)
        if kind.name == "good":
            samples += [Sample(path, "test") for path in paths]
        else:
            samples += [Sample(path, "test", 1, kind.name, masks.get(path.stem)) for path in paths]
        _note_pairs(notes, kind.name, paths, masks)
    return samples, notes


def _note_pairs(notes: list[str], kind: str, paths: list[Path], masks: dict[str, Path]) -> None:
    stems = {path.stem for path in paths}
    missing = sorted(stems - set(masks)) if kind != "good" else []
    extra = sorted(set(masks) - stems)
    if missing:
        notes.append(f"{len(missing)} anomalous images of {kind} without mask: {some(missing)}")
    if extra:
        notes.append(f"{len(extra)} masks of {kind} without image ignored: {some(extra)}")


def mtd(root: Path, category: str, split: str = "published", split_seed: int = 0) -> tuple[list[Sample], list[str]]:
    """`MT_<Kind>/Imgs/<stem>.jpg` beside `<stem>.png`; grey masks, anomalous above 127.

    split: "published" (the 761 names of DifferNet's list, read from `train_names.txt`) or "seeded" (80 % by hash).
    """
    if split not in ("published", "seeded"):
        raise UserError(f"split {split!r} of mtd is unknown; valid are 'published' and 'seeded'")
    notes = []
    kinds = {f.name.removeprefix("MT_"): f / "Imgs" for f in folders(root) if f.name.startswith("MT_")}
    if "Free" not in kinds:
        raise UserError(f"no folder MT_Free in {root}; expected MT_Free/Imgs/*.jpg and MT_<Kind>/Imgs beside it")
    free = [path for path in images(kinds.pop("Free"), notes) if path.suffix.lower() != ".png"]
    train = _mtd_train(root, [path.name for path in free], split, split_seed, notes)
    samples = [Sample(path, "train" if path.name in train else "test") for path in free]
    for kind, folder in kinds.items():
        files = images(folder, notes)
        masks = by_stem(f for f in files if f.suffix.lower() == ".png")
        paths = [f for f in files if f.suffix.lower() != ".png"]
        _note_pairs(notes, kind, paths, masks)
        samples += [Sample(path, "test", 1, kind.lower(), masks.get(path.stem)) for path in paths]
    return _without_empty_masks(samples, notes, threshold=127), notes


def _mtd_train(root: Path, names: list[str], split: str, seed: int, notes: list[str]) -> set[str]:
    listed = root / "train_names.txt"
    if split == "published" and listed.is_file():
        train = set(listed.read_text(encoding="utf-8").split())
        missing = sorted(train - set(names))
        if missing:
            notes.append(f"{len(missing)} names of train_names.txt have no image in MT_Free: {some(missing)}")
        return train
    if split == "published":
        notes.append(f"no train_names.txt in {root.name}/ (the published 761 names), so the seeded 80/20 split is used")
    return hashed_split(names, seed)


def _without_empty_masks(samples: list[Sample], notes: list[str], threshold: int) -> list[Sample]:
    """An anomalous image whose mask holds no pixel above the threshold counts as one without mask."""
    masks = [s.mask for s in samples if s.mask]
    with ThreadPoolExecutor() as pool:
        highest = dict(zip(masks, pool.map(_highest, masks), strict=True))
    empty = [s for s in samples if s.mask and highest[s.mask] <= threshold]
    if empty:
        stems = [s.path.stem for s in empty]
        notes.append(f"{len(empty)} anomalous images have an empty mask, left out of pixel metrics: {some(stems)}")
    return [s._replace(mask=None) if s in empty else s for s in samples]


def _highest(path: Path) -> int:
    try:
        with Image.open(path) as image:
            return image.convert("L").getextrema()[1]
    except (OSError, SyntaxError) as error:
        raise UserError(f"cannot read mask {path}: {error}; expected a grey PNG") from error


def _mvtec_categories(root: Path) -> list[str]:
    """The fifteen official names and whatever else lies there in the same layout."""
    others = [f.name for f in folders(root) if (f / "train" / "good").is_dir()]
    return sorted({*MVTEC_CATEGORIES, *others})


def _download(dataset: str) -> str:
    return (
        f"get it with `python -m adlib data download {dataset}` or set ADLIB_DATA to the folder that holds {dataset}/"
    )


DATASETS = {
    "mvtec_ad": DataSet(mvtec_ad, _mvtec_categories, lambda: data_root() / "mvtec_ad", _download("mvtec_ad")),
    "mtd": DataSet(mtd, lambda root: ["all"], lambda: data_root() / "mtd", _download("mtd"), mask_threshold=127),
}
