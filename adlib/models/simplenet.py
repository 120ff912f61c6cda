"""SimpleNet. Liu, Zhou, Xu, Wang, CVPR 2023 (A Simple Network for Image Anomaly Detection and Localization).

The reproduced text is a report on it (papers/simplenet_report). A frozen ImageNet network gives local features; a
linear adapter moves them into the target domain; Gaussian noise added to them serves as anomalies, from which a small
discriminator learns to tell the normal features. At test the noise is absent and the negated output of the
discriminator is the anomaly score.

Equations of the report: (1) backbones.Features, (2)-(4) `local_features`, (5) `Adapter`, (6) `SimpleNet.noise_scale`
and the noise in `loss`, (7) and (8) `truncated_l1`, (9) `SimpleNet.score`.

Inferred from the authors' code
(DonaldRR/SimpleNet, commit 351a2b8), where the report is silent: all widths, optimisers, sigma, number of epochs,
initialisation, smoothing. Mended: the sign in eq. (7), see `truncated_l1`. Chosen: the last epoch counts, not the best
on the test set; cross-entropy as softplus on logits; the smoothing grows with the image (4 pixels at 288).
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adlib import images
from adlib.backbones import Features
from adlib.common.errors import UserError
from adlib.layers import gaussian_blur
from adlib.models import base
from adlib.models.base import Scores, adam
from adlib.models.config import LARGEST_SIDE, MOST_EPOCHS, setting

LEARNT = 0.95  # share of the loss of knowing nothing, below which something was learnt


@dataclass(frozen=True, kw_only=True)
class Config(base.Config):
    """The authors' run.sh; each default is the paper's setting."""

    image_size: int = setting(288, low=32, high=LARGEST_SIDE)  # pixels, centre crop
    resize_mode: str = setting("short_crop", choices=images.RESIZE_MODES)
    resize: int | None = setting(329, low=32, high=LARGEST_SIDE)  # pixels of the shorter side before the crop
    backbone: str = "wide_resnet50_2.tv_in1k"  # timm name and weights; torchvision's IMAGENET1K_V1
    pretrained: bool = True  # false: random backbone, a control
    # timm feature indices: layer2 (stride 8), layer3 (stride 16)
    layers: tuple[int, ...] = setting((2, 3), low=0, high=99)
    patch: int = setting(3, low=1, high=9)  # cells of the neighbourhood, eq. (2), odd
    # width of the local features; none: sum of the layers' channels (1536)
    dim: int | None = setting(None, low=1, high=8192)
    hidden: int | None = setting(None, low=1, high=8192)  # width of the discriminator; none: dim // 1.5 (1024)
    adapter_layers: int = setting(1, low=0, high=2)  # linear layers of the adapter; 0: no adapter
    discriminator_layers: int = setting(2, low=1, high=3)  # linear layers of the discriminator
    loss: str = setting("l1", choices=("l1", "ce"))  # truncated L1, eq. (7), or cross-entropy
    margin: float = setting(0.5, low=0.0, high=1e3)  # th+ = -th-, units of the discriminator's output
    noise_std: float = setting(0.015, low=0.0, high=1e3)  # sigma of eq. (6), feature units
    # instead: sigma as a multiple of the embeddings' mean deviation
    noise_relative: float | None = setting(None, low=0.0, high=1e3)
    mix_noise: int = setting(1, low=1, high=64)  # deviations sigma * 1.1^k, k < mix_noise, drawn per row
    adapter_lr: float = setting(1e-4, low=0.0, high=10.0)  # AdamW, decoupled decay 0.01
    discriminator_lr: float = setting(2e-4, low=0.0, high=10.0)  # Adam, L2 decay 1e-5
    epochs: int | None = setting(160, low=0, high=MOST_EPOCHS)  # 40 x 4 passes
    eval_every: int = setting(4, low=0, high=MOST_EPOCHS)  # epochs; the authors' "meta epoch"
    # random rows of the batch per step; none: all (the paper)
    rows_per_step: int | None = setting(None, low=2, high=10_000_000)
    smooth: float = setting(4.0, low=0.0, high=64.0)  # pixels at side 288, scaled with image_size

    def __post_init__(self):
        super().__post_init__()
        if self.patch % 2 == 0:
            raise UserError(f"config field 'patch' is {self.patch}; it must be odd: 1, 3, 5, ...")
        if not self.layers:
            raise UserError("config field 'layers' is empty; name at least one timm feature index, e.g. [2, 3]")
        if list(self.layers) != sorted(set(self.layers)):
            raise UserError(f"config field 'layers' is {list(self.layers)}; name each index once, ascending: [2, 3]")


def local_features(maps: tuple[Tensor, ...], dim: int, pretrain_dim: int, patch: int = 3) -> Tensor:
    """Neighbourhood aggregation, eq. (2)-(4): maps [B,C_l,h_l,w_l] -> [B*h*w, dim], rows ordered (image, y, x).

    Each place's patch x patch window (zeros beyond the border, divided by the full window all the same) is flattened to
    (channel, row, column) and average-pooled to `pretrain_dim` numbers; coarser maps are brought to the first map's
    grid (bilinear); the concatenation is pooled to `dim`. Everything is linear, so pooling may come before up-sampling.
    """
    grid, count = maps[0].shape[-2:], len(maps)
    whole = dim % count == 0 and (count * pretrain_dim) % dim == 0  # no pooling window straddles two layers
    width = dim // count if whole else pretrain_dim
    planes = []
    for x in maps:
        x = _pool_windows(x, pretrain_dim, width, patch)
        planes.append(x if x.shape[-2:] == grid else F.interpolate(x, size=grid, mode="bilinear"))
    rows = torch.cat(planes, 1).permute(0, 2, 3, 1).flatten(0, 2)  # [B*h*w, count * width]
    return rows if whole else F.adaptive_avg_pool1d(rows[:, None], dim)[:, 0]


def _pool_windows(x: Tensor, pretrain_dim: int, width: int, patch: int) -> Tensor:
    """[B,C,h,w] -> [B,width,h,w]: the pooled windows of one layer on its own grid."""
    flat = x.shape[1] * patch * patch
    exact = flat % pretrain_dim == 0 and pretrain_dim % width == 0  # then two poolings are one, of flat / width numbers
    if patch == 3 and exact and (flat // width) % 3 == 0:
        # Whole kernel rows are averaged (true of every ResNet): 3 planes a channel instead of 9.
        rows = F.pad(F.avg_pool2d(x, (1, 3), stride=1, padding=(0, 1)), (0, 0, 1, 1))
        rows = torch.stack((rows[:, :, :-2], rows[:, :, 1:-1], rows[:, :, 2:]), dim=2)  # [B, C, 3, h, w]
        return rows.flatten(1, 2).unflatten(1, (width, -1)).mean(2)
    windows = F.unfold(x, patch, padding=patch // 2).transpose(1, 2)  # [B, h*w, C*p*p]
    windows = F.adaptive_avg_pool1d(F.adaptive_avg_pool1d(windows, pretrain_dim), width)
    return windows.transpose(1, 2).unflatten(2, x.shape[-2:])


class Adapter(nn.Sequential):
    """Linear map of pretrained features into the target domain, eq. (5): [N,dim] -> [N,dim]; 0 layers: identity."""

    def __init__(self, dim: int, layers: int = 1):
        linear = [nn.Linear(dim, dim) for _ in range(layers)]
        super().__init__(*(linear[:1] if layers < 2 else (linear[0], nn.LeakyReLU(0.2), linear[1])))


class Discriminator(nn.Sequential):
    """Multi-layer perceptron of sec. 3.5: [N,dim] -> [N]; high = normal. Its last layer has no bias."""

    def __init__(self, dim: int, hidden: int, layers: int = 2):
        blocks = []
        for _ in range(layers - 1):
            blocks += [nn.Linear(dim, hidden), nn.BatchNorm1d(hidden), nn.LeakyReLU(0.2)]
            dim = hidden
        super().__init__(*blocks, nn.Linear(dim, 1, bias=False))

    def forward(self, rows: Tensor) -> Tensor:
        return super().forward(rows)[:, 0]


def truncated_l1(normal: Tensor, noisy: Tensor, margin: float = 0.5) -> Tensor:
    """Truncated L1 loss, eq. (7) and (8): normal outputs are pushed above `margin`, noisy ones below -margin.

    normal, noisy: [N] outputs of the discriminator. Returns a scalar >= 0. Eq. (7) prints max(0, -th+ + D) for the
    second term, which asks noisy features only to stay below +0.5; with the text's own th- = -0.5 it is max(0, -th- +
    D) = max(0, 0.5 + D), as in the authors' code. Eq. (8) averages over the places; each term over its own rows.
    """
    return F.relu(margin - normal).mean() + F.relu(margin + noisy).mean()


def cross_entropy(normal: Tensor, noisy: Tensor) -> Tensor:
    """The alternative that sec. 3.6 names without a formula: the output as a logit, normal = 1, noisy = 0."""
    return F.softplus(-normal).mean() + F.softplus(noisy).mean()


def localise(grid: Tensor, size: tuple[int, int], sigma: float = 4.0) -> Tensor:
    """Scores of the grid [B,h,w] as a map [B,H,W] of the input's size: bilinear, then Gaussian smoothing (sigma in
    pixels).
    """
    return gaussian_blur(F.interpolate(grid[:, None], size=size, mode="bilinear")[:, 0], sigma)


class SimpleNet(base.Detector):
    """Extractor -> local features -> adapter -> discriminator; the image score is the map's largest cell before
    smoothing. What is cached are the extractor's maps, not the aggregated rows: half the bytes, and the aggregation is
    cheap.
    """

    Config = Config

    def __init__(self, config: Config, backbone: nn.Module | None = None):
        super().__init__(config)
        self.backbone = backbone or Features(config.backbone, config.layers, config.pretrained)
        self.dim = config.dim or sum(self.backbone.channels)
        self.pretrain_dim = sum(self.backbone.channels) if config.dim is None else config.dim
        hidden = config.hidden or int(self.dim // 1.5)
        self.adapter = Adapter(self.dim, config.adapter_layers)
        self.discriminator = Discriminator(self.dim, hidden, config.discriminator_layers)
        for module in (*self.adapter, *self.discriminator):
            if isinstance(module, nn.Linear):
                nn.init.xavier_normal_(module.weight)
        self.register_buffer("noise_std", torch.tensor(config.noise_std))
        self._folded = None
        self.register_load_state_dict_post_hook(lambda module, _: setattr(module, "_folded", None))

    @property
    def protocol(self) -> dict:
        sigma = self.config.smooth * self.config.image_size / 288
        return {"image_score": "max", "smoothing": f"Gaussian, {sigma:g} pixels"}

    def rows(self, maps: tuple[Tensor, ...]) -> Tensor:
        return local_features(maps, self.dim, self.pretrain_dim, self.config.patch)

    @torch.no_grad()
    def prepare(self, embeddings, generator: torch.Generator) -> None:
        """noise_relative: sigma = value * mean over dimensions of the deviation over all training rows."""
        if self.config.noise_relative is None:
            return
        count, total, square = 0, 0.0, 0.0
        for i in range(len(embeddings)):
            rows = self.rows(embeddings.take([i], generator.device)).double()
            count, total, square = count + len(rows), total + rows.sum(0), square + (rows**2).sum(0)
        deviation = ((square / count - (total / count) ** 2).clamp(min=0) * count / (count - 1)).sqrt().mean()
        self.noise_std.fill_(self.config.noise_relative * deviation.item())

    def doubt(self, history) -> str | None:
        """Where the last epoch's loss is still that of a discriminator that answers 0 to everything."""
        nothing = 2 * (self.config.margin if self.config.loss == "l1" else math.log(2))
        if not len(history) or history["total"].iloc[-1] <= LEARNT * nothing:
            return None
        return (
            "the training loss stayed where it is when nothing is learnt, so scores and heat are arbitrary; train "
            "longer, or with stronger noise (noise_relative 0.5 follows the features, the paper's noise_std does not)"
        )

    def noise_scale(self, n: int, generator: torch.Generator) -> Tensor:
        """Deviation of each row's noise, eq. (6): [n,1]; one of mix_noise values, or the same for all."""
        k = torch.randint(self.config.mix_noise, (n, 1), generator=generator, device=generator.device)
        return self.noise_std * 1.1**k

    def loss(self, batch: tuple[Tensor, ...], generator: torch.Generator) -> dict[str, Tensor]:
        rows = self.rows(batch)
        if self.config.rows_per_step and self.config.rows_per_step < len(rows):
            rows = rows[torch.randperm(len(rows), generator=generator, device=rows.device)[: self.config.rows_per_step]]
        adapted = self.adapter(rows)
        noise = torch.randn(adapted.shape, generator=generator, device=adapted.device)
        noisy = adapted + noise * self.noise_scale(len(noise), generator)
        # one batch, so that batch-norm statistics mix normal and noisy rows as in the authors' code
        output = self.discriminator(torch.cat([adapted, noisy]))
        normal, fake = output[: len(adapted)], output[len(adapted) :]
        margin = self.config.margin
        total = truncated_l1(normal, fake, margin) if self.config.loss == "l1" else cross_entropy(normal, fake)
        return {
            "total": total,
            "p_true": (normal.detach() >= margin).float().mean(),
            "p_fake": (fake.detach() < -margin).float().mean(),
        }

    def optimizers(self, steps_per_epoch: int, total_steps: int) -> list[tuple]:
        both = [(adam(self.discriminator.parameters(), lr=self.config.discriminator_lr, weight_decay=1e-5), None)]
        adapter = list(self.adapter.parameters())
        if adapter:
            both.insert(0, (adam(adapter, torch.optim.AdamW, lr=self.config.adapter_lr, weight_decay=0.01), None))
        return both

    def train(self, mode: bool = True):
        self._folded = None
        return super().train(mode)

    def _output(self, rows: Tensor) -> Tensor:
        """D(G(o)); in eval mode G, D's first layer and its batch norm are one affine map, which costs half."""
        if self.training or self.config.adapter_layers > 1 or self.config.discriminator_layers != 2:
            return self.discriminator(self.adapter(rows))
        if self._folded is None:
            linear, norm = self.discriminator[0], self.discriminator[1]
            scale = norm.weight / (norm.running_var + norm.eps).sqrt()
            weight, bias = linear.weight, linear.bias
            if len(self.adapter):
                weight, bias = weight @ self.adapter[0].weight, weight @ self.adapter[0].bias + bias
            self._folded = (scale[:, None] * weight, scale * (bias - norm.running_mean) + norm.bias)
        return self.discriminator[3](F.leaky_relu(F.linear(rows, *self._folded), 0.2))[:, 0]

    def score(self, embeddings: tuple[Tensor, ...]) -> Scores:
        """Eq. (9): -D(q) per cell; image score = largest cell; map = bilinear to the input size, then Gaussian
        smoothing.
        """
        grid = -self._output(self.rows(embeddings)).unflatten(0, (-1, *embeddings[0].shape[-2:]))
        size = self.config.image_size
        return Scores(self.pool(grid), localise(grid, (size, size), self.config.smooth * size / 288), grid)
