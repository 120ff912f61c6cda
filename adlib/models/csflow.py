"""CS-Flow. Rudolph, Wehrbein, Rosenhahn, Wandt, WACV 2022 (Fully Convolutional Cross-Scale-Flows for Image-based Defect
Detection); the yardstick of paper 05, which compares ValidFlow with it.

A normalizing flow learns the density of the frozen features of normal pictures at three scales. Each coupling halves
the channels; small convolutional networks that look at all scales predict how the other half is scaled and shifted. A
picture whose features land far from the centre of the normal distribution is anomalous.

Everything follows the authors' code (marco-rudolph/cs-flow, commit 88a13b8: freia_funcs.py, model.py, utils.py,
evaluate.py, config.py); equations are those of papers/validflow. Chosen: the last epoch counts, not the best on the
test set; no clamp of the couplings' output to +-1e6, values that are not finite stop the training instead; the inverse
of a coupling, which in the authors' code takes one shift from the wrong half, is the true one.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adlib.common.errors import UserError
from adlib.layers import CBAM, Coupling, Flow, Permutation, Scales, upsample
from adlib.models import base, multiscale
from adlib.models.base import Scores, adam
from adlib.models.config import MOST_EPOCHS, setting
from adlib.models.multiscale import SCALES, Pyramid

SLOPE = 0.1  # of the leaky ReLU


@dataclass(frozen=True, kw_only=True)
class FlowConfig(multiscale.Config):
    """What CS-Flow and ValidFlow share."""

    kernel: int = setting(3, low=1, high=9)  # places, odd
    clamp: float = setting(3.0, low=0.01, high=100.0)  # alpha of the soft clamp
    learning_rate: float = setting(2e-4, low=0.0, high=10.0)  # Adam
    weight_decay: float = setting(1e-5, low=0.0, high=10.0)  # L2, in the gradient
    batch_size: int = setting(16, low=1, high=4096)  # images

    def __post_init__(self):
        super().__post_init__()
        for name, value in vars(self).items():
            if name.endswith("kernel") and value % 2 == 0:
                raise UserError(f"config field {name!r} is {value}; it must be odd: 1, 3, 5, ...")


@dataclass(frozen=True, kw_only=True)
class Config(FlowConfig):
    """The authors' config.py; each default is its setting. Paper 05 compares with blocks = 6 in its Table 5."""

    blocks: int = setting(4, low=1, high=64)  # couplings
    hidden: int = setting(1024, low=1, high=8192)  # channels between the convolutions of a coupling's networks
    last_kernel: int = setting(5, low=1, high=9)  # places, of the last coupling, odd
    # Adam's; the gradients of a mean over all dimensions are so small that this one slows the training down
    adam_eps: float = setting(1e-4, low=0.0, high=1.0)
    epochs: int | None = setting(240, low=0, high=MOST_EPOCHS)  # 4 x 60 passes


