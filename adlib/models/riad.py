"""RIAD. Zavrtanik, Kristan, Skocaj, Pattern Recognition 112, 2021 (Reconstruction by inpainting for visual anomaly
detection); a rival of papers 02, 03 and 04, one model per category.

A picture is cut into cells, the cells into three sets; each set is hidden once, and a U-Net paints it from the rest. So
every cell is painted without having been seen, at several sizes of cells. Where the painted picture's gradients differ,
the picture is anomalous.

Source: plutoyuxie/Reconstruction-by-inpainting-for-visual-anomaly-detection, a third party (network, masks, losses,
training). Mended: its map divides by the number of cells, so that large cells rule it; here the sizes count alike, and
their mean is smoothed by 21 x 21 pixels, as in the paper. Chosen: one draw of the sets for all test pictures; no early
stopping; the filter mirrors the border.
"""

from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adlib import losses
from adlib.common.errors import UserError
from adlib.models import base
from adlib.models.base import Scores, adam
from adlib.models.config import LARGEST_BATCH, LARGEST_SIDE, MOST_EPOCHS, setting
from adlib.models.draem import pool_side
from adlib.models.mmaerec import mean_filter

SETS, SCALES = 3, 4


@dataclass(frozen=True, kw_only=True)
class Config(base.Config):
    """The repository's setting."""

    image_size: int = setting(256, low=32, high=LARGEST_SIDE)  # pixels per side, a multiple of 16 and of the cells
    width: int = setting(64, low=1, high=512)  # channels of the first level
    cells: tuple[int, ...] = setting((2, 4, 8, 16), low=1, high=256)  # pixels per side of a cell
    learning_rate: float = setting(1e-4, low=0.0, high=10.0)  # Adam
    weight_decay: float = setting(1e-5, low=0.0, high=10.0)  # of Adam
    decay: float = setting(0.1, low=0.0, high=1.0)  # factor of the learning rate
    decay_at: float = setting(250 / 300, low=0.0, high=1.0)  # share of training
    batch_size: int = setting(4, low=1, high=LARGEST_BATCH)
    epochs: int | None = setting(300, low=0, high=MOST_EPOCHS)
    mask_seed: int = setting(0, low=0, high=10**9)  # of the sets of test pictures
    score_pool: int = setting(21, low=1, high=256)  # pixels of the map's mean filter at side 256

    def __post_init__(self):
        super().__post_init__()
        wrong = [k for k in self.cells if self.image_size % k or (self.image_size // k) ** 2 < SETS**2]
        if self.image_size % 16 or wrong or not self.cells:
            raise UserError(
                f"image_size {self.image_size} with cells {list(self.cells)}: it must be a multiple of 16 and of each, "
                f"with at least {SETS**2} cells"
            )


class UNet(nn.Module):
    """Pictures [B,3,S,S] in -1..1, parts of them 0 -> pictures, by tanh. Width 64: 28,805,699 parameters."""

    def __init__(self, width: int = 64):
        super().__init__()
        w = width
        wide = [w, 2 * w, 4 * w, 8 * w, 8 * w]
        self.down = nn.ModuleList([_twice(3, w, 3, 1)])
        self.down += [_twice(a, b, 4, 2) for a, b in pairwise(wide)]
        ups = list(zip([8 * w, 8 * w, 4 * w, 2 * w], [8 * w, 4 * w, 2 * w, w], strict=True))
        self.ups = nn.ModuleList([nn.ConvTranspose2d(a, b, 4, 2, 1) for a, b in ups])
        self.joins = nn.ModuleList([_twice(2 * b, b, 3, 1) for _, b in ups])
        self.head = nn.Conv2d(w, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        skips = []
        for down in self.down:
            x = down(x)
            skips.append(x)
        skips.pop()
        for up, join in zip(self.ups, self.joins, strict=True):
            x = join(torch.cat([up(x), skips.pop()], 1))
        return torch.tanh(self.head(x))


def _twice(a: int, b: int, kernel: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        *(nn.Conv2d(a, b, kernel, stride, 1), nn.BatchNorm2d(b), nn.ReLU(inplace=True)),
        *(nn.Conv2d(b, b, 3, padding=1), nn.BatchNorm2d(b), nn.ReLU(inplace=True)),
    )


def masks(count: int, grid: tuple[int, int], generator: torch.Generator) -> Tensor:
    """Which of three sets hides each cell, for each of count pictures: [B,h,w], 0 to 2; sizes differ by one at most."""
    cells = grid[0] * grid[1]
    order = torch.rand(count, cells, generator=generator, device=generator.device).argsort(1)
    owner = torch.arange(cells, device=order.device).mul(SETS).div(cells, rounding_mode="floor")
    return torch.empty_like(order).scatter_(1, order, owner.expand(count, -1)).unflatten(1, grid)


def painted(network: nn.Module, x: Tensor, owner: Tensor) -> Tensor:
    """Sum over the sets of (1 - M_i) net(x M_i): pictures [B,3,H,W], each cell painted while its set was hidden."""
    hidden = owner.repeat_interleave(x.shape[2] // owner.shape[1], 1).repeat_interleave(x.shape[3] // owner.shape[2], 2)
    total = torch.zeros_like(x)
    for i in range(SETS):
        away = (hidden == i)[:, None]
        total = torch.where(away, network(x.masked_fill(away, 0.0)).to(x.dtype), total)
    return total


def similarity(x: Tensor, y: Tensor) -> Tensor:
    """Gradient magnitude similarity of pictures [B,C,h,w] -> [B,1,h-2,w-2], 1 where equal.

    Mean over colours, median of 3 x 3 places, Prewitt gradients without padding; else as losses.gradient_similarity.
    """
    from kornia.filters import median_blur  # heavy

    both = median_blur(torch.stack((x, y)).flatten(0, 1).mean(1, keepdim=True), 3)
    across = both.new_tensor([[1.0, 0.0, -1.0]] * 3) / 3
    found = F.conv2d(both, torch.stack((across, across.T))[:, None])
    g, h = (found.square().sum(1, keepdim=True) + losses.ROOT).sqrt().chunk(2)
    return (2 * g * h + losses.GRADIENT_C) / (g.square() + h.square() + losses.GRADIENT_C)


def similarities(x: Tensor, y: Tensor) -> list[Tensor]:
    """`similarity` at four scales, each half of the one before."""
    found = []
    for scale in range(SCALES):
        if scale:
            x, y = F.avg_pool2d(x, 2), F.avg_pool2d(y, 2)
        found.append(similarity(x, y))
    return found


class RIAD(base.Detector):
    """Pictures painted cell by cell at several sizes -> map of their gradients' dissimilarity; image score: maximum."""

    Config = Config
    alone = "RIAD is published as one model per category"

    def __init__(self, config: Config):
        super().__init__(config)
        self.network = UNet(config.width)

    @property
    def protocol(self) -> dict:
        return {"image_score": "max", "smoothing": f"mean over {self.side} pixels"}

    @property
    def side(self) -> int:
        """Side of the map's mean filter, pixels."""
        return pool_side(self.config.image_size, self.config.score_pool)

    def optimizers(self, steps_per_epoch: int, total_steps: int) -> list[tuple]:
        c = self.config
        optimizer = adam(self.parameters(), lr=c.learning_rate, weight_decay=c.weight_decay)
        fall = [max(1, round(c.decay_at * total_steps))]
        return [(optimizer, torch.optim.lr_scheduler.MultiStepLR(optimizer, fall, c.decay))]

    def loss(self, batch: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """l2 + dissimilarity of gradients + 1 - SSIM of the batch, painted with cells of one size drawn at random."""
        c, x = self.config, 2 * batch - 1
        pick = int(torch.randint(len(c.cells), (1,), generator=generator, device=generator.device))
        grid = tuple(side // c.cells[pick] for side in x.shape[-2:])
        made = painted(self.network, x, masks(len(x), grid, generator).to(x.device))
        return self.terms(made, x)

    def terms(self, made: Tensor, x: Tensor) -> dict[str, Tensor]:
        """Terms of pictures in -1..1 against what was painted."""
        with torch.autocast(x.device.type, enabled=False):
            made = losses.full_precision(made)
            l2, ssim = F.mse_loss(made, x), losses.ssim(made, x)
            gradients = torch.stack([1 - each.mean() for each in similarities(x, made)]).mean()
        return {"total": l2 + gradients + ssim, "l2": l2, "gradients": gradients, "ssim": ssim}

    def score(self, embeddings: Tensor) -> Scores:
        """Mean over the sizes of cells of 1 - similarity, mean over four scales; smoothed."""
        x = 2 * embeddings - 1
        total = 0
        for size in self.config.cells:
            draw = torch.Generator().manual_seed(self.config.mask_seed + size)  # the same for every picture and batch
            owner = masks(1, tuple(side // size for side in x.shape[-2:]), draw).to(x.device)
            total = total + dissimilarity(x, painted(self.network, x, owner.expand(len(x), -1, -1)))
        found = mean_filter((total / len(self.config.cells))[:, None], self.side)[:, 0]
        return Scores(self.pool(found), found)


def dissimilarity(x: Tensor, made: Tensor) -> Tensor:
    """1 - gradient similarity, each scale enlarged to the pictures' size, mean over the scales: [B,H,W]."""
    size = x.shape[-2:]
    each = [F.interpolate(found, size=size, mode="bilinear") for found in similarities(x, losses.full_precision(made))]
    return 1 - torch.stack(each).mean(0)[:, 0]
