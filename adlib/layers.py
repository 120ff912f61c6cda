"""Building blocks that several papers share."""

import torch
import torch.nn.functional as F
from torch import Tensor


def gaussian_blur(maps: Tensor, sigma: float, truncate: float = 4.0) -> Tensor:
    """Smooth maps [B,h,w] as `scipy.ndimage.gaussian_filter(mode="reflect")` does, on the maps' device.

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
