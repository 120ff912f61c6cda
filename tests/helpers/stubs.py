"""The coming systems in a few lines each: what the contract must carry, not what their papers say.

Each takes one trait of a system to come: a memory bank whose size the data decide, loss and fit, two optimisers
without a map, three scales of an image, a second frozen network for the loss, teacher and student, a derived image, and
many views at scoring.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adlib.backbones import Features, start
from adlib.models import base
from adlib.models.base import Scores, adam
from adlib.models.config import setting

BACKBONE = "test_resnet"  # timm's own network for tests, random weights


@dataclass(frozen=True, kw_only=True)
class Config(base.Config):
    image_size: int = setting(64, low=32)
    epochs: int | None = setting(2, low=0)
    eval_every: int = setting(1, low=0)
    share: float = setting(0.1, low=0.01, high=1.0)  # of the rows that a memory bank keeps
    scales: tuple[int, ...] = setting((64, 32), low=16)  # pixels


class Stub(base.Detector):
    Config = Config


class MemoryBank(Stub):
    """As PatchCore: nothing to train; how many rows the bank has is known after fit."""

    def __init__(self, config: Config):
        super().__init__(config)
        self.backbone = Features(BACKBONE, (2,), pretrained=False)
        self.register_buffer("bank", None)

    def rows(self, maps: tuple[Tensor, ...]) -> Tensor:
        return maps[0].flatten(2).transpose(1, 2)  # [B, h*w, C]

    def fit(self, embeddings, generator: torch.Generator) -> None:
        device = generator.device
        rows = torch.cat([self.rows(embeddings.take([i], device)).flatten(0, 1) for i in range(len(embeddings))])
        order = torch.randperm(len(rows), generator=generator, device=device)
        self.bank = rows[order[: int(self.config.share * len(rows))]]

    def score(self, maps: tuple[Tensor, ...]) -> Scores:
        distance = torch.cdist(self.rows(maps), self.bank[None]).amin(2)
        return Scores(distance.amax(1), distance.unflatten(1, maps[0].shape[-2:]))


class LossAndFit(Stub):
    """As CutPaste: a started network learns to tell a shifted patch; then statistics of what it has learnt. No map."""

    def __init__(self, config: Config):
        super().__init__(config)
        self.network_ = start(_lite0, "tf_efficientnet_lite0")
        self.head = nn.Linear(24, 2)
        self.register_buffer("mean", torch.zeros(24))
        self.register_buffer("precision", torch.eye(24))

    def features(self, images: Tensor) -> Tensor:
        return self.network_(images)[0].mean((2, 3))

    def loss(self, batch: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        pasted = batch.clone()
        pasted[:, :, :16, :16] = batch[:, :, 32:48, 32:48]
        logits = self.head(self.features(torch.cat([batch, pasted])))
        return {"total": F.cross_entropy(logits, torch.arange(2).repeat_interleave(len(batch)))}

    def fit(self, embeddings, generator: torch.Generator) -> None:
        rows = torch.cat([self.features(embeddings.take([i], generator.device)) for i in range(len(embeddings))])
        self.mean = rows.mean(0)
        self.precision = torch.linalg.inv(torch.cov(rows.T) + 0.01 * torch.eye(rows.shape[1]))

    def score(self, images: Tensor) -> Scores:
        away = self.features(images) - self.mean
        return Scores(((away @ self.precision) * away).sum(1), None)


def _lite0() -> nn.Module:
    import timm

    return timm.create_model("tf_efficientnet_lite0", features_only=True, out_indices=(1,), pretrained=False)


class TwoOptimisers(Stub):
    """As GANomaly: a generator and a discriminator that learn against each other; an image score alone."""

    drop_last = True
    clip_norm = 1.0

    def __init__(self, config: Config):
        super().__init__(config)
        self.generator = nn.Sequential(nn.Conv2d(3, 4, 4, 4), nn.ReLU(), nn.ConvTranspose2d(4, 3, 4, 4))
        self.discriminator = nn.Sequential(nn.Conv2d(3, 4, 4, 4), nn.ReLU(), nn.Conv2d(4, 1, 16))

    def optimizers(self, steps_per_epoch: int, total_steps: int) -> list[tuple]:
        first = adam(self.generator.parameters(), lr=1e-3)
        second = adam(self.discriminator.parameters(), lr=1e-3)
        return [(first, torch.optim.lr_scheduler.LinearLR(first, total_iters=total_steps)), (second, None)]

    def step(self, batch: Tensor, optimizers: list[tuple], generator: torch.Generator) -> dict[str, Tensor]:
        (first, _), (second, _) = optimizers
        made = self.generator(batch)
        adversarial = -self.discriminator(made).mean() + F.mse_loss(made, batch)
        first.zero_grad(set_to_none=True)
        adversarial.backward()
        first.step()
        second.zero_grad(set_to_none=True)
        told = self.discriminator(made.detach()).mean() - self.discriminator(batch).mean()
        told.backward()
        self.clip()
        second.step()
        return {"total": adversarial, "told": told}

    def score(self, images: Tensor) -> Scores:
        return Scores((self.generator(images) - images).square().flatten(1).mean(1), None)


class ThreeScales(Stub):
    """As CS-Flow: maps of several sizes of one image, stored in half precision, and a density for each."""

    embedding_dtype = "float16"
    embedding_fields = ("scales",)

    def __init__(self, config: Config):
        super().__init__(config)
        self.backbone = Features(BACKBONE, ("layer2",), pretrained=False)
        width = self.backbone.channels[0]
        self.shift = nn.Parameter(torch.zeros(len(config.scales), width, 1, 1))
        self.log_scale = nn.Parameter(torch.zeros(len(config.scales), width, 1, 1))

    def embed(self, images: Tensor) -> tuple[Tensor, ...]:
        sizes = self.config.scales
        return tuple(self.backbone(F.interpolate(images, size=(s, s), mode="bilinear"))[0] for s in sizes)

    def densities(self, maps: tuple[Tensor, ...]) -> list[Tensor]:
        latent = [(x - m) * s.exp() for x, m, s in zip(maps, self.shift, self.log_scale, strict=True)]
        return [(z**2 / 2 - s).mean(1) for z, s in zip(latent, self.log_scale, strict=True)]

    def loss(self, batch: tuple[Tensor, ...], generator: torch.Generator) -> dict[str, Tensor]:
        return {"total": sum(d.mean() for d in self.densities(batch))}

    def pool(self, cells: Tensor, valid: Tensor | None = None) -> Tensor:
        valid = torch.ones_like(cells) if valid is None else valid.float()
        return (cells * valid).flatten(1).sum(1) / valid.flatten(1).sum(1)

    def score(self, maps: tuple[Tensor, ...]) -> Scores:
        finest = self.densities(maps)
        grids = [F.interpolate(d[:, None], size=finest[0].shape[-2:], mode="bilinear")[:, 0] for d in finest]
        whole = torch.stack(grids).mean(0)
        return Scores(self.pool(whole), whole)


class SecondFrozen(Stub):
    """As the masked autoencoder with LPIPS: embeddings are the images, and a frozen network judges reconstructions."""

    def __init__(self, config: Config):
        super().__init__(config)
        self.autoencoder = nn.Sequential(nn.Conv2d(3, 4, 8, 8), nn.GELU(), nn.ConvTranspose2d(4, 3, 8, 8))
        self.perceptual = Features(BACKBONE, (1,), pretrained=False, normalise=False)

    def loss(self, batch: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        hidden = torch.rand(batch.shape[0], 1, 8, 8, generator=generator, device=batch.device) < 0.5
        made = self.autoencoder(batch * F.interpolate(hidden.float(), size=batch.shape[-2:]))
        perceptual = F.mse_loss(self.perceptual(made)[0], self.perceptual(batch)[0])
        l1 = (made - batch).abs().mean()
        return {"total": l1 + 0.1 * perceptual, "l1": l1, "perceptual": perceptual}

    def score(self, images: Tensor) -> Scores:
        error = (self.autoencoder(images) - images).abs().mean(1)
        return Scores(error.flatten(1).amax(1), error)


class TeacherStudent(Stub):
    """As MKD: a frozen teacher's maps are the embedding of one network, the student's are learnt from the images."""

    embedding_key = None  # both networks need the images

    def __init__(self, config: Config):
        super().__init__(config)
        self.backbone = Features(BACKBONE, (1,), pretrained=False)
        self.student = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU())
        self.last = nn.Conv2d(8, self.backbone.channels[0], 3, self.backbone.strides[0] // 2, 1)

    def embed(self, images: Tensor) -> Tensor:
        return images

    def apart(self, images: Tensor) -> Tensor:
        return (self.last(self.student(images)) - self.backbone(images)[0]).square().mean(1)

    def loss(self, batch: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        return {"total": self.apart(batch).mean()}

    def score(self, images: Tensor) -> Scores:
        distance = self.apart(images)
        return Scores(distance.flatten(1).amax(1), distance)


class DerivedImage(Stub):
    """As MMAERec: an edge image is derived from the picture on the device, and both are encoded."""

    def __init__(self, config: Config):
        super().__init__(config)
        self.encoder = nn.Conv2d(4, 4, 8, 8)
        self.memory = nn.Parameter(torch.randn(8, 4))
        self.decoder = nn.ConvTranspose2d(4, 3, 8, 8)

    @staticmethod
    def edges(images: Tensor) -> Tensor:
        """Dilation minus erosion of the grey image [B,1,H,W]."""
        grey = images.mean(1, keepdim=True)
        return F.max_pool2d(grey, 3, 1, 1) + F.max_pool2d(-grey, 3, 1, 1)

    def rebuilt(self, images: Tensor) -> Tensor:
        queries = self.encoder(torch.cat([images, self.edges(images)], 1)).permute(0, 2, 3, 1)
        weights = (queries @ self.memory.T).softmax(-1)
        return self.decoder((weights @ self.memory).permute(0, 3, 1, 2))

    def loss(self, batch: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        return {"total": F.mse_loss(self.rebuilt(batch), batch)}

    def score(self, images: Tensor) -> Scores:
        error = (self.rebuilt(images) - images).square().mean(1)
        return Scores(error.flatten(1).amax(1), error)


class ManyViews(Stub):
    """As DifferNet: every image is scored in eight turned and mirrored views, a few at a time."""

    embedding_key = None  # each view is embedded anew
    chunk = 3  # views at a time: bounds the memory

    def __init__(self, config: Config):
        super().__init__(config)
        self.backbone = Features(BACKBONE, (2,), pretrained=False)
        self.density = nn.Linear(self.backbone.channels[0], 1)

    def embed(self, images: Tensor) -> Tensor:
        return images

    def outlyingness(self, views: Tensor) -> Tensor:
        return F.softplus(self.density(self.backbone(views)[0].mean((2, 3))))[:, 0]

    def loss(self, batch: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        turns = int(torch.randint(4, (1,), generator=generator, device=generator.device))
        return {"total": self.outlyingness(batch.rot90(turns, (2, 3))).mean()}

    def score(self, images: Tensor) -> Scores:
        views = [x.rot90(k, (2, 3)) for x in (images, images.flip(3)) for k in range(4)]
        parts = [views[i : i + self.chunk] for i in range(0, len(views), self.chunk)]
        each = torch.cat([self.outlyingness(torch.cat(part)).unflatten(0, (len(part), -1)) for part in parts])
        return Scores(each.mean(0), None)


STUBS = (MemoryBank, LossAndFit, TwoOptimisers, ThreeScales, SecondFrozen, TeacherStudent, DerivedImage, ManyViews)
