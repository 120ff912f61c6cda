"""U-Net autoencoder: a rival of paper 01, which cites the U-Net (Ronneberger et al. 2015) and gives one number.

An encoder and a decoder with skips learn to reproduce normal pictures; what they reproduce badly is anomalous. With
skips at all scales even defects are copied well: it shows what a discriminator (see `dagan`) adds.

Inferred (specs/rivals.md, section 2): the network is the generator of DAGAN (samet-akcay/skip-ganomaly, commit b33bd55,
lib/models/networks.py) trained alone, since the paper's number is most likely from DAGAN's own table of comparisons,
which has a plain U-Net; steps and learning rate are those of DAGAN.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adlib.common.errors import UserError
from adlib.models import base
from adlib.models.base import Scores, adam, mean_pool
from adlib.models.config import LARGEST_BATCH, LARGEST_SIDE, MOST_EPOCHS, MOST_STEPS, setting

WIDEST, LEAST_LEVELS = 8, 5  # times the width; the authors' code builds so many levels at least
LEAK = 0.2


@dataclass(frozen=True, kw_only=True)
class Config(base.Config):
    """DAGAN's setting."""

    image_size: int = setting(128, low=32, high=LARGEST_SIDE)  # pixels per side, a power of two
    width: int = setting(64, low=1, high=512)  # channels of the first level; 8 times as many at the bottom
    learning_rate: float = setting(1e-3, low=0.0, high=10.0)  # Adam
    batch_size: int = setting(64, low=1, high=LARGEST_BATCH)
    epochs: int | None = setting(None, low=0, high=MOST_EPOCHS)
    steps: int | None = setting(20_000, low=1, high=MOST_STEPS)

    def __post_init__(self):
        super().__post_init__()
        if self.image_size & (self.image_size - 1):
            near = 2 ** int(math.log2(self.image_size))
            raise UserError(f"image_size {self.image_size} is no power of two; use {near} or {2 * near}")


class Generator(nn.Module):
    """Images [B,3,S,S] in -1..1 -> the same shape and range. log2(S) levels, at the bottom one place.

    A level halves the side: LeakyReLU, convolution 4 x 4 with stride 2, batch norm; on the way up ReLU, transposed
    convolution, batch norm, joined with the activated features of the level (in the authors' code the LeakyReLU works
    in place, so the skip carries its result). Width 64 at 128 px: 41,828,995 parameters.
    """

    def __init__(self, side: int, width: int = 64):
        super().__init__()
        levels = max(LEAST_LEVELS, int(math.log2(side)))
        channels = [width * min(2**i, WIDEST) for i in range(levels)]
        down = [nn.Conv2d(a, b, 4, 2, 1, bias=False) for a, b in zip([3, *channels], channels, strict=False)]
        self.down = nn.ModuleList(down)
        self.down_norm = nn.ModuleList([nn.BatchNorm2d(c) for c in channels[1:-1]])
        inside = [channels[-1], *(2 * c for c in channels[-2::-1])]
        outside = [*channels[-2::-1], 3]
        last = len(outside) - 1
        self.up = nn.ModuleList(
            [
                nn.ConvTranspose2d(a, b, 4, 2, 1, bias=i == last)
                for i, (a, b) in enumerate(zip(inside, outside, strict=True))
            ]
        )
        self.up_norm = nn.ModuleList([nn.BatchNorm2d(c) for c in outside[:-1]])
        self.apply(started)

    def forward(self, images: Tensor) -> Tensor:
        x, skips = self.down[0](images), []
        for i, convolution in enumerate(self.down[1:]):
            x = F.leaky_relu(x, LEAK)
            skips.append(x)
            x = convolution(x)
            if i < len(self.down_norm):
                x = self.down_norm[i](x)
        for i, convolution in enumerate(self.up):
            x = convolution(F.relu(x))
            if i < len(self.up_norm):
                x = torch.cat([skips.pop(), self.up_norm[i](x)], 1)
        return torch.tanh(x)


def started(module: nn.Module) -> None:
    """Starting weights of skip-ganomaly: normal, deviation 0.02, of norms around 1."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)
        nn.init.zeros_(module.bias)


class UNetAutoencoder(base.Detector):
    """Score: mean squared error in units of 0..1; map: the squared error, mean over colours."""

    Config = Config
    alone = "paper 01 trains its rivals on one category each"

    def __init__(self, config: Config):
        super().__init__(config)
        self.generator = Generator(config.image_size, config.width)

    @property
    def protocol(self) -> dict:
        return {"image_score": "mean squared error", "smoothing": "none"}

    def optimizers(self, steps_per_epoch: int, total_steps: int) -> list[tuple]:
        return [(adam(self.generator.parameters(), lr=self.config.learning_rate), None)]

    def loss(self, batch: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        x = 2 * batch - 1
        return {"total": F.mse_loss(self.generator(x), x)}

    def pool(self, cells: Tensor, valid: Tensor | None = None) -> Tensor:
        return mean_pool(cells, valid)

    def score(self, embeddings: Tensor) -> Scores:
        x = 2 * embeddings - 1
        error = (self.generator(x).float() - x).square().mean(1) / 4  # -1..1 is twice as wide as 0..1
        return Scores(self.pool(error), error)
