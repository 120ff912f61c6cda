"""mvtec_ad: fifteen categories of industrial parts and surfaces (Bergmann et al. 2019, 2021).

Counts: file lists and totals (train 3629, test 1725 = 467 good + 1258 defective). Sizes: the data set's paper; bottle
and screw measured.
"""

from pathlib import Path

from adlib.common.errors import UserError
from adlib.data.dataset import Archive, DataSet, Source, fetched, official_counts
from adlib.data.samples import Sample, by_stem, folders, images, is_folder, listing, note_pairs

OFFICIAL = official_counts(
    {
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
    }
)
SIDES = dict.fromkeys(OFFICIAL, 1024) | {"bottle": 900, "capsule": 1000, "metal_nut": 700, "pill": 800, "tile": 840}
MYDRIVE = "https://www.mydrive.ch/shares"
ARCHIVE = "mvtec_anomaly_detection.tar.xz"


def samples(root: Path, category: str) -> tuple[list[Sample], list[str]]:
    """`<category>/train/good`, `test/<good or kind>`, `ground_truth/<kind>/<stem>_mask.png`; the published split."""
    return published(root / category, "good", "_mask")


def published(folder: Path, normal: str, suffix: str) -> tuple[list[Sample], list[str]]:
    """`train/<normal>`, `test/<normal or kind>` and `ground_truth/<kind>/<stem><suffix>.*`."""
    notes = []
    listed = [Sample(path, "train") for path in images(folder / "train" / normal, notes)]
    # ground_truth has its say, too: a kind that is a file in test/ is then named, and one that is absent noted
    for kind in sorted({f.name for place in ("test", "ground_truth") for f in folders(folder / place)}):
        if kind == "good" and normal != "good":
            raise UserError(
                f"folder {folder / 'test' / kind} is no kind of defect; normal images belong into {normal}/"
            )
        masks = by_stem(images(folder / "ground_truth" / kind), suffix)
        paths = images(folder / "test" / kind, notes)
        if kind == normal:
            listed += [Sample(path, "test") for path in paths]
        else:
            listed += [Sample(path, "test", 1, kind, masks.get(path.stem)) for path in paths]
        note_pairs(notes, kind, paths, masks, kind == normal)
    return listed, notes


def categories(root: Path) -> list[str]:
    """The fifteen official names and whatever else lies there in the same layout."""
    others = [f.name for f in listing(root) if not f.name.startswith("__") and is_folder(f / "train" / "good")]
    return sorted({*OFFICIAL, *others})


DATASET = DataSet(
    "mvtec_ad",
    samples,
    categories,
    fetched("mvtec_ad"),
    official=OFFICIAL,
    sizes={category: (side, side) for category, side in SIDES.items()},
    quirks=(
        "no validation split: what is chosen on test is an oracle",
        "grid, screw and zipper have one channel",
    ),
    source=Source(
        (
            Archive(
                ARCHIVE,
                (
                    # open-edge-platform/anomalib, src/anomalib/data/datamodules/image/mvtecad.py @b7233686
                    f"{MYDRIVE}/150996/b52ecdcbf521176e9db9c731f2304b27/download/420938113-1629960298/{ARCHIVE}",
                    # the same file of openvinotoolkit/anomalib, an older share
                    f"{MYDRIVE}/38536/3830184030e49fe74747669442f0f282/download/420938113-1629960298/{ARCHIVE}",
                    # VitjanZ/DRAEM, scripts/download_dataset.sh
                    f"{MYDRIVE}/38536/3830184030e49fe74747669442f0f282/download/420938113-1629952094/{ARCHIVE}",
                ),
                # anomalib, the same file
                "sha256:cf4313b13603bec67abb49ca959488f7eedce2a9f7795ec54446c649ac98cd3d",
            ),
        ),
        licence="CC BY-NC-SA 4.0: research only, no commercial use; cite Bergmann et al. 2019 and 2021",
        homepage="https://www.mvtec.com/company/research/datasets/mvtec-ad",
        unpacked=5_500_000_000,
        keep=rf"^(?:[^/]+/)?((?:{'|'.join(OFFICIAL)})/.+|license\.txt|readme\.txt)$",
        unpacks_to="bottle/train/good",
        counts={"*/train/good/*.png": 3629, "*/test/*/*.png": 1725, "*/ground_truth/*/*.png": 1258},
    ),
)
