"""The setting that PaDiM, PatchCore and SPADE share: features of the middle of a picture, statistics in one pass."""

from dataclasses import dataclass

from adlib import images
from adlib.models import base
from adlib.models.config import LARGEST_SIDE, setting


@dataclass(frozen=True, kw_only=True)
class Config(base.Config):
    """224 pixels cut from the middle of 256, WRN-50-2; a system's own Config adds what it does with the features."""

    image_size: int = setting(224, low=32, high=LARGEST_SIDE)  # pixels per side
    # as the papers: the shorter side to `resize`, then the centre; squash and others show the whole picture
    resize_mode: str = setting("short_crop", choices=images.RESIZE_MODES)
    resize: int | None = setting(256, low=8, high=LARGEST_SIDE)  # pixels of the shorter side before the cut
    backbone: str = "wide_resnet50_2.tv_in1k"  # timm name and weights
    pretrained: bool = True  # false: random backbone, a control
    smooth: float = setting(4.0, low=0.0, high=64.0)  # pixels, of the map
    epochs: int | None = setting(0, low=0, high=0)  # none: statistics are collected in one pass
