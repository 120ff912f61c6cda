"""Losses and distances that several papers share: structural similarity, focal loss, gradients, colour.

Images are [B,C,H,W]. Half precision is computed in float32 (call them outside autocast): the variances of SSIM cancel
and the focal loss' smoothing vanishes otherwise.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from adlib.common.errors import UserError


def full_precision(x: Tensor) -> Tensor:
    """The tensor as float32; float64 stays."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def guessed_range(x: Tensor) -> Tensor:
    """L as the authors of DRAEM guess it from an image: 255 or 1, one more where values lie below -0.5. Scalar."""
    top = torch.where(x.max() > 128, 255.0, 1.0)
    return top + torch.where(x.min() < -0.5, 1.0, 0.0)


def ssim(
    x: Tensor,
    y: Tensor,
    window: int = 11,
    sigma: float = 1.5,
    data_range: float | str = 1.0,
    padding: str = "zero",
    reduction: str = "mean",
) -> Tensor:
    """Structural similarity of images [B,C,H,W] under a Gaussian window (Wang et al. 2004), per channel.

    reduction "mean": the loss 1 - mean(SSIM), a scalar, 0 for equal images; "none": the similarity map, 1 where equal.
    window is the side in pixels, odd; sigma in pixels; data_range L = span of the values, "auto": guessed from x.
    padding: "zero" and "reflect" give a map [B,C,H,W], "valid" [B,C,H-window+1,W-window+1]. Variances are E[x^2] - mu^2
    (population), C1 = (0.01 L)^2, C2 = (0.03 L)^2. Source: specs/draem.md, section 3. Raises UserError.
    """
    _check_ssim(x, y, window, padding, reduction)
    x, y = full_precision(x), full_precision(y)
    span = guessed_range(x.detach()) if data_range == "auto" else data_range
    c1, c2 = (0.01 * span) ** 2, (0.03 * span) ** 2
    planes = _windowed(torch.stack((x, y, x * x, y * y, x * y)), window, sigma, padding)
    mx, my, xx, yy, xy = planes
    contrast = (2 * (xy - mx * my) + c2) / (xx - mx**2 + yy - my**2 + c2)
    similarity = (2 * mx * my + c1) / (mx**2 + my**2 + c1) * contrast
    return similarity if reduction == "none" else 1 - similarity.mean()


def global_ssim(x: Tensor, y: Tensor, data_range: float = 1.0) -> Tensor:
    """1 - structural similarity from the statistics of whole images [B,C,H,W], a scalar, 0 for equal ones.

    Per channel, then the mean over channels and images: luminance (2 mx my + C1) / (mx^2 + my^2 + C1) times
    (2 sxy + C2) / (sx^2 + sy^2 + C2), which is contrast times structure for C3 = C2 / 2: no root, so a finite gradient
    at sx = 0. Variances and covariance are divided by N - 1; C1 = (0.01 L)^2, C2 = (0.03 L)^2. Source: paper 01, eqs.
    (5) to (11) with all exponents 1; it defines neither the covariance nor the constants. Raises UserError.
    """
    if x.shape != y.shape or x.ndim != 4:
        raise UserError(f"ssim compares images of shape [B,C,H,W], not {list(x.shape)} with {list(y.shape)}")
    x, y = (full_precision(each).flatten(2) for each in (x, y))
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    mx, my = x.mean(2, keepdim=True), y.mean(2, keepdim=True)
    dx, dy, free = x - mx, y - my, max(1, x.shape[2] - 1)
    xx, yy, xy = (product.sum(2) / free for product in (dx * dx, dy * dy, dx * dy))
    mx, my = mx[..., 0], my[..., 0]
    luminance = (2 * mx * my + c1) / (mx**2 + my**2 + c1)
    return 1 - (luminance * (2 * xy + c2) / (xx + yy + c2)).mean()


def _check_ssim(x: Tensor, y: Tensor, window: int, padding: str, reduction: str) -> None:
    if x.shape != y.shape or x.ndim != 4:
        raise UserError(f"ssim compares images of shape [B,C,H,W], not {list(x.shape)} with {list(y.shape)}")
    if window < 1 or window % 2 == 0:
        raise UserError(f"the window of ssim is {window} pixels; it must be odd: 3, 5, ..., 11")
    if padding not in ("zero", "reflect", "valid"):
        raise UserError(f"the padding of ssim is {padding!r}; valid: zero, reflect, valid")
    if reduction not in ("mean", "none"):
        raise UserError(f"the reduction of ssim is {reduction!r}; valid: mean, none")
    if padding == "valid" and window > min(x.shape[-2:]):
        raise UserError(f"the window of ssim is {window} pixels, more than the image's {list(x.shape[-2:])}")


def _windowed(planes: Tensor, window: int, sigma: float, padding: str) -> Tensor:
    """Gaussian means of [...,H,W], rows and columns one after the other; the window sums to 1."""
    at = torch.arange(window, device=planes.device, dtype=planes.dtype) - window // 2
    kernel = torch.exp(-0.5 * (at / sigma) ** 2)
    kernel = kernel / kernel.sum()
    flat, pad = planes.flatten(0, -3)[:, None], window // 2  # [n, 1, H, W]
    if padding != "valid":
        flat = F.pad(flat, (pad,) * 4, mode="constant" if padding == "zero" else "reflect")
    flat = F.conv2d(F.conv2d(flat, kernel[None, None, :, None]), kernel[None, None, None, :])
    return flat[:, 0].unflatten(0, planes.shape[:-2])


