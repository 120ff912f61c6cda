"""PatchCore. Roth, Pemula, Zepeda, Schoelkopf, Brox, Gehler, CVPR 2022 (Towards Total Recall in Industrial Anomaly
Detection); a baseline of papers 02 and 03.

A bank of features of small neighbourhoods of normal pictures, thinned so that it still covers them; the score of a
place is its distance to the nearest one in the bank. Nothing is learnt by steps.

Equations of the paper: (1) to (3) `patches`, (5) `greedy`, (6) `PatchCore.score`, (7) `reweighted`. Sources:
amazon-science/patchcore-inspection, patchcore.py, common.py, sampler.py (embed_by "official"); openvinotoolkit/anomalib
(embed_by "average", the re-weighting with the nearest neighbour itself among the b). Chosen: Euclidean distances (the
official search returns their squares); the start of the thinning is in the bank; the map is enlarged bilinearly; no
scaling of the scores over the test set.
"""

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

QUERIES = 4096  # differences of vectors from their nearest ones in the bank that are held at a time
IMAGES = 32  # pictures whose vectors are collected at a time


@dataclass(frozen=True, kw_only=True)
class Config(cropped.Config):
    """The setting of the authors' README for MVTec AD."""

    layers: tuple[int, ...] = setting((2, 3), low=0, high=64)  # of timm's features, on the grid of the first
    # of 3 x 3 places; official: pooled over channels and places at once, to `dim`; average: their mean, per channel
    embed_by: str = setting("official", choices=("official", "average"))
    dim: int = setting(1024, low=1, high=100_000)  # numbers of a vector, with official
    coreset: float = setting(0.1, low=1e-6, high=1.0)  # share of the vectors that stays in the bank
    projected: int = setting(128, low=1, high=100_000)  # dimensions in which the thinning measures
    neighbours: int = setting(1, low=1, high=1000)  # whose mean distance is a place's score
    reweight: int = setting(0, low=0, high=1000)  # b of eq. (7); 0 and 1: the largest distance as it is


def patches(
    maps: tuple[Tensor, ...], embed_by: str = "official", dim: int = 1024, layer_dim: int | None = None
) -> Tensor:
    """Maps [B,C,h,w] of two or more layers -> neighbourhood vectors on the grid of the first [B,D,h,w].

    average: mean over 3 x 3 places (zeros beyond the border count), coarse maps enlarged, side by side. official: each
    neighbourhood of C x 3 x 3 numbers, those of coarse maps enlarged number by number, is pooled to
    `layer_dim` (default: dim); side by side they are pooled to `dim`.
    """
    size = maps[0].shape[-2:]
    enlarged = lambda x: x if x.shape[-2:] == size else F.interpolate(x, size=size, mode="bilinear")
    if embed_by == "average":
        return torch.cat([enlarged(F.avg_pool2d(each, 3, 1, 1)) for each in maps], 1)
    pooled = []
    for each in maps:
        blocks = enlarged(F.unfold(each, 3, padding=1).unflatten(2, each.shape[-2:]))  # [B, 9 C, h, w]
        pooled.append(F.adaptive_avg_pool1d(blocks.flatten(2).mT.flatten(0, 1), layer_dim or dim))
    both = F.adaptive_avg_pool1d(torch.stack(pooled, 1).flatten(1), dim)
    return both.unflatten(0, (len(maps[0]), -1)).mT.unflatten(2, size)


def greedy(rows: Tensor, count: int, start: int = 0) -> Tensor:
    """Eq. (5): indices [count] of rows [N,D], the start first, then always the row farthest from those chosen."""
    squares = rows.square().sum(1)
    nearest = torch.full_like(squares, torch.inf)
    chosen = torch.empty(count, dtype=torch.long, device=rows.device)
    pick = torch.tensor(start, device=rows.device)
    for i in range(count):
        chosen[i] = pick
        row = rows[pick]
        nearest = torch.minimum(nearest, squares + squares[pick] - 2 * (rows @ row))
        pick = nearest.argmax()
    return chosen


