"""Improved masked autoencoder. Hu, Xiao, Kang, Automation & Information Engineering 45(4), 2024 (Improved mask
autoencoder for multi-class industrial image anomaly detection method; in Chinese).

The patches of a picture are split into n sets. Of each set alone, all other patches are predicted; every patch is so
predicted n - 1 times by views that never saw it, and the mean of these is the reconstruction. What a network that knows
normal pictures cannot predict is anomalous. One network serves all categories.

Equations of the paper: (1) `ImprovedMAE.score`, (2) `partition`, (3) `merge`, (4) `ImprovedMAE.terms`, (5) to (11)
losses.global_ssim, (12) the l1 term, (13) adlib.perceptual.

The paper gives no widths, weights or ranges and has no public code. Taken from the masked autoencoder that it improves
(facebookresearch/mae, commit efb2a80: models_mae.py, lr_sched.py, main_pretrain.py): widths, blocks, position codes,
initialisation, the rule and the schedule of the learning rate, AdamW's settings. Not taken: its number of visible
patches, which it rounds down, so that some patches would be visible nowhere, against eq. (2); its targets normalised by
patch. Chosen (specs/improved_mae.md): the views are encoded one by one, so that no patch reaches its own
reconstruction; equal weights in eq. (4); the ranges of the augmentation; one draw of the sets for all test pictures.
"""

import functools
import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adlib import losses
from adlib.common.errors import UserError
from adlib.models import base
from adlib.models.base import Scores, mean_pool
from adlib.models.config import LARGEST_BATCH, LARGEST_SIDE, MOST_EPOCHS, setting
from adlib.perceptual import Perceptual

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet
BETAS = (0.9, 0.95)  # AdamW's
REFERENCE_BATCH = 256  # to which the base learning rate belongs
AREA, DEGREES = 0.8, 10.0  # augmentation: least share of the area that is kept, largest angle either way
LEARNT = 0.5  # share of its first loss below which a run has learnt something


