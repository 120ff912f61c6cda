"""Data sets that lie in folders: MVTec AD, BTAD, the magnetic tiles (MTD), DAGM 2007, and the user's own images."""

import hashlib
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image

from adlib.common.errors import UserError
from adlib.common.paths import data_root
from adlib.data.official import MTD_FREE_SHA256, mtd_train_bits
from adlib.data.samples import (
    VERIFYING,
    DataSet,
    Sample,
    by_stem,
    exists,
    folders,
    hashed_split,
    images,
    is_folder,
    listing,
    some,
)

MVTEC_CATEGORIES = (
    "bottle cable capsule carpet grid hazelnut leather metal_nut pill screw tile toothbrush transistor wood zipper"
).split()
BTAD_CATEGORIES = ["01", "02", "03"]
DAGM_CATEGORIES = [f"Class{n}" for n in range(1, 11)]
RESERVED = {"normal", "test", "masks"}  # folders of the user's data that are no kind of defect


def mvtec_ad(root: Path, category: str) -> tuple[list[Sample], list[str]]:
    """`<category>/train/good`, `test/<good or kind>`, `ground_truth/<kind>/<stem>_mask.png`; the published split."""
    return _published(root / category, "good", "_mask")


def btad(root: Path, category: str) -> tuple[list[Sample], list[str]]:
    """`<category>/train/ok`, `test/{ok,ko}`, `ground_truth/ko/<stem>.*`; the published split.

    Image and mask differ in ending in category 01 (bmp, png), so only their stems pair them.
    """
    return _published(root / category, "ok", "")


def _published(folder: Path, normal: str, suffix: str) -> tuple[list[Sample], list[str]]:
    """`train/<normal>`, `test/<normal or kind>` and `ground_truth/<kind>/<stem><suffix>.*`."""
    notes = []
    samples = [Sample(path, "train") for path in images(folder / "train" / normal, notes)]
    # ground_truth has its say, too: a kind that is a file in test/ is then named, and one that is absent noted
    for kind in sorted({f.name for place in ("test", "ground_truth") for f in folders(folder / place)}):
        if kind == "good" and normal != "good":
            raise UserError(
                f"folder {folder / 'test' / kind} is no kind of defect; normal images belong into {normal}/"
            )
        masks = by_stem(images(folder / "ground_truth" / kind), suffix)
        paths = images(folder / "test" / kind, notes)
        if kind == normal:
            samples += [Sample(path, "test") for path in paths]
        else:
            samples += [Sample(path, "test", 1, kind, masks.get(path.stem)) for path in paths]
        _note_pairs(notes, kind, paths, masks, kind == normal)
    return samples, notes


def _note_pairs(notes: list[str], kind: str, paths: list[Path], masks: dict[str, Path], normal: bool = False) -> None:
    stems = {path.stem for path in paths}
    missing = sorted(stems - set(masks)) if not normal else []
    extra = sorted(set(masks) - stems)
    if missing:
        notes.append(f"{len(missing)} anomalous images of {kind} without mask: {some(missing)}")
    if extra:
        notes.append(f"{len(extra)} masks of {kind} without image ignored: {some(extra)}")


def dagm(root: Path, category: str) -> tuple[list[Sample], list[str]]:
    """`<category>/{Train,Test}/<number>.PNG` and, of defective images, `Label/<number>_label.PNG`.

    Defective: flag 1 in `Label/Labels.txt`, or a label picture of that number. Such training images are dropped,
    because a one-class method must not see them.
    """
    samples, notes = [], []
    for part in ("Train", "Test"):
        folder = root / category / part
        paths = images(folder, notes)
        flagged, masks = _dagm_labels(folder / "Label", notes) if paths else (set(), {})
        stems = flagged | set(masks)
        defective = [path for path in paths if path.stem in stems]
        samples += [Sample(path, part.lower()) for path in paths if path.stem not in stems]
        if part == "Test":
            samples += [Sample(path, "test", 1, "defective", masks.get(path.stem)) for path in defective]
            _note_pairs(notes, "defective", defective, masks)
        elif defective:
            dropped = some([path.stem for path in defective])
            notes.append(f"{len(defective)} defective training images left out: {dropped}")
    return samples, [*notes, "labels are weak: filled ellipses much larger than the defects"]


