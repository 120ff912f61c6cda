"""ValidFlow. Zhang, Chen, Zhang, Cen, Zhang, Huang, Journal of Data Acquisition and Processing 2023 (Unsupervised Image
Defect Detection Based on Normalizing Flows); papers/validflow.

CS-Flow with half of its parameters: its couplings alternate between a cheap network without exchange between the scales
(FA flow, r1) and one with two more branches between the first and the last scale (FB flow, r2). Both end with CBAM
attention, and every coupling is preceded by an ActNorm.

Equations: (1)-(3) `csflow.negative_log_likelihood`, (4)-(7) `layers.Coupling`. There is no public code and the layer
tables (Figs 1 and 2) are lost, so widths are inferred from the one printed count, 162.89 M parameters: hidden 896,
kernel 3, reduction 8, both convolutions of r1 depthwise separable (specification, section 4). Mended: eq. (3) lacks a
constant; eqs (5) and (6) use one symbol for two networks. Inherited from CS-Flow, where the paper is silent: soft
clamp, gamma, order of the halves, loss per dimension, gradient clip. Chosen: Adam's eps 1e-8.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from adlib.common.errors import UserError
from adlib.layers import CBAM, ActNorm, Coupling, Permutation, Scales
from adlib.models.config import MOST_EPOCHS, setting
from adlib.models.csflow import SLOPE, CrossScale, CSFlow, FlowConfig
from adlib.models.multiscale import SCALES


@dataclass(frozen=True, kw_only=True)
class Config(FlowConfig):
    """The paper's section 3.1; widths as inferred."""

    blocks: int = setting(3, low=1, high=32)  # n: pairs of FA flow and FB flow
    hidden: int = setting(896, low=1, high=8192)  # channels between the convolutions of r1 and r2
    reduction: int = setting(8, low=1, high=512)  # of CBAM
    cbam_fb: bool = True  # CBAM in r2; r1 always has it (Table 7)
    cross13: bool = True  # the two branches of r2 between the first and the last scale (Table 7)
    actnorm: bool = True  # before each coupling
    adam_eps: float = setting(1e-8, low=0.0, high=1.0)  # Adam's
    epochs: int | None = setting(300, low=0, high=MOST_EPOCHS)  # 60 for MTD


def separable(inside: int, outside: int, kernel: int) -> nn.Sequential:
    """Depthwise, then pointwise convolution, nothing between: [B,inside,h,w] -> [B,outside,h,w]."""
    depthwise = nn.Conv2d(inside, inside, kernel, padding=kernel // 2, groups=inside)
    return nn.Sequential(depthwise, nn.Conv2d(inside, outside, 1))


class Parallel(nn.Module):
    """r1, the network of an FA flow: each scale alone, tuple [B,C/2,h,w] -> tuple [B,C,h,w].

    out_i = gamma_i * CBAM(separable(LeakyReLU(separable(x_i)))), gamma 0 at the start.
    """

    def __init__(self, width: int, hidden: int, kernel: int = 3, reduction: int = 8):
        super().__init__()
        self.hidden = nn.ModuleList([separable(width, hidden, kernel) for _ in range(SCALES)])
        self.out = nn.ModuleList([separable(hidden, 2 * width, kernel) for _ in range(SCALES)])
        self.cbam = nn.ModuleList([CBAM(2 * width, reduction) for _ in range(SCALES)])
        self.gamma = nn.ParameterList([nn.Parameter(torch.zeros(())) for _ in range(SCALES)])

    def forward(self, x: Scales) -> Scales:
        return tuple(
            gamma * cbam(out(F.leaky_relu(hidden(each), SLOPE)))
            for each, hidden, out, cbam, gamma in zip(x, self.hidden, self.out, self.cbam, self.gamma, strict=True)
        )


class ValidFlow(CSFlow):
    """Features at three scales -> n x [FA flow, FB flow] -> z. Loss, image score and map are CS-Flow's."""

    Config = Config

    def steps(self, channels: int) -> Iterable[nn.Module]:
        """2n flows, each ActNorm, permutation, coupling; r1 in the even ones, r2 in the odd ones."""
        c = self.config
        if c.reduction > channels:
            raise UserError(f"config field 'reduction' is {c.reduction}; with {channels} channels it is at most that")
        for j in range(2 * c.blocks):
            if c.actnorm:
                yield ActNorm(channels, SCALES)
            yield Permutation(channels, SCALES, seed=j)
            yield Coupling(*(self._network(channels // 2, blending=j % 2 == 1) for _ in range(2)), c.clamp)

    def _network(self, width: int, blending: bool) -> nn.Module:
        c = self.config
        if not blending:
            return Parallel(width, c.hidden, c.kernel, c.reduction)
        return CrossScale(width, c.hidden, c.kernel, far=c.cross13, reduction=c.reduction if c.cbam_fb else None)
