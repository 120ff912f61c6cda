"""textures: photographs of scikit-image with simulated defects and exact masks, made on first use; needs no download.

brick, grass and gravel (512x512, CC0, inside scikit-image's wheel). Training crops come from the left half, test crops
from the right one. Of the left half, the lowest 192 rows are reserved: the crops for the threshold come from there and
from nowhere else. So no pixel is in two of the three parts, and no crop comes twice.

Five kinds of defect, none of them one that a detector trains on (no Perlin blending, no cut-paste). Each is balanced:
over its pixels the mean brightness does not change, so that a mean grey or a distance in pixel space does not give it
away. A mask holds exactly the pixels that differ.
"""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from adlib.common.errors import UserError
from adlib.common.files import locked
from adlib.common.paths import cache_root
from adlib.data.dataset import DataSet, official_counts
from adlib.data.mvtec_ad import published
from adlib.data.samples import Sample

VERSION = 2  # raise it whenever a pixel changes: pictures of another version are never taken for these
SIDE = 128  # pixels
# images per category: 72 to fit, 8 for the threshold (a tenth of 80), 40 normal and 5 x 12 anomalous ones to test
FIT, RESERVED, NORMAL, PER_KIND = 72, 8, 40, 12
# Where their crops come from: rows and columns of the 512x512 photograph. The reserved strip is one and a half crops
# high, so that its crops differ in both directions; what it takes is lost to fitting.
PLACES = {
    "fit": (slice(0, 320), slice(0, 256)),
    "reserved": (slice(320, 512), slice(0, 256)),
    "test": (slice(0, 512), slice(256, 512)),
}
CATEGORIES = ("brick", "grass", "gravel")
MIRRORED = ("brick",)  # its perspective converges, so the right half looks like the left one only in the mirror
VISIBLE = 10.0  # grey levels: least mean absolute change over the mask; weaker ones are drawn again

Y, X = np.mgrid[:SIDE, :SIDE].astype(float)


def samples(root: Path, category: str) -> tuple[list[Sample], list[str]]:
    """The layout of mvtec_ad under `cache_root()/textures/v<VERSION>`, made where it is absent.

    Training images named `reserved_*` are marked as such: `adlib.data.holdback` takes these.
    """
    if not (root / category).is_dir():
        _make(root / category, category)
    listed, notes = published(root / category, "good", "_mask")
    listed = [s._replace(reserved=s.split == "train" and s.path.stem.startswith("reserved")) for s in listed]
    return listed, [*notes, f"simulated defects on a photograph of scikit-image (textures version {VERSION})"]


def normal(category: str, place: str, number: int) -> np.ndarray:
    """Crop `number` of one of PLACES, without defect: uint8 [128,128]. No two crops of a photograph are equal."""
    y, x = _corners(category, place)[number]
    return _photograph(category)[y : y + SIDE, x : x + SIDE]


def anomalous(category: str, kind: str, number: int) -> tuple[np.ndarray, np.ndarray]:
    """One test crop with a defect: uint8 [128,128] and its mask, bool [128,128], True exactly where pixels differ."""
    base = normal(category, "test", NORMAL + PER_KIND * list(KINDS).index(kind) + number)
    rng = _rng(category, kind, number)
    while True:  # a defect too weak to be seen is drawn again
        changed, support = KINDS[kind](base.astype(float), rng)
        image = _balanced(base, changed, support)
        if support.any() and np.abs(image - base.astype(float))[support].mean() >= VISIBLE:
            return image, support


def _balanced(normal: np.ndarray, changed: np.ndarray, support: np.ndarray) -> np.ndarray:
    """Round to uint8 so that the mean over the support stays and every pixel of the support, and no other, differs."""
    change = changed - normal
    image = np.clip(np.round(normal + change - change[support].mean()), 0, 255)
    # A pixel that came out equal moves by one grey level, up and down in turn: invisible, and the mask stays solid.
    same = np.flatnonzero((image == normal) & support)
    step = np.where(np.arange(len(same)) % 2, 1, -1)
    image.flat[same] += np.where((image.flat[same] + step) % 256 == image.flat[same] + step, step, -step)
    return np.where(support, image, normal).astype(np.uint8)