def _dagm_labels(folder: Path, notes: list[str]) -> tuple[set[str], dict[str, Path]]:
    """Stems flagged as defective, and label pictures by the stem of their image."""
    masks = by_stem(images(folder, notes), "_label")
    listed = [f for f in listing(folder) if f.name.lower() == "labels.txt"]
    if not listed and not masks:
        raise UserError(f"no Labels.txt and no label picture in {folder}; without them no image is known to be normal")
    flagged = set()
    for count, line in enumerate(_lines(listed[0]) if listed else ()):
        fields = line.split()
        if not count and len(fields) == 1:
            continue  # the first line is a single 1; some copies go without
        if len(fields) < 3 or fields[1] not in ("0", "1"):
            raise UserError(f"line {line!r} of {listed[0]} is not `number, flag 0 or 1, image name, ...`")
        if fields[1] == "1":
            flagged.add(Path(fields[2]).stem)
    return flagged, masks


def _lines(path: Path) -> list[str]:
    """Lines of a text file that are not blank."""
    try:
        return [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {path} ({error}); expected a text file") from error


def mtd(root: Path, category: str, split: str = "published", split_seed: int = 0) -> tuple[list[Sample], list[str]]:
    """`MT_<Kind>/Imgs/<stem>.jpg` beside `<stem>.png`; grey masks, anomalous above 127.

    split: "published" (the 761 of 952 free tiles of DifferNet's list: `train_names.txt` in the folder, or what
    `official` knows of exactly these tiles) or "seeded" (80 % by hash). UserError where the published one is unknown.
    """
    if split not in ("published", "seeded"):
        raise UserError(f"split {split!r} of mtd is unknown; valid are 'published' and 'seeded'")
    notes = []
    # a name with an ending is an archive or the like; without one, a file is named by the listing of Imgs
    kinds = {f.name.removeprefix("MT_"): f / "Imgs" for f in listing(root) if f.name.startswith("MT_") and not f.suffix}
    if "Free" not in kinds:
        raise UserError(f"no folder MT_Free in {root}; expected MT_Free/Imgs/*.jpg and MT_<Kind>/Imgs beside it")
    free = [path for path in images(kinds.pop("Free"), notes) if path.suffix.lower() != ".png"]
    if split == "seeded":
        named = hashed_split([path.name for path in free], split_seed)
        train, how = {Path(name).stem for name in named}, f"80 % of MT_Free train, by hash with split_seed={split_seed}"
    else:
        train, how = _published_tiles(root, sorted(path.stem for path in free))
    samples = [Sample(path, "train" if path.stem in train else "test") for path in free]
    for kind, folder in kinds.items():
        files = images(folder, notes)
        masks = by_stem(f for f in files if f.suffix.lower() == ".png")
        paths = [f for f in files if f.suffix.lower() != ".png"]
        _note_pairs(notes, kind, paths, masks)
        samples += [Sample(path, "test", 1, kind.lower(), masks.get(path.stem)) for path in paths]
    return _without_empty_masks(samples, notes, threshold=127), [*notes, f"no official split: {how}"]


def _published_tiles(root: Path, stems: list[str]) -> tuple[set[str], str]:
    """Stems of the published training tiles, and where they are known from."""
    listed = root / "train_names.txt"
    if exists(listed):
        train = {Path(name).stem for name in _lines(listed)}
        absent = sorted(train - set(stems))
        more = f"; {len(absent)} of them have no image in MT_Free: {some(absent)}" if absent else ""
        return train, f"the names of train_names.txt train{more}"
    if hashlib.sha256("\n".join(stems).encode()).hexdigest() != MTD_FREE_SHA256:
        raise UserError(
            f"the {len(stems)} tiles in {root / 'MT_Free'} are not the 952 official ones and no train_names.txt lists "
            'the training ones, so the published split is unknown; complete the data set or choose split="seeded"'
        )
    train = {stem for stem, bit in zip(stems, mtd_train_bits(), strict=True) if bit}
    return train, "the 761 names of DifferNet's list train"


def _without_empty_masks(samples: list[Sample], notes: list[str], threshold: int) -> list[Sample]:
    """An anomalous image whose mask holds no pixel above the threshold counts as one without mask."""
    if VERIFYING.get():
        return samples
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
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"cannot read mask {path}: {error}; expected a grey PNG") from error