def nearest(queries: Tensor, bank: Tensor, count: int = 1) -> tuple[Tensor, Tensor]:
    """Distances [Q,count] of queries [Q,D] to their nearest rows of the bank [M,D], and which these are.

    A matrix product finds them, exact up to its rounding; the distances themselves are those of differences.
    """
    squares, found = bank.square().sum(1), []
    for part in queries.split(max(1, QUERIES // count)):
        # |q - m|^2 without |q|^2, which is the same for all m
        which = torch.addmm(squares, part, bank.T, alpha=-2).topk(count, largest=False).indices
        far, order = (part[:, None] - bank[which]).norm(dim=2).sort(dim=1)
        found.append((far, which.gather(1, order)))
    return torch.cat([far for far, _ in found]), torch.cat([which for _, which in found])


def reweighted(query: Tensor, distance: Tensor, match: Tensor, bank: Tensor, b: int) -> Tensor:
    """Eq. (7) of one picture: (1 - exp(s*) / sum over N_b of exp(|query - m|)) s*.

    query [D]: its worst place; distance s*: to its nearest row `match` of the bank; N_b: the b rows nearest to that
    one, itself among them. So 1 - 1/b of s* is the least that can remain.
    """
    around = bank[nearest(bank[match][None], bank, min(b, len(bank)))[1][0]]
    far = (around - query).norm(dim=1)
    return (1 - torch.exp(distance - far.logsumexp(0))) * distance


class PatchCore(base.Detector):
    """Neighbourhood vectors -> distance to the bank; image score: that of the worst place, before smoothing."""

    Config = Config
    embedding_fields = ("embed_by", "dim")

    def __init__(self, config: Config):
        super().__init__(config)
        self.backbone = Features(config.backbone, config.layers, config.pretrained)
        if len(config.layers) < 2:
            raise UserError(f"layers {list(config.layers)} of PatchCore: it joins two or more, e.g. [2, 3]")
        width = config.dim if config.embed_by == "official" else sum(self.backbone.channels)
        self.register_buffer("bank", torch.zeros(1, width))  # [M,D] once it is fitted

    @property
    def protocol(self) -> dict:
        b = self.config.reweight
        score = "max before smoothing" + (f", re-weighted with b = {b}" if b > 1 else "")
        return {"image_score": score, "smoothing": f"Gaussian, {self.config.smooth:g} pixels"}

    def embed(self, images: Tensor) -> Tensor:
        """[B,3,H,W] in 0..1 -> neighbourhood vectors [B,D,h,w]."""
        return patches(self.backbone(images), self.config.embed_by, self.config.dim)

    def fit(self, embeddings, generator: torch.Generator) -> None:
        """Vectors of all training pictures, thinned in a random projection; the bank keeps them unprojected."""
        chunks = [range(i, min(i + IMAGES, len(embeddings))) for i in range(0, len(embeddings), IMAGES)]
        rows = torch.cat([vectors(embeddings.take(chunk, generator.device)) for chunk in chunks])
        count = max(1, int(len(rows) * self.config.coreset))
        if count < len(rows):
            seen, width = rows, rows.shape[1]
            if self.config.projected < width:
                shape = (width, self.config.projected)
                seen = rows @ torch.randn(shape, generator=generator, device=generator.device)
            start = int(torch.randint(len(rows), (1,), generator=generator, device=generator.device))
            rows = rows[greedy(seen, count, start)]
        self.bank = rows.contiguous()

    def score(self, embeddings: Tensor) -> Scores:
        count, size = len(embeddings), embeddings.shape[-2:]
        rows = vectors(embeddings)
        far, which = nearest(rows, self.bank, min(self.config.neighbours, len(self.bank)))
        grid = far.mean(1).unflatten(0, (count, *size))
        side = [n * self.backbone.strides[0] for n in size]
        maps = gaussian_blur(F.interpolate(grid[:, None], size=side, mode="bilinear")[:, 0], self.config.smooth)
        if self.config.reweight < 2:
            return Scores(self.pool(grid), maps, grid)
        worst = grid.flatten(1).argmax(1) + torch.arange(count, device=grid.device) * (size[0] * size[1])
        each = [reweighted(rows[i], far[i, 0], which[i, 0], self.bank, self.config.reweight) for i in worst]
        image = torch.stack(each)
        return Scores(image, maps, grid * (image / grid.flatten(1).amax(1).clamp(min=1e-12))[:, None, None])


def vectors(embeddings: Tensor) -> Tensor:
    """[B,D,h,w] -> [B h w, D]."""
    return embeddings.flatten(2).mT.flatten(0, 1)