class CrossScale(nn.Module):
    """The network in a coupling, which predicts scale and shift of all scales: tuple [B,C/2,h,w] -> tuple [B,C,h,w].

    h_i = LeakyReLU(conv(x_i)); o_i = conv(h_i) + what comes from the neighbouring scales: the coarser one bilinearly
    enlarged, then convolved; the finer one convolved with stride 2. The output is gamma_i * o_i, with gamma 0 at the
    start: a coupling starts as the identity.

    width: C/2. far: two more branches between the first and the last scale. reduction: of a CBAM before gamma; None:
    no CBAM. Both belong to ValidFlow's r2.
    """

    def __init__(self, width: int, hidden: int, kernel: int = 3, far: bool = False, reduction: int | None = None):
        super().__init__()

        def convolution(inside: int, outside: int, size: int = kernel, stride: int = 1) -> nn.Conv2d:
            return nn.Conv2d(inside, outside, size, stride, padding=size // 2)

        out = 2 * width
        self.hidden = nn.ModuleList([convolution(width, hidden) for _ in range(SCALES)])
        self.out = nn.ModuleList([convolution(hidden, out) for _ in range(SCALES)])
        self.up = nn.ModuleList([convolution(hidden, out) for _ in range(SCALES - 1)])  # from scale i + 1 to i
        self.down = nn.ModuleList([convolution(hidden, out, stride=2) for _ in range(SCALES - 1)])  # from i to i + 1
        self.far_up = convolution(hidden, out) if far else None  # from scale 2 to 0
        self.far_down = convolution(hidden, out, 3, stride=4) if far else None  # from scale 0 to 2
        self.cbam = nn.ModuleList([CBAM(out, reduction) if reduction else nn.Identity() for _ in range(SCALES)])
        self.gamma = nn.ParameterList([nn.Parameter(torch.zeros(())) for _ in range(SCALES)])

    def forward(self, x: Scales) -> Scales:
        h = [F.leaky_relu(conv(each), SLOPE) for conv, each in zip(self.hidden, x, strict=True)]
        o = [conv(each) for conv, each in zip(self.out, h, strict=True)]
        for i, (up, down) in enumerate(zip(self.up, self.down, strict=True)):
            o[i] = o[i] + up(upsample(h[i + 1], 2, "half_pixel"))
            o[i + 1] = o[i + 1] + down(h[i])
        if self.far_up is not None:
            o[0] = o[0] + self.far_up(upsample(h[2], 4, "half_pixel"))
            o[2] = o[2] + self.far_down(h[0])
        return tuple(g * cbam(each) for g, cbam, each in zip(self.gamma, self.cbam, o, strict=True))


def negative_log_likelihood(z: Scales, logdet: Tensor) -> Tensor:
    """Eq. (3) of each image, without its constant D/2 log(2 pi): half the squared length of z minus logdet -> [B]."""
    return 0.5 * sum(each.square().flatten(1).sum(1) for each in z) - logdet


def dimensions(z: Scales) -> int:
    """Numbers that describe one image, over all scales: D."""
    return sum(each[0].numel() for each in z)


def transformed(flow: Flow, x: Scales, step: int) -> tuple[Scales, Tensor]:
    """z and logdet of a training step. Raises UserError that names the step and the first layer that is not finite."""
    z, logdet = flow(x)
    if _finite(z, logdet):
        return z, logdet
    with torch.no_grad():
        culprit = "the features" if not _finite(x) else _first_broken(flow, x)
    raise UserError(f"step {step}: {culprit} are not finite; lower learning_rate or clamp, or check the images")


def _first_broken(flow: Flow, x: Scales) -> str:
    """The first layer whose output is not finite, in words."""
    for i, layer in enumerate(flow):
        x, logdet = layer(x)
        if not _finite(x, logdet):
            return f"values of layer flow.{i} ({type(layer).__name__})"
    return "values"


def _finite(x: Scales, *more: Tensor) -> bool:
    return all(bool(torch.isfinite(each).all()) for each in (*x, *more))


class CSFlow(base.Detector):
    """Features at three scales -> couplings -> z. Image score: mean of z^2 / 2 over all dimensions of all scales; map:
    mean of z^2 over the channels of the finest scale.
    """

    Config = Config
    clip_norm = 1.0
    embedding_dtype = "float16"

    def __init__(self, config: Config, backbone: nn.Module | None = None):
        super().__init__(config)
        self.backbone = backbone or Pyramid(config.backbone, config.layer, config.pretrained, config.pyramid)
        channels = self.backbone.channels[0]
        if channels % 2:
            raise UserError(
                f"layer {config.layer!r} of {config.backbone} has {channels} channels; halves need an even number"
            )
        self.flow = Flow(*self.steps(channels))
        self.register_buffer("done", torch.zeros((), dtype=torch.int64))  # training steps, for error messages
        self.register_load_state_dict_post_hook(check_loaded)

    def steps(self, channels: int) -> Iterable[nn.Module]:
        """The flow's steps in order: a permutation before each coupling."""
        c = self.config
        for k in range(c.blocks):
            kernel = c.last_kernel if k == c.blocks - 1 else c.kernel
            yield Permutation(channels, SCALES, seed=k)
            yield Coupling(*(CrossScale(channels // 2, c.hidden, kernel) for _ in range(2)), c.clamp)

    @property
    def protocol(self) -> dict:
        return {"image_score": "mean of z^2/2 over all dimensions", "smoothing": "none"}

    def optimizers(self, steps_per_epoch: int, total_steps: int) -> list[tuple]:
        c = self.config
        return [(adam(self.flow.parameters(), lr=c.learning_rate, eps=c.adam_eps, weight_decay=c.weight_decay), None)]

    def loss(self, batch: Scales, generator: torch.Generator) -> dict[str, Tensor]:
        """Mean of eq. (3) over images and dimensions (cs-flow utils.py, get_loss); may be negative."""
        self.done += 1
        z, logdet = transformed(self.flow, batch, int(self.done))
        nll = negative_log_likelihood(z, logdet) / dimensions(z)
        return {"total": nll.mean(), "logdet": (logdet / dimensions(z)).mean()}

    def pool(self, cells: Tensor, valid: Tensor | None = None) -> Tensor:
        """Their mean, of the valid ones."""
        if valid is None:
            return cells.flatten(1).mean(1)
        return cells.where(valid, 0).flatten(1).sum(1) / valid.flatten(1).sum(1)

    def score(self, embeddings: Scales) -> Scores:
        z, _ = self.flow(embeddings)
        cells = 0
        for each in z:  # a coarse place is shared by the fine ones that it covers: the mean is that of all numbers
            times = z[0].shape[-1] // each.shape[-1]
            energy = 0.5 * each.square().sum(1) / times**2
            cells = cells + energy.repeat_interleave(times, 1).repeat_interleave(times, 2)
        cells = cells * math.prod(z[0].shape[-2:]) / dimensions(z)
        return Scores(self.pool(cells), z[0].square().mean(1), cells)


def check_loaded(module: nn.Module, _) -> None:
    """Stored weights that are not finite would score everything alike."""
    for name, value in module.flow.state_dict().items():
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise UserError(f"stored weights of flow.{name} are not finite; train this run again")
