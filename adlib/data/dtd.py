"""dtd: the Describable Textures (Cimpoi et al. 2014), 47 classes of 120 pictures.

No data set to detect anomalies in: simulated anomalies take their textures from it. So `load` refuses it, while `list`,
`download`, `verify` and `describe` know it.
"""

from pathlib import Path

from adlib.data.dataset import Archive, DataSet, Rules, Source, fetched
from adlib.data.samples import Sample, images

CLASSES = (
    "banded blotchy braided bubbly bumpy chequered cobwebbed cracked crosshatched crystalline dotted fibrous flecked"
    " freckled frilly gauzy grid grooved honeycombed interlaced knitted lacelike lined marbled matted meshed paisley"
    " perforated pitted pleated polka-dotted porous potholed scaly smeared spiralled sprinkled stained stratified"
    " striped studded swirly veined waffled woven wrinkled zigzagged"
).split()
PER_CLASS = 120  # pictures


def samples(root: Path, category: str) -> tuple[list[Sample], list[str]]:
    """`images/<class>/*.jpg`; no test, no label."""
    notes = []
    return [Sample(path, "train") for path in images(root / category, notes)], notes


DATASET = DataSet(
    "dtd",
    samples,
    lambda root: list(CLASSES),
    fetched("dtd"),
    inner="images",
    anomalies=False,
    official={name: {"train/good": PER_CLASS} for name in CLASSES},
    quirks=("no data set to detect anomalies in: textures for simulated ones",),
    rules=Rules(masks="none", one_size=False),
    source=Source(
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
        counts={"images/*/*.jpg": len(CLASSES) * PER_CLASS},
    ),
)