def scratch(image: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A groove along a slightly bent curve: one flank bright, the other dark (derivative of a Gaussian)."""
    angle, length, width = rng.uniform(0, 2 * np.pi), rng.uniform(45, 90), rng.uniform(1.1, 1.7)
    along = np.array([np.sin(angle), np.cos(angle)])
    across = np.array([along[1], -along[0]])
    steps = np.outer(np.linspace(-0.5, 0.5, 4) * length, along) + np.outer(rng.uniform(-9, 9, 4), across)
    distance, side = _to_curve(_bezier(_centre(rng, 36) + steps))
    profile = side / width * np.exp(0.5 - 0.5 * (side / width) ** 2)
    return image + rng.uniform(55, 80) * profile * rng.choice([-1, 1]), distance < 2.5 * width


def thread(image: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A bright, curly fibre that casts a shadow."""
    curve = _bezier(_centre(rng, 40) + rng.uniform(-48, 48, (4, 2)))
    width = rng.uniform(0.9, 1.4)
    shadow = np.clip(width + 1.0 - _to_curve(curve + 2.0)[0], 0, 1)
    fibre = np.clip(width + 0.5 - _to_curve(curve)[0], 0, 1)
    changed = image * (1 - 0.6 * shadow)
    return changed + fibre * (rng.uniform(190, 230) - changed), (shadow > 0) | (fibre > 0)


def stain(image: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A dried drop that fills the relief: softer, brighter in the middle, darker at its irregular rim; or reversed."""
    from scipy import ndimage  # heavy: pictures are made once

    y, x = _centre(rng, 30)
    angle = np.arctan2(Y - y, X - x)
    rim = 1 + 0.15 * np.cos(2 * angle + rng.uniform(0, 6.28)) + 0.1 * np.cos(3 * angle + rng.uniform(0, 6.28))
    radius = np.hypot(Y - y, X - x) / (rng.uniform(15, 22) * rim)
    cover = np.clip((1 - radius) * 8, 0, 1)
    soft = image + 0.6 * cover * (ndimage.gaussian_filter(image, 2.0) - image)
    strength = rng.uniform(0.3, 0.45) * rng.choice([-1, 1])
    # the integral of (1 - 2 u^2) u over 0..1 is zero, so the drop keeps its brightness
    return soft * (1 + strength * (1 - 2 * radius**2) * cover), radius < 1


def swirl(image: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """The surface twisted about a point, by up to two or three radians in the middle and none at the edge."""
    from scipy import ndimage  # heavy: pictures are made once

    y, x = _centre(rng, 34)
    size = rng.uniform(20, 30)
    radius = np.hypot(Y - y, X - x)
    angle = rng.uniform(2, 3) * rng.choice([-1, 1]) * np.clip(1 - (radius / size) ** 2, 0, 1)
    sin, cos = np.sin(angle), np.cos(angle)
    source = [y + cos * (Y - y) - sin * (X - x), x + sin * (Y - y) + cos * (X - x)]
    return ndimage.map_coordinates(image, source, order=1, mode="mirror"), radius < size


def contamination(image: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A handful of grains, bright and dark in turn."""
    centre, changed, support = _centre(rng, 28), image.copy(), np.zeros(image.shape, dtype=bool)
    for i in range(rng.integers(8, 15)):
        y, x = centre + rng.uniform(-22, 22, 2)
        cover = np.clip(rng.uniform(1.6, 3.0) + 0.5 - np.hypot(Y - y, X - x), 0, 1)
        changed += cover * ((215 if i % 2 else 25) - changed)
        support |= cover > 0
    return changed, support


KINDS: dict[str, Callable] = {f.__name__: f for f in (contamination, scratch, stain, swirl, thread)}


def _centre(rng: np.random.Generator, margin: float) -> np.ndarray:
    return rng.uniform(margin, SIDE - margin, 2)


def _bezier(points: np.ndarray) -> np.ndarray:
    """Cubic curve through 4 control points (y, x), sampled so that neighbours lie less than a pixel apart: [300,2]."""
    t = np.linspace(0, 1, 300)[:, None]
    weights = np.hstack([(1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3])
    return weights @ points


def _to_curve(curve: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of every pixel: distance to the curve, and the same signed by the side of the curve (0 on its continuation)."""
    from scipy.spatial import cKDTree  # heavy: pictures are made once

    pixels = np.stack([Y, X], -1).reshape(-1, 2)
    distance, nearest = cKDTree(curve).query(pixels)
    tangent = np.gradient(curve, axis=0)[nearest]
    tangent /= np.linalg.norm(tangent, axis=1, keepdims=True) + 1e-9
    offset = pixels - curve[nearest]
    side = offset[:, 0] * tangent[:, 1] - offset[:, 1] * tangent[:, 0]
    return distance.reshape(SIDE, SIDE), side.reshape(SIDE, SIDE)


def _rng(*name) -> np.random.Generator:
    """A stream of its own for every picture (common.md section 7), so that adding one changes no other."""
    digest = hashlib.sha256(":".join(map(str, ("textures", VERSION, *name))).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "big"))


@cache
def _photograph(category: str) -> np.ndarray:
    """The photograph, uint8 [512,512], its right half turned to look like the left one where it does not."""
    import skimage  # a second to import, and only needed where pictures are made

    with Image.open(Path(skimage.__file__).parent / "data" / f"{category}.png") as photograph:
        pixels = np.asarray(photograph.convert("L"))
    if category not in MIRRORED:
        return pixels
    middle = pixels.shape[1] // 2
    return np.hstack([pixels[:, :middle], pixels[:, : middle - 1 : -1]])


@cache
def _corners(category: str, place: str) -> np.ndarray:
    """Every upper left corner (y, x) that a crop of a place can have, each once, in an order of its own: [N,2]."""
    rows, columns = PLACES[place]
    y, x = np.mgrid[rows.start : rows.stop - SIDE + 1, columns.start : columns.stop - SIDE + 1]
    return _rng(category, place).permutation(np.stack([y.ravel(), x.ravel()], axis=1))


def _make(folder: Path, category: str) -> None:
    """All pictures of a category under a temporary name, renamed when complete; by one process, the others wait."""
    try:
        with locked(folder.parent / f".{category}.lock"):
            if not folder.is_dir():
                _draw_whole(folder, category)
    except OSError as error:
        raise UserError(
            f"cannot make the pictures of textures in {folder.parent} ({error.strerror}); set ADLIB_CACHE"
        ) from error


def _draw_whole(folder: Path, category: str) -> None:
    temporary = Path(tempfile.mkdtemp(prefix=f".{category}-", dir=folder.parent))
    try:
        _draw(temporary, category)
        temporary.chmod(0o755)
        os.rename(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _draw(folder: Path, category: str) -> None:
    for number in range(FIT):
        _save(folder / "train" / "good" / f"{number:03d}.png", normal(category, "fit", number))
    for number in range(RESERVED):
        _save(folder / "train" / "good" / f"reserved_{number:03d}.png", normal(category, "reserved", number))
    for number in range(NORMAL):
        _save(folder / "test" / "good" / f"{number:03d}.png", normal(category, "test", number))
    for kind in KINDS:
        for number in range(PER_KIND):
            image, mask = anomalous(category, kind, number)
            _save(folder / "test" / kind / f"{number:03d}.png", image)
            _save(folder / "ground_truth" / kind / f"{number:03d}_mask.png", mask.astype(np.uint8) * 255)


def _save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # stored, not compressed: the bytes, and with them the fingerprint, do not depend on the version of zlib
    Image.fromarray(pixels).save(path, compress_level=0)


DATASET = DataSet(
    "textures",
    samples,
    lambda root: list(CATEGORIES),
    advice="",
    root=lambda: cache_root() / "textures" / f"v{VERSION}",
    official=official_counts(
        dict.fromkeys(CATEGORIES, f"{FIT + RESERVED} {NORMAL} " + " ".join(f"{kind} {PER_KIND}" for kind in KINDS))
    ),
    quirks=(
        "simulated defects on photographs of scikit-image",
        "the crops for the threshold have a strip of their own",
    ),
    no_download="it is made on first use from the photographs of scikit-image",
)
