"""MMAERec. Yao, Xu, Zhang et al., Computer Engineering and Applications, 2024 (Industrial surface anomaly detection
based on reconstruction with multiple memory enhancement modules and image edge; in Chinese).

A U-Net rebuilds a picture from two sources that know no defects: features of a frozen network, each replaced by a mix
of a few learnt normal ones (the memory), and the picture's edges, which keep its outlines sharp. Where the rebuilt
picture differs in gradient or colour, the picture is anomalous.

Equations of the paper: (1) `Memory.address`, (2) `Memory.shrunk`, (3) `Memory.forward`, (4) losses.ssim, (5) `entropy`,
(6) `MMAERec.terms`, (7) `structure_difference`, (8) to (12) losses.cielab, (13) `colour_difference`, (14)
`MMAERec.score`.

There is no public code of the authors. Inferred (specs/mmaerec.md): layers, start, learning rate and the corruption of
the input from liutongkun/EdgRec, on which the paper builds; the memory from donggong1/memae-anomaly-detection. The
printed sizes fit EdgRec at half its resolution beside WRN-50-2 up to its third stage, whose first map has 64 channels,
not 128: a 1 x 1 convolution after the memory brings it there. Mended: eq. (7) has the identity where ones are meant;
eq. (5) sums over no items. Chosen: the lowest threshold of the printed range, 1 / N, above which nearly every place
loses all its items; such a place uses the weights before the threshold; float CIELAB; filters that mirror the border
and shrink with the image.
"""

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adlib import losses
from adlib.backbones import Features
from adlib.common.errors import UserError
from adlib.layers import CBAM, CoordinateAttention, SqueezeExcitation, upsample
from adlib.models import base
from adlib.models.base import Scores, adam
from adlib.models.config import LARGEST_BATCH, LARGEST_SIDE, MOST_EPOCHS, setting
from adlib.models.draem import block, initialise, milestones, pool_side
from adlib.synthesis import Simulator, cut_paste

ATTENTION = {"coordinate": CoordinateAttention, "se": SqueezeExcitation, "cbam": lambda c: CBAM(c, 16), "none": None}
FULL, BELOW = 4, 5  # levels that have a skip; one more lies at the bottom
TEXTURES = 64  # training pictures that serve as textures of the corruption
DEAD = 0.99  # share of the places of a level from which on its memory counts as lost


