"""PaDiM. Defard, Setkov, Loesch, Audigier, ICPR workshops 2021 (PaDiM: a Patch Distribution Modeling Framework for
Anomaly Detection and Localization); a baseline of papers 02, 03 and 05.

At every place of a grid, one Gaussian over the features of the normal pictures at that place; the score is the
Mahalanobis distance to it. Nothing is learnt by steps. The model is tied to position: turned objects look anomalous.

Sources: xiahaifeng1995/PaDiM-Anomaly-Detection-Localization-master, main.py (features, channels, distance, smoothing);
the paper's 0.01 on the diagonal of the covariance. Chosen: the distance by Cholesky factors instead of an inverse; no
scaling of the scores over the test set.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from adlib.backbones import Features
from adlib.common.errors import UserError
from adlib.layers import gaussian_blur
from adlib.models import base, cropped
from adlib.models.base import Scores
from adlib.models.config import setting

RIDGE = 0.01  # on the diagonal of each covariance: with fewer pictures than channels it is part of the model
ROWS = 32  # pictures at a time
PLACES = 256  # whose factors are computed at a time


@dataclass(frozen=True, kw_only=True)
class Config(cropped.Config):
    """The paper's largest setting, WR50-Rd550; resnet18.tv_in1k with channels 100 is the small one."""

    layers: tuple[int, ...] = setting((1, 2, 3), low=0, high=64)  # of timm's features, on the grid of the first
    channels: int = setting(550, low=1, high=100_000)  # d, drawn at random from those of all layers
    channel_seed: int = setting(1024, low=0, high=10**9)  # of this draw


def concatenated(maps: tuple[Tensor, ...]) -> Tensor:
    """Maps [B,C,h,w] of all layers on the grid of the first: [B,sum C,h,w]; coarse vectors are repeated."""
    return torch.cat([F.interpolate(each, size=maps[0].shape[-2:], mode="nearest") for each in maps], 1)


def gaussians(take: Callable[[range], Tensor], count: int) -> tuple[Tensor, Tensor]:
    """Means [P,d] and lower Cholesky factors [P,d,d] of the covariances of the vectors at P places of `count` pictures.

    take: rows -> their vectors [n,P,d]. Two passes over ROWS pictures at a time, so that nothing cancels in float32;
    covariance with N - 1, and RIDGE on its diagonal. Raises UserError for fewer than two pictures.
    """
    if count < 2:
        raise UserError(f"a Gaussian needs at least 2 training images, but there is {count}; add normal images")
    parts = [range(i, min(i + ROWS, count)) for i in range(0, count, ROWS)]
    mean = sum(take(part).sum(0) for part in parts) / count
    places, d = mean.shape
    covariance = mean.new_zeros(places, d, d)
    for part in parts:
        off = (take(part) - mean).transpose(0, 1)  # [P,n,d]
        covariance.baddbmm_(off.mT, off)
    covariance.div_(count - 1).diagonal(dim1=1, dim2=2).add_(RIDGE)
    for some in covariance.split(PLACES):
        some.copy_(torch.linalg.cholesky(some))  # in place: the factors of all places are most of this model's memory
    return mean, covariance


def distance(rows: Tensor, mean: Tensor, factor: Tensor) -> Tensor:
    """sqrt((x - m)' S^-1 (x - m)) of vectors [B,P,d] -> [B,P]; a norm, so never negative."""
    off = (rows - mean).permute(1, 2, 0)  # [P,d,B]
    return torch.linalg.solve_triangular(factor, off, upper=False).norm(dim=1).T


class PaDiM(base.Detector):
    """Features of three layers -> d random channels -> a Gaussian for each place; image score: maximum of the map."""

    Config = Config
    embedding_fields = ("channels", "channel_seed")

    def __init__(self, config: Config):
        super().__init__(config)
        self.backbone = Features(config.backbone, config.layers, config.pretrained)
        total = sum(self.backbone.channels)
        if config.channels > total:
            raise UserError(
                f"channels {config.channels} of {config.backbone}: its layers have {total}; use at most that"
            )
        drawn = random.Random(config.channel_seed).sample(range(total), config.channels)
        self.register_buffer("drawn", torch.tensor(drawn), persistent=False)
        side, d = config.image_size // self.backbone.strides[0], config.channels
        self.register_buffer("mean", torch.zeros(side * side, d))
        self.register_buffer("factor", torch.eye(d).repeat(1, 1, 1))  # [P,d,d] once it is fitted

    @property
    def protocol(self) -> dict:
        return {"image_score": "max", "smoothing": f"Gaussian, {self.config.smooth:g} pixels"}

    def embed(self, images: Tensor) -> Tensor:
        """[B,3,H,W] in 0..1 -> the drawn channels [B,d,h,w]."""
        return concatenated(self.backbone(images)).index_select(1, self.drawn)

    def rows(self, embeddings: Tensor) -> Tensor:
        """[B,d,h,w] -> [B,P,d]."""
        return embeddings.flatten(2).mT

    def fit(self, embeddings, generator: torch.Generator) -> None:
        take = lambda part: self.rows(embeddings.take(part, generator.device))
        self.mean, self.factor = gaussians(take, len(embeddings))

    def score(self, embeddings: Tensor) -> Scores:
        found = distance(self.rows(embeddings), self.mean, self.factor)
        grid = found.unflatten(1, embeddings.shape[-2:])[:, None]
        size = [side * self.backbone.strides[0] for side in embeddings.shape[-2:]]
        maps = gaussian_blur(F.interpolate(grid, size=size, mode="bilinear")[:, 0], self.config.smooth)
        return Scores(self.pool(maps), maps)
