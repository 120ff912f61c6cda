"""Straight thin lines over pictures: a made-up crack whose place and thickness are known to the pixel."""

from torch import Tensor

from adlib.common.errors import UserError

ENDS = (0.2, 0.8)  # of the picture's side: where a line begins and ends


def thin_line(images: Tensor, first: int, thickness: int, change: float, vertical: bool = False) -> Tensor:
    """Pictures [B,3,H,W] in 0..1 with a line of `thickness` pixels from row `first` on (vertical: from that column on).

    change: added to the grey level, -1..1; below zero the line is dark. Returns new pictures, clipped to 0..1. Raises
    UserError for a line that does not lie inside the picture.
    """
    if vertical:
        return thin_line(images.transpose(-2, -1), first, thickness, change).transpose(-2, -1)
    height, width = images.shape[-2:]
    if thickness < 1 or first < 0 or first + thickness > height:
        raise UserError(
            f"a line of {thickness} pixels from row {first} on does not lie in a picture of {height} rows; "
            f"rows 0 to {height - 1} are there"
        )
    left, right = (round(end * width) for end in ENDS)
    changed = images.clone()
    changed[..., first : first + thickness, left:right] += change
    return changed.clamp(0, 1)