@dataclass(frozen=True, kw_only=True)
class Config(base.Config):
    """Each default is the paper's setting, or that of the code it builds on where the paper gives none."""

    image_size: int = setting(224, low=16, high=LARGEST_SIDE)  # pixels per side, a multiple of patch
    patch: int = setting(16, low=2, high=256)  # pixels per side of a patch
    mask_ratio: float = setting(0.75, low=0.01, high=0.999)  # r; the number of views n = 1 / (1 - r) is whole
    views: int | None = setting(None, low=2, high=4096)  # n itself, in place of mask_ratio
    width: int = setting(768, low=8, high=4096)  # of the encoder
    heads: int = setting(12, low=1, high=64)  # of attention, in the encoder
    encoder_depth: int = setting(2, low=1, high=64)  # blocks: x of the paper's ExDy
    decoder_width: int = setting(512, low=8, high=4096)  # of the decoder
    decoder_heads: int = setting(16, low=1, high=64)  # of attention, in the decoder
    decoder_depth: int = setting(4, low=1, high=64)  # y of ExDy
    ssim: str = setting("global", choices=("global", "windowed"))  # the printed form, or the usual one
    ssim_weight: float = setting(1.0, low=0.0, high=1e3)  # w1 of eq. (4)
    l1_weight: float = setting(1.0, low=0.0, high=1e3)  # w2
    lpips_weight: float = setting(1.0, low=0.0, high=1e3)  # w3
    lpips: str = setting("alex", choices=("alex", "squeeze", "off"))  # the network of LPIPS; off: without this term
    learning_rate: float = setting(1e-3, low=0.0, high=10.0)  # base, see lr_rule
    lr_rule: str = setting("mae", choices=("mae", "absolute"))  # mae: times batch_size / 256
    weight_decay: float = setting(0.05, low=0.0, high=10.0)  # AdamW's, of matrices and tokens
    warmup_epochs: float = setting(10.0, low=0.0, high=MOST_EPOCHS)  # then half a cosine down to 0
    batch_size: int = setting(64, low=1, high=LARGEST_BATCH)  # images: 16 on each of four GPUs
    epochs: int | None = setting(1000, low=0, high=MOST_EPOCHS)  # the paper says "iterations"
    augment: str = setting("all", choices=("none", "flip", "all"))  # all: crop, rotation, flip
    test_draws: int = setting(1, low=1, high=64)  # draws of the sets whose scores are averaged
    mask_seed: int = setting(0, low=0, high=10**9)  # of these draws

    def __post_init__(self):
        super().__post_init__()
        side, patch = self.image_size, self.patch
        if side % patch:
            near = patch * max(1, side // patch)
            raise UserError(f"image_size {side} is not a multiple of patch {patch}; use {near} or {near + patch}")
        if not 2 <= self.n <= self.patches:
            raise UserError(f"{self.n} views of {self.patches} patches; there must be 2 to {self.patches}")
        for width, heads in ((self.width, self.heads), (self.decoder_width, self.decoder_heads)):
            if width % heads or width % 4:
                raise UserError(f"width {width} with {heads} heads; it must be a multiple of 4 and of the heads")
        if self.epochs and self.warmup_epochs >= self.epochs:
            raise UserError(f"warmup_epochs {self.warmup_epochs:g} must be below the {self.epochs} epochs of training")

    @property
    def patches(self) -> int:
        """L."""
        return (self.image_size // self.patch) ** 2

    @property
    def n(self) -> int:
        """Number of views. UserError where mask_ratio gives no whole number."""
        if self.views is not None:
            return self.views
        n = round(1 / (1 - self.mask_ratio))
        if abs(n * (1 - self.mask_ratio) - 1) > 1e-6:  # 1 / (1 - 0.9) is not exactly 10
            raise UserError(
                f"mask_ratio {self.mask_ratio:g} gives 1 / (1 - r) = {1 / (1 - self.mask_ratio):.4g} views, no whole "
                "number; valid are 0.5, 0.75, 0.8, 0.875, 0.9, 0.95, ...; or set views"
            )
        return n


def sizes(patches: int, n: int) -> list[int]:
    """How many patches each of n sets has: they differ by one at most, the larger ones come first."""
    return [patches // n + (i < patches % n) for i in range(n)]


def partition(count: int, patches: int, generator: torch.Generator) -> Tensor:
    """An order of the patches for each of count pictures [count, patches]; cut by `sizes` it gives the sets of eq. (2).

    Set i is visible in view i, so that the n visible sets hold every patch exactly once.
    """
    return torch.rand(count, patches, generator=generator, device=generator.device).argsort(1)


def merge(views: Tensor, hidden: Tensor) -> Tensor:
    """Eq. (3): predictions [B,n,L,P] and which patches were hidden [B,n,L] -> mean of the hidden ones' [B,L,P].

    By eq. (2) every patch is hidden in n - 1 views.
    """
    return (hidden[..., None] * views).sum(1) / (views.shape[1] - 1)


def patchify(images: Tensor, patch: int) -> Tensor:
    """[B,3,S,S] -> [B,L,patch^2 3], patches row by row; in a patch row, column, colour (models_mae.py)."""
    grid = images.unfold(2, patch, patch).unfold(3, patch, patch)  # [B,3,rows,columns,patch,patch]
    return grid.permute(0, 2, 3, 4, 5, 1).flatten(3).flatten(1, 2)


def unpatchify(tokens: Tensor, patch: int) -> Tensor:
    """The inverse of `patchify` for square pictures."""
    side = math.isqrt(tokens.shape[1])
    grid = tokens.unflatten(2, (patch, patch, 3)).unflatten(1, (side, side))  # [B,rows,columns,patch,patch,3]
    return grid.permute(0, 5, 1, 3, 2, 4).flatten(4).flatten(2, 3)


def position_code(width: int, side: int) -> Tensor:
    """The fixed code of a grid of side x side patches [side^2, width]: waves of the column, then of the row.

    Each half has sines, then cosines, of width / 4 frequencies 10000^(-k / (width / 4)). Source: facebookresearch/mae,
    util/pos_embed.py.
    """
    frequency = 10000 ** (-torch.arange(width // 4, dtype=torch.float64) / (width // 4))
    angle = torch.arange(side, dtype=torch.float64)[:, None] * frequency
    one = torch.cat([angle.sin(), angle.cos()], 1)  # [side, width / 2]
    column, row = one.repeat(side, 1), one.repeat_interleave(side, 0)
    return torch.cat([column, row], 1).float()


def blocks(width: int, heads: int, depth: int) -> nn.Sequential:
    """Transformer blocks with layer norm before attention and before the multilayer perceptron, then a layer norm."""
    from timm.models.vision_transformer import Block  # heavy, so only here

    norm = functools.partial(nn.LayerNorm, eps=1e-6)
    made = [Block(width, heads, 4.0, qkv_bias=True, norm_layer=norm) for _ in range(depth)]
    return nn.Sequential(*made, norm(width))


class Autoencoder(nn.Module):
    """Visible patches of a picture -> prediction of all its patches; of MAE, with any depths.

    Width 768 with 12 heads, decoder width 512 with 16, depths 2 and 4: 28,167,424 parameters.
    """

    def __init__(self, c: Config):
        super().__init__()
        side = c.image_size // c.patch
        self.patch_embed = nn.Conv2d(3, c.width, c.patch, c.patch)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, c.width))
        self.mask_token = nn.Parameter(torch.zeros(1, 1, c.decoder_width))
        self.encoder = blocks(c.width, c.heads, c.encoder_depth)
        self.decoder_embed = nn.Linear(c.width, c.decoder_width)
        self.decoder = blocks(c.decoder_width, c.decoder_heads, c.decoder_depth)
        self.head = nn.Linear(c.decoder_width, 3 * c.patch**2)
        self.register_buffer("position", position_code(c.width, side), persistent=False)
        self.register_buffer("decoder_position", position_code(c.decoder_width, side), persistent=False)
        self.apply(_start)
        nn.init.xavier_uniform_(self.patch_embed.weight.view(c.width, -1))
        nn.init.normal_(self.cls_token, std=0.02)
        nn.init.normal_(self.mask_token, std=0.02)

    def tokens(self, images: Tensor) -> Tensor:
        """Normalised images [B,3,S,S] -> tokens of their patches, with position [B,L,D]."""
        return self.patch_embed(images).flatten(2).transpose(1, 2) + self.position

    def encode(self, visible: Tensor) -> Tensor:
        """Tokens of the visible patches [B,k,D] -> [B,1+k,D]. Mask tokens are never encoded."""
        return self.encoder(torch.cat([self.cls_token.expand(visible.shape[0], -1, -1), visible], 1))

    def decode(self, latent: Tensor, at: Tensor) -> Tensor:
        """Encoded tokens [B,1+k,D] and the places [B,k] of their patches -> all patches [B,L,3 patch^2]."""
        x = self.decoder_embed(latent)
        patches = self.mask_token.to(x.dtype).expand(x.shape[0], self.position.shape[0], -1)
        patches = patches.scatter(1, at[..., None].expand(-1, -1, x.shape[2]), x[:, 1:])
        x = self.decoder(torch.cat([x[:, :1], patches + self.decoder_position], 1))
        return self.head(x[:, 1:])


def _start(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        nn.init.zeros_(module.bias)


class ImprovedMAE(base.Detector):
    """Pictures -> n views -> merged reconstruction. Score: mean squared error; map: before that mean."""

    Config = Config
    drop_last = True

    def __init__(self, config: Config):
        super().__init__(config)
        c = config
        self.net = Autoencoder(c)
        self.lpips = Perceptual(c.lpips) if c.lpips != "off" and c.lpips_weight else None
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(STD).view(1, 3, 1, 1), persistent=False)
        with torch.device("cpu"):
            orders = partition(c.test_draws, c.patches, torch.Generator().manual_seed(c.mask_seed))
        self.register_buffer("orders", orders.to(self.mean.device))  # [test_draws, L]

    @property
    def protocol(self) -> dict:
        draws = self.config.test_draws
        score = "mean squared error" if draws == 1 else f"mean squared error, mean of {draws} draws"
        return {"image_score": score, "smoothing": "none"}

    def predictions(self, images: Tensor, order: Tensor) -> tuple[Tensor, Tensor]:
        """Images [B,3,S,S] in 0..1, orders [B,L] -> predictions of all views [B,n,L,3 patch^2], in normalised colours;
        which patches were hidden in them [B,n,L], 0 or 1.
        """
        count, tokens = images.shape[0], self.net.tokens((images - self.mean) / self.std)
        views, hidden, start = [], [], 0
        piece = sizes(self.config.patches, self.config.n)
        for size in sorted(set(piece), reverse=True):  # views of equal size go through the network together
            n = piece.count(size)
            at = order[:, start : start + n * size].reshape(count * n, size)
            start += n * size
            every = tokens.repeat_interleave(n, 0)
            visible = every.gather(1, at[..., None].expand(-1, -1, tokens.shape[2]))
            views.append(self.net.decode(self.net.encode(visible), at).unflatten(0, (count, n)))
            hidden.append(torch.ones_like(every[..., 0]).scatter(1, at, 0).unflatten(0, (count, n)))
        return torch.cat(views, 1), torch.cat(hidden, 1)

    def forward(self, images: Tensor, order: Tensor) -> Tensor:
        """Images [B,3,S,S] in 0..1 and orders [B,L] -> reconstructions, not clipped."""
        merged = unpatchify(merge(*self.predictions(images, order)), self.config.patch)
        return merged * self.std + self.mean

    def loss(self, batch: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Eq. (4) on augmented images with fresh sets for each."""
        images = augmented(batch, self.config.augment, generator)
        order = partition(images.shape[0], self.config.patches, generator)
        return self.terms(images, self(images, order))

    def terms(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        """Eq. (4) and its terms, unweighted; in float32 whatever autocast does: SSIM's variances cancel."""
        c = self.config
        with torch.autocast(x.device.type, enabled=False):
            x, y = losses.full_precision(x), losses.full_precision(y)
            ssim = losses.global_ssim(x, y) if c.ssim == "global" else losses.ssim(x, y, padding="valid")
            terms = {"ssim": ssim, "l1": F.l1_loss(y, x)}
            total = c.ssim_weight * terms["ssim"] + c.l1_weight * terms["l1"]
            if self.lpips is not None:
                terms["lpips"] = self.lpips(x, y).mean()
                total = total + c.lpips_weight * terms["lpips"]
        return {"total": total, **terms}

    def optimizers(self, steps_per_epoch: int, total_steps: int) -> list[tuple]:
        """[(AdamW, the learning rate of every step: linear warm-up, then half a cosine to 0)]."""
        from timm.optim import param_groups_weight_decay  # heavy, so only here

        c = self.config
        groups = param_groups_weight_decay(self.net, c.weight_decay)  # none of biases and norms
        rate = c.learning_rate * (c.batch_size / REFERENCE_BATCH if c.lr_rule == "mae" else 1)
        on_gpu = self.net.head.weight.is_cuda
        optimizer = torch.optim.AdamW(groups, lr=rate, betas=BETAS, fused=on_gpu or None)
        factor = functools.partial(schedule, warmup=c.warmup_epochs * steps_per_epoch, total=total_steps)
        return [(optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, factor))]

    def doubt(self, history) -> str | None:
        if not len(history) or history.total.iloc[-1] < LEARNT * history.total.iloc[0]:
            return None
        return "the loss did not fall to half of its first epoch's, so little was learnt"

    def pool(self, cells: Tensor, valid: Tensor | None = None) -> Tensor:
        return mean_pool(cells, valid)

    def score(self, embeddings: Tensor) -> Scores:
        """Eq. (1) in units of squared colour, 0..1; of several draws the mean of the errors."""
        errors = [(self(embeddings, order.expand(embeddings.shape[0], -1)) - embeddings) ** 2 for order in self.orders]
        error = losses.full_precision(torch.stack(errors).mean(0)).mean(1)
        return Scores(self.pool(error), error)


def schedule(step: float, warmup: float, total: float) -> float:
    """Share of the learning rate at a step, 0..1. Source: facebookresearch/mae, util/lr_sched.py."""
    if step < warmup:
        return step / warmup
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warmup) / max(total - warmup, 1e-9))))


def augmented(images: Tensor, kind: str, generator: torch.Generator) -> Tensor:
    """Random flips; with "all" also squares of 80 % of the area and more, turned by up to 10 degrees. [B,3,S,S].

    Beyond the border the picture is mirrored: black corners would become part of the normal look.
    """
    if kind == "none":
        return images
    draw = torch.rand(5, images.shape[0], generator=generator, device=images.device)
    flip = torch.where(draw[0] < 0.5, -1.0, 1.0)
    if kind == "flip":
        return torch.where((flip < 0).view(-1, 1, 1, 1), images.flip(3), images)
    share = (AREA + (1 - AREA) * draw[1]).sqrt()  # of the side
    angle = (2 * draw[2] - 1) * math.radians(DEGREES)
    shift = (2 * draw[3:] - 1) * (1 - share)  # of the square's middle, in half sides
    cos, sin = share * angle.cos(), share * angle.sin()
    theta = torch.stack([torch.stack([flip * cos, -sin, shift[0]], 1), torch.stack([flip * sin, cos, shift[1]], 1)], 1)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
