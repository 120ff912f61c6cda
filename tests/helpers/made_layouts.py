"""Small data sets made by code, with the real names, endings, modes and mask values of each published one.

`make("btad", tmp_path)` -> tmp_path/btad, so that ADLIB_DATA=tmp_path finds it. No two images are alike. `COUNTS`
holds what `adlib.data.load` yields of each, in the form of `adlib.data.official`.
"""

from pathlib import Path

import numpy as np
from PIL import Image

from adlib import data

SIZE = (16, 12)  # width, height in pixels

COUNTS = {
    "mvtec_ad": {
        "bottle": {"train/good": 4, "test/good": 2, "test/broken_large": 2, "test/contamination": 1},
        "screw": {"train/good": 4, "test/good": 2, "test/scratch_head": 2},
    },
    "btad": {name: {"train/good": 4, "test/good": 2, "test/ko": 3} for name in ("01", "02", "03")},
    "mtd": {"all": {"train/good": 6, "test/good": 2, "test/blowhole": 2, "test/uneven": 2}},
    "dagm": {"Class1": {"train/good": 4, "test/good": 3, "test/defective": 2}}
    | {"Class8": {"train/good": 4, "test/good": 3, "test/defective": 2}},
    "folder": {"螺丝 1": {"train/good": 8, "test/good": 2, "test/划痕": 2, "test/dent": 1}},
    # 80 % of 5 normal cells train; one cell of each type is doubtful and left out
    "elpv": {name: {"train/good": 4, "test/good": 1, "test/defective": 3} for name in ("mono", "poly")},
    "textures": {"brick": {"train/good": 4, "test/good": 2, "test/scratch": 2, "test/stain": 2}},
}
DTD_CLASSES = ("banded", "cracked")
EMPTY_MASK = "exp3_num_45042"  # one of the four tiles of MTD whose published mask is empty
OWN = next(iter(COUNTS["folder"]))
# One category of each layout, its folder of normal training images, and a kind of defect.
LAYOUTS = {
    "mvtec_ad": ("bottle", "bottle/train/good", "bottle/test/broken_large"),
    "btad": ("01", "01/train/ok", "01/test/ko"),
    "mtd": ("all", "MT_Free/Imgs", "MT_Uneven"),
    "dagm": ("Class8", "Class8/Train", "Class8/Test"),
    "folder": (OWN, f"{OWN}/normal", f"{OWN}/划痕"),
}


def counts(table) -> dict[str, int]:
    """Images of a sample table, in the form of COUNTS."""
    sizes = table.groupby(["split", "defect"]).size()
    return {f"{split}/{defect}": int(n) for (split, defect), n in sizes.items()}


def load(name: str, root: Path, **options):
    """The table of the category that LAYOUTS names."""
    return data.load(name, LAYOUTS[name][0], root=root, **options)


def make(name: str, root: str | Path, **options) -> Path:
    """Make the data set `name` as root/name. options: categories (mvtec_ad, btad, dagm, textures), default all."""
    folder = Path(root) / name
    folder.mkdir(parents=True, exist_ok=True)
    MAKERS[name](folder, **options)
    return folder


def count_as_official(monkeypatch, *names: str) -> None:
    """The made data sets of these names count as the official ones during a test."""
    counts = COUNTS | {"dtd": {name: {"train/good": 3} for name in DTD_CLASSES}}
    for name in names:
        for category, parts in counts[name].items():
            monkeypatch.setitem(data.official(name), category, parts)
    for category in COUNTS["dagm"] if "dagm" in names else ():
        monkeypatch.setitem(data.CATALOGUE["dagm"].rules.dropped, category, 1)


def picture(path: Path, mode: str = "L", size: tuple[int, int] = SIZE) -> Path:
    """A picture of noise that depends on nothing but its name below the last three folders, so that all differ."""
    seed = int.from_bytes("/".join(path.parts[-4:]).encode(), "big")
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels if mode == "RGB" else pixels[..., 0]).convert(mode).save(path)
    return path


def mask(path: Path, size: tuple[int, int] = SIZE, empty: bool = False) -> Path:
    """A grey mask, 0 and 255: a rectangle whose place depends on the name, or nothing."""
    seed = int.from_bytes("/".join(path.parts[-4:]).encode(), "big")
    y, x = np.random.default_rng(seed).integers(0, 6, 2)
    pixels = np.zeros((size[1], size[0]), np.uint8)
    if not empty:
        pixels[y : y + 4, x : x + 5] = 255
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def _mvtec(folder: Path, category: str, mode: str, counts: dict[str, int]) -> None:
    for key, count in counts.items():
        kind = key.removeprefix("test/")
        for i in range(count):
            picture(folder / category / key / f"{i:03d}.png", mode)
            if kind not in ("good", "train/good"):
                mask(folder / category / "ground_truth" / kind / f"{i:03d}_mask.png")


