"""What goes wrong with a data set at some settings, said before anything is trained: pictures that are in train and
test, shapes that the network's square distorts or cuts, defects too thin for its grid.

The work is bounded: headers of at most PICTURES images and MASKS masks, spread evenly over the table.
"""

import math
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import pandas as pd

from adlib import images
from adlib.common import pictures
from adlib.images import Geometry

PICTURES = 200  # whose headers are read
MASKS = 60  # that are read
REGIONS = 100  # of one mask that are measured
ASPECT = 1.5  # longer by shorter side, beyond which a square distorts or cuts much
THIN = 2.0  # pixels of the grid: a defect that is thinner hardly reaches the features
RARE = 0.1  # share of the regions that may be thin without a word: masks have specks
STEP = 32  # pixels: sides that are advised are multiples of it
FINE = 100_000  # pixels of a region's box up to which its thickness is exact
ASSUMED = Geometry(256)  # of who has no settings yet


class Region(NamedTuple):
    """One 8-connected region of a mask. Thickness: diameter of the largest circle within, so that of its widest place.

    here: in pixels of the grid; native: in pixels of the picture, whose shorter and longer sides are short and long.
    """

    here: float
    native: float
    short: int
    long: int


def cautions(table: pd.DataFrame, geometry: Geometry) -> list[str]:
    """Sentences on the pictures of a sample table that are brought to a grid; none where nothing is wrong.

    UserError: unreadable image or mask, or a mask of another size than its image.
    """
    sentences = (table.attrs.get("duplicates"), shape(table, geometry))
    return [sentence for sentence in sentences if sentence]


def scales(size: tuple[int, int], geometry: Geometry) -> tuple[float, float]:
    """(vertical, horizontal) pixels of the grid per pixel of a picture of (width, height).

    squash: each side becomes image_size. pad: the longer one does. short_crop, tiles: the shorter one becomes `resize`,
    or image_size where that is None.
    """
    width, height = size
    side = geometry.image_size
    if geometry.resize_mode == "squash":
        return side / height, side / width
    if geometry.resize_mode == "pad":
        return side / max(size), side / max(size)
    return (geometry.resize or side) / min(size), (geometry.resize or side) / min(size)


def shape(table: pd.DataFrame, geometry: Geometry) -> str | None:
    """One sentence where the grid does not suit the pictures' aspect or the thickness of their defects, and what to set
    instead. Errors: as `cautions`.
    """
    sizes = [pictures.size_of(path) for path in _spread(table.path, PICTURES)]
    regions = _regions(table, geometry)
    aspect = float(np.median([max(size) / min(size) for size in sizes]))
    odd = aspect > ASPECT and geometry.resize_mode in ("squash", "short_crop")
    share = np.mean([region.here < THIN for region in regions]) if regions else 0.0
    facts = [_aspect_text(aspect, sizes, geometry)] if odd else []
    if share > RARE:
        grid = "on the grid" if facts else _seen(geometry)
        thin = sum(region.here < THIN for region in regions)
        facts.append(f"{thin} of {len(regions)} defect regions are nowhere {THIN:g} pixels thick {grid}")
    return f"{'; '.join(facts)}; set {_remedy(regions, geometry, odd, share > RARE)}" if facts else None


def _aspect_text(aspect: float, sizes: list[tuple[int, int]], geometry: Geometry) -> str:
    width, height = (round(float(np.median(side))) for side in zip(*sizes, strict=True))
    what = f"pictures of {width} x {height} (width x height, median; aspect {aspect:.1f})"
    if geometry.resize_mode == "squash":
        return f"{what} are squashed to {_grid(geometry)}, distorted {aspect:.1f} times"
    seen = [geometry.image_size**2 / math.prod(geometry.resized(h, w)) for w, h in sizes]
    return f"{what} lose {100 * (1 - np.median(seen)):.0f} % of their area to the centre crop of {_grid(geometry)}"


def _grid(geometry: Geometry) -> str:
    return f"{geometry.image_size} x {geometry.image_size}"


def _seen(geometry: Geometry) -> str:
    """At what size the pictures are seen."""
    if geometry.resize_mode == "tiles":
        return f"in tiles with a shorter side of {geometry.resize or geometry.image_size}"
    return f"with resize_mode {geometry.resize_mode} at {_grid(geometry)}"


def _remedy(regions: list[Region], geometry: Geometry, odd: bool, thin: bool) -> str:
    """What leaves the shape as it is and, where masks are known, all but RARE of the defects thick enough."""
    side, mode = geometry.image_size, geometry.resize_mode
    padded = _enough(regions, [r.native * side / r.long for r in regions], side)
    tiled = _enough(regions, [r.native * side / r.short for r in regions], side)
    tiles = "resize_mode tiles" if tiled == side else f"resize_mode tiles and resize {tiled}"
    if mode == "tiles":
        return f"resize {tiled}"
    pad = "resize_mode pad, resize none"  # whatever is set now: a system's own default may be a number
    if odd and padded == side:
        return f"{pad}, or resize_mode tiles"
    if mode == "pad":
        return f"{tiles}, or image_size {padded}"
    if odd:
        return f"{tiles}, or {pad} and image_size {padded}"
    if thin and mode == "squash":
        return f"{tiles}, or image_size {_enough(regions, [r.here for r in regions], side)}"
    return tiles


def _enough(regions: list[Region], thickness: list[float], side: int) -> int:
    """Side, a multiple of STEP, at which all but RARE of the regions reach THIN; `thickness` is theirs at `side`."""
    if not regions:
        return side
    decisive = sorted(thickness)[math.floor(RARE * len(regions))]
    return side if decisive >= THIN else STEP * math.ceil(side * THIN / decisive / STEP - 1e-9)


def _regions(table: pd.DataFrame, geometry: Geometry) -> list[Region]:
    masked = table[(table.label == 1) & table["mask"].notna()]
    threshold = table.attrs.get("mask_threshold", 0)
    pairs = list(zip(_spread(masked["mask"], MASKS), _spread(masked.path, MASKS), strict=True))
    with ThreadPoolExecutor() as pool:
        measured = pool.map(lambda pair: _of_mask(images.read_mask(*pair, threshold), geometry), pairs)
        return [region for regions in measured for region in regions]


def _of_mask(mask: np.ndarray, geometry: Geometry) -> list[Region]:
    """mask: bool [H,W], at full size."""
    from scipy import ndimage  # heavy: listing data sets does not wait for it

    numbers, _ = ndimage.label(mask, np.ones((3, 3)))
    scale = scales(mask.shape[::-1], geometry)
    found = []
    for k, box in enumerate(ndimage.find_objects(numbers)[:REGIONS], 1):
        region = np.pad(numbers[box] == k, 1)
        if region.size <= FINE:  # doubled, an odd number of pixels has a middle between two of them
            region, step = region.repeat(2, 0).repeat(2, 1), 0.5
        else:
            step = 1.0
        native = 2 * ndimage.distance_transform_edt(region, sampling=step).max()
        here = native * scale[0]
        if scale[0] != scale[1]:
            here = 2 * ndimage.distance_transform_edt(region, sampling=[step * s for s in scale]).max()
        found.append(Region(float(here), float(native), min(mask.shape), max(mask.shape)))
    return found


def _spread(values: pd.Series, limit: int) -> list:
    """At most `limit` of the values, evenly over all of them."""
    chosen = np.unique(np.linspace(0, len(values) - 1, min(limit, len(values))).round().astype(int))
    return values.iloc[chosen].tolist()
