"""MKD. Salehi, Sadjadi, Baselizadeh, Rohban, Rabiee, CVPR 2021 (Multiresolution Knowledge Distillation for Anomaly
Detection); a rival of paper 01, one model per category.

A small network, the cloner, learns to copy the activations of a pretrained one, the source, at several depths on normal
pictures. On an anomalous picture the copies differ in length or direction.

Everything follows the authors' code (rohban-lab/Knowledge_Distillation_AD, commit 0c574ae: models/network.py,
loss_functions.py, train.py, test_functions.py, config.yaml). Their source is VGG-16; any timm network serves, whose
features may take both signs, so that the cloner's blocks then end without ReLU. Chosen: the last epoch counts; the map
is not scaled by image, so that maps can be compared; the source's activations are computed once and kept in half
precision.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adlib.backbones import Features
from adlib.common.errors import UserError
from adlib.layers import gaussian_blur
from adlib.losses import full_precision
from adlib.models import base
from adlib.models.base import Scores, adam, mean_pool
from adlib.models.config import LARGEST_BATCH, LARGEST_SIDE, MOST_EPOCHS, setting

SMALL = ((16, 16), (16, 128), (16, 16, 256), (16, 16, 512), (16, 16, 512))  # channels of the cloner's blocks
EQUAL = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))  # as VGG-16 itself
POOLS = "features.9,features.16,features.23,features.30"  # of VGG-16: its pools 2 to 5
COMPARED, SCORED = 4, 3  # layers in the loss; the last ones, in the score


@dataclass(frozen=True, kw_only=True)
class Config(base.Config):
    """The authors' setting for MVTec AD."""

    image_size: int = setting(128, low=32, high=LARGEST_SIDE)  # pixels per side, a multiple of 32
    backbone: str = "vgg16.tv_in1k"  # the source, a timm name
    layers: str = POOLS  # four modules of the source at strides 4, 8, 16, 32, joined by commas
    pretrained: bool = True  # false: a random source, a control
    normalise: bool = False  # by ImageNet's mean and deviation; the authors do not
    cloner: str = setting("small", choices=("small", "equal"))  # equal: as many channels as VGG-16
    value_weight: float = setting(0.5, low=0.0, high=1e3)  # lambda, of the activations' squared difference
    learning_rate: float = setting(1e-3, low=0.0, high=10.0)  # Adam
    batch_size: int = setting(64, low=1, high=LARGEST_BATCH)
    epochs: int | None = setting(602, low=0, high=MOST_EPOCHS)
    localise: bool = True  # false: no maps, and no second pass through the source for them
    smooth: float = setting(4.0, low=0.0, high=64.0)  # pixels, of the map

    def __post_init__(self):
        super().__post_init__()
        if self.image_size % 32:
            near = 32 * (self.image_size // 32)
            raise UserError(f"image_size {self.image_size} is not a multiple of 32; use {near} or {near + 32}")
        if len(self.modules) != COMPARED or not all(self.modules):
            raise UserError(f"config field 'layers' is {self.layers!r}; it must have {COMPARED} names joined by commas")

    @property
    def modules(self) -> tuple[str, ...]:
        """The names in `layers`."""
        return tuple(name.strip() for name in self.layers.split(","))


class Cloner(nn.Module):
    """Images [B,3,S,S] -> activations after its last four blocks: [B,C,s,s] at strides 4, 8, 16, 32.

    Convolutions 3 x 3 without bias, batch norm and ReLU after each but the last of a block. last_relu: after that one,
    too, as the source's activations have it. Small: 343,984 parameters.
    """

    def __init__(self, blocks: tuple[tuple[int, ...], ...] = SMALL, last_relu: bool = True):
        super().__init__()
        ends = [3, *(block[-1] for block in blocks)]
        self.blocks = nn.ModuleList(
            [nn.Sequential(*_block((first, *rest), last_relu)) for first, rest in zip(ends, blocks, strict=False)]
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.xavier_uniform_(module.weight)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        x, found = images, []
        for block in self.blocks:
            x = block(x)
            found.append(x)
        return tuple(found[-COMPARED:])


def _block(channels: tuple[int, ...], last_relu: bool) -> Iterator[nn.Module]:
    for i, (a, b) in enumerate(pairwise(channels), 2):
        yield nn.Conv2d(a, b, 3, padding=1, bias=False)
        if i < len(channels):
            yield from (nn.BatchNorm2d(b), nn.ReLU())
    if last_relu:
        yield nn.ReLU()
    yield nn.MaxPool2d(2)


def distances(cloned: tuple[Tensor, ...], source: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
    """How far activations are apart in direction (1 - cosine of the flattened layers) and in value (mean square), each
    summed over the layers: [B], [B].
    """
    pairs = [tuple(full_precision(each).flatten(1) for each in pair) for pair in zip(cloned, source, strict=True)]
    direction = sum(1 - F.cosine_similarity(a, b, dim=1) for a, b in pairs)
    return direction, sum((a - b).square().mean(1) for a, b in pairs)


class MKD(base.Detector):
    """Images and the source's activations -> score: distance of the last three layers; map: size of its gradient in the
    image, summed over colours, smoothed.
    """

    Config = Config
    embedding_dtype = "float16"
    embedding_fields = ()
    alone = "MKD is published as one model per category"

    def __init__(self, config: Config):
        super().__init__(config)
        self.source = Features(config.backbone, config.modules, config.pretrained, config.normalise)
        if self.source.strides != (4, 8, 16, 32):
            raise UserError(
                f"layers {config.layers} of {config.backbone} have strides {list(self.source.strides)}; they "
                "must have 4, 8, 16, 32"
            )
        positive = config.backbone.startswith("vgg")
        blocks = SMALL if config.cloner == "small" else EQUAL
        ends = (blocks[0][-1], *self.source.channels)
        self.cloner = Cloner(tuple((*b[:-1], end) for b, end in zip(blocks, ends, strict=True)), positive)

    @property
    def protocol(self) -> dict:
        smoothing = f"Gaussian, {self.config.smooth:g} pixels" if self.config.localise else "none"
        return {"image_score": "distance of three layers", "smoothing": smoothing}

    def embed(self, images: Tensor) -> tuple[Tensor, ...]:
        """The images themselves and the source's activations."""
        return (images, *self.source(images))

    def optimizers(self, steps_per_epoch: int, total_steps: int) -> list[tuple]:
        return [(adam(self.cloner.parameters(), lr=self.config.learning_rate), None)]

    def loss(self, batch: tuple[Tensor, ...], generator: torch.Generator) -> dict[str, Tensor]:
        """Direction plus lambda times value over all four layers."""
        images, *source = batch
        direction, values = (each.mean() for each in distances(self.cloner(images), tuple(source)))
        return {"total": direction + self.config.value_weight * values, "direction": direction, "values": values}

    def distance(self, cloned: tuple[Tensor, ...], source: tuple[Tensor, ...]) -> Tensor:
        """The image score [B], of the last three layers only (test_functions.py)."""
        direction, value = distances(cloned[-SCORED:], source[-SCORED:])
        return direction + self.config.value_weight * value

    def pool(self, cells: Tensor, valid: Tensor | None = None) -> Tensor:
        """The score belongs to whole inputs, so their cells are all alike; of several tiles it is the mean."""
        return mean_pool(cells, valid)

    def score(self, embeddings: tuple[Tensor, ...]) -> Scores:
        images, *source = embeddings
        if not self.config.localise:
            return Scores(self.distance(self.cloner(images), tuple(source)), None)
        # callers forbid gradients; a copy made outside inference mode may have them
        with torch.inference_mode(False), torch.enable_grad():
            x = images.clone().requires_grad_()
            image = self.distance(self.cloner(x), self.source(x))
            (gradient,) = torch.autograd.grad(image.sum(), x)
        found = gaussian_blur(gradient.abs().sum(1), self.config.smooth)
        return Scores(image.detach(), found, image.detach()[:, None, None].expand_as(found))
