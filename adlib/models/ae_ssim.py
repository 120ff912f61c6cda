"""AE-SSIM. Bergmann, Loewe, Fauser, Sattlegger, Steger, VISAPP 2019 (Improving Unsupervised Defect Segmentation by
Applying Structural Similarity to Autoencoders); a rival of papers 02 and 03, one model per category.

An autoencoder with a narrow code rebuilds normal pictures, trained by structural similarity instead of squared error.
Where a rebuilt picture's structure differs, the picture is anomalous.

Source of layers and training: plutoyuxie/AutoEncoder-SSIM-for-unsupervised-anomaly-detection- (TensorFlow, a third
party). Chosen: whole pictures in colour at 256 pixels for every category (the code cuts textures into patches of 128);
no augmentation; constants (0.01 L)^2 and (0.03 L)^2, where the paper prints 0.01 and 0.03; the image score, which the
paper does not define, is the maximum of the smoothed map. Its decay of the learning rate is left out.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from adlib import losses
from adlib.common.errors import UserError
from adlib.layers import gaussian_blur
from adlib.models import base
from adlib.models.base import Scores, adam
from adlib.models.config import LARGEST_BATCH, LARGEST_SIDE, MOST_EPOCHS, setting

LEAK, BOTTOM = 0.2, 8  # slope of LeakyReLU; places per side above the code


@dataclass(frozen=True, kw_only=True)
class Config(base.Config):
    """The setting for objects."""

    image_size: int = setting(256, low=128, high=LARGEST_SIDE)  # pixels per side: 128 or 256
    code: int = setting(500, low=1, high=10_000)  # numbers of the code; 100 for textures
    learning_rate: float = setting(2e-4, low=0.0, high=10.0)  # Adam
    batch_size: int = setting(128, low=1, high=LARGEST_BATCH)
    epochs: int | None = setting(200, low=0, high=MOST_EPOCHS)
    window: int = setting(11, low=3, high=127)  # pixels of the similarity's window, odd
    smooth: float = setting(4.0, low=0.0, high=64.0)  # pixels, of the map

    def __post_init__(self):
        super().__post_init__()
        if self.image_size not in (128, 256):
            raise UserError(f"image_size {self.image_size}; the layers of AE-SSIM are made for 128 or 256 pixels")


def autoencoder(side: int, code: int, colours: int = 3) -> nn.Sequential:
    """Pictures [B,colours,S,S] in 0..1 -> the same, by a sigmoid. S 128 or 256, no batch norm."""
    extra = side == 256
    down = [(4, 2, 32), (4, 2, 32)] + [(4, 2, 32)] * extra + [(3, 1, 32), (4, 2, 64), (3, 1, 64), (4, 2, 128)]
    down += [(3, 1, 64), (3, 1, 32)]
    layers: list[nn.Module] = []
    last = colours
    for kernel, stride, channels in down:
        layers += [nn.Conv2d(last, channels, kernel, stride, 1), nn.LeakyReLU(LEAK)]
        last = channels
    layers += [nn.Conv2d(last, code, BOTTOM), nn.ConvTranspose2d(code, 32, BOTTOM), nn.LeakyReLU(LEAK)]
    last = 32
    up = [(3, 1, 64), (3, 1, 128), (4, 2, 64), (3, 1, 64), (4, 2, 32), (3, 1, 32), (4, 2, 32)] + [(4, 2, 32)] * extra
    for kernel, stride, channels in up:
        kind = nn.ConvTranspose2d if stride == 2 else nn.Conv2d
        layers += [kind(last, channels, kernel, stride, 1), nn.LeakyReLU(LEAK)]
        last = channels
    return nn.Sequential(*layers, nn.ConvTranspose2d(last, colours, 4, 2, 1), nn.Sigmoid())


class AESSIM(base.Detector):
    """Rebuilt picture -> map 1 - SSIM, mean over colours, smoothed; image score: its maximum."""

    Config = Config
    alone = "AE-SSIM is published as one model per category"

    def __init__(self, config: Config):
        super().__init__(config)
        self.network = autoencoder(config.image_size, config.code)

    @property
    def protocol(self) -> dict:
        return {"image_score": "max", "smoothing": f"Gaussian, {self.config.smooth:g} pixels"}

    def optimizers(self, steps_per_epoch: int, total_steps: int) -> list[tuple]:
        return [(adam(self.parameters(), lr=self.config.learning_rate), None)]

    def loss(self, batch: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """1 - SSIM of the rebuilt batch."""
        rebuilt = losses.full_precision(self.network(batch))
        with torch.autocast(batch.device.type, enabled=False):
            return {"total": losses.ssim(rebuilt, batch, self.config.window)}

    def score(self, embeddings: Tensor) -> Scores:
        rebuilt = losses.full_precision(self.network(embeddings))
        found = 1 - losses.ssim(rebuilt, embeddings, self.config.window, padding="reflect", reduction="none").mean(1)
        maps = gaussian_blur(found, self.config.smooth)
        return Scores(self.pool(maps), maps)
