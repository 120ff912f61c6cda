"""mtd: magnetic tiles with five kinds of defect (Huang, Qiu, Yuan 2018).

Counts: the folders themselves, with the split of DifferNet.
"""

import base64
import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

from adlib.common.errors import UserError
from adlib.common.pictures import opened
from adlib.data.dataset import Archive, DataSet, Rules, Source, at_root, fetched, official_counts
from adlib.data.samples import Sample, by_stem, exists, hashed_split, images, lines, listing, note_pairs, some

THRESHOLD = 127  # masks are grey: anomalous above it
GITHUB = "abin24/Magnetic-tile-defect-datasets."  # the final dot belongs to the name
KINDS = {"Blowhole": 115, "Break": 85, "Crack": 57, "Fray": 32, "Free": 952, "Uneven": 103}

# defective tiles whose mask holds no pixel above the threshold: image metrics only
EMPTY_MASKS = (
    "MT_Uneven/exp3_num_45042",
    "MT_Uneven/exp4_num_124690",
    "MT_Uneven/exp4_num_352527",
    "MT_Uneven/exp4_num_45057",
)

# The training part as a fact about the 952 free tiles: DifferNet's list (Rudolph, Wandt, Rosenhahn, WACV 2021; github
# marco-rudolph/differnet, mtd_train_filenames.txt), one bit per tile in the order of the sorted stems. It holds for
# exactly these names, so their sha256 guards it.
FREE_SHA256 = "65bb969693f0de011a81d56c323c78b76ecbaa899c164ae0f93524f14a7fc641"
TRAIN_BITS = (
    "fv//n99v+/ft3deumv/9Uu/725u/5Pd/pv4f/9/+c37tn97/0/X//t//vz33/Pn1/Or/++/7/bf9l//f"
    "beX/v35/9/72+/+/R+p+/++4b3/37//v7fnv/P/bfPn/n3vf//ff7n1//7/vu937/pNNhV9//1+f498="
)


def samples(
    root: Path, category: str, split: Literal["published", "seeded"] = "published", split_seed: int = 0
) -> tuple[list[Sample], list[str]]:
    """`MT_<Kind>/Imgs/<stem>.jpg` beside `<stem>.png`; grey masks, anomalous above 127.

    split: "published" (the 761 of 952 free tiles of DifferNet's list: `train_names.txt` in the folder, or what is known
    here of exactly these tiles) or "seeded" (80 % by hash). UserError where the published one is unknown.
    """
    notes = []
    # a name with an ending is an archive or the like; without one, a file is named by the listing of Imgs
    kinds = {f.name.removeprefix("MT_"): f / "Imgs" for f in listing(root) if f.name.startswith("MT_") and not f.suffix}
    if "Free" not in kinds:
        raise UserError(f"no folder MT_Free in {root}; expected MT_Free/Imgs/*.jpg and MT_<Kind>/Imgs beside it")
    free = [path for path in images(kinds.pop("Free"), notes) if path.suffix.lower() != ".png"]
    if split == "seeded":
        named = hashed_split([path.name for path in free], split_seed)
        train = {Path(name).stem for name in named}
        origin = f"80 % of MT_Free train, by hash with split_seed={split_seed}"
    else:
        train, origin = _published_tiles(root, sorted(path.stem for path in free))
    listed = [Sample(path, "train" if path.stem in train else "test") for path in free]
    for kind, folder in kinds.items():
        files = images(folder, notes)
        masks = by_stem(f for f in files if f.suffix.lower() == ".png")
        paths = [f for f in files if f.suffix.lower() != ".png"]
        note_pairs(notes, kind, paths, masks)
        listed += [Sample(path, "test", 1, kind.lower(), masks.get(path.stem)) for path in paths]
    return listed, [*notes, f"no official split: {origin}"]


def _published_tiles(root: Path, stems: list[str]) -> tuple[set[str], str]:
    """Stems of the published training tiles, and where they are known from."""
    names = root / "train_names.txt"
    if exists(names):
        train = {Path(name).stem for name in lines(names)}
        absent = sorted(train - set(stems))
        more = f"; {len(absent)} of them have no image in MT_Free: {some(absent)}" if absent else ""
        return train, f"the names of train_names.txt train{more}"
    if hashlib.sha256("\n".join(stems).encode()).hexdigest() != FREE_SHA256:
        raise UserError(
            f"the {len(stems)} tiles in {root / 'MT_Free'} are not the 952 official ones and no train_names.txt lists "
            'the training ones, so the published split is unknown; complete the data set or choose split="seeded"'
        )
    train = {stem for stem, bit in zip(stems, train_bits(), strict=True) if bit}
    return train, "the 761 names of DifferNet's list train"