@dataclass(frozen=True, kw_only=True)
class Config(base.Config):
    """The paper's setting, EdgRec's where the paper gives none."""

    image_size: int = setting(256, low=64, high=LARGEST_SIDE)  # pixels per side, a multiple of 32
    epochs: int | None = setting(600, low=0, high=MOST_EPOCHS)
    batch_size: int = setting(4, low=1, high=LARGEST_BATCH)
    backbone: str = "wide_resnet50_2.tv_in1k"  # the frozen network, a timm name
    pretrained: bool = True  # false: random weights, a control
    width: int = setting(128, low=1, high=512)  # channels of the first level; 8 times as many at the fourth
    levels: int = setting(4, low=1, high=BELOW)  # with a memory, from the finest; 5: the bottom, too
    items: int = setting(30, low=2, high=10_000)  # N of each memory
    shrink: float = setting(1.0, low=0.0, high=1e4)  # the threshold of eq. (2) in units of 1 / N; the paper: 1 to 3
    dead: str = setting("softmax", choices=("softmax", "zero"))  # where all weights are below it: all of them, or none
    branches: str = setting("both", choices=("both", "memory", "edge"))  # which of the two sources
    attention: str = setting("coordinate", choices=tuple(ATTENTION))  # after their sum
    use_l2: bool = True  # whether the squared error counts
    ssim_weight: float = setting(1.0, low=0.0, high=1e3)  # theta of eq. (6)
    entropy_weight: float = setting(2e-4, low=0.0, high=1e3)  # alpha
    # of eq. (5): over places and pictures; mean as in MemAE, sum as printed
    entropy_reduction: str = setting("mean", choices=("mean", "sum"))
    corruption: str = setting("edgrec", choices=("edgrec", "none"))  # of the input in training
    learning_rate: float = setting(1e-4, low=0.0, high=10.0)  # Adam
    decay: float = setting(0.2, low=0.0, high=1.0)  # factor of the learning rate
    decay_at: tuple[float, ...] = setting((0.5, 0.8), low=0.0, high=1.0)  # share of training; epochs 300 and 480 of 600
    msgms_scales: int = setting(4, low=1, high=8)  # of the gradient similarity
    structure_filter: int = setting(21, low=1, high=256)  # pixels of the mean of eq. (7) at side 256
    colour_filter: int = setting(11, low=1, high=256)  # of eq. (13)
    colour_weight: float = setting(1e-3, low=0.0, high=1e3)  # mu of eq. (14)
    lab: str = setting("float", choices=("float", "uint8"))  # uint8: EdgRec's bytes, which wrap around

    def __post_init__(self):
        super().__post_init__()
        if self.image_size % 32:
            near = 32 * (self.image_size // 32)
            raise UserError(f"image_size {self.image_size} is not a multiple of 32; use {near} or {near + 32}")
        if self.branches == "memory" and self.levels < FULL:
            raise UserError(f"branches 'memory' with levels {self.levels}: the decoder needs all {FULL}; set levels 4")
        largest = self.items / (1 + (self.items - 1) * math.exp(-2))  # one item at cosine 1, all others at -1
        if self.shrink >= largest:
            raise UserError(
                f"shrink {self.shrink:g} with {self.items} items: no weight ever exceeds {largest:.3g} / N, so every "
                "memory would lose all its items; 1 is usual"
            )


def edges(images: Tensor) -> Tensor:
    """Section 2.1: grey images from [B,3,H,W] in 0..1, dilated minus eroded by 3 x 3 pixels -> [B,1,H,W] in 0..1."""
    weights = images.new_tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
    grey = (images * weights).sum(1, keepdim=True)
    return F.max_pool2d(grey, 3, 1, 1) + F.max_pool2d(-grey, 3, 1, 1)  # pooling pads with -inf: no false edge


class Memory(nn.Module):
    """N learnt feature vectors; what a map looks like when only these may be mixed.

    shrink: the threshold times N. dead "zero": a place where no weight reaches the threshold is 0 and teaches nothing,
    as in MemAE; "softmax": it uses all its weights.
    """

    def __init__(self, channels: int, items: int = 30, shrink: float = 1.0, dead: str = "softmax"):
        super().__init__()
        self.items = nn.Parameter(torch.empty(items, channels).uniform_(-1, 1) / math.sqrt(channels))
        self.threshold, self.dead = shrink / items, dead

    def address(self, z: Tensor) -> Tensor:
        """Eq. (1): softmax of the cosines of vectors [...,C] with the items -> weights w [...,N], of sum 1."""
        return (F.normalize(z, dim=-1, eps=1e-12) @ F.normalize(self.items, dim=-1, eps=1e-12).T).softmax(-1)

    def shrunk(self, w: Tensor) -> Tensor:
        """Eq. (2): weights [...,N] above the threshold, divided by their sum, the others 0; `dead` where none is."""
        over = w - self.threshold
        kept = over.relu() * w / (over.abs() + 1e-12)
        total = kept.sum(-1, keepdim=True)
        shrunk = kept / total.clamp(min=1e-12)
        return shrunk if self.dead == "zero" else torch.where(total > 0, shrunk, w)

    def lost(self, w: Tensor) -> Tensor:
        """Share of the places whose weights are all below the threshold, a scalar in 0..1."""
        return (w.amax(-1) <= self.threshold).float().mean()

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Eq. (3): a map [B,C,h,w] -> the same made of items, its weights [B,h,w,N], the share of lost places."""
        with torch.autocast(z.device.type, enabled=False):  # differences of 1e-3 decide about the threshold
            w = self.address(losses.full_precision(z).permute(0, 2, 3, 1))
            shrunk = self.shrunk(w)
            return (shrunk @ self.items).permute(0, 3, 1, 2), shrunk, self.lost(w)


def entropy(weights: Tensor, reduction: str = "mean") -> Tensor:
    """Eq. (5) for one level: -sum of w ln w over the items of weights [...,N], in nats; mean or sum of all places."""
    found = -(weights * (weights + 1e-12).log()).sum(-1)
    return found.mean() if reduction == "mean" else found.sum()


class MemoryUNet(nn.Module):
    """Pictures [B,3,S,S] in 0..1 -> rebuilt ones, linear; weights and lost shares of each memory. Section 2.3, Fig. 4.

    Level k = 1..4 has width * 2^(k-1) channels at stride 2^k; a fifth, as wide as the fourth, lies below. At 256 px
    with WRN-50-2 and width 128: 94,108,803 parameters, of which 69,246,275 learn, and 52.4 GMac.
    """

    def __init__(self, c: Config):
        super().__init__()
        w, self.branches = c.width, c.branches
        wide = [w, 2 * w, 4 * w, 8 * w, 8 * w]
        remembers, sees = c.branches != "edge", c.branches != "memory"
        if remembers:
            self.trunk = Features(c.backbone, tuple(range(c.levels)), c.pretrained)
            found = self.trunk.channels
            self.memories = nn.ModuleList([Memory(n, c.items, c.shrink, c.dead) for n in found])
            self.projections = nn.ModuleList(
                [nn.Identity() if n == k else nn.Conv2d(n, k, 1, bias=False) for n, k in zip(found, wide, strict=False)]
            )
        if sees:
            first = nn.Sequential(nn.Conv2d(1, w, 3, 2, 1), nn.BatchNorm2d(w), nn.ReLU(inplace=True), *block(w, w))
            deeper = [block(a, b, b) for a, b in pairwise(wide[:FULL])]
            self.encoder = nn.ModuleList([first, *deeper])
        self.bottom = block(8 * w, 8 * w, 8 * w)
        attention = ATTENTION[c.attention]
        attended = wide[: max(FULL, c.levels if remembers else 0)]
        self.attention = nn.ModuleList([attention(n) if attention else nn.Identity() for n in attended])
        self.ups = nn.ModuleList([block(n, n) for n in wide[3::-1]])
        self.joins = nn.ModuleList(
            [block(8 * w, 8 * w, 4 * w), block(4 * w, 4 * w, 2 * w), block(2 * w, 2 * w, w), block(w, w, w)]
        )
        self.head = nn.Conv2d(w, 3, 3, padding=1)
        for name, part in self.named_children():
            if name != "trunk":
                part.apply(initialise)

    def remembered(self, images: Tensor) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """Maps of the levels with a memory, each as the memory and the projection make it; weights; lost shares."""
        answers = [memory(z) for memory, z in zip(self.memories, self.trunk(images), strict=True)]
        size = images.shape[-1]
        maps = []
        for k, (answer, project) in enumerate(zip((a[0] for a in answers), self.projections, strict=True), 1):
            found = project(answer)
            factor = size // 2**k // found.shape[-1]  # 2 for a backbone that begins at stride 4
            maps.append(found if factor == 1 else upsample(found, factor, "half_pixel"))
        return maps, [a[1] for a in answers], [a[2] for a in answers]

    def forward(self, images: Tensor) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        maps, weights, lost = self.remembered(images) if self.branches != "edge" else ([], [], [])
        fused, x = [], edges(images)
        for k in range(FULL):
            parts = maps[k : k + 1]
            if self.branches != "memory":
                x = self.encoder[k](F.max_pool2d(x, 2) if k else x)
                parts = [x, *parts]
            fused.append(self.attention[k](sum(parts)))
        x = self.bottom(F.max_pool2d(x if self.branches != "memory" else fused[-1], 2))
        if len(maps) == BELOW:
            x = self.attention[FULL](x + maps[FULL])
        for up, join in zip(self.ups, self.joins, strict=True):
            x = join(up(upsample(x, 2, "aligned")) + fused.pop())
        return self.head(upsample(x, 2, "aligned")), weights, lost


def mean_filter(maps: Tensor, side: int) -> Tensor:
    """Mean over side x side pixels of [B,1,H,W], the border mirrored without its last pixel, as OpenCV's blur."""
    return F.avg_pool2d(F.pad(maps, (side // 2,) * 4, mode="reflect"), side, stride=1)


def structure_difference(images: Tensor, rebuilt: Tensor, scales: int = 4, side: int = 21) -> Tensor:
    """Eq. (7): ones minus the smoothed gradient similarity of images [B,3,H,W] in 0..1 -> [B,1,H,W], 0 where equal."""
    return 1 - mean_filter(losses.gradient_similarity(images, rebuilt, scales), side)


def colour_difference(images: Tensor, rebuilt: Tensor, side: int = 11, lab: str = "float") -> Tensor:
    """Eq. (13): smoothed squared distance in CIELAB of images [B,3,H,W] in 0..1 -> [B,1,H,W], in CIELAB units squared.

    lab "uint8": as OpenCV on bytes, whose products and sums wrap around at 256 (ColorlossLab.py of EdgRec).
    """
    both = torch.stack((images, rebuilt))
    if lab == "float":
        a, b = losses.cielab(both.flatten(0, 1)).unflatten(0, both.shape[:2])
        return mean_filter((a - b).square().sum(1, keepdim=True), side)
    found = losses.cielab((255 * both.flatten(0, 1)).round() / 255)
    scale, shift = found.new_tensor([2.55, 1, 1]), found.new_tensor([0.0, 128, 128])
    a, b = (found * scale.view(1, 3, 1, 1) + shift.view(1, 3, 1, 1)).round().unflatten(0, both.shape[:2])
    return mean_filter(((a - b).square() % 256).sum(1, keepdim=True) % 256, side)


class MMAERec(base.Detector):
    """Rebuilt picture -> map F of structure and colour; the image score is its maximum."""

    Config = Config
    replacement = True  # EdgRec's loader ignores the index and draws
    channels_last = True
    published_mask_rule = "exact_one"  # EdgRec's
    alone = "the paper trains one model for each category"

    def __init__(self, config: Config):
        super().__init__(config)
        self.unet = MemoryUNet(config)
        self.simulator = Simulator()  # EdgRec's Perlin branch is DRAEM's: it leaves half of the pictures as they are
        self.register_buffer("bank", None, persistent=False)  # textures: needed for training only

    @property
    def sides(self) -> tuple[int, int]:
        """Sides of the two mean filters, pixels."""
        c = self.config
        return pool_side(c.image_size, c.structure_filter), pool_side(c.image_size, c.colour_filter)

    @property
    def protocol(self) -> dict:
        structure, colour = self.sides
        return {"image_score": "max", "smoothing": f"means over {structure} and {colour} pixels"}

    def doubt(self, history) -> str | None:
        """A sentence for the memories that had lost nearly all places at the end."""
        columns = [c for c in history if c.startswith("lost_")]
        lost = [c.removeprefix("lost_") for c in columns if len(history) and history[c].iloc[-1] >= DEAD]
        if not lost:
            return None
        answer = "answers with zeros" if self.config.dead == "zero" else "mixes all its items"
        return (
            f"the memory of level {', '.join(lost)} has lost its items: nearly nowhere does a weight exceed the "
            f"threshold, so that it {answer}; lower `shrink` to 1"
        )

    def prepare(self, embeddings, generator: torch.Generator) -> None:
        """Some training pictures as the textures of the corruption, evenly spaced: uint8 [T,3,S,S]."""
        if self.config.corruption == "none":
            return
        rows = torch.linspace(0, len(embeddings) - 1, min(TEXTURES, len(embeddings))).round().long().tolist()
        self.bank = embeddings.take(rows, generator.device).mul(255).round().byte()

    def corrupted(self, batch: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Pictures [B,3,S,S] in 0..1 -> (input, target). EdgRec's: 3 in 10 are turned, target included; then a quarter
        of the inputs gets a pasted piece, a quarter a Perlin mask filled with another training picture, varied.
        """
        if self.bank is None:
            raise UserError("MMAERec corrupts by training pictures; call prepare(embeddings, generator) first")
        damaged, target, _ = self.simulator(batch, self.bank, generator)
        u = torch.rand(len(batch), 2, generator=generator, device=generator.device).to(batch.device)
        chosen, paste = (u < 0.5).T[..., None, None, None]
        pasted = torch.where(paste, cut_paste(target, generator), target)
        return torch.where(chosen, pasted, damaged), target

    def forward(self, images: Tensor) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """As `MemoryUNet`. Raises UserError for images without three colours or with other sides."""
        if images.ndim != 4 or images.shape[1] != 3 or images.shape[2] % 32 or images.shape[3] % 32:
            raise UserError(
                f"MMAERec takes colour images [B,3,H,W] whose sides are multiples of 32, not {list(images.shape)}"
            )
        return self.unet(images.contiguous(memory_format=torch.channels_last))

    def loss(self, batch: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Eq. (6) on a newly corrupted batch; lost_1 to lost_5 of the levels are logged beside its terms."""
        images, target = (batch, batch) if self.config.corruption == "none" else self.corrupted(batch, generator)
        rebuilt, weights, lost = self(images)
        terms = self.terms(rebuilt, target, weights)
        return terms | {f"lost_{k}": share.detach() for k, share in enumerate(lost, 1)}

    def terms(self, rebuilt: Tensor, target: Tensor, weights: list[Tensor]) -> dict[str, Tensor]:
        """l2, SSIM and, over all levels, entropy; total by eq. (6). Pictures [B,3,S,S], weights [B,h,w,N]."""
        c = self.config
        with torch.autocast(rebuilt.device.type, enabled=False):
            rebuilt = losses.full_precision(rebuilt)
            l2, ssim = F.mse_loss(rebuilt, target), losses.ssim(rebuilt, target)
            q = sum((entropy(w, c.entropy_reduction) for w in weights), l2.new_zeros(()))
        total = c.use_l2 * l2 + c.ssim_weight * ssim + c.entropy_weight * q
        return {"total": total, "l2": l2, "ssim": ssim, "entropy": q}

    def optimizers(self, steps_per_epoch: int, total_steps: int) -> list[tuple]:
        """[(Adam, its decay at the end of whole epochs, or at steps where training is counted in steps)]."""
        c = self.config
        optimizer = adam((p for p in self.parameters() if p.requires_grad), lr=c.learning_rate)
        count, unit = (total_steps, 1) if c.epochs is None else (c.epochs, steps_per_epoch)
        steps = [unit * end for end in milestones(c.decay_at, count)]
        return [(optimizer, torch.optim.lr_scheduler.MultiStepLR(optimizer, steps, c.decay))]

    def score(self, embeddings: Tensor) -> Scores:
        """Image score: maximum of the map of eq. (14), [B,S,S], at least 0."""
        found = self.parts(embeddings)["map"]
        return Scores(self.pool(found), found)

    def parts(self, images: Tensor) -> dict[str, Tensor]:
        """What becomes of images [B,3,S,S] in 0..1 (eval mode): rebuilt [B,3,S,S] in 0..1; edges; maps [B,S,S]:
        structure (0..1), colour (already times mu), map, their sum.
        """
        c, (structure_side, colour_side) = self.config, self.sides
        rebuilt = losses.full_precision(self(images)[0]).clamp(0, 1)
        structure = structure_difference(images, rebuilt, c.msgms_scales, structure_side)[:, 0]
        colour = c.colour_weight * colour_difference(images, rebuilt, colour_side, c.lab)[:, 0]
        return {
            "rebuilt": rebuilt,
            "edges": edges(images),
            "structure": structure,
            "colour": colour,
            "map": structure + colour,
        }