def mvtec_ad(folder: Path, categories=("bottle", "screw")) -> None:
    for category in categories:
        _mvtec(folder, category, "L" if category == "screw" else "RGB", COUNTS["mvtec_ad"][category])
        for name in ("license.txt", "readme.txt"):
            (folder / category / name).write_text("CC BY-NC-SA 4.0")


def textures(folder: Path, categories=("brick",)) -> None:
    for category in categories:
        _mvtec(folder, category, "L", COUNTS["textures"][category])


def btad(folder: Path, categories=("01", "02", "03")) -> None:
    """Images bmp, png, bmp; masks png, png, bmp; four digits, no `_mask`; 0087 of 02 and 0027 of 01 do not exist."""
    for category in categories:
        ending, mask_ending = {"01": ("bmp", "png"), "02": ("png", "png"), "03": ("bmp", "bmp")}[category]
        for key, count in (("train/ok", 4), ("test/ok", 2), ("test/ko", 3)):
            for i in range(count):
                picture(folder / category / key / f"{i:04d}.{ending}", "RGB")
        for i in range(3):
            mask(folder / category / "ground_truth" / "ko" / f"{i:04d}.{mask_ending}")


def mtd(folder: Path) -> None:
    """Every tile its own size; masks of MT_Free are empty, and so is one of MT_Uneven, as published."""
    stems = {
        "Free": [f"exp{k}_num_{1000 + 7 * k}" for k in range(7)] + ["exp1_num_99"],
        "Blowhole": ["exp1_num_4727", "exp4_num_9"],
        "Uneven": ["exp3_num_108889", EMPTY_MASK],
    }
    for kind, names in stems.items():
        for i, stem in enumerate(names):
            size = (16 + i, 12 + 2 * i)
            picture(folder / f"MT_{kind}" / "Imgs" / f"{stem}.jpg", size=size)
            mask(folder / f"MT_{kind}" / "Imgs" / f"{stem}.png", size, kind == "Free" or stem == EMPTY_MASK)
    (folder / "train_names.txt").write_text("".join(f"{stem}.jpg\n" for stem in stems["Free"][:6]))


def dagm(folder: Path, categories=("Class1", "Class8")) -> None:
    """Test comes first in the numbering; upper-case endings; defective images lie in Train, too."""
    for category in categories:
        first = {"Test": 1, "Train": 576 if category < "Class7" else 1151}
        for split, flags in (("Test", (0, 1, 0, 0, 1)), ("Train", (0, 1, 0, 0, 0))):
            lines = ["1"]
            base = folder / category / split
            for number, flag in enumerate(flags, first[split]):
                picture(base / f"{number:04d}.PNG")
                label = f"{number:04d}_label.PNG"
                if flag:
                    mask(base / "Label" / label)
                lines.append(f"{number:04d}\t{flag}\t{number:04d}.PNG\t0\t{label if flag else 0}\t")
            (base / "Label").mkdir(exist_ok=True)
            (base / "Label" / "Labels.txt").write_text("\n".join(lines) + "\n")


def own(folder: Path) -> None:
    """The user's own pictures: Chinese names, blanks, upper-case endings; no test/normal, so 80 % of normal/ train."""
    base = folder / "螺丝 1"
    for i in range(10):
        picture(base / "normal" / f"图 {i}.PNG", "RGB")
    for name in ("坏 1", "坏 2"):
        picture(base / "划痕" / f"{name}.JPG", "RGB")
        mask(base / "masks" / "划痕" / f"{name}.png")
    picture(base / "dent" / "b.bmp", "RGB")
    mask(base / "masks" / "dent" / "b.png")


def elpv(folder: Path) -> None:
    """labels.csv with name, defect probability and wafer type; per type 5 normal, 3 defective, 1 doubtful cell."""
    lines, number = [], 0
    for kind in ("mono", "poly"):
        for probability in (0.0, 0.0, 1.0, 0.0, 1.0, 0.3333333333333333, 0.0, 1.0, 0.0):
            number += 1
            picture(folder / "images" / f"cell{number:04d}.png")
            lines.append(f"images/cell{number:04d}.png  {probability:<18}  {kind}")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")


def dtd(folder: Path, classes=DTD_CLASSES, per_class: int = 3) -> None:
    for name in classes:
        for i in range(per_class):
            picture(folder / "images" / name / f"{name}_{i + 1:04d}.jpg", "RGB", (32 + i, 24))


MAKERS = {
    "mvtec_ad": mvtec_ad,
    "btad": btad,
    "mtd": mtd,
    "dagm": dagm,
    "folder": own,
    "elpv": elpv,
    "textures": textures,
    "dtd": dtd,
}
