"""Cut-paste: a large piece of each picture, turned, pasted elsewhere in it; on the pictures' device."""

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

SHARE = (0.8, 0.9)  # of the side: how long the piece is before the picture's border cuts it
TURNS = (-6, 5)  # whole radians, both ends included


def cut_paste(images: Tensor, generator: torch.Generator) -> Tensor:
    """Images [B,3,H,W] in 0..1 -> the same with a piece of themselves pasted in.

    The piece begins anywhere, is 0.8 to 0.9 of the side long and ends at the border; it is turned about its top left
    corner by a whole number of radians, what it leaves uncovered is black, and lies at least one pixel inside the
    picture. Everything random comes from the generator. Source: liutongkun/EdgRec, CutpasteAugment.py, whose rule for
    odd lengths is left out.
    """
    count, _, height, width = images.shape
    u = torch.rand(count, 7, generator=generator, device=generator.device).to(images.device)
    top, left = (_whole(u[:, i], 0, side - 1) for i, side in ((0, height), (1, width)))
    tall = torch.minimum(_length(u[:, 2], height), height - top)
    wide = torch.minimum(_length(u[:, 3], width), width - left)
    row, column = _whole(u[:, 4], 1, height - tall - 2), _whole(u[:, 5], 1, width - wide - 2)
    angle = _whole(u[:, 6], *TURNS)
    per_image = lambda values: values.view(-1, 1, 1)
    y = torch.arange(height, device=images.device).view(1, -1, 1) - per_image(row)  # inside the piece from 0 on
    x = torch.arange(width, device=images.device).view(1, 1, -1) - per_image(column)
    inside = (y >= 0) & (x >= 0) & (y < per_image(tall)) & (x < per_image(wide))
    cos, sin = per_image(angle.cos()), per_image(angle.sin())
    down, across = cos * y - sin * x, cos * x + sin * y  # where each pixel of the turned piece comes from
    covered = (down >= 0) & (across >= 0) & (down <= per_image(tall) - 1) & (across <= per_image(wide) - 1)
    places = torch.stack(
        (2 * (across + per_image(left)) / (width - 1) - 1, 2 * (down + per_image(top)) / (height - 1) - 1), -1
    )
    piece = grid_sample(images, places, align_corners=True) * covered[:, None]
    return torch.where(inside[:, None], piece, images)


def _whole(uniform: Tensor, low: Tensor | int, high: Tensor | int) -> Tensor:
    """low..high as whole numbers, both included."""
    return (low + (high - low + 1) * uniform).floor().clamp(min=low).minimum(torch.as_tensor(high).to(uniform))


def _length(uniform: Tensor, side: int) -> Tensor:
    low, high = (round(share * side) for share in SHARE)
    return _whole(uniform, low, high - 1)
