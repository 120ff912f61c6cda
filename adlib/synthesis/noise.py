"""Perlin noise of a batch as matrix products, any side. Spec: specs/draem.md section 6."""

import math

import torch
from torch import Tensor

from adlib.common.errors import UserError


def perlin(
    shape: tuple[int, int],
    res: tuple[int, int] | Tensor,
    angles: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Perlin noise, |values| < 1: [H,W] for res (r0, r1) cells along rows and columns, [B,H,W] for res [B,2].

    angles (radians) of the gradients on the lattice: [r0+1,r1+1], or [B,R0,R1] of which a sample uses the first r0+1
    by r1+1; drawn from the generator, on its device, where absent. Any side works, also one that cells do not divide.
    UserError: a resolution below 1, or more cells than angles. Spec: specs/draem.md section 6.
    """
    cells = torch.as_tensor(res)
    single, cells = cells.ndim == 1, cells.view(-1, 2).long()
    if cells.min() < 1:
        raise UserError(
            f"perlin resolution {cells.min(0).values.tolist()} has less than one cell; use 1 or more per side"
        )
    nodes = (cells.amax(0) + 1).tolist()
    if angles is None:
        device = generator.device if generator is not None else "cpu"
        angles = 2 * math.pi * torch.rand(len(cells), *nodes, generator=generator, device=device)
    angles = torch.as_tensor(angles)
    angles = angles.view(-1, *angles.shape[-2:])
    if angles.shape[1] < nodes[0] or angles.shape[2] < nodes[1]:
        raise UserError(f"perlin angles are {list(angles.shape[1:])}, but {nodes} lattice points are needed")
    noise = _noise(shape, cells.to(angles.device), angles)
    return noise[0] if single else noise


def _noise(shape: tuple[int, int], cells: Tensor, angles: Tensor) -> Tensor:
    """Perlin's double interpolation as one matrix product per sample: it separates into factors of rows and columns.

    With w the fade weight of a lattice line and d the distance from it: noise = sum over the lattice of
    (w d)_row cos(angle) w_column + w_row sin(angle) (w d)_column, times sqrt(2).
    """
    weight0, slope0 = _axis(shape[0], cells[:, 0], angles.shape[1], angles)
    weight1, slope1 = _axis(shape[1], cells[:, 1], angles.shape[2], angles)
    rows = torch.cat([slope0 @ angles.cos(), weight0 @ angles.sin()], 2)  # [B, H, 2 R1]
    return math.sqrt(2) * rows @ torch.cat([weight1, slope1], 2).mT


def _axis(length: int, cells: Tensor, nodes: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Of each pixel along an axis: weights of the lattice lines, and the same times the distance: 2 x [B,length,nodes].

    Integer arithmetic finds the cell, so pixels on the lattice lie on it exactly.
    """
    place = torch.arange(length, device=like.device) * cells[:, None]
    cell = (place // length)[..., None]
    offset = ((place % length).to(like.dtype) / length)[..., None]
    fade = offset**3 * (offset * (offset * 6 - 15) + 10)
    lines = torch.arange(nodes, device=like.device)
    lower, upper = (lines == cell).to(like.dtype), (lines == cell + 1).to(like.dtype)
    weight0, weight1 = (1 - fade) * lower, fade * upper
    return weight0 + weight1, weight0 * offset + weight1 * (offset - 1)
