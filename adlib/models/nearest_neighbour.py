"""Nearest neighbour of pretrained features, "1-NN". Nazare, de Mello, Ponti 2018 (Are Pre-trained CNNs Good Feature
Extractors for Anomaly Detection in Surveillance Videos?, arXiv 1811.08495); a baseline of paper 05, Tables 2 and 3.

The score of a picture is the distance of its feature vector to the nearest one of the normal training pictures.

No public code was found, and only the abstract was read, which calls the normalisation decisive. Chosen: the vector is
the spatial means of paper 05's features at three scales, side by side; each dimension by its mean and deviation.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adlib.models import base, multiscale
from adlib.models.base import Scores
from adlib.models.config import setting
from adlib.models.multiscale import Pyramid, all_means, means

NARROWEST = 1e-12  # deviation of a dimension


@dataclass(frozen=True, kw_only=True)
class Config(multiscale.Config):
    """Nothing is learnt by steps."""

    # each dimension by the training images' mean and deviation, or as it is, or each vector by its length
    normalise: str = setting("zscore", choices=("zscore", "none", "l2"))
    epochs: int | None = setting(0, low=0, high=0)  # none: the vectors are collected in one pass


class NearestNeighbour(base.Detector):
    """Features at three scales -> spatial means -> distance to the nearest training image; no map."""

    Config = Config
    embedding_dtype = "float16"

    def __init__(self, config: Config, backbone: nn.Module | None = None):
        super().__init__(config)
        self.backbone = backbone or Pyramid(config.backbone, config.layer, config.pretrained, config.pyramid)
        width = sum(self.backbone.channels)
        self.register_buffer("bank", torch.zeros(1, width))  # a row for each training image
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("deviation", torch.ones(width))

    @property
    def protocol(self) -> dict:
        return {"image_score": "distance to the nearest training image", "smoothing": "none"}

    def fit(self, embeddings, generator: torch.Generator) -> None:
        rows = all_means(embeddings, generator.device).flatten(1).to(generator.device)
        if self.config.normalise == "zscore":
            self.mean.copy_(rows.mean(0))
            self.deviation.copy_(rows.std(0, correction=0).clamp(min=NARROWEST))
        self.bank = self.normalised(rows)

    def normalised(self, rows: Tensor) -> Tensor:
        return F.normalize(rows) if self.config.normalise == "l2" else (rows - self.mean) / self.deviation

    def score(self, embeddings: tuple[Tensor, ...]) -> Scores:
        rows = self.normalised(means(embeddings).flatten(1))
        # the exact differences: the matrix product of cdist's default loses digits where vectors are close
        return Scores(torch.cdist(rows, self.bank, compute_mode="donot_use_mm_for_euclid_dist").amin(1), None)
