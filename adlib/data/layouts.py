"""Data sets that lie in folders: MVTec AD, the magnetic tiles (MTD), and the user's own images."""

from collections import Counter
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


def folder(root: Path, category: str, split_seed: int = 0) -> tuple[list[Sample], list[str]]:
    """The user's own images: `normal/`, one folder per kind of defect, optional `test/` and `masks/`.

    Normal test images: those of `test/normal/`, else 20 % of `normal/` by hash. Kinds of defect: all other folders,
    here and in `test/`. Masks: `masks/<kind>/<stem>.*` or `masks/<stem>.*`; UserError where a mask and its image
    differ in size or a mask could belong to two images.
    """
    base, notes = (root / category if (root / category / "normal").is_dir() else root), []
    if not (base / "normal").is_dir():
        raise UserError(f"no folder normal/ in {base}; put normal pictures there and each kind of defect beside it")
    paths = images(base / "normal", notes)
    if (base / "test" / "normal").is_dir():
        samples = [Sample(path, "train") for path in paths]
        samples += [Sample(path, "test") for path in images(base / "test" / "normal", notes)]
    else:
        train = hashed_split([path.name for path in paths], split_seed)
        samples = [Sample(path, "train" if path.name in train else "test") for path in paths]
        notes.append(f"no test/normal/: 80 % of normal/ train, by hash with split_seed={split_seed}")
    kinds = [f for f in (*folders(base), *folders(base / "test")) if f.name not in RESERVED]
    defects = [Sample(path, "test", 1, kind.name) for kind in kinds for path in images(kind, notes)]
    return samples + _with_own_masks(defects, base / "masks", notes), notes


def _with_own_masks(defects: list[Sample], masks: Path, notes: list[str]) -> list[Sample]:
    common = by_stem(images(masks))
    by_kind = {kind: by_stem(images(masks / kind)) for kind in {s.defect for s in defects}}
    owners = Counter(s.path.stem for s in defects)
    paired = []
    for s in defects:
        mask = by_kind[s.defect].get(s.path.stem) or common.get(s.path.stem)
        if mask and mask.parent == masks and owners[s.path.stem] > 1:
            raise UserError(f"mask {mask} fits {owners[s.path.stem]} images; move it to {masks / '<kind>'}/")
        if mask:
            _same_size(s.path, mask)
        paired.append(s._replace(mask=mask))
    missing = [f"{s.defect}/{s.path.name}" for s in paired if not s.mask]
    if missing:
        notes.append(f"{len(missing)} anomalous images without mask: {some(missing)}")
    return paired


def _same_size(path: Path, mask: Path) -> None:
    sizes = []
    for file in (path, mask):
        try:
            with Image.open(file) as image:
                sizes.append(image.size)
        except (OSError, SyntaxError, ValueError) as error:
            raise UserError(f"cannot read {file} ({error}); expected a picture file") from error
    if sizes[0] != sizes[1]:
        (w, h), (mask_w, mask_h) = sizes
        raise UserError(f"mask {mask} is {mask_w}x{mask_h} but its image {path} is {w}x{h}; they must be equal")


def _own_categories(root: Path) -> list[str]:
    """Folders that hold normal/; none where the root itself does, which is then one category of any name."""
    return [] if (root / "normal").is_dir() else [f.name for f in folders(root) if (f / "normal").is_dir()]


def _mvtec_categories(root: Path) -> list[str]:
    """The fifteen official names and whatever else lies there in the same layout."""
    others = [f.name for f in folders(root) if (f / "train" / "good").is_dir()]
    return sorted({*MVTEC_CATEGORIES, *others})


def _download(dataset: str) -> str:
    return f"data/README.md says where to get it; put it there, or set ADLIB_DATA to the folder that holds {dataset}/"


DATASETS = {
    "mvtec_ad": DataSet(mvtec_ad, _mvtec_categories, lambda: data_root() / "mvtec_ad", _download("mvtec_ad")),
    "folder": DataSet(
        folder,
        _own_categories,
        lambda: data_root() / "folder",
        "make it with normal/ and one folder per kind of defect, or set ADLIB_DATA to the folder that holds folder/",
    ),
    "mtd": DataSet(mtd, lambda root: ["all"], lambda: data_root() / "mtd", _download("mtd"), mask_threshold=127),
}
