"""Files to uint8 tensors: decoded once, resized once, kept in a memory-mapped cache; masks on the same grid.

Shapes: a decoded picture is uint8 [H,W,3], a resized one uint8 [3,S,S], a cache uint8 [N,3,S,S], masks bool [N,S,S].
Protocol: common.md section 2. EXIF rotation is not applied, as in the loaders of the published results.
"""

import functools
import hashlib
import itertools
import json
import math
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from scipy import ndimage
from tqdm import tqdm

from adlib.common import definitions
from adlib.common.errors import UserError, check_names
from adlib.common.files import written_whole
from adlib.common.hashes import content_hashes
from adlib.common.memory import check_disk, check_memory
from adlib.common.paths import cache_root
from adlib.common.pictures import LARGEST, opened, size_of

RESIZE_MODES = ("squash", "short_crop", "pad", "tiles")
RESAMPLES = ("antialias", "plain")
MASK_RULES = ("nearest", "half", "any", "exact_one", "exact_one_antialias")
# The rules of published code bring their own resampling, whatever the pictures' is: OpenCV's, and PIL's.
RESAMPLE_OF_RULE = {"exact_one": "plain", "exact_one_antialias": "antialias"}
CHUNK = 64  # images between two writes: bounds the memory of the pool


@dataclass(frozen=True)
class Geometry:
    """How a picture becomes S x S: fields of the protocol, so two runs are comparable only if all agree."""

    image_size: int  # S, pixels per side
    # squash: to S x S. short_crop: shorter side to `resize`, then centre crop S. pad: longer side to S, the picture in
    # the middle, what is beyond mirrored. tiles: shorter side to `resize`, then S x S windows over the whole picture
    resize_mode: str = "squash"
    resize: int | None = None  # pixels of the shorter side before the cut; None: S. Only for short_crop and tiles
    resample: str = "antialias"  # bilinear with a low-pass (PIL), or plain: without (F.interpolate, cv2 INTER_LINEAR)
    stride: int | None = None  # pixels from tile to tile; None: S // 2. The last tile ends where the picture does

    def __post_init__(self):
        check_names("resize_mode", [self.resize_mode], RESIZE_MODES)
        check_names("resample", [self.resample], RESAMPLES)
        if self.image_size < 1:
            raise UserError(f"image_size {self.image_size} is not a positive number of pixels; 256 is usual")
        if self.resize is not None and self.resize_mode in ("squash", "pad"):
            raise UserError(f"resize {self.resize} has no meaning with resize_mode {self.resize_mode!r}; make it none")
        if self.resize is not None and self.resize < self.image_size:
            raise UserError(f"resize {self.resize} is smaller than image_size {self.image_size}; use at least that")
        if self.stride is not None and self.resize_mode != "tiles":
            raise UserError(f"stride {self.stride} has no meaning with resize_mode {self.resize_mode!r}; make it none")
        if self.stride is not None and not 1 <= self.stride <= self.image_size:
            raise UserError(f"stride {self.stride} is not in 1 to image_size {self.image_size}; more leaves gaps")

    def at(self, size: int) -> "Geometry":
        """The same part of the picture on one grid of another side, e.g. `metric_size`; that of tiles is padded."""
        if self.resize_mode == "tiles":
            return Geometry(size, "pad", resample=self.resample)
        scaled = self.resize and max(size, round(self.resize * size / self.image_size))
        return replace(self, image_size=size, resize=scaled)

    @property
    def whole(self) -> "Geometry":
        """The same part of the picture on one S x S grid: itself, but of tiles the padded one."""
        return self.at(self.image_size)

    def resized(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) after resizing and before the cut. The long side is cut to an integer, as in torchvision.

        UserError where a picture so long and narrow would take more than LARGEST pixels.
        """
        if self.resize_mode == "squash":
            return self.image_size, self.image_size
        if self.resize_mode == "pad":
            scale = self.image_size / max(height, width)
            return max(1, round(height * scale)), max(1, round(width * scale))
        short = self.resize or self.image_size
        long = max(short, int(short * max(height, width) / min(height, width)))
        if short * long > LARGEST:
            raise UserError(
                f"a picture of {width} x {height} pixels would become {short} x {long} with resize_mode "
                f"{self.resize_mode}; cut it into pieces, or use resize_mode squash or pad"
            )
        return (short, long) if height <= width else (long, short)

    def windows(self, height: int, width: int) -> list[tuple[int, int]]:
        """(top, left) of each S x S network input on the resized picture of that original size, in raster order.

        Only tiles have more than one; only of pad a window reaches beyond the picture, and then it starts below zero.
        """
        resized = self.resized(height, width)
        if self.resize_mode != "tiles":
            return [(_offset(resized[0], self.image_size), _offset(resized[1], self.image_size))]
        stride = self.stride or max(1, self.image_size // 2)
        ends = [length - self.image_size for length in resized]
        return list(itertools.product(*(dict.fromkeys([*range(0, end, stride), end]) for end in ends)))

    def inside(self, height: int, width: int) -> tuple[slice, slice]:
        """Rows and columns of the S x S grid that hold a picture of that original size: all of them, but of pad."""
        if self.resize_mode != "pad":
            return slice(0, self.image_size), slice(0, self.image_size)
        top, left = (-start for start in self.windows(height, width)[0])
        resized = self.resized(height, width)
        return slice(top, top + resized[0]), slice(left, left + resized[1])


def decode(path: str | Path) -> np.ndarray:
    """RGB uint8 [H,W,3]: grey replicated, 16-bit scaled by 65535, alpha dropped, palette and CMYK converted.

    UserError (one sentence naming the file) where it is missing, a dangling link, truncated or no picture.
    """
    with opened(path) as image:
        return np.array(_rgb(image, path))


def resize(image: np.ndarray, geometry: Geometry) -> np.ndarray:
    """uint8 [H,W,3] -> uint8 [3,S,S], bilinear; `resample="antialias"` is PIL's own result.

    UserError: tiles, which `cut` gives; `geometry.whole` is one grid for all of the picture.
    """
    _check_one_view(geometry)
    return cut(image, geometry)[0]


def _check_one_view(geometry: Geometry) -> None:
    if geometry.resize_mode == "tiles":
        raise UserError("resize_mode 'tiles' makes several inputs of a picture; squash, short_crop and pad make one")


def cut(image: np.ndarray, geometry: Geometry) -> np.ndarray:
    """uint8 [H,W,3] -> uint8 [m,3,S,S], all network inputs of a picture in the order of `geometry.windows`."""
    resized = _scaled(image, geometry, geometry.resample)
    places = geometry.windows(*image.shape[:2])
    check_memory(6 * len(places) * geometry.image_size**2, f"a picture in {len(places):,} tiles")  # and a copy of them
    views = [_window(resized, place, geometry.image_size, "symmetric") for place in places]  # mirrored: no false edge
    return np.ascontiguousarray(np.stack(views).transpose(0, 3, 1, 2))


def crop_box(original_size: tuple[int, int], geometry: Geometry) -> tuple[float, float, float, float]:
    """(left, top, right, bottom) of what the network sees, in pixels of the original picture of (height, width)."""
    if geometry.resize_mode != "short_crop":
        return 0, 0, original_size[1], original_size[0]
    (height, width), [(top, left)] = geometry.resized(*original_size), geometry.windows(*original_size)
    y, x, side = original_size[0] / height, original_size[1] / width, geometry.image_size
    return left * x, top * y, (left + side) * x, (top + side) * y


def paste_back(map: np.ndarray, original_size: tuple[int, int], geometry: Geometry) -> np.ndarray:
    """Map [h,w] of what is seen of a picture of (height, width), without padding -> float32 [H,W]; NaN if cropped."""
    left, top, right, bottom = (round(edge) for edge in crop_box(original_size, geometry))
    image = Image.fromarray(np.asarray(map, dtype=np.float32))
    canvas = np.full(original_size, np.nan, dtype=np.float32)
    right, bottom = max(right, left + 1), max(bottom, top + 1)  # the crop of a very narrow picture may lie between two
    canvas[top:bottom, left:right] = image.resize((right - left, bottom - top), Image.Resampling.BILINEAR)
    return canvas


def sizes(files: list[str]) -> np.ndarray:
    """(height, width) of each picture file, int [N,2], from its header alone. UserError: unreadable image."""
    with ThreadPoolExecutor(_workers()) as pool:
        return np.array([size[::-1] for size in pool.map(size_of, files)], dtype=int).reshape(-1, 2)


def to_float(images, device="cpu"):
    """uint8 array or tensor of any shape -> float32 tensor in 0..1 on the device; moved as uint8."""
    import torch  # heavy; naming a geometry or a rule needs none of it

    tensor = images if torch.is_tensor(images) else torch.from_numpy(np.array(images))
    return tensor.to(device).float().div_(255)


def cached(table: pd.DataFrame, geometry: Geometry, views: bool = False) -> np.memmap:
    """All rows of a sample table, decoded and resized: uint8 [N,3,S,S], row i = i-th row of the table.

    views=True: tiles too, uint8 [M,3,S,S], those of each picture in turn; which are whose says `adlib.views.Views`.

    Kept at `cache_root()/images/<key>.npy`, key = content fingerprint + rows + geometry + the code of `resize`, so a
    second call only opens it. Call it with the whole table of `data.load` and select rows afterwards: each selection is
    a cache of its own. The array is mapped read-only. UserError: unreadable image, full disk, tiles without views=True.
    """
    if not views:
        _check_one_view(geometry)
    path = cache_root() / "images" / f"{cache_key(table, geometry)}.npy"
    try:
        return np.load(path, mmap_mode="r")
    except (OSError, ValueError, EOFError):
        _store(path, table.path, geometry)  # absent, or cut short by something outside this program
    return np.load(path, mmap_mode="r")


def masks(table: pd.DataFrame, geometry: Geometry | int, rule: str = "nearest") -> tuple[np.ndarray, dict]:
    """Masks bool [N,S,S] of a sample table (True anomalous) and what happened to them; normal images are all False.

    Padding is False; tiles have the grid of `geometry.whole`.

    rule: nearest; or bilinear, resampled as the pictures are, and `half` (>= 0.5) or `any` (> 0); or the rules of
    published code, which keep full pixels only (== 1): `exact_one` without a low-pass (DRAEM: OpenCV, whatever the
    pictures' resampling), `exact_one_antialias` with PIL's (SimpleNet, PatchCore). See common.md section 2.
    A pixel of the full mask is anomalous above the threshold `table.attrs["mask_threshold"]`, default 0.

    info: `regions_lost` (8-connected regions without a pixel left), `no_mask` (rows, 0..N-1, of anomalous images
    without a mask or with an empty one: leave them out of pixel metrics), `emptied` (rows whose mask lost all its
    pixels on the way to the grid: they count as normal). UserError: unknown rule, unreadable mask, or mask and image
    differ in size.
    """
    geometry = (Geometry(geometry) if isinstance(geometry, int) else geometry).whole
    check_names("mask_rule", [rule], MASK_RULES)
    threshold = table.attrs.get("mask_threshold", 0)

    def one(i: int) -> tuple[np.ndarray, int] | None:
        if pd.isna(table["mask"].iloc[i]):
            return None
        full = read_mask(table["mask"].iloc[i], table.path.iloc[i], threshold)
        return _on_grid(full, geometry, rule) if full.any() else None

    check_memory(len(table) * geometry.image_size**2, f"masks of {len(table)} images at side {geometry.image_size}")
    result = np.zeros((len(table), geometry.image_size, geometry.image_size), dtype=bool)
    info = {"regions_lost": 0, "no_mask": [], "emptied": []}
    rows = [i for i, label in enumerate(table.label) if label]
    with ThreadPoolExecutor(_workers()) as pool:
        for i, mask in zip(rows, pool.map(one, rows), strict=True):
            if mask is None:
                info["no_mask"].append(i)
                continue
            result[i], lost = mask
            info["regions_lost"] += lost
            if not result[i].any():
                info["emptied"].append(i)
    return result, info


def decoded(files: list[str], geometry: Geometry, make: Callable = resize) -> Iterator[np.ndarray]:
    """uint8 [3,S,S] of each file in order, or what else `make` gives, by a pool of threads. UserError: unreadable."""
    with ThreadPoolExecutor(_workers()) as pool, tqdm(total=len(files), desc="decode", disable=None) as bar:
        step = _workers() if geometry.resize_mode == "tiles" else CHUNK  # a picture may have thousands of tiles
        for start in range(0, len(files), step):
            for picture in pool.map(lambda file: make(decode(file), geometry), files[start : start + step]):
                bar.update()
                yield picture


def _workers() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _rgb(image: Image.Image, path: str | Path) -> Image.Image:
    if image.mode.startswith("I"):
        image = Image.fromarray(_from_16_bit(np.asarray(image), path))
    if image.mode == "F":
        raise UserError(f"image {path} holds floating-point numbers of unknown range; save it with 8 or 16 bits")
    try:
        return image.convert("RGB")
    except ValueError as error:
        raise UserError(f"cannot convert image {path} ({error}); save it as RGB or grey") from error


def _from_16_bit(values: np.ndarray, path: str | Path) -> np.ndarray:
    if values.min() < 0 or values.max() > 65535:
        raise UserError(f"image {path} holds values outside 0..65535; save it with 8 or 16 bits")
    return np.round(values / 257).astype(np.uint8)


def _offset(length: int, side: int) -> int:
    return round((length - side) / 2)


def _window(image: np.ndarray, place: tuple[int, int], side: int, beyond: str = "constant") -> np.ndarray:
    """The side x side window at (top, left); beyond the picture zeros, or mirrored (`beyond` is a mode of np.pad)."""
    top, left = place
    if top < 0 or left < 0:
        around = [(max(0, -start), max(0, start + side - n)) for n, start in zip(image.shape, place, strict=False)]
        image = np.pad(image, around + [(0, 0)] * (image.ndim - 2), mode=beyond)
        top, left = max(0, top), max(0, left)
    return image[top : top + side, left : left + side]


def _scaled(image: np.ndarray, geometry: Geometry, resample: str) -> np.ndarray:
    """uint8 [H,W] or [H,W,3] -> the same resized, bilinear, before anything is cut off."""
    height, width = geometry.resized(*image.shape[:2])
    if resample == "plain":
        return _plain(image, height, width)
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))


def _mask_window(scaled: np.ndarray, size: tuple[int, int], geometry: Geometry) -> np.ndarray:
    """The one window of a mask resized from (height, width); nothing is anomalous in the padding."""
    return _window(scaled, geometry.windows(*size)[0], geometry.image_size)


def _plain(image: np.ndarray, height: int, width: int) -> np.ndarray:
    import torch  # heavy, see `to_float`
    from torch.nn import functional

    planes = torch.from_numpy(np.atleast_3d(image)).permute(2, 0, 1)[None].float()  # [1, 1 or 3, H, W]
    resized = functional.interpolate(planes, (height, width), mode="bilinear", align_corners=False, antialias=False)
    return resized[0].round().byte().permute(1, 2, 0).numpy().reshape(height, width, *image.shape[2:])


def cache_key(table: pd.DataFrame, geometry: Geometry) -> str:
    """What identifies the resized pictures of a table: contents, rows, geometry and the code of `resize`.

    Row paths stand beside the fingerprint because a selection of rows keeps the whole table's attrs.
    """
    root = table.attrs.get("root", "")
    rows = [os.path.relpath(path, root) if root else path for path in table.path]
    identity = [table.attrs.get("fingerprint") or _contents(table), rows, asdict(geometry), _code()]
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:32]


@functools.cache
def _code() -> str:
    """What turns a file into pixels: pictures that former code made are not taken for those of this one."""
    return definitions.fingerprint(decode, cut, outside=("adlib.common",))


def _contents(table: pd.DataFrame) -> list[str]:
    return content_hashes(Path(table.attrs.get("root", "")), [Path(path) for path in table.path])


def _store(path: Path, files: pd.Series, geometry: Geometry) -> None:
    count = len(files)
    if geometry.resize_mode == "tiles":
        count = sum(len(geometry.windows(*size)) for size in sizes(list(files)).tolist())
    shape = (count, 3, geometry.image_size, geometry.image_size)
    check_disk(math.prod(shape), path.parent, f"the image cache {path}")
    pictures = decoded(list(files), geometry, cut)
    try:
        with written_whole(path) as scratch, scratch.open("wb") as file:
            header = {"descr": "|u1", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            for picture in pictures:
                file.write(picture.tobytes())
    except OSError as error:
        raise UserError(
            f"cannot write the image cache {path} ({np.prod(shape) / 1e6:.1f} MB needed): {error.strerror};"
            " make room or set ADLIB_CACHE to another folder"
        ) from error


def read_mask(path: str, image_path: str, threshold: int) -> np.ndarray:
    """bool [H,W] at full size: grey values above the threshold. UserError: unreadable, or not its image's size."""
    with opened(path) as mask:
        values = np.asarray(mask if mask.mode.startswith("I") else mask.convert("L"))
    size = size_of(image_path)
    if size != values.shape[::-1]:
        raise UserError(
            f"mask {path} is {values.shape[1]}x{values.shape[0]} but its image {image_path} is {size[0]}x{size[1]}"
            " (width x height); they must be equal"
        )
    return values > threshold


def _on_grid(mask: np.ndarray, geometry: Geometry, rule: str) -> tuple[np.ndarray, int]:
    """Mask on the grid, bool [S,S], and how many of its regions have no pixel there."""
    regions, count = ndimage.label(mask, structure=np.ones((3, 3)))
    if rule == "nearest":
        height, width = geometry.resized(*mask.shape)
        numbers = Image.fromarray(regions.astype(np.int32)).resize((width, height), Image.Resampling.NEAREST)
        kept = _mask_window(np.asarray(numbers), mask.shape, geometry)
        return kept > 0, count - len(np.unique(kept[kept > 0]))
    grid = _by_share(mask, geometry, rule)
    if count == 1:
        return grid, int(not grid.any())
    return grid, sum(not _by_share(regions == k, geometry, rule).any() for k in range(1, count + 1))


def _by_share(mask: np.ndarray, geometry: Geometry, rule: str) -> np.ndarray:
    """Mask bool [H,W] -> bool [S,S] by the grey level of the resized 8-bit mask, as the loaders do."""
    resample = RESAMPLE_OF_RULE.get(rule, geometry.resample)
    grey = _mask_window(_scaled(mask.astype(np.uint8) * 255, geometry, resample), mask.shape, geometry)
    if rule == "half":
        return grey >= 127.5
    if rule == "any":
        return grey > 0
    return grey == 255
