"""Building blocks that several papers share."""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

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


# Steps of a normalizing flow. Each maps a tuple of tensors [B,C,...], one for each scale, to such a tuple of the same
# shapes and the logarithm of |det of its Jacobian|, one number for each image: forward(x) -> (y, [B]); inverse(y) -> x.

Scales = tuple[Tensor, ...]


def soft_clamp(h: Tensor, alpha: float = 3.0) -> Tensor:
    """c(h) = alpha * 0.636 * atan(h / alpha): logarithm of a coupling's scale, within +-0.999 alpha.

    The constant is 0.636, not 2 / pi, as in marco-rudolph/cs-flow, freia_funcs.py.
    """
    return alpha * 0.636 * torch.atan(h / alpha)


class Permutation(nn.Module):
    """A fixed random order of the channels of each scale, drawn from numpy's RandomState(seed), scale after scale.

    These are the orders of the authors' global seed (marco-rudolph/cs-flow, freia_funcs.py, ParallelPermute).
    """

    def __init__(self, channels: int, scales: int, seed: int):
        super().__init__()
        draw = np.random.RandomState(seed)
        for i in range(scales):
            self.register_buffer(f"order{i}", torch.from_numpy(draw.permutation(channels)))
        self.scales = scales

    def forward(self, x: Scales) -> tuple[Scales, Tensor]:
        y = tuple(each[:, getattr(self, f"order{i}")] for i, each in enumerate(x))
        return y, x[0].new_zeros(len(x[0]))

    def inverse(self, y: Scales) -> Scales:
        return tuple(each[:, getattr(self, f"order{i}").argsort()] for i, each in enumerate(y))


class ActNorm(nn.Module):
    """Each channel scaled and shifted, y = x * exp(log_scale) + bias, learnt (Glow, and FrEIA's ActNorm).

    The first batch in training mode sets the start, once: its output then has mean 0 and deviation 1 (unbiased, over
    images and places). A state that is loaded is not set again. No channel counts as narrower than NARROWEST.
    """

    NARROWEST = 1e-6  # deviation

    def __init__(self, channels: int, scales: int):
        super().__init__()
        self.log_scale = nn.ParameterList([nn.Parameter(torch.zeros(channels)) for _ in range(scales)])
        self.bias = nn.ParameterList([nn.Parameter(torch.zeros(channels)) for _ in range(scales)])
        self.register_buffer("started", torch.tensor(False))

    @torch.no_grad()
    def start(self, x: Scales) -> None:
        """Scale and bias from a batch of at least two values for each channel."""
        for each, log_scale, bias in zip(x, self.log_scale, self.bias, strict=True):
            values = each.to(torch.promote_types(each.dtype, torch.float32)).transpose(0, 1).flatten(1)
            deviation = values.std(1) if values.shape[1] > 1 else torch.ones_like(log_scale)
            log_scale.copy_(-deviation.clamp(min=self.NARROWEST).log())
            bias.copy_(-values.mean(1) * log_scale.exp())
        self.started.fill_(True)

    def forward(self, x: Scales) -> tuple[Scales, Tensor]:
        if self.training and not self.started:
            self.start(x)
        y, logdet = [], x[0].new_zeros(())
        for each, log_scale, bias in zip(x, self.log_scale, self.bias, strict=True):
            wide = (1, -1) + (1,) * (each.ndim - 2)
            y.append(each * log_scale.exp().view(wide) + bias.view(wide))
            logdet = logdet + math.prod(each.shape[2:]) * log_scale.sum()
        return tuple(y), logdet.expand(len(x[0]))

    def inverse(self, y: Scales) -> Scales:
        wide = [(1, -1) + (1,) * (each.ndim - 2) for each in y]
        return tuple(
            (each - bias.view(w)) * (-log_scale).exp().view(w)
            for each, log_scale, bias, w in zip(y, self.log_scale, self.bias, wide, strict=True)
        )


class Coupling(nn.Module):
    """Affine coupling of two halves of the channels, in the order of marco-rudolph/cs-flow, freia_funcs.py.

        a2, b2 = s2(x2)    y1 = exp(c(a2)) * x1 + b2
        a1, b1 = s1(y1)    y2 = exp(c(a1)) * x2 + b1

    c: `soft_clamp`. s1, s2: modules that map a tuple of halves [B,C/2,...] to a tuple [B,C,...], a beside b. logdet:
    the sum of c(a1) and c(a2). The authors clamp y to +-1e6, too; here what is not finite is an error of the system.
    """

    def __init__(self, s1: nn.Module, s2: nn.Module, alpha: float = 3.0):
        super().__init__()
        self.s1, self.s2, self.alpha = s1, s2, alpha

    def forward(self, x: Scales) -> tuple[Scales, Tensor]:
        x1, x2 = zip(*(each.chunk(2, 1) for each in x), strict=True)
        y1, first = self._scaled(x1, self.s2(x2))
        y2, second = self._scaled(x2, self.s1(y1))
        return tuple(torch.cat(both, 1) for both in zip(y1, y2, strict=True)), first + second

    def inverse(self, y: Scales) -> Scales:
        y1, y2 = zip(*(each.chunk(2, 1) for each in y), strict=True)
        x2 = self._unscaled(y2, self.s1(y1))
        x1 = self._unscaled(y1, self.s2(x2))
        return tuple(torch.cat(both, 1) for both in zip(x1, x2, strict=True))

    def _scaled(self, x: Scales, ab: Scales) -> tuple[Scales, Tensor]:
        y, logdet = [], x[0].new_zeros(len(x[0]))
        for each, (a, b) in zip(x, (both.chunk(2, 1) for both in ab), strict=True):
            c = soft_clamp(a, self.alpha)
            y.append(c.exp() * each + b)
            logdet = logdet + c.flatten(1).sum(1)
        return tuple(y), logdet

    def _unscaled(self, y: Scales, ab: Scales) -> Scales:
        halves = (both.chunk(2, 1) for both in ab)
        return tuple((each - b) * (-soft_clamp(a, self.alpha)).exp() for each, (a, b) in zip(y, halves, strict=True))


