"""CutPaste. Li, Sohn, Yoon, Pfister, CVPR 2021 (CutPaste: Self-Supervised Learning for Anomaly Detection and
Localization); a rival of papers 03 and 05, one model per category.

A network learns to tell three kinds of pictures: as they are, with a rectangle of themselves pasted elsewhere, with a
turned thin scar pasted. Its features of normal pictures are described by one Gaussian; the distance to it is the score.

Sources: the paper's text and appendix A (training, sizes of the patches); Runinho/pytorch-cutpaste (head, jitter,
Gaussian of features of length 1 with the covariance of Ledoit and Wolf). Chosen: 3-way, one model, from scratch (the
paper's tables quote an ensemble of five); aspect ratios log-uniform, as the repository; no translation of the pictures.
The paper localises with networks on small crops; that is not built, so there is no map.
"""

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.functional import grid_sample

from adlib.models import base
from adlib.models.base import Scores
from adlib.models.config import LARGEST_BATCH, LARGEST_SIDE, MOST_EPOCHS, MOST_STEPS, setting
from adlib.models.mahalanobis import distance, gaussian

KINDS, NUMBERS = 3, 512  # classes; features of the network
AREA, ASPECT = (0.02, 0.15), (0.3, 1 / 0.3)  # of a rectangle: share of the picture, height to width
WIDTH, LENGTH, TURN = (2.0, 16.0), (10.0, 25.0), 45.0  # of a scar: pixels, pixels, degrees either way
ROWS = 64  # pictures whose features are computed at a time


@dataclass(frozen=True, kw_only=True)
class Config(base.Config):
    """The paper's setting."""

    image_size: int = setting(256, low=32, high=LARGEST_SIDE)  # pixels per side
    head: int = setting(1, low=0, high=16)  # layers of 512 numbers before one of 128 and the classes
    jitter: float = setting(0.1, low=0.0, high=0.5)  # of brightness, contrast and saturation, picture and patch
    learning_rate: float = setting(0.03, low=0.0, high=10.0)  # SGD, along half a cosine to 0
    momentum: float = setting(0.9, low=0.0, high=0.999)  # of SGD
    weight_decay: float = setting(3e-5, low=0.0, high=10.0)  # of SGD
    batch_size: int = setting(32, low=1, high=LARGEST_BATCH)  # pictures, each shown as three kinds
    epochs: int | None = setting(None, low=0, high=MOST_EPOCHS)
    steps: int | None = setting(65_536, low=1, high=MOST_STEPS)


def _uniform(u: Tensor, low: float, high: float) -> Tensor:
    return low + (high - low) * u


def jittered(images: Tensor, amount: float, generator: torch.Generator) -> Tensor:
    """Pictures [B,3,H,W] in 0..1, brightness, contrast and saturation of each times 1 - amount to 1 + amount."""
    u = torch.rand(3, len(images), 1, 1, 1, generator=generator, device=generator.device).to(images.device)
    brightness, contrast, saturation = 1 + amount * (2 * u - 1)
    images = images * brightness
    images = (images - images.mean((1, 2, 3), keepdim=True)) * contrast + images.mean((1, 2, 3), keepdim=True)
    grey = images.mean(1, keepdim=True)
    return ((images - grey) * saturation + grey).clamp(0, 1)


def pasted(images: Tensor, source: Tensor, size: Tensor, places: Tensor, angle: Tensor) -> Tensor:
    """A rectangle of `source` pasted into images [B,3,H,W], turned about its centre.

    size [B,2]: height and width, pixels; places [B,4] in 0..1: row and column where it is cut and where it is pasted,
    as shares of the room that is left; angle [B], radians.
    """
    height, width = images.shape[-2:]
    side = torch.tensor([height, width], device=images.device, dtype=images.dtype)
    half = size / 2
    cut, to = (half + places[:, k : k + 2] * (side - size).clamp(min=0) for k in (0, 2))  # centres
    y = torch.arange(height, device=images.device).view(1, -1, 1) + 0.5
    x = torch.arange(width, device=images.device).view(1, 1, -1) + 0.5
    each = lambda values: values.view(-1, 1, 1)
    dy, dx = y - each(to[:, 0]), x - each(to[:, 1])
    v = each(angle.cos()) * dy - each(angle.sin()) * dx  # inside the rectangle
    u = each(angle.sin()) * dy + each(angle.cos()) * dx
    inside = (v.abs() <= each(half[:, 0])) & (u.abs() <= each(half[:, 1]))
    rows, columns = v + each(cut[:, 0]), u + each(cut[:, 1])
    grid = torch.stack((2 * columns / width - 1, 2 * rows / height - 1), -1)
    patch = grid_sample(source, grid, align_corners=False, padding_mode="border")
    return torch.where(inside[:, None], patch, images)


