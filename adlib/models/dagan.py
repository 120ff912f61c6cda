"""DAGAN. Tang, Kuo, Lan, Ding, Hsu, Young, Sensors 20(12), 2020 (Anomaly Detection Neural Network with Dual
Auto-Encoders GAN and Its Industrial Inspection Applications); a rival of paper 01, one model per category.

A generator with skips reproduces normal pictures; the discriminator is an autoencoder, too, which reproduces real
pictures well and made ones badly. The generator's error is the score.

No authors' code was found. The generator is that of skip-ganomaly, on which DAGAN builds; losses, weights and steps are
from notes on the paper, the discriminator from a third party (Snagnar/CompetitiveReconstructionNetworks, commit
62dfb14) (specs/rivals.md, section 3). Chosen: mean squares for all three terms; two levels in the discriminator; Adam's
betas of skip-ganomaly; the score is not scaled to 0..1 over the test set, which would read it.
"""

from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adlib.models import unet_autoencoder
from adlib.models.base import adam
from adlib.models.config import setting
from adlib.models.unet_autoencoder import UNetAutoencoder, started

BETAS = (0.5, 0.999)
LEAK = 0.01


@dataclass(frozen=True, kw_only=True)
class Config(unet_autoencoder.Config):
    """Weights 1, 40, 1 of the adversarial and the two reconstruction terms."""

    discriminator_width: int = setting(64, low=1, high=512)  # channels of its first level
    reconstruction_weight: float = setting(40.0, low=0.0, high=1e4)  # of the generator's error, against L_adv


class Discriminator(nn.Sequential):
    """An autoencoder without skips: [B,3,S,S] in -1..1 -> the same. Width 64: 1,315,587 parameters."""

    def __init__(self, width: int = 64):
        channels = (width, 2 * width, 4 * width)
        layers = [nn.Conv2d(3, width, 3, padding=1)]
        for a, b in pairwise(channels):
            layers += [nn.Conv2d(a, b, 4, 2, 1), nn.LeakyReLU(LEAK), nn.BatchNorm2d(b)]
        for a, b in pairwise(channels[::-1]):
            layers += [nn.ConvTranspose2d(a, b, 4, 2, 1), nn.ReLU()]
        super().__init__(*layers, nn.Conv2d(width, 3, 3, padding=1), nn.Tanh())


class DAGAN(UNetAutoencoder):
    """The U-Net autoencoder with an adversary; scored like it."""

    Config = Config
    alone = "DAGAN is published as one model per category"

    def __init__(self, config: Config):
        super().__init__(config)
        self.discriminator = Discriminator(config.discriminator_width)
        self.discriminator.apply(started)

    def optimizers(self, steps_per_epoch: int, total_steps: int) -> list[tuple]:
        rate = self.config.learning_rate
        networks = (self.generator, self.discriminator)
        return [(adam(network.parameters(), lr=rate, betas=BETAS), None) for network in networks]

    def generator_terms(self, x: Tensor, made: Tensor) -> dict[str, Tensor]:
        """40 L_Gcon + L_adv of pictures and what the generator made of them, both in -1..1."""
        content = F.mse_loss(made, x)
        adversarial = F.mse_loss(self.discriminator(made), self.discriminator(x))
        total = self.config.reconstruction_weight * content + adversarial
        return {"total": total, "content": content, "adversarial": adversarial}

    def discriminator_loss(self, x: Tensor, made: Tensor) -> Tensor:
        """L_Dcon - L_adv: reproduce the real pictures, and tell the made ones from them."""
        real = self.discriminator(x)
        return F.mse_loss(real, x) - F.mse_loss(self.discriminator(made.detach()), real)

    def step(self, batch: Tensor, optimizers: list[tuple], generator: torch.Generator) -> dict[str, Tensor]:
        """The generator first, then the discriminator, one step each."""
        (first, _), (second, _) = optimizers
        x = 2 * batch - 1
        made = self.generator(x)
        terms = self.generator_terms(x, made)
        first.zero_grad(set_to_none=True)
        terms["total"].backward()
        first.step()
        second.zero_grad(set_to_none=True)
        told = self.discriminator_loss(x, made)
        told.backward()
        second.step()
        return {**terms, "discriminator": told}
