"""Facts about the published data sets: how many images each split holds, and what is odd about them.

Counts as `data.load` yields them where the official data are complete. Sources: MVTec AD, file lists and totals
(train 3629, test 1725 = 467 good + 1258 defective); BTAD and DAGM, per-image lists of dataset-ninja (btad,
industrial-optical-inspection), DAGM without its defective training images; MTD, the folders themselves with the split
of DifferNet; elpv, `labels.csv` of the package.
"""

import base64

Counts = dict[str, int]  # "train/good", "test/good", "test/<kind>" -> images


def _counts(text: str) -> Counts:
    """From "<train> <normal test> <kind> <n> <kind> <n> ..."."""
    train, good, *kinds = text.split()
    tests = zip(kinds[::2], kinds[1::2], strict=True)
    return {"train/good": int(train), "test/good": int(good), **{f"test/{kind}": int(n) for kind, n in tests}}


_TEXTURE = "80 40 contamination 12 scratch 12 stain 12 swirl 12 thread 12"
_TEXTS = {
    "mvtec_ad": {
        "bottle": "209 20 broken_large 20 broken_small 22 contamination 21",
        "cable": "224 58 bent_wire 13 cable_swap 12 combined 11 cut_inner_insulation 14 cut_outer_insulation 10"
        " missing_cable 12 missing_wire 10 poke_insulation 10",
        "capsule": "219 23 crack 23 faulty_imprint 22 poke 21 scratch 23 squeeze 20",
        "carpet": "280 28 color 19 cut 17 hole 17 metal_contamination 17 thread 19",
        "grid": "264 21 bent 12 broken 12 glue 11 metal_contamination 11 thread 11",
        "hazelnut": "391 40 crack 18 cut 17 hole 18 print 17",
        "leather": "245 32 color 19 cut 19 fold 17 glue 19 poke 18",
        "metal_nut": "220 22 bent 25 color 22 flip 23 scratch 23",
        "pill": "267 26 color 25 combined 17 contamination 21 crack 26 faulty_imprint 19 pill_type 9 scratch 24",
        "screw": "320 41 manipulated_front 24 scratch_head 24 scratch_neck 25 thread_side 23 thread_top 23",
        "tile": "230 33 crack 17 glue_strip 18 gray_stroke 16 oil 18 rough 15",
        "toothbrush": "60 12 defective 30",
        "transistor": "213 60 bent_lead 10 cut_lead 10 damaged_case 10 misplaced 10",
        "wood": "247 19 color 8 combined 11 hole 10 liquid 10 scratch 21",
        "zipper": "240 32 broken_teeth 19 combined 16 fabric_border 17 fabric_interior 16 rough 17 split_teeth 18"
        " squeezed_teeth 16",
    },
    "btad": {"01": "400 21 ko 49", "02": "399 30 ko 200", "03": "1000 400 ko 41"},
    "mtd": {"all": "761 191 blowhole 115 break 85 crack 57 fray 32 uneven 103"},
    "dagm": {
        "Class1": "496 504 defective 71",
        "Class2": "509 491 defective 84",
        "Class3": "509 491 defective 84",
        "Class4": "493 507 defective 68",
        "Class5": "505 495 defective 80",
        "Class6": "492 508 defective 67",
        **{f"Class{n}": "1000 1000 defective 150" for n in range(7, 11)},
    },
    "elpv": {"mono": "470 118 defective 313", "poly": "736 184 defective 402"},
    "textures": {"brick": _TEXTURE, "grass": _TEXTURE, "gravel": _TEXTURE},
}
COUNTS: dict[str, dict[str, Counts]] = {
    dataset: {category: _counts(text) for category, text in texts.items()} for dataset, texts in _TEXTS.items()
}

# Defective training images of DAGM, which one-class methods must not see.
DAGM_DEFECTIVE_TRAIN = {
    **dict(zip([f"Class{n}" for n in range(1, 7)], [79, 66, 66, 82, 70, 83], strict=True)),
    **{f"Class{n}": 150 for n in range(7, 11)},
}

# Defective tiles of MTD whose mask holds no pixel above 127: image metrics only.
EMPTY_MASKS = {
    "mtd": (
        "MT_Uneven/exp3_num_45042",
        "MT_Uneven/exp4_num_124690",
        "MT_Uneven/exp4_num_352527",
        "MT_Uneven/exp4_num_45057",
    )
}

QUIRKS: dict[str, tuple[str, ...]] = {
    "mvtec_ad": (
        "no validation split: what is chosen on test is an oracle",
        "grid, screw and zipper have one channel",
    ),
    "btad": (
        "image and mask differ in ending (01: bmp and png), so masks are paired by stem",
        "numbers 01/test/ko/0027 and 02/train/ok/0087 do not exist",
        "the README in the archive exchanges products 2 and 3 (399 and 1000 training images)",
    ),
    "mtd": (
        "masks are grey: anomalous above 127",
        "four defective tiles (MT_Uneven) have an empty mask",
        "no official split: DifferNet's list names 761 of the 952 free tiles for training",
        "one tile was taken under several lights, and names do not say which, so a split can put it on both sides",
    ),
    "dagm": (
        "training folders hold defective images, which are dropped",
        "labels are filled ellipses much larger than the defects",
        "numbering is 1-based and Test comes first; some copies hold classes 1 to 6 only",
    ),
    "elpv": (
        "no masks; no official split; no list says which cells come from one module",
        "defect probabilities 1/3 and 2/3 are doubt and left out",
    ),
    "textures": ("simulated defects on photographs of scikit-image",),
}

# The training part of MTD as a fact about its 952 free tiles: DifferNet's list (Rudolph, Wandt, Rosenhahn, WACV 2021;
# github marco-rudolph/differnet, mtd_train_filenames.txt), one bit per tile in the order of the sorted stems. It holds
# for exactly these names, so their sha256 guards it.
MTD_FREE_SHA256 = "65bb969693f0de011a81d56c323c78b76ecbaa899c164ae0f93524f14a7fc641"
_MTD_TRAIN = (
    "fv//n99v+/ft3deumv/9Uu/725u/5Pd/pv4f/9/+c37tn97/0/X//t//vz33/Pn1/Or/++/7/bf9l//f"
    "beX/v35/9/72+/+/R+p+/++4b3/37//v7fnv/P/bfPn/n3vf//ff7n1//7/vu937/pNNhV9//1+f498="
)


def mtd_train_bits() -> list[bool]:
    """For each of the 952 free tiles of MTD in the order of sorted stems: does it train in the published split?"""
    bits = "".join(f"{byte:08b}" for byte in base64.b64decode(_MTD_TRAIN))
    return [bit == "1" for bit in bits]
