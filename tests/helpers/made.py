"""Small data sets made by code, in the `folder` layout: stripes with a bright square as the only defect, and elongated
pictures with thin cracks.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

SIZE = 72
# The smallest SimpleNet that learns something in a second or two.
CONFIG = {
    "backbone": "tf_efficientnet_lite0",
    "image_size": 64,
    "resize": None,
    "resize_mode": "squash",
    "epochs": 4,
    "adapter_lr": 1e-3,
    "discriminator_lr": 1e-2,
    "noise_std": 0.2,
    "eval_every": 2,
}


# The systems on features at three scales, and what makes each of them small.
THREE_SCALES = {"image_size": 128, "backbone": "tf_efficientnet_lite0"}
FLOWS = {
    "validflow": {"hidden": 8, "blocks": 1, "epochs": 2, "learning_rate": 1e-3},
    "csflow": {"hidden": 8, "blocks": 2, "epochs": 2, "learning_rate": 1e-3, "adam_eps": 1e-8},
    "differnet": {"hidden": 16, "blocks": 2, "epochs": 2, "rotations": 2, "learning_rate": 1e-3},
    "mahalanobis": {},
    "nearest_neighbour": {},
}

# The improved masked autoencoder: 16 patches in 4 views.
MAE = {
    "image_size": 64,
    "width": 32,
    "heads": 2,
    "decoder_width": 16,
    "decoder_heads": 2,
    "lpips": "off",
    "learning_rate": 3e-3,
    "lr_rule": "absolute",
    "warmup_epochs": 0,
    "augment": "none",
    "batch_size": 8,
    "epochs": 40,
}

# Its rivals; four modules of Lite0 at strides 4 to 32 take the place of VGG-16's pools.
RIVALS = {
    "mkd": {
        "image_size": 64,
        "backbone": "tf_efficientnet_lite0",
        "layers": "blocks.1,blocks.2,blocks.4,blocks.6",
        "epochs": 2,
        "batch_size": 8,
    },
    "unet_autoencoder": {"image_size": 64, "width": 4, "steps": 40, "batch_size": 8},
    "dagan": {"image_size": 64, "width": 4, "discriminator_width": 4, "steps": 40, "batch_size": 8},
}

# MMAERec: four levels of Lite0's features; the start of training needs a few dozen steps for batch norm's averages.
MMAEREC = {
    "image_size": 64,
    "backbone": "tf_efficientnet_lite0",
    "width": 8,
    "learning_rate": 3e-3,
    "batch_size": 4,
    "epochs": 40,
}

# Statistics of three or two layers of Lite0; a student of a random ResNet-18, for Lite0 is none.
LITE0 = {"image_size": 64, "resize_mode": "squash", "resize": None, "backbone": "tf_efficientnet_lite0"}
BASELINES = {
    "padim": LITE0 | {"channels": 20},
    "patchcore": LITE0 | {"dim": 32, "coreset": 0.2, "projected": 8},
    "spade": LITE0 | {"map_neighbours": 4},
    "riad": {"image_size": 64, "width": 4, "cells": [4, 8], "learning_rate": 3e-3, "batch_size": 4, "epochs": 1},
    "ae_ssim": {"image_size": 128, "code": 8, "learning_rate": 2e-3, "batch_size": 4, "epochs": 1},
    "cutpaste": {"image_size": 32, "learning_rate": 0.01, "batch_size": 4, "epochs": 1},
    "ganomaly": {"image_size": 32, "width": 8, "code": 20, "learning_rate": 1e-3, "batch_size": 4, "epochs": 1},
    "reverse_distillation": {
        "image_size": 64,
        "backbone": "resnet18",
        "pretrained": False,
        "epochs": 1,
        "batch_size": 8,
    },
}


def picture(i: int, defect: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """uint8 RGB [72,72,3] and its mask uint8 [72,72]."""
    rng = np.random.default_rng(i)
    image = 128 + 60 * np.sin(np.arange(SIZE) / 3 + 0.2 * i)[None, :, None] + rng.normal(0, 6, (SIZE, SIZE, 3))
    mask = np.zeros((SIZE, SIZE), np.uint8)
    if defect:
        y, x = rng.integers(8, 48, 2)
        image[y : y + 16, x : x + 16] = rng.integers(0, 255, (16, 16, 3))
        mask[y : y + 16, x : x + 16] = 255
    return image.clip(0, 255).astype(np.uint8), mask


def elongated(
    i: int, defect: bool = False, shape: tuple[int, int] = (60, 150), depth: int = 55
) -> tuple[np.ndarray, np.ndarray]:
    """uint8 RGB [H,W,3] of a rough surface and its mask uint8 [H,W]; the defect is a thin, dark, nearly level crack.

    Its length is a fourth to half of the width, its thickness two pixels, as in pictures of commutators (KolektorSDD);
    depth: how much darker it is, grey levels, where the surface's noise has a deviation of 10.
    """
    rng = np.random.default_rng(i)
    height, width = shape
    image = 140 + 12 * np.sin(np.arange(height) / 9 + i)[:, None, None] + rng.normal(0, 10, (height, width, 1))
    mask = np.zeros(shape, np.uint8)
    if defect:
        length = int(rng.integers(width // 4, width // 2))
        x = int(rng.integers(4, width - length - 4)) + np.arange(length)
        y = int(rng.integers(height // 5, 4 * height // 5)) + np.round(1.5 * np.sin(np.arange(length) / 15)).astype(int)
        for row in (y, y + 1):
            mask[row, x] = 255
            image[row, x] -= depth
    return image.clip(0, 255).astype(np.uint8).repeat(3, axis=2), mask


def folder_dataset(
    root: Path,
    train: int = 24,
    normal: int = 6,
    anomalous: int = 6,
    category: str = "stripes",
    draw: Callable = picture,
) -> Path:
    """root/folder/<category> with normal/, test/normal/, test/square/ and masks/square/, drawn by `picture` or another.

    draw(number, defect) gives a picture uint8 [H,W,3] and its mask uint8 [H,W].
    """
    base = root / "folder" / category
    number = 0
    kinds = (("normal", train, False), ("test/normal", normal, False), ("test/square", anomalous, True))
    for sub, count, defect in kinds:
        (base / sub).mkdir(parents=True)
        for k in range(count):
            image, mask = draw(number, defect)
            Image.fromarray(image).save(base / sub / f"{k:03d}.png")
            if defect:
                (base / "masks" / "square").mkdir(parents=True, exist_ok=True)
                Image.fromarray(mask).save(base / "masks" / "square" / f"{k:03d}.png")
            number += 1
    return base


def finished(base: Path, seeds: tuple[int, ...] = (0,), config: dict | None = None, **counts) -> Path:
    """base/data, and below base/results finished runs of SimpleNet on it; base/cache."""
    import pytest

    import adlib

    folder_dataset(base / "data", **counts)
    with pytest.MonkeyPatch.context() as patch:
        live_in(base, patch)
        adlib.reproduce("simplenet", "folder", ["stripes"], seeds, CONFIG | (config or {}), device="cpu")
    return base


def live_in(base: Path, patch) -> None:
    """The roots of a world, until the patch ends."""
    for name in ("data", "results", "cache"):
        patch.setenv(f"ADLIB_{name.upper()}", str(base / name))
