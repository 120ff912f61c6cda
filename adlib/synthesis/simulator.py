"""Simulated anomalies: Perlin masks filled with foreign textures, vectorised over the batch on the images' device.

After Zavrtanik et al., ICCV 2021 (DRAEM), section 3.3, and the authors' data_loader.py and perlin.py. Per sample: the
image may be turned; a thresholded, turned Perlin field is the mask; a varied texture is blended in under the mask with
an opacity; half of the samples stay clean. Spec: specs/draem.md sections 4 to 6.

Equations: (4) blend. Inferred: noise scales, threshold and ten operations (paper silent; authors' code). Chosen: one
generator for everything; the opacity, which the paper writes as beta, is the weight of the texture.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from adlib.common.errors import UserError
from adlib.synthesis.noise import perlin
from adlib.synthesis.operations import DRAWS, SETS, rotate, take, vary


class Simulated(NamedTuple):
    """What training sees of a batch. A sample whose mask is empty is a normal one: augmented equals target."""

    augmented: Tensor  # [B,3,H,W] in 0..1: the image with its simulated anomaly
    target: Tensor  # [B,3,H,W] in 0..1: the same image without it
    mask: Tensor  # [B,1,H,W], 1 where the texture was blended in (anomalous), else 0


def blend(image: Tensor, texture: Tensor, mask: Tensor, opacity: Tensor | float) -> Tensor:
    """Eq. (4), mended: (1 - M) I + (1 - beta) M I + beta M A. Outside the mask the image stays bit for bit.

    image I, texture A: [B,3,H,W] in 0..1; mask M: [B,1,H,W], 1 where anomalous; opacity beta: the texture's weight in
    0..1, a number or [B]. The paper prints M for its complement in the first term (spec section 10, no. 1).
    """
    image, texture, mask = (torch.as_tensor(t) for t in (image, texture, mask))
    opacity = torch.as_tensor(opacity, dtype=image.dtype, device=image.device)
    opacity = opacity.view(-1, 1, 1, 1) if opacity.ndim == 1 else opacity
    return image + opacity * mask * (texture - image)


@dataclass(frozen=True)
class Simulator:
    """The settings of the simulation; calling it damages a batch. Defaults: the authors' code (spec section 10).

    The paper's text: operations "paper", opacity (0.1, 1.0), noise_threshold None, rotate_degrees 45.
    """

    anomaly_probability: float = 0.5  # share of samples that get a mask; some masks come out empty (4.8 %)
    opacity: tuple[float, float] = (0.2, 1.0)  # range of the texture's weight
    noise_exponents: tuple[int, int] = (0, 5)  # 2^a x 2^b cells, both ends included
    noise_threshold: float | None = 0.5  # of the Perlin field; None: uniform in 0..1 (paper: random, no range given)
    noise_degrees: float = 90.0  # the field is turned by up to this, either way
    operations: str = "code"  # "code" (ten), "paper" (seven), "none"
    operations_per_texture: int = 3  # different ones, in random order
    rotate_probability: float = 0.3  # share of the images that are turned, target included
    rotate_degrees: float = 90.0  # by up to this, either way; corners become black

    def __post_init__(self):
        if self.operations not in SETS:
            raise UserError(f"operations {self.operations!r} is unknown; valid are {', '.join(SETS)}")
        most = len(SETS[self.operations])
        if most and not 0 <= self.operations_per_texture <= most:
            raise UserError(f"operations_per_texture {self.operations_per_texture} is not in 0..{most}; 3 is usual")
        for name in ("opacity", "noise_exponents"):
            low, high = getattr(self, name)
            if not 0 <= low <= high:
                raise UserError(f"{name} ({low}, {high}) is no range; give two numbers, the smaller one first")
        for name in ("anomaly_probability", "rotate_probability"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"{name} {getattr(self, name)} is not a probability in 0..1")
        if self.opacity[1] > 1:
            raise UserError(f"opacity {self.opacity} exceeds 1, the weight at which the texture hides the image")

    @torch.no_grad()
    def __call__(self, images: Tensor, bank: Tensor, generator: torch.Generator) -> Simulated:
        """images [B,3,H,W] in 0..1 and a texture bank uint8 [T,3,H,W] -> Simulated, on the images' device.

        Everything random comes from the generator; what is drawn does not depend on what comes out. The host waits
        for the device once. UserError: an empty bank or one of another size.
        """
        if bank.shape[1:] != images.shape[1:] or not len(bank):
            side = "x".join(map(str, images.shape[-2:]))
            raise UserError(f"the texture bank is {list(bank.shape)}, but images of {side} need [1 or more, 3, {side}]")
        draws = self._draw(len(images), len(bank), generator)
        # half precision would move the masks and blur the levels
        with torch.autocast(images.device.type, enabled=False):
            target = self._turned(images.float(), draws)
            rows = draws.anomalous.nonzero()[:, 0]
            if not len(rows):
                return Simulated(target.clone(), target, torch.zeros_like(target[:, :1]))
            shapes = self._masks(images.shape[-2:], draws, rows, images.device)
            textures = self._textures(bank, draws, rows, images.device)
            damaged = blend(take(target, rows), textures, shapes, draws.opacity[rows].to(images.device)).clamp_(0, 1)
            mask = _replaced(torch.zeros_like(target[:, :1]), rows, shapes)
            return Simulated(_replaced(target, rows, damaged), target, mask)

    def _draw(self, count: int, textures: int, generator: torch.Generator) -> "_Draws":
        names = SETS[self.operations]
        nodes = 2 ** self.noise_exponents[1] + 1
        angles = 2 * math.pi * torch.rand(count, nodes, nodes, generator=generator, device=generator.device)
        uniform = torch.rand(count, 10 + len(names) * (1 + DRAWS), generator=generator, device=generator.device).cpu()
        scalars, keys, parameters = uniform.split([10, len(names), len(names) * DRAWS], 1)
        turn, turn_by, texture, a, b, noise_by, threshold, opacity, anomalous, _ = scalars.unbind(1)
        low, high = self.noise_exponents
        exponents = (low + (high - low + 1) * torch.stack([a, b], 1)).floor().clamp(max=high)
        return _Draws(
            angles=angles,
            turned=turn < self.rotate_probability,
            turn_degrees=(2 * turn_by - 1) * self.rotate_degrees,
            texture=(texture * textures).long().clamp(max=textures - 1),
            cells=2 ** exponents.long(),
            noise_degrees=(2 * noise_by - 1) * self.noise_degrees,
            threshold=threshold if self.noise_threshold is None else torch.full_like(threshold, self.noise_threshold),
            opacity=self.opacity[0] + (self.opacity[1] - self.opacity[0]) * opacity,
            anomalous=anomalous < self.anomaly_probability,
            order=keys.argsort(1)[:, : self.operations_per_texture],
            parameters=parameters.view(count, len(names), DRAWS),
        )

    def _turned(self, images: Tensor, draws: "_Draws") -> Tensor:
        rows = draws.turned.nonzero()[:, 0]
        if not len(rows):
            return images
        return _replaced(images, rows, rotate(take(images, rows), draws.turn_degrees[rows]).clamp_(0, 1))

    def _masks(self, shape: tuple[int, int], draws: "_Draws", rows: Tensor, device: torch.device) -> Tensor:
        noise = perlin(shape, draws.cells[rows], take(draws.angles, rows).to(device))
        turned = rotate(noise[:, None], draws.noise_degrees[rows])
        return (turned > draws.threshold[rows].to(device).view(-1, 1, 1, 1)).float()

    def _textures(self, bank: Tensor, draws: "_Draws", rows: Tensor, device: torch.device) -> Tensor:
        chosen = take(bank, draws.texture[rows]).to(device)
        return vary(chosen, draws.order[rows], draws.parameters[rows], SETS[self.operations]).float().div(255)


def _replaced(values: Tensor, rows: Tensor, new: Tensor) -> Tensor:
    """A copy of values [B,...] with other rows; unlike assignment by index it is fast and the same on every run."""
    place = torch.arange(len(values))
    place[rows] = torch.arange(len(values), len(values) + len(rows))
    return take(torch.cat([values, new]), place)


class _Draws(NamedTuple):
    """All that is random about a batch, first dimension B; on the host but for the angles."""

    angles: Tensor  # [B,R,R] radians, on the generator's device
    turned: Tensor  # bool
    turn_degrees: Tensor
    texture: Tensor  # index into the bank
    cells: Tensor  # [B,2]
    noise_degrees: Tensor
    threshold: Tensor
    opacity: Tensor
    anomalous: Tensor  # bool
    order: Tensor  # [B,k] numbers of operations
    parameters: Tensor  # [B,operations,4] in 0..1
