"""DRAEM. Zavrtanik, Kristan, Skocaj, ICCV 2021 (DRAEM - A discriminatively trained reconstruction embedding for
surface anomaly detection).

Normal images are damaged by foreign textures under random masks. One network repairs the damage, a second one sees the
repaired and the damaged image and marks where they differ in a way that matters. Both learn together, the second from
exact masks: it learns a distance to the normal look, not the look of the damage, and so finds real defects.

Equations of the paper: (1) losses.ssim, (2) l2 and ssim and (3) the sum, in `Draem.terms`, its focal loss losses.focal;
(4) synthesis.blend, by `Simulator` in `Draem.loss`; section 3.4 (score) `Draem.score`, `pool_side`.

Inferred from the authors' code (VitjanZ/DRAEM, commit 2dbf673), where the text is silent: widths, all of the networks,
initialisation, lambda = 1 before SSIM, smoothing 1e-5 of the focal loss, filter of 21 pixels, and where it differs from
the text: operations, opacity, noise, rotations, learning rate (specs/draem.md, section 10: `Config` takes both).
Mended: the complement that eq. (4) lacks; milestones that are not whole epochs (`milestones`). Chosen: RGB; range 1 in
SSIM ("auto" is the code's switch); the filter shrinks with the image; the map is a logit difference.
"""

import math
from dataclasses import dataclass, fields
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adlib import losses
from adlib.common.errors import UserError
from adlib.layers import upsample
from adlib.models import base
from adlib.models.base import Scores, adam
from adlib.models.config import LARGEST_BATCH, LARGEST_SIDE, MOST_EPOCHS, setting
from adlib.synthesis import Simulator, TextureSource, texture_source


