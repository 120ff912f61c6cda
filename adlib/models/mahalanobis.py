"""Mahalanobis distance of pretrained features. Rippel, Mertens, Merhof, ICPR 2021 (Modeling the Distribution of Normal
Data in Pre-Trained Deep Features for Anomaly Detection); a baseline of paper 05, Tables 2 and 3.

One Gaussian for each level of features: mean and precision (inverse covariance) of the spatial means of normal
pictures. The score of a picture is the sum of its distances to the levels' means.

Sources: ORippler/gaussian-ad-mvtec, commit bc10bd7 (Ledoit-Wolf shrinkage, distances; theirs averages over levels,
which ranks alike). Chosen: the levels are the three scales of paper 05's features, for one comparison on the same
features; the authors take nine levels of EfficientNet-B4 at 380 pixels and average five folds.
"""

from dataclasses import dataclass

import torch
from sklearn.covariance import LedoitWolf
from torch import Tensor, nn

from adlib.common.errors import UserError
from adlib.models import base, multiscale
from adlib.models.base import Scores
from adlib.models.config import setting
from adlib.models.multiscale import Pyramid, all_means, means


@dataclass(frozen=True, kw_only=True)
class Config(multiscale.Config):
    """Nothing is learnt by steps."""

    joint: bool = False  # one Gaussian of all scales' means side by side, instead of one for each
    epochs: int | None = setting(0, low=0, high=0)  # none: statistics are collected in one pass


def gaussian(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Mean [C] and precision [C,C] of rows [N,C], covariance shrunk after Ledoit and Wolf; float64."""
    if len(rows) < 2:
        raise UserError(f"a Gaussian needs at least 2 training images, but there is {len(rows)}; add normal images")
    fitted = LedoitWolf().fit(rows.double().numpy())
    return torch.from_numpy(fitted.location_), torch.from_numpy(fitted.precision_)


def distance(x: Tensor, mean: Tensor, precision: Tensor) -> Tensor:
    """sqrt((x - m)' P (x - m)) of rows [B,C] -> [B]."""
    off = x.double() - mean
    return ((off @ precision) * off).sum(1).clamp(min=0).sqrt()


class Mahalanobis(base.Detector):
    """Features at three scales -> spatial means -> a Gaussian for each scale; no map."""

    Config = Config
    embedding_dtype = "float16"

    def __init__(self, config: Config, backbone: nn.Module | None = None):
        super().__init__(config)
        self.backbone = backbone or Pyramid(config.backbone, config.layer, config.pretrained, config.pyramid)
        channels = self.backbone.channels
        levels, width = (1, sum(channels)) if config.joint else (len(channels), channels[0])
        self.register_buffer("mean", torch.zeros(levels, width, dtype=torch.float64))
        self.register_buffer("precision", torch.zeros(levels, width, width, dtype=torch.float64))

    @property
    def protocol(self) -> dict:
        return {"image_score": "sum of the levels' distances", "smoothing": "none"}

    def levels(self, x: Tensor) -> Tensor:
        """Means [B,scales,C] -> [B,levels,width]."""
        return x.flatten(1)[:, None] if self.config.joint else x

    def fit(self, embeddings, generator: torch.Generator) -> None:
        rows = self.levels(all_means(embeddings, generator.device))
        for level in range(rows.shape[1]):
            mean, precision = gaussian(rows[:, level])
            self.mean[level].copy_(mean)
            self.precision[level].copy_(precision)

    def score(self, embeddings: tuple[Tensor, ...]) -> Scores:
        rows = self.levels(means(embeddings))
        each = [distance(rows[:, i], self.mean[i], self.precision[i]) for i in range(rows.shape[1])]
        return Scores(torch.stack(each).sum(0).float(), None)
