"""The ten operations that vary an anomaly texture, vectorised over a batch. Spec: specs/draem.md section 5.

The authors take them from imgaug 0.4 and apply them to one picture after another. Here a batch is grouped by operation
and each operation runs once on its group, with a parameter per sample. Six of the ten change a grey level only by its
value, so they are a table of 256 levels per sample and channel, made from a histogram where PIL makes it from one.

Shapes: textures uint8 [n,3,H,W], RGB; parameters [n] or [n,3], on any device. Every operation returns uint8 [n,3,H,W].
"""

import math
from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

SPACES = ("YCrCb", "HSV", "HLS", "Lab", "Luv", "YUV")  # whose brightness channel `brightness` changes
DRAWS = 4  # uniform numbers in 0..1 that an operation may use for its parameters


def gamma(textures: Tensor, exponent: Tensor) -> Tensor:
    """floor(255 (v/255)^exponent), exponent [n,3] per channel."""
    return _look_up(textures, 255 * _levels(textures).div(255) ** exponent.to(textures.device).double()[..., None])


def solarize(textures: Tensor, threshold: Tensor) -> Tensor:
    """255 - v where v >= floor(threshold [n]); a threshold of 256 changes nothing."""
    levels = _levels(textures)
    return _look_up(textures, torch.where(levels >= _per_sample(threshold, levels).floor(), 255 - levels, levels))


def posterize(textures: Tensor, bits: Tensor) -> Tensor:
    """Keep the `bits` [n], 1..8, highest bits of every level."""
    levels = _levels(textures)
    step = 2 ** (8 - _per_sample(bits, levels))
    return _look_up(textures, levels.div(step).floor() * step)


def invert(textures: Tensor) -> Tensor:
    """255 - v."""
    return 255 - textures


def autocontrast(textures: Tensor, cutoff: Tensor) -> Tensor:
    """Stretch every channel to 0..255 after leaving out cutoff [n] percent at both ends, as PIL does."""
    counts = _histogram(textures)
    levels, pixels = _levels(textures), textures.shape[-2] * textures.shape[-1]
    cut = _per_sample(cutoff, levels).mul(pixels).div(100).floor()
    below = counts.cumsum(-1)
    low = (below <= cut).sum(-1, keepdim=True).double()  # the first level with more than `cut` pixels up to it
    high = 255 - (pixels - below + counts <= cut).sum(-1, keepdim=True).double()
    # two tensors, because torch computes `255 / tensor` as 255 times the reciprocal, which rounds twice
    scale = torch.full_like(low, 255) / (high - low).clamp(min=1)
    return _look_up(textures, torch.where(high > low, levels * scale - low * scale, levels))


