"""Building blocks that several papers share."""

import torch
import torch.nn.functional as F
from torch import Tensor

from adlib.common.errors import UserError, check_names

CORNERS = ("aligned", "half_pixel")


def gaussian_blur(maps: Tensor, sigma: float, truncate: float = 4.0) -> Tensor:
    """Smooth maps [B,h,w] as `scipy.ndimage.gaussian_filter(mode="reflect")` does, on the maps' device -> [B,h,w].

    sigma in pixels; the kernel reaches round(truncate * sigma) pixels; borders repeat the edge pixel (half-sample
    symmetric), which torch's own "reflect" padding does not. sigma 0 returns the input.
    """
    if sigma == 0:
        return maps
    radius = int(truncate * sigma + 0.5)
    x = torch.arange(-radius, radius + 1, device=maps.device, dtype=maps.dtype)
    kernel = torch.exp(-0.5 * (x / sigma) ** 2)
    kernel = kernel / kernel.sum()
    out = _symmetric(maps[:, None], radius, dim=-2)
    out = F.conv2d(out, kernel[None, None, :, None])
    out = _symmetric(out, radius, dim=-1)
    return F.conv2d(out, kernel[None, None, None, :])[:, 0]


def _symmetric(x: Tensor, pad: int, dim: int) -> Tensor:
    """Pad by mirroring with the edge repeated, periodically, so that the pad may exceed the length."""
    n = x.shape[dim]
    index = torch.arange(-pad, n + pad, device=x.device) % (2 * n)
    return x.index_select(dim, torch.where(index < n, index, 2 * n - 1 - index))


def upsample(x: Tensor, factor: int, corners: str) -> Tensor:
    """Bilinear interpolation [B,C,h,w] -> [B,C,factor*h,factor*w], differentiable; the type and channels_last are kept.

    corners: "aligned" puts the outermost pixels' centres on each other (align_corners=True), "half_pixel" the outermost
    pixels' edges (align_corners=False). The weights are float32 also for half precision and under autocast. On a GPU
    with deterministic algorithms the result comes out as channels_last. UserError: unknown corners, a factor below 1.
    """
    check_names("corners", [corners], CORNERS)
    if factor < 1:
        raise UserError(f"the factor of upsample is {factor}; it must be a whole number from 1: 2, 4")
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    if x.is_cuda and torch.are_deterministic_algorithms_enabled():
        # there torch puts the deterministic gradient together from slow indexing
        return _by_matrices(wide, factor, corners).to(x.dtype)
    aligned = corners == "aligned"
    return F.interpolate(wide, scale_factor=factor, mode="bilinear", align_corners=aligned).to(x.dtype)


def _by_matrices(x: Tensor, factor: int, corners: str) -> Tensor:
    """The same as two matrix products, whose gradients are deterministic on a GPU; made for channels_last."""
    rows, columns = (_hat(n, factor, corners, x.device).to(x.dtype) for n in x.shape[-2:])
    with torch.autocast(x.device.type, enabled=False):  # it would round the weights
        x = columns @ x.permute(0, 2, 3, 1)  # [B, h, factor*w, C]
        x = rows @ x.flatten(2)  # [B, factor*h, factor*w*C]
    return x.unflatten(2, (len(columns), -1)).permute(0, 3, 1, 2)


def _hat(n: int, factor: int, corners: str, device: torch.device) -> Tensor:
    """float64 [factor*n, n]: weights of n pixels at each of the factor*n places."""
    places = torch.arange(factor * n, device=device, dtype=torch.float64)
    if corners == "aligned":
        places = places * (n - 1) / max(factor * n - 1, 1)
    else:
        places = ((places + 0.5) / factor - 0.5).clamp(0, n - 1)
    distance = (places[:, None] - torch.arange(n, device=device)).abs()
    return (1 - distance).clamp(min=0)