def rectangle(images: Tensor, amount: float, generator: torch.Generator) -> Tensor:
    """CutPaste: a jittered rectangle of each picture, of 2 to 15 % of its area, pasted elsewhere, unturned."""
    u = torch.rand(len(images), 6, generator=generator, device=generator.device).to(images.device)
    area = _uniform(u[:, 0], *AREA) * images.shape[-2] * images.shape[-1]
    ratio = _uniform(u[:, 1], *map(math.log, ASPECT)).exp()
    size = torch.stack(((area * ratio).sqrt(), (area / ratio).sqrt()), 1)
    return pasted(images, jittered(images, amount, generator), size, u[:, 2:], torch.zeros(len(images)).to(u))


def scar(images: Tensor, amount: float, generator: torch.Generator) -> Tensor:
    """CutPaste-Scar: a jittered thin piece, 2 to 16 by 10 to 25 pixels, pasted elsewhere and turned."""
    u = torch.rand(len(images), 7, generator=generator, device=generator.device).to(images.device)
    size = torch.stack((_uniform(u[:, 0], *LENGTH), _uniform(u[:, 1], *WIDTH)), 1)
    angle = _uniform(u[:, 6], -TURN, TURN) * math.pi / 180
    return pasted(images, jittered(images, amount, generator), size, u[:, 2:6], angle)


def head(layers: int) -> nn.Sequential:
    """512 features -> `layers` times 512, then 128, each with batch norm and ReLU -> three classes."""
    sizes, parts = [NUMBERS] * (layers + 1) + [128], []
    for a, b in pairwise(sizes):
        parts += [nn.Linear(a, b), nn.BatchNorm1d(b), nn.ReLU(inplace=True)]
    return nn.Sequential(*parts, nn.Linear(128, KINDS))


class CutPaste(base.Detector):
    """ResNet-18 features, learnt by telling pasted pictures from others -> distance to their Gaussian; no map."""

    Config = Config
    alone = "CutPaste is published as one model per category"

    def __init__(self, config: Config):
        import timm  # heavy

        super().__init__(config)
        self.network = timm.create_model("resnet18", num_classes=0)  # from scratch; 11,176,512 parameters
        self.head = head(config.head)
        self.register_buffer("mean", torch.zeros(NUMBERS, dtype=torch.float64))
        self.register_buffer("precision", torch.eye(NUMBERS, dtype=torch.float64))

    @property
    def protocol(self) -> dict:
        return {"image_score": "Mahalanobis distance of the features", "smoothing": "none"}

    def optimizers(self, steps_per_epoch: int, total_steps: int) -> list[tuple]:
        c = self.config
        learnt = [*self.network.parameters(), *self.head.parameters()]
        optimizer = torch.optim.SGD(learnt, c.learning_rate, momentum=c.momentum, weight_decay=c.weight_decay)
        return [(optimizer, torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, total_steps)))]

    def loss(self, batch: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Cross-entropy of normal, CutPaste and scar; accuracy is logged."""
        c = self.config
        plain = jittered(batch, c.jitter, generator)
        shown = torch.cat((plain, rectangle(plain, c.jitter, generator), scar(plain, c.jitter, generator)))
        wanted = torch.arange(KINDS, device=batch.device).repeat_interleave(len(batch))
        logits = self.head(self.network(shown))
        right = (logits.argmax(1) == wanted).float().mean()
        return {"total": F.cross_entropy(logits.float(), wanted), "accuracy": right.detach()}

    def features(self, images: Tensor) -> Tensor:
        """[B,3,H,W] in 0..1 -> [B,512], of length 1."""
        return F.normalize(self.network(images).float())

    def fit(self, embeddings, generator: torch.Generator) -> None:
        rows = range(len(embeddings))
        chunks = [rows[i : i + ROWS] for i in rows[::ROWS]]
        found = torch.cat([self.features(embeddings.take(chunk, generator.device)).detach().cpu() for chunk in chunks])
        mean, precision = gaussian(found)
        self.mean.copy_(mean)
        self.precision.copy_(precision)

    def score(self, embeddings: Tensor) -> Scores:
        return Scores(distance(self.features(embeddings), self.mean, self.precision).float(), None)