class Flow(nn.Sequential):
    """Steps one after the other; forward adds up their log-determinants, inverse goes back."""

    def forward(self, x: Scales) -> tuple[Scales, Tensor]:
        total = x[0].new_zeros(len(x[0]))
        for step in self:
            x, logdet = step(x)
            total = total + logdet
        return x, total

    def inverse(self, z: Scales) -> Scales:
        for step in reversed(self):
            z = step.inverse(z)
        return z


class CBAM(nn.Module):
    """Attention over channels, then over places (Woo et al., ECCV 2018; Jongchan/attention-module, MODELS/cbam.py).

    [B,C,h,w] -> the same: x * sigmoid(M(mean) + M(max)), M: C to C // reduction to C; then x * sigmoid(BN(conv7x7)) of
    the two planes largest and mean over the channels. The authors' batch norm has momentum 0.01; here it is 0.1, so
    that the statistics of a short run are its own.
    """

    def __init__(self, channels: int, reduction: int):
        super().__init__()
        self.fc1 = nn.Linear(channels, channels // reduction)
        self.fc2 = nn.Linear(channels // reduction, channels)
        self.spatial = nn.Conv2d(2, 1, 7, padding=3, bias=False)
        self.norm = nn.BatchNorm2d(1)

    def forward(self, x: Tensor) -> Tensor:
        x = x * self.channel_gate(x)[:, :, None, None]
        return x * self.place_gate(x)

    def channel_gate(self, x: Tensor) -> Tensor:
        """[B,C] in 0..1."""
        pooled = torch.stack((x.mean((2, 3)), x.amax((2, 3))))
        return self.fc2(F.relu(self.fc1(pooled))).sum(0).sigmoid()

    def place_gate(self, x: Tensor) -> Tensor:
        """[B,1,h,w] in 0..1."""
        seen = self.spatial(torch.stack((x.amax(1), x.mean(1)), 1))
        if self.training and seen.numel() == 1:  # one image and one place have no statistics of their own
            norm = self.norm
            return F.batch_norm(seen, norm.running_mean, norm.running_var, norm.weight, norm.bias).sigmoid()
        return self.norm(seen).sigmoid()


class SqueezeExcitation(nn.Module):
    """Attention over channels: x * sigmoid(W2 relu(W1 mean(x))), W1: C to C // reduction, no biases.

    Hu et al., CVPR 2018; as in moskomule/senet.pytorch, se_module.py. [B,C,h,w] -> the same.
    """

    def __init__(self, channels: int, reduction: int = 16):
        super().__init__()
        self.fc1 = nn.Linear(channels, max(1, channels // reduction), bias=False)
        self.fc2 = nn.Linear(max(1, channels // reduction), channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.fc2(F.relu(self.fc1(x.mean((2, 3))))).sigmoid()[:, :, None, None]


class CoordinateAttention(nn.Module):
    """Attention along rows and along columns: [B,C,h,w] -> x * a_h * a_w.

    The means over each row and over each column go through one bottleneck (1 x 1 convolution, batch norm, h-swish) of
    max(8, C // reduction) channels, then through one 1 x 1 convolution and a sigmoid each: a_h [B,C,h,1], a_w
    [B,C,1,w]. Hou, Zhou, Feng, CVPR 2021; as in houqb/CoordAttention, coordatt.py.
    """

    NARROWEST = 8  # channels of the bottleneck

    def __init__(self, channels: int, reduction: int = 32):
        super().__init__()
        inner = max(self.NARROWEST, channels // reduction)
        self.conv1, self.norm = nn.Conv2d(channels, inner, 1), nn.BatchNorm2d(inner)
        self.conv_h, self.conv_w = nn.Conv2d(inner, channels, 1), nn.Conv2d(inner, channels, 1)

    def gates(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """a_h [B,C,h,1] and a_w [B,C,1,w], both in 0..1."""
        rows, columns = x.mean(3, keepdim=True), x.mean(2, keepdim=True).mT
        seen = F.hardswish(self.norm(self.conv1(torch.cat((rows, columns), 2))))
        along_h, along_w = seen.split(x.shape[2:], 2)
        return self.conv_h(along_h).sigmoid(), self.conv_w(along_w.mT).sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        a_h, a_w = self.gates(x)
        return x * a_w * a_h