def focal(probabilities: Tensor, target: Tensor, gamma: float = 2.0, smooth: float = 1e-5) -> Tensor:
    """Focal loss (Lin et al. 2017) on softmax probabilities [B,K,H,W], all classes weighted alike; a scalar >= 0.

    target: [B,1,H,W] or [B,H,W], class numbers (0 normal, 1 anomalous). The mean over all pixels of -(1 - q)^gamma ln q
    with q = (1 - s) p + s (1 - p) / (K - 1) + s, p the true class' probability, s = smooth: a pixel costs at most
    -ln 2s where K = 2. Source: specs/draem.md, section 3. Raises UserError.
    """
    target = target if target.ndim == probabilities.ndim else target[:, None]
    count = probabilities.shape[1]
    if count < 2 or target.shape != probabilities[:, :1].shape:
        raise UserError(
            f"focal takes probabilities [B,K,H,W], K >= 2, and a target [B,1,H,W] of class numbers,"
            f" not {list(probabilities.shape)} and {list(target.shape)}"
        )
    p = full_precision(probabilities).gather(1, target.long())
    q = (1 - smooth) * p + smooth / (count - 1) * (1 - p) + smooth
    return -((1 - q).clamp(min=0) ** gamma * q.log()).mean()


GRADIENT_C = 0.0026  # c of gradient magnitude similarity, for values in 0..1
ROOT = 1e-12  # under the root: a finite gradient where an image is constant
RGB_TO_XYZ = ((0.412453, 0.357580, 0.180423), (0.212671, 0.715160, 0.072169), (0.019334, 0.119193, 0.950227))
WHITE = (0.950456, 1.0, 1.088754)  # Xn, Yn, Zn: D65, as in OpenCV


def gradient_similarity(x: Tensor, y: Tensor, scales: int = 4) -> Tensor:
    """Multi-scale gradient magnitude similarity of images [B,C,H,W] in 0..1 -> map [B,1,H,W], 1 where equal.

    At each scale (2 g g' + c) / (g^2 + g'^2 + c) of the Prewitt gradients' magnitudes, a third each, zeros beyond the
    border; halved by 2 x 2 means from scale to scale; brought to full size and averaged over scales and channels. A
    constant image gives no NaN. Source: RIAD (taikiinoue45/RIAD, criterions/msgms.py), which EdgRec takes over; the
    loss of both is the mean of 1 - map. Raises UserError for shapes that differ or images too small for the scales.
    """
    if x.shape != y.shape or x.ndim != 4:
        raise UserError(f"gradient_similarity compares images [B,C,H,W], not {list(x.shape)} with {list(y.shape)}")
    if scales < 1 or min(x.shape[-2:]) < 2 ** (scales - 1):
        raise UserError(f"{scales} scales of images of {list(x.shape[-2:])} pixels; the last needs at least one pixel")
    size, total = x.shape[-2:], 0.0
    both = torch.stack((full_precision(x), full_precision(y))).flatten(1, 2)[:, :, None]  # [2, B*C, 1, H, W]
    for scale in range(scales):
        if scale:
            both = F.avg_pool2d(both.flatten(0, 1), 2).unflatten(0, both.shape[:2])
        g, h = _gradient(both.flatten(0, 1)).unflatten(0, both.shape[:2])
        similarity = (2 * g * h + GRADIENT_C) / (g.square() + h.square() + GRADIENT_C + ROOT)
        total = total + F.interpolate(similarity, size=size, mode="bilinear", align_corners=False)
    return (total / scales)[:, 0].unflatten(0, x.shape[:2]).mean(1, keepdim=True)


def _gradient(planes: Tensor) -> Tensor:
    """Magnitude of the Prewitt gradient of planes [n,1,h,w]."""
    across = planes.new_tensor([[1.0, 0.0, -1.0]] * 3) / 3
    found = F.conv2d(planes, torch.stack((across, across.T))[:, None], padding=1)
    return (found.square().sum(1, keepdim=True) + ROOT).sqrt()


def cielab(rgb: Tensor) -> Tensor:
    """RGB [B,3,H,W] in 0..1 -> CIELAB in float: L in 0..100, a and b about -128..127.

    sRGB is made linear first, which paper 02 leaves out of its eq. (8) though its "OpenCV default" does it; then eqs.
    (8) to (12) with the white point D65. Raises UserError for other shapes.
    """
    if rgb.ndim != 4 or rgb.shape[1] != 3:
        raise UserError(f"cielab takes colour images [B,3,H,W] in 0..1, not {list(rgb.shape)}")
    rgb = full_precision(rgb)
    linear = torch.where(rgb > 0.04045, ((rgb + 0.055) / 1.055).clamp(min=ROOT) ** 2.4, rgb / 12.92)
    weights = rgb.new_tensor(RGB_TO_XYZ) / rgb.new_tensor(WHITE)[:, None]
    x, y, z = torch.einsum("ij,bjhw->ibhw", weights, linear)
    fx, fy, fz = (_lab_curve(each) for each in (x, y, z))
    return torch.stack((116 * fy - 16, 500 * (fx - fy), 200 * (fy - fz)), 1)


def _lab_curve(t: Tensor) -> Tensor:
    """Eq. (12) of paper 02: the cube root, a line near black."""
    edge = (6 / 29) ** 3
    return torch.where(t > edge, t.clamp(min=edge) ** (1 / 3), 841 / 108 * t + 4 / 29)