@dataclass(frozen=True, kw_only=True)
class Config(base.Config):
    """Each default is the setting of the authors' code, except resample and mask_rule, common to all systems."""

    image_size: int = setting(256, low=32, high=LARGEST_SIDE)  # pixels per side, a multiple of 32
    epochs: int | None = setting(700, low=0, high=MOST_EPOCHS)  # of N draws with replacement
    batch_size: int = setting(8, low=1, high=LARGEST_BATCH)
    # channels of the first block; 8 times as many at the bottom
    reconstruction_width: int = setting(128, low=1, high=512)
    segmentation_width: int = setting(64, low=1, high=512)  # channels of the first block, likewise
    learning_rate: float = setting(1e-4, low=0.0, high=10.0)  # Adam
    decay: float = setting(0.2, low=0.0, high=1.0)  # factor of the learning rate; paper 0.1
    decay_at: tuple[float, ...] = setting((0.8, 0.9), low=0.0, high=1.0)  # share of training; paper 400, 600 of 700
    ssim_weight: float = setting(1.0, low=0.0, high=1e3)  # lambda of eq. (2)
    ssim_data_range: float | str = setting(1.0, choices=(1.0, "auto"))  # auto: 2 where a reconstruction is below -0.5
    score_pool: int = setting(21, low=1, high=256)  # pixels of the mean filter at side 256, scaled with image_size
    textures: str = setting("auto", choices=("auto", "dtd", "photographs"))  # auto: DTD where it is there
    operations: str = setting("code", choices=("code", "paper", "none"))  # on textures: ten, seven or none
    operations_per_texture: int = setting(3, low=0, high=10)  # different ones
    anomaly_probability: float = setting(0.5, low=0.0, high=1.0)  # share of damaged samples
    opacity: tuple[float, ...] = setting((0.2, 1.0), low=0.0, high=1.0)  # beta, weight of the texture; paper from 0.1
    noise_exponents: tuple[int, ...] = setting((0, 5), low=0, high=8)  # 2^a x 2^b cells of Perlin noise
    noise_threshold: float | None = setting(0.5, low=0.0, high=1.0)  # none: drawn uniformly, as the paper says
    noise_degrees: float = setting(90.0, low=0.0, high=180.0)  # the noise is turned by up to this, either way
    rotate_probability: float = setting(0.3, low=0.0, high=1.0)  # share of turned images
    rotate_degrees: float = setting(90.0, low=0.0, high=180.0)  # by up to this, either way; paper 45

    def __post_init__(self):
        super().__post_init__()
        for name in ("opacity", "noise_exponents"):
            if len(getattr(self, name)) != 2:
                raise UserError(
                    f"config field {name!r} is {list(getattr(self, name))}; it must be two numbers, a range"
                )
        if self.image_size % 32:
            near = 32 * max(1, self.image_size // 32)
            raise UserError(f"image_size {self.image_size} is not a multiple of 32; use {near} or {near + 32}")
        self.simulator()  # its own checks

    def simulator(self) -> Simulator:
        """The simulation of anomalies with these settings."""
        return Simulator(**{f.name: getattr(self, f.name) for f in fields(Simulator)})


def block(*channels: int) -> nn.Sequential:
    """3 x 3 convolution, batch norm and ReLU from each number of channels to the next; the size stays."""
    layers = []
    for a, b in pairwise(channels):
        layers += [nn.Conv2d(a, b, 3, padding=1), nn.BatchNorm2d(b), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


class Reconstructive(nn.Module):
    """Damaged images [B,3,S,S] -> repaired ones, linear, not clipped. No skips: they would let the damage through.

    S is a multiple of 16; the bottom has 8 * width channels at stride 16. Width 128: 69,048,579 parameters.
    """

    def __init__(self, width: int = 128):
        super().__init__()
        w = width
        self.down = nn.ModuleList(
            [block(3, w, w), block(w, 2 * w, 2 * w), block(2 * w, 4 * w, 4 * w), block(4 * w, 8 * w, 8 * w)]
        )
        self.bottom = block(8 * w, 8 * w, 8 * w)
        self.ups = nn.ModuleList([block(c * w, c * w) for c in (8, 4, 2, 1)])
        self.joins = nn.ModuleList(
            [block(8 * w, 8 * w, 4 * w), block(4 * w, 4 * w, 2 * w), block(2 * w, 2 * w, w), block(w, w, w)]
        )
        self.head = nn.Conv2d(w, 3, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        x = images
        for down in self.down:
            x = F.max_pool2d(down(x), 2)
        x = self.bottom(x)
        for up, join in zip(self.ups, self.joins, strict=True):
            x = join(up(upsample(x, 2, "aligned")))
        return self.head(x)


class Discriminative(nn.Module):
    """Repaired and damaged images, concatenated [B,6,S,S] -> logits [B,2,S,S] of normal and anomalous; a U-Net.

    S is a multiple of 32; the bottom has 8 * width channels at stride 32. Width 64: 28,374,146 parameters.
    """

    def __init__(self, width: int = 64):
        super().__init__()
        v = width
        self.down = nn.ModuleList([block(6, v, v), block(v, 2 * v, 2 * v), block(2 * v, 4 * v, 4 * v)])
        self.down += [block(4 * v, 8 * v, 8 * v), block(8 * v, 8 * v, 8 * v)]
        self.bottom = block(8 * v, 8 * v, 8 * v)
        self.ups = nn.ModuleList([block(a * v, b * v) for a, b in ((8, 8), (8, 4), (4, 2), (2, 1), (1, 1))])
        joined = ((16, 8), (12, 4), (6, 2), (3, 1), (2, 1))
        self.joins = nn.ModuleList([block(a * v, b * v, b * v) for a, b in joined])
        self.head = nn.Conv2d(v, 2, 3, padding=1)

    def forward(self, pair: Tensor) -> Tensor:
        x, skips = pair, []
        for down in self.down:
            skips.append(down(x))
            x = F.max_pool2d(skips[-1], 2)
        x = self.bottom(x)
        for up, join in zip(self.ups, self.joins, strict=True):
            x = join(torch.cat([up(upsample(x, 2, "aligned")), skips.pop()], 1))
        return self.head(x)


def initialise(module: nn.Module) -> None:
    """The authors' start: convolutions N(0, 0.02), batch norm N(1, 0.02) and 0; torch's own for the biases."""
    if isinstance(module, nn.Conv2d):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)
        nn.init.zeros_(module.bias)


def milestones(shares: tuple[float, ...], count: int) -> list[int]:
    """After how many of `count` epochs (or steps) the learning rate falls: the shares of them, halves rounded up.

    The authors' MultiStepLR takes 0.8 * epochs as it is: a whole number falls on that epoch, any other never comes, so
    their 5 epochs would decay after 4 and not at 4.5. Here 4.5 is 5, the end. Two shares that round to one epoch (7
    epochs: 5.6 and 6.3) take two following ones (6 and 7), because both at once would be a decay of another size.
    """
    ends: list[int] = []
    for share in sorted(shares):
        nearest = math.floor(round(share * count, 6) + 0.5)  # round: 0.7 * 45 is 31.499999999999996
        ends.append(max(nearest, ends[-1] + 1) if ends else nearest)
    return ends


def pool_side(image_size: int, at_256: int = 21) -> int:
    """Side of the mean filter in pixels: the odd number nearest to at_256 * image_size / 256."""
    return 2 * round((at_256 * image_size / 256 - 1) / 2) + 1


def smoothed(probability: Tensor, side: int) -> Tensor:
    """Mean filter of section 3.4 over maps [B,S,S]; the zeros beyond the border count."""
    return F.avg_pool2d(probability[:, None], side, stride=1, padding=side // 2)[:, 0]


class Draem(base.Detector):
    """Simulator -> repaired image -> map of anomalous pixels; the image score is the smoothed map's maximum."""

    Config = Config
    replacement = True  # the authors' loader ignores the index and draws
    channels_last = True  # on the CPU a step takes a sixth less, too
    published_mask_rule = "exact_one"  # bilinear without a low-pass, then cut to an integer
    alone = "zhangzjn/ADer's benchmark has 54.5 image AUROC for one DRAEM model on the 15 categories of MVTec AD"

    def __init__(self, config: Config):
        super().__init__(config)
        self.reconstructive = Reconstructive(config.reconstruction_width)
        self.discriminative = Discriminative(config.segmentation_width)
        self.simulator = config.simulator()
        self.apply(initialise)
        self.register_buffer("bank", None, persistent=False)  # textures: needed for training only

    @property
    def side(self) -> int:
        """Side of the mean filter, pixels."""
        return pool_side(self.config.image_size, self.config.score_pool)

    @property
    def protocol(self) -> dict:
        return {"image_score": f"max of the {self.side} x {self.side} mean", "smoothing": "none"}

    @classmethod
    def texture_bank(cls, config: Config, dataset: str, categories: tuple[str, ...]) -> TextureSource:
        """The textures for these categories. UserError where none are there."""
        return texture_source(config.textures, dataset, categories)

    def equip(self, texture_bank: TextureSource, device: str) -> None:
        """Load the textures, uint8 [T,3,S,S], resampled as the images are, to the device that trains."""
        self.bank = texture_bank.bank(self.config.image_size, self.config.resample).to(device)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """[B,3,S,S] in 0..1 -> repaired images [B,3,S,S], logits [B,2,S,S] of normal and anomalous."""
        images = images.contiguous(memory_format=torch.channels_last)
        repaired = self.reconstructive(images)
        return repaired, self.discriminative(torch.cat([repaired, images], 1))  # no detach: the masks teach both

    def loss(self, batch: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """l2 + ssim + focal on a newly damaged batch [B,3,S,S] in 0..1. Raises UserError without textures."""
        if self.bank is None:
            raise UserError("DRAEM trains on textures; call equip(texture_bank(...), device) first")
        if len(batch) * (self.config.image_size // 32) ** 2 == 1:
            raise UserError(
                "batch norm cannot train on one image of 32 pixels; use another batch_size or image_size 64"
            )
        augmented, target, mask = self.simulator(batch, self.bank, generator)
        return self.terms(*self(augmented), target, mask)

    def terms(self, repaired: Tensor, logits: Tensor, target: Tensor, mask: Tensor) -> dict[str, Tensor]:
        """Losses of repaired images against the undamaged target [B,3,S,S] and of logits against mask [B,1,S,S].

        In float32 whatever autocast does: half precision loses the focal loss' smoothing and SSIM's variances.
        """
        with torch.autocast(repaired.device.type, enabled=False):
            repaired, logits = losses.full_precision(repaired), losses.full_precision(logits)
            l2 = F.mse_loss(repaired, target)
            ssim = losses.ssim(repaired, target, data_range=self.config.ssim_data_range)
            focal = losses.focal(logits.softmax(1), mask)
        return {"total": l2 + self.config.ssim_weight * ssim + focal, "l2": l2, "ssim": ssim, "focal": focal}

    def optimizers(self, steps_per_epoch: int, total_steps: int) -> list[tuple]:
        """[(Adam, its decay at the end of whole epochs, or at steps where training is counted in steps)]."""
        optimizer = adam(self.parameters(), lr=self.config.learning_rate)
        if self.config.epochs is None:
            steps = milestones(self.config.decay_at, total_steps)
        else:
            steps = [epoch * steps_per_epoch for epoch in milestones(self.config.decay_at, self.config.epochs)]
        return [(optimizer, torch.optim.lr_scheduler.MultiStepLR(optimizer, steps, self.config.decay))]

    def score(self, embeddings: Tensor) -> Scores:
        """Image score: maximum of the smoothed softmax map, in 0..1; map: un-smoothed difference of logits [B,S,S]."""
        margin = _margin(self(embeddings)[1])
        cells = smoothed(margin.sigmoid(), self.side)
        return Scores(self.pool(cells), margin, cells)

    @torch.inference_mode()
    def parts(self, images: Tensor) -> dict[str, Tensor]:
        """What becomes of images [B,3,S,S] in 0..1 (eval mode): reconstruction [B,3,S,S]; maps [B,S,S], high =
        anomalous: error (squared, mean over colours), ssim (1 - similarity, likewise), probability, smoothed.
        """
        repaired, logits = (losses.full_precision(t) for t in self(images))
        probability = _margin(logits).sigmoid()
        return {
            "reconstruction": repaired,
            "error": (repaired - images).square().mean(1),
            "ssim": 1 - losses.ssim(repaired, images, reduction="none").mean(1),
            "probability": probability,
            "smoothed": smoothed(probability, self.side),
        }


def _margin(logits: Tensor) -> Tensor:
    """[B,2,S,S] -> [B,S,S], the logit of the anomalous class' probability; does not saturate."""
    logits = losses.full_precision(logits)
    return logits[:, 1] - logits[:, 0]
