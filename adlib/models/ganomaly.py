"""GANomaly. Akcay, Atapour-Abarghouei, Breckon, ACCV 2018 (GANomaly: Semi-Supervised Anomaly Detection via Adversarial
Training); a rival of paper 05, one model per category.

An encoder squeezes a picture to a code, a decoder rebuilds it, a second encoder squeezes the rebuilt picture again. On
normal pictures both codes agree; their distance is the score. A discriminator keeps the rebuilt pictures real.

Source: samet-akcay/ganomaly (lib/networks.py, lib/model.py, options.py). The paper measures the distance by l1, the
code, which counts here, by its square. Chosen: scores in eval mode (in the code batch norm never leaves training mode,
so that its scores depend on the batch); the last epoch counts, not the one that is best on the test set; no scaling of
the scores over the test set. There is no map.
"""

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adlib.common.errors import UserError
from adlib.losses import full_precision
from adlib.models import base
from adlib.models.base import Scores, adam
from adlib.models.config import LARGEST_BATCH, LARGEST_SIDE, MOST_EPOCHS, setting
from adlib.models.unet_autoencoder import started

BETAS, LEAK = (0.5, 0.999), 0.2
LOST = 1e-5  # loss of the discriminator below which it starts anew


@dataclass(frozen=True, kw_only=True)
class Config(base.Config):
    """The authors' defaults."""

    image_size: int = setting(32, low=16, high=LARGEST_SIDE)  # pixels per side, a power of two
    code: int = setting(100, low=1, high=10_000)  # numbers of a code
    width: int = setting(64, low=1, high=512)  # channels of the first level; doubled from level to level
    content_weight: float = setting(50.0, low=0.0, high=1e4)  # of the pictures' l1 distance
    adversarial_weight: float = setting(1.0, low=0.0, high=1e4)  # of the squared distance of features
    code_weight: float = setting(1.0, low=0.0, high=1e4)  # of the squared distance of codes
    learning_rate: float = setting(2e-4, low=0.0, high=10.0)  # Adam
    batch_size: int = setting(64, low=1, high=LARGEST_BATCH)
    epochs: int | None = setting(15, low=0, high=MOST_EPOCHS)

    def __post_init__(self):
        super().__post_init__()
        if self.image_size & (self.image_size - 1):
            near = 2 ** int(math.log2(self.image_size))
            raise UserError(f"image_size {self.image_size} is no power of two; use {near} or {2 * near}")


def _levels(side: int, width: int) -> list[int]:
    """Channels at side / 2, side / 4, ... 4."""
    return [width * 2**i for i in range(int(math.log2(side)) - 2)]


class Encoder(nn.Module):
    """Pictures [B,3,S,S] in -1..1 -> numbers [B,code]; `features` stops at 4 x 4 places, before the last layer."""

    def __init__(self, side: int, width: int, code: int):
        super().__init__()
        channels = _levels(side, width)
        layers: list[nn.Module] = [nn.Conv2d(3, width, 4, 2, 1, bias=False), nn.LeakyReLU(LEAK)]
        for a, b in pairwise(channels):
            layers += [nn.Conv2d(a, b, 4, 2, 1, bias=False), nn.BatchNorm2d(b), nn.LeakyReLU(LEAK)]
        self.features = nn.Sequential(*layers)
        self.last = nn.Conv2d(channels[-1], code, 4, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        return self.last(self.features(images)).flatten(1)


class Decoder(nn.Sequential):
    """Codes [B,code,1,1] -> pictures [B,3,S,S] in -1..1."""

    def __init__(self, side: int, width: int, code: int):
        channels = _levels(side, width)[::-1]
        layers: list[nn.Module] = [nn.ConvTranspose2d(code, channels[0], 4, bias=False)]
        layers += [nn.BatchNorm2d(channels[0]), nn.ReLU()]
        for a, b in pairwise(channels):
            layers += [nn.ConvTranspose2d(a, b, 4, 2, 1, bias=False), nn.BatchNorm2d(b), nn.ReLU()]
        super().__init__(*layers, nn.ConvTranspose2d(channels[-1], 3, 4, 2, 1, bias=False), nn.Tanh())


class GANomaly(base.Detector):
    """Picture -> code -> picture -> code; image score: mean squared distance of the codes; no map."""

    Config = Config
    drop_last = True
    alone = "GANomaly is published as one model per category"

    def __init__(self, config: Config):
        super().__init__(config)
        sizes = config.image_size, config.width
        self.encoder, self.again = Encoder(*sizes, config.code), Encoder(*sizes, config.code)
        self.decoder, self.discriminator = Decoder(*sizes, config.code), Encoder(*sizes, 1)
        self.apply(started)

    @property
    def protocol(self) -> dict:
        return {"image_score": "mean squared distance of the codes", "smoothing": "none"}

    def optimizers(self, steps_per_epoch: int, total_steps: int) -> list[tuple]:
        rate, generator = self.config.learning_rate, (self.encoder, self.decoder, self.again)
        groups = [p for part in generator for p in part.parameters()], self.discriminator.parameters()
        return [(adam(group, lr=rate, betas=BETAS), None) for group in groups]

    def rebuilt(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Pictures in -1..1 -> (rebuilt ones, their codes, the codes of the rebuilt)."""
        code = self.encoder(x)
        made = self.decoder(code[:, :, None, None])
        return made, code, self.again(made)

    def generator_terms(self, x: Tensor, made: Tensor, code: Tensor, again: Tensor) -> dict[str, Tensor]:
        """50 l1 of the pictures + squared distances of the discriminator's features and of the codes."""
        c = self.config
        seen = self.discriminator.features
        adversarial = F.mse_loss(seen(x), seen(made))
        content, codes = F.l1_loss(made, x), F.mse_loss(again, code)
        total = c.adversarial_weight * adversarial + c.content_weight * content + c.code_weight * codes
        return {"total": total, "adversarial": adversarial, "content": content, "code": codes}

    def discriminator_loss(self, x: Tensor, made: Tensor) -> Tensor:
        """Half the cross-entropy of calling real pictures real, 1, and rebuilt ones not, 0."""
        real, fake = (full_precision(self.discriminator(each)) for each in (x, made.detach()))
        each = F.binary_cross_entropy_with_logits
        return 0.5 * (each(real, torch.ones_like(real)) + each(fake, torch.zeros_like(fake)))

    def step(self, batch: Tensor, optimizers: list[tuple], generator: torch.Generator) -> dict[str, Tensor]:
        """The generator first, then the discriminator, on pictures made before the generator's step."""
        (first, _), (second, _) = optimizers
        x = 2 * batch - 1
        made, code, again = self.rebuilt(x)
        terms = self.generator_terms(x, made, code, again)
        first.zero_grad(set_to_none=True)
        terms["total"].backward()
        first.step()
        second.zero_grad(set_to_none=True)
        told = self.discriminator_loss(x, made)
        told.backward()
        second.step()
        if told.item() < LOST:
            self.discriminator.apply(started)
        return {**terms, "discriminator": told}

    def score(self, embeddings: Tensor) -> Scores:
        _, code, again = self.rebuilt(2 * embeddings - 1)
        return Scores((full_precision(code) - full_precision(again)).square().mean(1), None)
