"""btad: three industrial products, also called beanTech (Mishra et al. 2021).

Counts and sizes: per-image list of dataset-ninja (btad).
"""

from pathlib import Path

from adlib.data.dataset import Archive, DataSet, Source, fetched, official_counts
from adlib.data.mvtec_ad import published
from adlib.data.samples import Sample

CATEGORIES = ("01", "02", "03")


def samples(root: Path, category: str) -> tuple[list[Sample], list[str]]:
    """`<category>/train/ok`, `test/{ok,ko}`, `ground_truth/ko/<stem>.*`; the published split.

    Image and mask differ in ending in category 01 (bmp, png), so only their stems pair them.
    """
    return published(root / category, "ok", "")


DATASET = DataSet(
    "btad",
    samples,
    lambda root: list(CATEGORIES),
    fetched("btad"),
    inner="BTech_Dataset_transformed",
    mask_threshold=127,
    official=official_counts({"01": "400 21 ko 49", "02": "399 30 ko 200", "03": "1000 400 ko 41"}),
    sizes={"01": (1600, 1600), "02": (600, 600), "03": (800, 600)},
    quirks=(
        "image and mask differ in ending (01: bmp and png), so masks are paired by stem",
        "numbers 01/test/ko/0027 and 02/train/ok/0087 do not exist",
        "the README in the archive exchanges products 2 and 3 (399 and 1000 training images)",
    ),
    source=Source(
        (
            Archive(
                "btad.zip",
                # address and checksum: anomalib, src/anomalib/data/datamodules/image/btech.py @b7233686
                ("https://avires.dimi.uniud.it/papers/btad/btad.zip",),
                "sha256:461c9387e515bfed41ecaae07c50cf6b10def647b36c9e31d239ab2736b10d2a",
            ),
        ),
        licence="CC BY-SA by its README, CC BY-NC-SA 4.0 by anomalib: take it as research only; cite Mishra 2021",
        homepage="https://github.com/pankajmishra000/VT-ADL",
        unpacked=7_000_000_000,  # 6.1e9 by counts and sizes: most images are uncompressed BMP
        keep=r"^(?:.*/)?(0[123]/(?:train|test|ground_truth)/.+)$",
        unpacks_to="01/train/ok",
        counts={"0[123]/train/ok/*": 1799, "0[123]/test/ok/*": 451, "0[123]/test/ko/*": 290},
    ),
)
