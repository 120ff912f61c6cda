"""Reverse distillation, RD4AD. Deng, Li, CVPR 2022 (Anomaly Detection via Reverse Distillation from One-Class
Embedding); a baseline of paper 03, one model per category.

A pretrained network, the teacher, is frozen. Its maps are squeezed through a bottleneck, from which a decoder, the
student, rebuilds them level by level. Of a defect too little passes the bottleneck: the rebuilt maps point elsewhere.

Source: hq-deng/RD4AD (resnet.py: bottleneck; de_resnet.py: decoder; main.py: loss, optimiser; test.py: map). The paper
averages 1 - cosine over places; the code, which counts here, takes the cosine of whole maps. Left out: the bottleneck's
fourth convolution, which the code builds and never uses. Chosen: the last epoch counts.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck

from adlib.backbones import Features
from adlib.common.errors import UserError
from adlib.layers import gaussian_blur
from adlib.losses import full_precision
from adlib.models import base
from adlib.models.base import Scores, adam
from adlib.models.config import LARGEST_BATCH, LARGEST_SIDE, MOST_EPOCHS, setting

# kind of block, how many in bottleneck and decoder, base width: for teachers of 64, 128, 256 channels; for wide ones
SMALL = (BasicBlock, 2, (2, 2, 2), 64)
WIDE = (Bottleneck, 3, (3, 4, 6), 128)
BETAS = (0.5, 0.999)


@dataclass(frozen=True, kw_only=True)
class Config(base.Config):
    """The authors' setting."""

    image_size: int = setting(256, low=32, high=LARGEST_SIDE)  # pixels per side, a multiple of 32
    backbone: str = "wide_resnet50_2.tv_in1k"  # the teacher, a timm name: a ResNet
    pretrained: bool = True  # false: a random teacher, a control
    learning_rate: float = setting(5e-3, low=0.0, high=10.0)  # Adam
    batch_size: int = setting(16, low=1, high=LARGEST_BATCH)
    epochs: int | None = setting(200, low=0, high=MOST_EPOCHS)
    combine: str = setting("sum", choices=("sum", "product"))  # of the three scales' maps
    smooth: float = setting(4.0, low=0.0, high=64.0)  # pixels, of the map

    def __post_init__(self):
        super().__post_init__()
        if self.image_size % 32:
            near = 32 * max(1, self.image_size // 32)
            raise UserError(f"image_size {self.image_size} is not a multiple of 32; use {near} or {near + 32}")


def _down(a: int, b: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(a, b, 3, 2, 1, bias=False), nn.BatchNorm2d(b), nn.ReLU(inplace=True))


class OneClassEmbedding(nn.Module):
    """The bottleneck: maps of strides 4, 8, 16 with C, 2 C, 4 C channels -> [B, 8 C, h, w] at stride 32."""

    def __init__(self, channels: int, block: type = BasicBlock, count: int = 2, base_width: int = 64):
        super().__init__()
        c, e = channels, block.expansion
        self.first = nn.Sequential(_down(c, 2 * c), _down(2 * c, 4 * c))
        self.second = _down(2 * c, 4 * c)
        planes, inside = 8 * c // e, 12 * c
        shortcut = nn.Sequential(nn.Conv2d(inside, 8 * c, 1, 2, bias=False), nn.BatchNorm2d(8 * c))
        blocks = [block(inside, planes, 2, shortcut, base_width=base_width)]
        self.layer = nn.Sequential(*blocks, *(block(8 * c, planes, base_width=base_width) for _ in range(count - 1)))

    def forward(self, maps: tuple[Tensor, ...]) -> Tensor:
        return self.layer(torch.cat([self.first(maps[0]), self.second(maps[1]), maps[2]], 1))


class Decoder(nn.Module):
    """[B, 8 C, h, w] at stride 32 -> the teacher's three maps, rebuilt, finest first."""

    def __init__(self, channels: int, block: type = BasicBlock, counts: tuple = (2, 2, 2), base_width: int = 64):
        super().__init__()
        sizes = [(8, 4), (4, 2), (2, 1)]
        self.layers = nn.ModuleList(
            [
                _up(block, a * channels, b * channels, count, base_width)
                for (a, b), count in zip(sizes, counts, strict=True)
            ]
        )

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        found = []
        for layer in self.layers:
            x = layer(x)
            found.append(x)
        return tuple(found[::-1])


def _up(block: type, a: int, b: int, count: int, base_width: int) -> nn.Sequential:
    """A residual layer whose first block doubles the side: a transposed 2 x 2 convolution replaces the 3 x 3 one."""
    planes = b // block.expansion
    shortcut = nn.Sequential(nn.ConvTranspose2d(a, b, 2, 2, bias=False), nn.BatchNorm2d(b))
    first = block(a, planes, 1, shortcut, base_width=base_width)
    name = "conv1" if block is BasicBlock else "conv2"
    old = getattr(first, name)
    setattr(first, name, nn.ConvTranspose2d(old.in_channels, old.out_channels, 2, 2, bias=False))
    return nn.Sequential(first, *(block(b, planes, base_width=base_width) for _ in range(count - 1)))


def start(module: nn.Module) -> None:
    """The authors' start of convolutions; transposed ones keep torch's."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def distance(teacher: tuple[Tensor, ...], student: tuple[Tensor, ...]) -> Tensor:
    """1 - cosine of the flattened maps [B,C,h,w], summed over the scales, mean over the pictures: a scalar."""
    pairs = [tuple(full_precision(each).flatten(1) for each in pair) for pair in zip(teacher, student, strict=True)]
    return sum(1 - F.cosine_similarity(a, b).mean() for a, b in pairs)


def anomaly_map(
    teacher: tuple[Tensor, ...], student: tuple[Tensor, ...], size: tuple[int, int], combine: str = "sum"
) -> Tensor:
    """1 - cosine over the channels at every place, each scale enlarged to `size`, sum or product: [B,H,W]."""
    total = None
    for a, b in zip(teacher, student, strict=True):
        far = 1 - F.cosine_similarity(full_precision(a), full_precision(b))
        each = F.interpolate(far[:, None], size=size, mode="bilinear", align_corners=True)[:, 0]
        total = each if total is None else total + each if combine == "sum" else total * each
    return total


class ReverseDistillation(base.Detector):
    """The teacher's maps -> bottleneck -> student's maps; image score: maximum of the smoothed map."""

    Config = Config
    embedding_dtype = "float16"
    channels_last = True
    alone = "RD4AD is published as one model per category"

    def __init__(self, config: Config):
        super().__init__(config)
        self.backbone = Features(config.backbone, (1, 2, 3), config.pretrained)
        channels = self.backbone.channels
        if self.backbone.strides != (4, 8, 16) or channels not in ((64, 128, 256), (256, 512, 1024)):
            raise UserError(
                f"backbone {config.backbone} has {list(channels)} channels at strides {list(self.backbone.strides)}; "
                "reverse distillation mirrors a ResNet: 64, 128, 256 or 256, 512, 1024 channels at strides 4, 8, 16"
            )
        block, count, counts, width = SMALL if channels[0] == 64 else WIDE
        width = width if "wide" in config.backbone else 64
        self.bottleneck = OneClassEmbedding(channels[0], block, count, width)
        self.decoder = Decoder(channels[0], block, counts, width)
        self.bottleneck.apply(start)
        self.decoder.apply(start)

    @property
    def protocol(self) -> dict:
        return {"image_score": "max", "smoothing": f"Gaussian, {self.config.smooth:g} pixels"}

    def optimizers(self, steps_per_epoch: int, total_steps: int) -> list[tuple]:
        learnt = (p for p in self.parameters() if p.requires_grad)
        return [(adam(learnt, lr=self.config.learning_rate, betas=BETAS), None)]

    def loss(self, batch: tuple[Tensor, ...], generator: torch.Generator) -> dict[str, Tensor]:
        return {"total": distance(batch, self.decoder(self.bottleneck(batch)))}

    def score(self, embeddings: tuple[Tensor, ...]) -> Scores:
        size = tuple(4 * side for side in embeddings[0].shape[-2:])
        found = anomaly_map(embeddings, self.decoder(self.bottleneck(embeddings)), size, self.config.combine)
        maps = gaussian_blur(found, self.config.smooth)
        return Scores(self.pool(maps), maps)
