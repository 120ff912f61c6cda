"""DifferNet. Rudolph, Wandt, Rosenhahn, WACV 2021 (Same Same But DifferNet: Semi-Supervised Defect Detection with
Normalizing Flows); a baseline of paper 05, Tables 2 to 4.

A normalizing flow learns the density of one feature vector for each picture: the spatial means of AlexNet's features at
three sizes. Pictures are turned by many angles, in training for variety and in use for a steadier score. It has no map.

Everything follows the authors' code (marco-rudolph/differnet, commit 9bdf026: model.py, freia_funcs.py, config.py,
train.py, evaluate.py). Chosen: the angles of a picture are i * 360 / rotations degrees, as in evaluate.py; training
draws from the same ones, where the authors draw any angle, so that the frozen part runs once for each picture and
angle. With another backbone than AlexNet the vector is as wide as its channels at three scales.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torchvision.transforms.functional import rotate

from adlib.backbones import Frozen, load_weights
from adlib.common.errors import UserError
from adlib.common.seeds import seeded
from adlib.layers import Coupling, Flow, Permutation
from adlib.models import base, multiscale
from adlib.models.base import Scores, adam
from adlib.models.config import LARGEST_SIDE, MOST_EPOCHS, setting
from adlib.models.csflow import check_loaded, negative_log_likelihood, transformed
from adlib.models.multiscale import SCALES, Pyramid, means

ALEXNET = "alexnet"  # torchvision's; timm has none
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet
BETAS = (0.8, 0.8)  # Adam's


@dataclass(frozen=True, kw_only=True)
class Config(multiscale.Config):
    """The authors' config.py; each default is its setting."""

    image_size: int = setting(448, low=64, high=LARGEST_SIDE)  # pixels of the largest scale
    backbone: str = ALEXNET  # or a timm name, whose `layer` is taken
    rotations: int = setting(64, low=1, high=360)  # angles of a picture, in use
    draws: int = setting(4, low=1, high=360)  # angles of a picture in a training step
    blocks: int = setting(8, low=1, high=64)  # couplings
    hidden: int = setting(2048, low=1, high=8192)  # width of the layers of a coupling's networks
    clamp: float = setting(3.0, low=0.01, high=100.0)  # alpha of the soft clamp
    learning_rate: float = setting(2e-4, low=0.0, high=10.0)  # Adam
    weight_decay: float = setting(1e-5, low=0.0, high=10.0)  # L2, in the gradient
    adam_eps: float = setting(1e-4, low=0.0, high=1.0)  # Adam's
    batch_size: int = setting(24, low=1, high=4096)  # images
    epochs: int | None = setting(192, low=0, high=MOST_EPOCHS)  # 24 x 8 passes

    def _check_side(self) -> None:
        if self.backbone != ALEXNET:
            super()._check_side()


class AlexNetPyramid(Frozen):
    """torchvision's AlexNet at three sizes: [B,3,H,W] in 0..1 -> three maps [B,256,h,w]."""

    def __init__(self, pretrained: bool = True, pyramid: str = "nearest"):
        super().__init__()
        self.pyramid = pyramid
        self.features, file = _alexnet(pretrained)
        self.channels = (256,) * SCALES
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(STD).view(1, 3, 1, 1), persistent=False)
        self.freeze(ALEXNET, file, mean=MEAN, std=STD, pyramid=pyramid)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        scaled = multiscale.sizes((images - self.mean) / self.std, self.pyramid)
        return tuple(self.features(each) for each in scaled)


def _alexnet(pretrained: bool) -> tuple[nn.Module, str]:
    from torchvision.models import alexnet  # with all other networks of torchvision, so only here

    def donor() -> nn.Module:
        return alexnet(weights="IMAGENET1K_V1")

    with seeded(0, f"random {ALEXNET}"):
        model = alexnet(weights=None)
    file = load_weights(model, ALEXNET, donor) if pretrained else "random"
    return model.features, file


class Dense(nn.Sequential):
    """The network in a coupling: (vector [B,C/2],) -> (vector [B,C],); four linear layers."""

    def __init__(self, width: int, hidden: int):
        first = (nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU())
        super().__init__(*first, nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, 2 * width))

    def forward(self, x: tuple[Tensor]) -> tuple[Tensor]:
        return (super().forward(x[0]),)


class DifferNet(base.Detector):
    """Spatial means of features at three sizes and many angles -> couplings -> z; score: mean of z^2."""

    Config = Config
    embedding_fields = ("rotations",)

    def __init__(self, config: Config, backbone: nn.Module | None = None):
        super().__init__(config)
        if backbone is None and config.backbone == ALEXNET:
            backbone = AlexNetPyramid(config.pretrained, config.pyramid)
        self.backbone = backbone or Pyramid(config.backbone, config.layer, config.pretrained, config.pyramid)
        width, steps = sum(self.backbone.channels), []
        if width % 2:
            raise UserError(f"layer {config.layer!r} of {config.backbone} gives {width} numbers; take one that halves")
        for k in range(config.blocks):
            steps.append(Permutation(width, 1, seed=k))
            steps.append(Coupling(*(Dense(width // 2, config.hidden) for _ in range(2)), config.clamp))
        self.flow = Flow(*steps)
        self.register_buffer("done", torch.zeros((), dtype=torch.int64))  # training steps, for error messages
        self.register_load_state_dict_post_hook(check_loaded)

    @property
    def protocol(self) -> dict:
        return {"image_score": "mean of z^2 over all dimensions and angles", "smoothing": "none"}

    def embed(self, images: Tensor) -> Tensor:
        """[B,3,H,W] in 0..1 -> [B,rotations,3C]: nearest-neighbour rotation, black corners."""
        count, turned = self.config.rotations, []
        for i in range(count):
            turned.append(means(self.backbone(rotate(images, i * 360 / count))).flatten(1))
        return torch.stack(turned, 1)

    def optimizers(self, steps_per_epoch: int, total_steps: int) -> list[tuple]:
        c = self.config
        options = {"lr": c.learning_rate, "betas": BETAS, "eps": c.adam_eps, "weight_decay": c.weight_decay}
        return [(adam(self.flow.parameters(), **options), None)]

    def loss(self, batch: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Mean of eq. (3) over `draws` angles of each image, and over dimensions."""
        shape = (len(batch), self.config.draws)
        angles = torch.randint(batch.shape[1], shape, generator=generator, device=batch.device)
        rows = batch.gather(1, angles[..., None].expand(-1, -1, batch.shape[2])).flatten(0, 1)
        self.done += 1
        z, logdet = transformed(self.flow, (rows,), int(self.done))
        nll = negative_log_likelihood(z, logdet) / rows.shape[1]
        return {"total": nll.mean(), "logdet": logdet.mean() / rows.shape[1]}

    def score(self, embeddings: Tensor) -> Scores:
        (z,), _ = self.flow((embeddings.flatten(0, 1),))
        return Scores(z.square().mean(1).unflatten(0, (len(embeddings), -1)).mean(1), None)
