"""SPADE. Cohen, Hoshen, 2020 (Sub-Image Anomaly Detection with Deep Pyramid Correspondences, arXiv 2005.02357); a
baseline of paper 02.

Two searches for neighbours. The pooled features of a picture find the normal pictures most like it; their distance is
the image score. Then every place of the picture looks for the nearest feature anywhere in those pictures.

Sources: byungjae89/SPADE-pytorch, src/main.py; any-tech/SPADE-fast, README (both numbers of neighbours). The paper
concatenates the levels, the code, which counts here, averages their maps. Mended: its search drops the last incomplete
block of the gallery; here it is exact, and streamed picture by picture. Chosen: 5 neighbours for the image score, up to
50 for the map; the gallery is kept in half precision.
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

IMAGES = 32  # pictures collected at a time


@dataclass(frozen=True, kw_only=True)
class Config(cropped.Config):
    """The paper's backbone and size."""

    layers: tuple[int, ...] = setting((1, 2, 3), low=0, high=64)  # of timm's features, for the maps
    pooled: int = setting(4, low=0, high=64)  # the layer whose mean over places finds the neighbours
    image_neighbours: int = setting(5, low=1, high=10_000)  # whose mean distance is the image score
    map_neighbours: int = setting(50, low=1, high=10_000)  # pictures in which places are looked for


def nearest_images(pooled: Tensor, gallery: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Distances [B,k] of vectors [B,C] to the nearest of [N,C], and which, k = min(count, N)."""
    far = torch.cdist(pooled, gallery, compute_mode="donot_use_mm_for_euclid_dist")
    return tuple(far.topk(min(count, len(gallery)), largest=False))


def nearest_places(maps: Tensor, gallery: Tensor) -> Tensor:
    """Distance [h,w] of every place of a map [C,h,w] to the nearest one of maps [k,C,h,w]; map by map.

    A matrix product finds it, exact up to its rounding; the distance itself is that of the difference, where nothing
    cancels.
    """
    queries = maps.flatten(1).T.float()
    best = torch.full((len(queries),), torch.inf, device=maps.device)
    match = torch.zeros_like(queries)
    for each in gallery:
        places = each.flatten(1).T.float()
        # |q - g|^2 without |q|^2, which is the same for all g
        lowest = torch.addmm(places.square().sum(1), queries, places.T, alpha=-2).min(1)
        closer = lowest.values < best
        best[closer] = lowest.values[closer]
        match[closer] = places[lowest.indices[closer]]
    return (queries - match).norm(dim=1).unflatten(0, maps.shape[-2:])


class SPADE(base.Detector):
    """Nearest normal pictures, then nearest places in them; image score: mean distance of the pooled features."""

    Config = Config
    embedding_dtype = "float16"
    embedding_fields = ("layers", "pooled")

    def __init__(self, config: Config):
        super().__init__(config)
        every = tuple(sorted({*config.layers, config.pooled}))
        if tuple(sorted(set(config.layers))) != config.layers:
            raise UserError(f"layers {list(config.layers)} of SPADE must ascend, each once: [1, 2, 3]")
        self.backbone = Features(config.backbone, every, config.pretrained)
        self.at = [every.index(layer) for layer in config.layers]
        self.pooled_at = every.index(config.pooled)
        self.register_buffer("pooled", torch.zeros(1, self.backbone.channels[self.pooled_at]))
        for i, k in enumerate(self.at):  # [N,C,h,w] once it is fitted
            self.register_buffer(f"gallery{i}", torch.zeros(1, self.backbone.channels[k], 1, 1, dtype=torch.float16))

    @property
    def protocol(self) -> dict:
        count = self.config.image_neighbours
        score = f"mean distance of {count} neighbours"
        return {"image_score": score, "smoothing": f"Gaussian, {self.config.smooth:g} pixels"}

    def embed(self, images: Tensor) -> tuple[Tensor, ...]:
        """[B,3,H,W] in 0..1 -> the pooled features [B,C], then the maps."""
        maps = self.backbone(images)
        return (maps[self.pooled_at].mean((2, 3)), *(maps[k] for k in self.at))

    def fit(self, embeddings, generator: torch.Generator) -> None:
        chunks = [range(i, min(i + IMAGES, len(embeddings))) for i in range(0, len(embeddings), IMAGES)]
        parts = [embeddings.take(chunk, generator.device) for chunk in chunks]
        self.pooled = torch.cat([part[0] for part in parts])
        for i in range(len(self.at)):
            setattr(self, f"gallery{i}", torch.cat([part[i + 1].half() for part in parts]))

    def score(self, embeddings: tuple[Tensor, ...]) -> Scores:
        pooled, *maps = embeddings
        far, _ = nearest_images(pooled, self.pooled, self.config.image_neighbours)
        _, which = nearest_images(pooled, self.pooled, self.config.map_neighbours)
        stride = self.backbone.strides[self.at[0]]
        size = tuple(side * stride for side in maps[0].shape[-2:])
        total = 0
        for i, each in enumerate(maps):
            gallery = getattr(self, f"gallery{i}")
            found = torch.stack([nearest_places(one, gallery[of]) for one, of in zip(each, which, strict=True)])
            total = total + F.interpolate(found[:, None], size=size, mode="bilinear")[:, 0]
        found = gaussian_blur(total / len(maps), self.config.smooth)
        image = far.mean(1)
        return Scores(image, found, image[:, None, None].expand_as(found))