def folder(root: Path, category: str, split_seed: int = 0) -> tuple[list[Sample], list[str]]:
    """The user's own images: `normal/`, one folder per kind of defect, optional `test/` and `masks/`.

    Normal test images: those of `test/normal/`, else 20 % of `normal/` by hash. Kinds of defect: all other folders,
    here and in `test/`. Masks: `masks/<kind>/<stem>.*` or `masks/<stem>.*`; UserError where a mask and its image
    differ in size or a mask could belong to two images.
    """
    base, notes = (root / category if exists(root / category / "normal") else root), []
    if not exists(base / "normal"):
        listing(root / category)  # names a file in its place
        raise UserError(f"no folder normal/ in {base}; put normal pictures there and each kind of defect beside it")
    paths = images(base / "normal", notes)
    if exists(base / "test" / "normal"):
        samples = [Sample(path, "train") for path in paths]
        samples += [Sample(path, "test") for path in images(base / "test" / "normal", notes)]
    else:
        train = hashed_split([path.name for path in paths], split_seed)
        samples = [Sample(path, "train" if path.name in train else "test") for path in paths]
        notes.append(f"no test/normal/: 80 % of normal/ train, by hash with split_seed={split_seed}")
    kinds = [f for f in (*folders(base), *folders(base / "test")) if f.name not in RESERVED]
    for kind in kinds:
        if kind.name.lower() in RESERVED | {"good"}:
            raise UserError(
                f"folder {kind} would be a kind of defect, but its name says something else; normal pictures belong "
                "into normal/, masks into masks/, or rename it"
            )
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
        if mask and not VERIFYING.get():
            _same_size(s.path, mask)
        paired.append(s._replace(mask=mask))
    shared = [mask for mask, count in Counter(s.mask for s in paired if s.mask).items() if count > 1]
    if shared:
        raise UserError(f"mask {shared[0]} fits several images; give them different names, endings apart")
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
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise UserError(f"cannot read {file} ({error}); expected a picture file") from error
    if sizes[0] != sizes[1]:
        (w, h), (mask_w, mask_h) = sizes
        raise UserError(f"mask {mask} is {mask_w}x{mask_h} but its image {path} is {w}x{h}; they must be equal")


def _own_categories(root: Path) -> list[str]:
    """Folders that hold normal/; none where the root itself does, which is then one category of any name."""
    return [] if exists(root / "normal") else [f.name for f in folders(root) if exists(f / "normal")]


def _mvtec_categories(root: Path) -> list[str]:
    """The fifteen official names and whatever else lies there in the same layout."""
    others = [f.name for f in listing(root) if not f.name.startswith("__") and is_folder(f / "train" / "good")]
    return sorted({*MVTEC_CATEGORIES, *others})


def _downloaded(name: str, samples: Callable, categories: Callable, **facts) -> DataSet:
    command = f"`python -m adlib data download {name} --accept-licence`"
    advice = f"fetch it with {command}, or set ADLIB_DATA to the folder that holds {name}/"
    return DataSet(samples, categories, lambda: data_root() / name, advice, **facts)


OWN = "make it with normal/ and one folder per kind of defect, or set ADLIB_DATA to the folder that holds folder/"
DATASETS = {
    "mvtec_ad": _downloaded("mvtec_ad", mvtec_ad, _mvtec_categories),
    "btad": _downloaded(
        "btad", btad, lambda root: list(BTAD_CATEGORIES), mask_threshold=127, inner="BTech_Dataset_transformed"
    ),
    "mtd": _downloaded("mtd", mtd, lambda root: ["all"], mask_threshold=127),
    "dagm": _downloaded("dagm", dagm, lambda root: list(DAGM_CATEGORIES)),
    "folder": DataSet(folder, _own_categories, lambda: data_root() / "folder", OWN),
}