def equalize(textures: Tensor) -> Tensor:
    """Histogram equalisation of every channel, as PIL does; a channel of one level stays."""
    counts = _histogram(textures)
    below = counts.cumsum(-1)
    last = torch.where(below < below[..., -1:], 0, counts).amax(-1, keepdim=True)  # pixels of the highest level
    step = (below[..., -1:] - last) // 255
    table = (step // 2 + below - counts) // step.clamp(min=1)
    return _look_up(textures, torch.where(step > 0, table, _levels(textures).long()))


def sharpen(textures: Tensor, factor: Tensor) -> Tensor:
    """B + factor [n] (v - B), B = 3 x 3 mean with a five-fold centre; the outermost pixels stay, as in PIL."""
    values = textures.float()
    inner = values[..., 1:-1, 1:-1]
    # slices, because avg_pool2d takes ten times as long on a CPU
    columns = values[..., :-2] + values[..., 1:-1] + values[..., 2:]
    total = columns[..., :-2, :] + columns[..., 1:-1, :] + columns[..., 2:, :] + 4 * inner
    blurred = total.div_(13).add_(0.5).floor_()
    values[..., 1:-1, 1:-1] = blurred + (inner - blurred) * _column(factor, values)
    return _to_bytes(values)


def hue_and_saturation(textures: Tensor, hue: Tensor, saturation: Tensor) -> Tensor:
    """Shift the hue by 2 trunc(180 hue / 255) degrees and the saturation by saturation / 255; both [n], -50..50."""
    from kornia.color import rgb_to_hsv  # heavy, and two of the ten operations need it

    degrees = 2 * (180 * hue / 255).trunc()
    h, s, v = rgb_to_hsv(textures.float().div(255)).split(1, 1)
    s = s.add(_column(saturation / 255, s)).clamp(0, 1)
    # back to RGB in one expression: kornia's hsv_to_rgb takes four times as long on a CPU
    sextants = torch.tensor([5.0, 3.0, 1.0], device=v.device).view(3, 1, 1)
    turned = (h.mul(3 / math.pi).add_(_column(degrees / 60, h)) + sextants).remainder_(6)
    cover = torch.minimum(turned, 4 - turned).clamp_(0, 1)
    return _to_bytes((v * 255).sub(cover.mul_(s * v * 255)).round_())


def brightness(textures: Tensor, factor: Tensor, summand: Tensor, space: Tensor, multiply_first: Tensor) -> Tensor:
    """Multiply the brightness channel of a colour space by factor and add summand, clipped, in either order.

    All [n]: factor 0.8..1.2, summand -30..30 grey levels, space 0..5 (index into SPACES), multiply_first bool.
    """

    def apply(number: int, group: Tensor, rows: Tensor) -> Tensor:
        column = [_column(parameter[rows], group) for parameter in (factor, summand, multiply_first)]
        change = lambda channel: _brighter(channel, *column)
        return _to_bytes(BRIGHTNESS[SPACES[number]](group.float(), change).round_())

    return _by_group(textures, space, apply)


def rotate(images: Tensor, degrees: Tensor) -> Tensor:
    """Float images [n,C,H,W] turned by degrees [n] about their centre: clockwise as displayed, bilinear, zeros outside.

    Within 0.008 of OpenCV's fixed-point result for values of order 1 (spec section 6).
    """
    height, width = images.shape[-2:]
    angle = _column(degrees, images)[:, 0] * (math.pi / 180)
    cos, sin = angle.cos(), angle.sin()
    y, x = (torch.arange(n, device=images.device) - (n - 1) / 2 for n in (height, width))
    # where each pixel comes from, in half sides: -1..1 lies between the centres of the outermost pixels
    across = (cos * x + sin * y[:, None]) * (2 / max(width - 1, 1))
    down = (cos * y[:, None] - sin * x) * (2 / max(height - 1, 1))
    return grid_sample(images, torch.stack([across, down], -1), align_corners=True)


def rotate_texture(textures: Tensor, degrees: Tensor) -> Tensor:
    """`rotate` on grey levels; the corners become black."""
    return _to_bytes(rotate(textures.float(), degrees).round())


def _brighter(channel: Tensor, factor: Tensor, summand: Tensor, multiply_first: Tensor) -> Tensor:
    """The brightness channel in 0..255, as 8-bit levels."""
    level = channel.round()
    first = level.mul(factor).round().clamp(0, 255).add(summand)
    second = level.add(summand).clamp(0, 255).mul(factor).round()
    return torch.where(multiply_first > 0, first, second).clamp(0, 255)


def _luma(values: Tensor, change: Callable) -> Tensor:
    """YCrCb and YUV keep colour differences, so all three channels move by the same amount."""
    weights = torch.tensor([0.299, 0.587, 0.114], device=values.device).view(3, 1, 1)
    luma = (values * weights).sum(1, keepdim=True)
    return values + change(luma) - luma


def _value(values: Tensor, change: Callable) -> Tensor:
    """HSV is linear in V at fixed hue and saturation; black is grey of saturation 0."""
    value = values.amax(1, keepdim=True)
    return torch.where(value > 0, values / value.clamp(min=1), 1) * change(value)


def _lightness(values: Tensor, change: Callable) -> Tensor:
    """HLS at fixed hue and saturation: the distance from L scales with 1 - |2 L - 1|; black and white are grey."""
    lightness = (values.amax(1, keepdim=True) + values.amin(1, keepdim=True)) / 2
    room = lambda level: 255 - (2 * level - 255).abs()
    changed = change(lightness)
    return changed + (values - lightness) * room(changed) / room(lightness).clamp(min=1)


def _perceptual(name: str) -> Callable[[Tensor, Callable], Tensor]:
    def convert(values: Tensor, change: Callable) -> Tensor:
        from kornia import color  # heavy, see `hue_and_saturation`

        space = getattr(color, f"rgb_to_{name}")(values / 255)
        space[:, :1] = change(space[:, :1] * 2.55) / 2.55  # kornia's L is 0..100
        return getattr(color, f"{name}_to_rgb")(space) * 255

    return convert


BRIGHTNESS: dict[str, Callable[[Tensor, Callable], Tensor]] = {
    "YCrCb": _luma,
    "HSV": _value,
    "HLS": _lightness,
    "Lab": _perceptual("lab"),
    "Luv": _perceptual("luv"),
    "YUV": _luma,
}


def _levels(textures: Tensor) -> Tensor:
    # double, so that a product that is a whole number does not fall below it before floor
    return torch.arange(256, device=textures.device, dtype=torch.float64).expand(len(textures), 3, 256)


def _per_sample(parameter: Tensor, levels: Tensor) -> Tensor:
    return parameter.to(levels).view(-1, 1, 1)


def _column(parameter: Tensor, like: Tensor) -> Tensor:
    return parameter.to(like.device, torch.float32).view(-1, 1, 1, 1)


def _histogram(textures: Tensor) -> Tensor:
    """Pixels of every level: int64 [n,3,256]."""
    flat = textures.flatten(2).long()
    counts = torch.zeros(*flat.shape[:2], 256, dtype=torch.long, device=flat.device)
    return counts.scatter_add_(2, flat, torch.ones_like(flat))


def _look_up(textures: Tensor, table: Tensor) -> Tensor:
    """Replace every level by that of the table [n,3,256], cut to whole numbers in 0..255."""
    table = table.clamp(0, 255).byte()
    return table.gather(2, textures.flatten(2).long()).view_as(textures)


def _by_group(textures: Tensor, numbers: Tensor, apply: Callable[[int, Tensor, Tensor], Tensor]) -> Tensor:
    """Run apply(number, textures of the group, their rows) once per distinct number [n], and restore the order."""
    if not len(numbers):
        return textures
    kinds, order = numbers.sort(stable=True)
    groups = [(int(kinds[start]), order[start:stop]) for start, stop in _runs(kinds.tolist())]
    changed = [apply(kind, take(textures, rows), rows) for kind, rows in groups]
    return take(torch.cat(changed), order.argsort())


def _runs(kinds: list) -> list[tuple[int, int]]:
    edges = [0, *(i for i in range(1, len(kinds)) if kinds[i] != kinds[i - 1]), len(kinds)]
    return list(pairwise(edges))


def take(values: Tensor, rows: Tensor) -> Tensor:
    """values[rows] for rows on the host; many times faster than indexing, for which each byte is an element."""
    return values.index_select(0, rows.to(values.device))


def _to_bytes(values: Tensor) -> Tensor:
    return values.clamp(0, 255).byte()


class Operation(NamedTuple):
    """What is done, and how its parameters come from numbers in 0..1: uniform [n,4] -> arguments."""

    apply: Callable[..., Tensor]
    parameters: Callable[[Tensor], tuple]


def _between(uniform: Tensor, low: float, high: float) -> Tensor:
    return low + (high - low) * uniform


def _integer(uniform: Tensor, low: int, high: int) -> Tensor:
    """low..high, both included."""
    return (low + (high - low + 1) * uniform).floor().clamp(max=high)


# Ranges: those of the authors' data_loader.py and imgaug's defaults; order: that of the specification.
OPERATIONS: dict[str, Operation] = {
    "gamma": Operation(gamma, lambda u: (_between(u[:, :3], 0.5, 2),)),
    "brightness": Operation(
        brightness,
        lambda u: (
            _between(u[:, 0], 0.8, 1.2),
            _between(u[:, 1], -30, 30).round(),
            _integer(u[:, 2], 0, 5),
            u[:, 3] < 0.5,
        ),
    ),
    "sharpness": Operation(sharpen, lambda u: (_between(u[:, 0], 0, 2),)),
    "hue and saturation": Operation(
        hue_and_saturation, lambda u: (_integer(u[:, 0], -50, 50), _integer(u[:, 1], -50, 50))
    ),
    "solarize": Operation(solarize, lambda u: (torch.where(u[:, 1] < 0.5, _between(u[:, 0], 32, 128), 256.0),)),
    "posterize": Operation(posterize, lambda u: (_integer(u[:, 0], 1, 8),)),
    "invert": Operation(invert, lambda u: ()),
    "autocontrast": Operation(autocontrast, lambda u: (_integer(u[:, 0], 0, 20),)),
    "equalize": Operation(equalize, lambda u: ()),
    "rotation": Operation(rotate_texture, lambda u: (_between(u[:, 0], -45, 45),)),
}
SETS: dict[str, tuple[str, ...]] = {
    "code": tuple(OPERATIONS),
    "paper": tuple(name for name in OPERATIONS if name not in ("gamma", "invert", "rotation")),
    "none": (),
}


def vary(textures: Tensor, order: Tensor, uniform: Tensor, names: tuple[str, ...]) -> Tensor:
    """Apply to each texture its own operations, one after the other; each operation runs once per round on its group.

    textures: uint8 [n,3,H,W]; order: int [n,rounds] on the host, numbers into `names`, distinct in a row;
    uniform: [n,len(names),4] in 0..1 on the host, from which the operations draw their parameters.
    """

    def apply(number: int, group: Tensor, rows: Tensor) -> Tensor:
        operation = OPERATIONS[names[number]]
        return operation.apply(group, *operation.parameters(uniform[rows, number]))

    for numbers in order.unbind(1):
        textures = _by_group(textures, numbers, apply)
    return textures
