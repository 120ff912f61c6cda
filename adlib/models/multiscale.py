"""What the systems of paper 05 share: frozen features of one picture at three sizes, and their spatial means.

Specification: EfficientNet-B5 up to the end of its sixth stage ("36th layer"), pictures of 768, 384 and 192 pixels,
304 channels on grids of 24, 12 and 6 places (marco-rudolph/cs-flow, model.py and utils.py). The features never change,
so all systems of the paper read the same cached ones.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adlib.backbones import Features
from adlib.common import definitions
from adlib.common.errors import UserError
from adlib.models import base
from adlib.models.config import LARGEST_SIDE, setting

SCALES = 3
PYRAMIDS = ("nearest", "area")
EMULATED = "tf_efficientnet_b5"  # whose convolutions the package of the authors pads otherwise


@dataclass(frozen=True, kw_only=True)
class Config(base.Config):
    """The features of the paper; a system's own Config adds what it learns."""

    image_size: int = setting(768, low=128, high=LARGEST_SIDE)  # pixels of the largest scale; 384 for MTD
    backbone: str = "tf_efficientnet_b5.aa_in1k"  # timm name and weights
    pretrained: bool = True  # false: random backbone, a control
    layer: str = "blocks.5"  # timm's module whose output is taken: the end of the sixth stage
    # how a half and a quarter of the side come about; nearest: every second and fourth pixel, as published
    pyramid: str = setting("nearest", choices=PYRAMIDS)

    def __post_init__(self):
        super().__post_init__()
        self._check_side()

    def _check_side(self) -> None:
        if self.image_size % 128:
            below = max(128, self.image_size // 128 * 128)
            raise UserError(
                f"config field 'image_size' is {self.image_size}; three scales of a network of stride 32 need a "
                f"multiple of 128, e.g. {below} or {below + 128}"
            )


class Pyramid(Features):
    """Frozen features of pictures at their side, a half and a quarter of it: [B,3,H,W] in 0..1 -> three [B,C,h,w].

    pyramid "nearest" takes every second and fourth pixel (F.interpolate's default, cs-flow utils.py), "area" averages.
    EfficientNet-B5 is padded as the authors' package efficientnet_pytorch does it, see `_padded_as_published`.
    """

    def __init__(self, name: str, layer: str, pretrained: bool = True, pyramid: str = "nearest"):
        super().__init__(name, (layer,), pretrained)
        self.pyramid = pyramid
        padded = name.partition(".")[0] == EMULATED and _padded_as_published(self.model)
        self.channels, self.strides = self.channels * SCALES, tuple(self.strides[0] * 2**i for i in range(SCALES))
        # the code, too: cached features of another making are others
        facts = {"pyramid": pyramid, "padded": padded, "code": definitions.fingerprint(Pyramid, outside=base.OUTSIDE)}
        self.freeze(name, self.network.file, of=self.network.fingerprint, **facts)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return tuple(super(Pyramid, self).forward(each)[0] for each in sizes(images, self.pyramid))


def sizes(images: Tensor, pyramid: str = "nearest") -> list[Tensor]:
    """Pictures [B,3,H,W] at their side, a half and a quarter of it, by one of PYRAMIDS."""
    if pyramid == "area":
        return [images, *(F.avg_pool2d(images, 2**i) for i in range(1, SCALES))]
    return [images, *(images[..., :: 2**i, :: 2**i] for i in range(1, SCALES))]


def _padded_as_published(model: nn.Module) -> bool:
    """Pad two strided convolutions of EfficientNet-B5 by zeros on both sides, as efficientnet_pytorch does, which fixes
    its padding for 456 pixels whatever the side is; timm pads by the side at hand. True where they are in the network.
    """
    found = False
    for block, padding in (("blocks.3.0", 1), ("blocks.5.0", 2)):
        try:
            parent = model.get_submodule(block)
        except AttributeError:  # an earlier layer is taken
            continue
        old = parent.conv_dw
        new = nn.Conv2d(
            old.in_channels, old.out_channels, old.kernel_size, old.stride, padding, groups=old.groups, bias=False
        )
        new.weight = old.weight
        parent.conv_dw, found = new, True
    return found


def means(maps: tuple[Tensor, ...]) -> Tensor:
    """Maps [B,C,h,w] of all scales -> their means over the places [B,scales,C]."""
    return torch.stack([each.mean((2, 3)) for each in maps], 1)


def all_means(embeddings, device, batch: int = 64) -> Tensor:
    """`means` of all training images [N,scales,C], float32, on the CPU."""
    rows = range(len(embeddings))
    return torch.cat([means(embeddings.take(rows[i : i + batch], device)).cpu() for i in rows[::batch]])