def train_bits() -> list[bool]:
    """For each of the 952 free tiles in the order of sorted stems: does it train in the published split?"""
    bits = "".join(f"{byte:08b}" for byte in base64.b64decode(TRAIN_BITS))
    return [bit == "1" for bit in bits]


def without_empty_masks(listed: list[Sample], notes: list[str]) -> tuple[list[Sample], list[str]]:
    """An anomalous image whose mask holds no pixel above the threshold counts as one without mask."""
    masks = [s.mask for s in listed if s.mask]
    with ThreadPoolExecutor() as pool:
        highest = dict(zip(masks, pool.map(_highest, masks), strict=True))
    empty = [s.path.stem for s in listed if s.mask and highest[s.mask] <= THRESHOLD]
    if empty:
        notes = [f"{len(empty)} anomalous images have an empty mask, left out of pixel metrics: {some(empty)}", *notes]
    return [s._replace(mask=None) if s.mask and highest[s.mask] <= THRESHOLD else s for s in listed], notes


def _highest(path: Path) -> int:
    return opened(path).convert("L").getextrema()[1]


def _all_masks(listed: list[Sample]) -> list[Sample]:
    """Every tile has a mask of its own stem, the normal ones, too."""
    places = {s.path.parent for s in listed}
    masks = {folder: by_stem(f for f in images(folder) if f.suffix.lower() == ".png") for folder in places}
    return [s._replace(mask=masks[s.path.parent].get(s.path.stem)) for s in listed]


DATASET = DataSet(
    "mtd",
    samples,
    lambda root: ["all"],
    fetched("mtd"),
    folder=at_root,
    checked=without_empty_masks,
    mask_threshold=THRESHOLD,
    official=official_counts({"all": "761 191 blowhole 115 break 85 crack 57 fray 32 uneven 103"}),
    quirks=(
        "masks are grey: anomalous above 127",
        "four defective tiles (MT_Uneven) have an empty mask",
        "no official split: DifferNet's list names 761 of the 952 free tiles for training",
        "one tile was taken under several lights, and names do not say which, so a split can put it on both sides",
    ),
    rules=Rules(one_size=False, empty_masks=EMPTY_MASKS, mend=_all_masks),
    source=Source(
        (
            Archive(
                "Magnetic-tile-defect-datasets.-master.zip",
                # GitHub's addresses of the branch (dataset-ninja's download page has the second) and of the commit
                # whose files were counted. No checksum: GitHub makes these archives anew, so bytes may change.
                (
                    f"https://codeload.github.com/{GITHUB}/zip/refs/heads/master",
                    f"https://github.com/{GITHUB}/archive/refs/heads/master.zip",
                    f"https://github.com/{GITHUB}/archive/cc4eb530b57b9cb7225bf76023873043ffd50655.zip",
                ),
            ),
        ),
        licence="no licence text, the authors ask to be cited: Huang, Qiu, Yuan 2018; take it as research only",
        homepage=f"https://github.com/{GITHUB}",
        unpacked=120_000_000,
        keep=r"^(?:.*/)?(MT_[^/]+/Imgs/[^/]+)$",
        unpacks_to="MT_Free/Imgs",
        counts={f"MT_{kind}/Imgs/*.{ending}": n for kind, n in KINDS.items() for ending in ("jpg", "png")},
        extras=(
            Archive(
                "train_names.txt",
                # the published split: the file and its commit in marco-rudolph/differnet; checksum counted by us
                (
                    "https://raw.githubusercontent.com/marco-rudolph/differnet/"
                    "13529c8a79508a930df3618cf6718358a87b8719/mtd_train_filenames.txt",
                ),
                "sha256:ddf6ddb1b4a123d9506a4d25e870ad32e2b845386c55201fca8307fdc7e62652",
            ),
        ),
    ),
)
