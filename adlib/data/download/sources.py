"""Where the benchmarks come from: addresses, checksums, licences, and what a complete copy holds.

Behind every address stands where it was read. None is guessed; they move, so each is one of a list.
"""

from dataclasses import dataclass, field

from adlib.data.layouts import MVTEC_CATEGORIES


@dataclass(frozen=True)
class Archive:
    """One file to fetch: its addresses in the order of trying, and what its bytes must be, as far as published."""

    name: str
    urls: tuple[str, ...]
    checksum: str | None = None  # "sha256:<hex>" or "md5:<hex>" of the whole file
    size: int | None = None  # bytes, where published


@dataclass(frozen=True)
class Source:
    """One data set: its archives, its licence, which of their files belong to the layout, and how many there are."""

    name: str
    archives: tuple[Archive, ...]
    licence: str
    homepage: str
    unpacked: int  # bytes, estimated and rounded up: for the disk-space check; twice as much is refused as a bomb
    keep: str  # regular expression over member names: group 1 is the path in the data set's folder
    unpacks_to: str  # a folder that a complete copy holds
    counts: dict[str, int] = field(default_factory=dict)  # glob pattern -> files of a complete copy
    listing: str | None = None  # Zenodo's record, as JSON: addresses and checksums of the current version
    extras: tuple[Archive, ...] = ()  # small files put beside the images; their absence is a note, no error


_MYDRIVE = "https://www.mydrive.ch/shares"
_MVTEC = "mvtec_anomaly_detection.tar.xz"
_GITHUB = "abin24/Magnetic-tile-defect-datasets."  # the final dot belongs to the name
_PNG = "*.[Pp][Nn][Gg]"

SOURCES = {
    source.name: source
    for source in (
        Source(
            "mvtec_ad",
            (
                Archive(
                    _MVTEC,
                    (
                        # open-edge-platform/anomalib, src/anomalib/data/datamodules/image/mvtecad.py @b7233686
                        f"{_MYDRIVE}/150996/b52ecdcbf521176e9db9c731f2304b27/download/420938113-1629960298/{_MVTEC}",
                        # the same file of openvinotoolkit/anomalib, an older share
                        f"{_MYDRIVE}/38536/3830184030e49fe74747669442f0f282/download/420938113-1629960298/{_MVTEC}",
                        # VitjanZ/DRAEM, scripts/download_dataset.sh
                        f"{_MYDRIVE}/38536/3830184030e49fe74747669442f0f282/download/420938113-1629952094/{_MVTEC}",
                    ),
                    # anomalib, the same file
                    "sha256:cf4313b13603bec67abb49ca959488f7eedce2a9f7795ec54446c649ac98cd3d",
                ),
            ),
            licence="CC BY-NC-SA 4.0: research only, no commercial use; cite Bergmann et al. 2019 and 2021",
            homepage="https://www.mvtec.com/company/research/datasets/mvtec-ad",
            unpacked=5_500_000_000,
            keep=rf"^(?:[^/]+/)?((?:{'|'.join(MVTEC_CATEGORIES)})/.+|license\.txt|readme\.txt)$",
            unpacks_to="bottle/train/good",
            counts={"*/train/good/*.png": 3629, "*/test/*/*.png": 1725, "*/ground_truth/*/*.png": 1258},
        ),
        Source(
            "btad",
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
        Source(
            "mtd",
            (
                Archive(
                    "Magnetic-tile-defect-datasets.-master.zip",
                    # GitHub's addresses of the branch (dataset-ninja's download page has the second) and of the commit
                    # whose files were counted. No checksum: GitHub makes these archives anew, so bytes may change.
                    (
                        f"https://codeload.github.com/{_GITHUB}/zip/refs/heads/master",
                        f"https://github.com/{_GITHUB}/archive/refs/heads/master.zip",
                        f"https://github.com/{_GITHUB}/archive/cc4eb530b57b9cb7225bf76023873043ffd50655.zip",
                    ),
                ),
            ),
            licence="no licence text, the authors ask to be cited: Huang, Qiu, Yuan 2018; take it as research only",
            homepage=f"https://github.com/{_GITHUB}",
            unpacked=120_000_000,
            keep=r"^(?:.*/)?(MT_[^/]+/Imgs/[^/]+)$",
            unpacks_to="MT_Free/Imgs",
            counts={
                f"MT_{kind}/Imgs/*.{ending}": count
                for kind, count in dict(Blowhole=115, Break=85, Crack=57, Fray=32, Free=952, Uneven=103).items()
                for ending in ("jpg", "png")
            },
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
        Source(
            "dagm",
            tuple(
                # file names: dataset-ninja/industrial-optical-inspection, src/settings.py; no checksum there
                Archive(
                    f"Class{number}.zip", (f"https://zenodo.org/record/8086136/files/Class{number}.zip?download=1",)
                )
                for number in range(1, 11)
            ),
            licence="CC BY 4.0; cite Wieler, Hahn, Hamprecht 2007 (doi 10.5281/zenodo.8086136)",
            homepage="https://zenodo.org/records/12750201",
            unpacked=6_000_000_000,
            keep=r"^(?:.*/)?(Class\d+/(?:Train|Test)/.+)$",
            unpacks_to="Class1/Train",
            counts={f"Class*/Train/{_PNG}": 8050, f"Class*/Test/{_PNG}": 8050, f"Class*/*/Label/{_PNG}": 2100},
            # the newer version of the record; Zenodo's interface lists names, sizes and md5 of any record
            listing="https://zenodo.org/api/records/12750201",
        ),
        Source(
            "dtd",
            (
                Archive(
                    "dtd-r1.0.1.tar.gz",
                    (
                        # pytorch/vision, torchvision/datasets/dtd.py, with the checksum; VitjanZ/DRAEM's script
                        "https://www.robots.ox.ac.uk/~vgg/data/dtd/download/dtd-r1.0.1.tar.gz",
                        # where that address leads to, by several public download scripts
                        "https://thor.robots.ox.ac.uk/dtd/dtd-r1.0.1.tar.gz",
                    ),
                    "md5:fff73e5086ae6bdbea199a49dfb8a4c1",
                ),
            ),
            licence="for research purposes; cite Cimpoi et al. 2014",
            homepage="https://www.robots.ox.ac.uk/~vgg/data/dtd/",
            unpacked=700_000_000,
            keep=r"^(?:dtd/)?(images/[^/]+/[^/]+)$",
            unpacks_to="images/banded",
            counts={"images/*/*.jpg": 5640},
        ),
    )
}
