"""Why SimpleNet's heat may avoid a thin line: what each suspect does to the scores on the line and beside it.

    python benchmarks/thin_lines.py               # ten minutes on one core; writes results/reference/benchmarks/
    python benchmarks/thin_lines.py --seeds 0     # one seed

Normal pictures of three grounds, 128 pixels: a smooth one with soft spots and fine grain, and two photographs of
`textures`. Over those that were not fitted lines are drawn: 1 to 8 pixels thick, dark and bright, horizontal and
vertical, at four places four pixels apart, so that they fall on every part of a cell of either level. What counts is
the rise of a cell's score over the same cell without the line, in standard deviations of normal test cells: `on` the
line (cells of stride 8 that it touches) and `beside` it (the next three on either side). Where the heat avoids the
line, on - beside is below zero. `offset`: centre of mass of the rise, pixels from the line's middle, positive: down or
right.

Besides SimpleNet three scores that no training made: distance to the nearest of 1500 training rows, Mahalanobis
distance, and the best test of eq. (6): the log likelihood ratio of a normal and a noisy row if normal rows were
Gaussian. With principal directions of variance v and noise of deviation sigma it is half the sum of x^2 sigma^2 /
(v (v + sigma^2)).

The second table asks which directions the trained discriminator answers to. The principal directions of the normal
rows after the adapter are cut into sixths, from the quiet (normal rows hardly vary) to the loud. `step`: the rise for a
random step of length sigma sqrt(n), the noise's own, inside one sixth. Then the line's change of the rows itself, with
and without its part in the loudest sixth, and a random change of the same length.
"""

import argparse
import itertools
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from PIL import Image
from scipy.ndimage import gaussian_filter
from torch import Tensor
from turns import FOLDER, write

from adlib import images
from adlib.common.seeds import seeded
from adlib.data import textures
from adlib.embeddings import Embeddings
from adlib.models.simplenet import Config, SimpleNet, localise
from adlib.synthesis.lines import thin_line
from adlib.training import Training

SIDE, STRIDE = 128, 8  # pixels of a picture and of a cell
FIT, TEST, BANK = 48, 6, 1500  # normal pictures, and rows of the nearest neighbour
SQUASH = 2.5  # height over width of the elongated pictures, as in KolektorSDD
GROUNDS = ("smooth", "brick", "gravel")
SIXTHS = 6
LINES = list(itertools.product((1, 2, 4, 8), (-0.25, 0.25), (False, True)))  # thickness, change, vertical
FIRST = range(SIDE // 2 - 8, SIDE // 2 + 8, 4)  # rows on which lines begin
BESIDE = 3.5 * STRIDE  # pixels from the line's edge to the middle of the third cell beside it
COMMON = {"backbone": "tf_efficientnet_lite0", "image_size": SIDE, "resize_mode": "squash", "resize": None}
COMMON |= {"noise_relative": 0.5, "epochs": 40, "eval_every": 0}


BASE = "sigma 0.5 x deviation"
# name: changes of COMMON, which maps of the cached embeddings
VARIANTS = {
    BASE: ({}, (0, 1)),
    "sigma 0.015 (paper)": ({"noise_relative": None}, (0, 1)),
    "sigma 2 x deviation": ({"noise_relative": 2.0}, (0, 1)),
    "160 epochs": ({"epochs": 160}, (0, 1)),
    "no aggregation (patch 1)": ({"patch": 1}, (0, 1)),
    "stride 8 alone": ({"layers": (2,)}, (0,)),
}


def smooth(n: int, seed: int, height: int) -> np.ndarray:
    """Grey pictures uint8 [n,height,SIDE]: soft spots of deviation 10 and fine grain of deviation 5 grey levels."""
    rng, pictures = np.random.default_rng(seed), []
    for _ in range(n):
        spots, grain = (gaussian_filter(rng.standard_normal((height, SIDE)), width) for width in (SIDE / 8, 0.7))
        pictures.append(128 + 10 * spots / spots.std() + 5 * grain / grain.std())
    return np.clip(np.round(pictures), 0, 255).astype(np.uint8)


def photographs(category: str, place: str, n: int, seed: int, height: int) -> np.ndarray:
    """Crops uint8 [n,height,SIDE] of a photograph of `textures`: the left half to fit, the right one to test."""
    rng, half = np.random.default_rng(seed), 256
    pixels = textures._photograph(category)[:, :half] if place == "fit" else textures._photograph(category)[:, half:]
    corners = zip(rng.integers(0, 512 - height, n), rng.integers(0, half - SIDE, n), strict=True)
    return np.stack([pixels[y : y + height, x : x + SIDE] for y, x in corners])


def ground(name: str, place: str, seed: int, height: int = SIDE) -> Tensor:
    """Normal pictures of a ground, float32 [n,3,height,SIDE] in 0..1; place: "fit" or "test"."""
    n, seed = (FIT, seed) if place == "fit" else (TEST, 1000 + seed)
    grey = smooth(n, seed, height) if name == "smooth" else photographs(name, place, n, seed, height)
    return images.to_float(grey)[:, None].expand(-1, 3, -1, -1)


def squashed(pictures: Tensor) -> Tensor:
    """Pictures [n,3,h,SIDE] at [n,3,SIDE,SIDE], as PIL squashes them."""
    if pictures.shape[-2] == SIDE:
        return pictures
    small = [Image.fromarray(grey.numpy()).resize((SIDE, SIDE), Image.Resampling.BILINEAR) for grey in pictures[:, 0]]
    return torch.from_numpy(np.stack(small))[:, None].expand(-1, 3, -1, -1)


@torch.inference_mode()
def embedded(net: SimpleNet, pictures: Tensor) -> tuple[Tensor, ...]:
    """Maps of the pictures, one tensor [n,C,h,w] for each level."""
    parts = [net.embed(batch) for batch in squashed(pictures).split(16)]
    return tuple(torch.cat(level) for level in zip(*parts, strict=True))


def with_lines(net: SimpleNet, pictures: Tensor, stretch: float) -> list[tuple]:
    """(thickness, change, vertical, middle of the line in pixels of the squashed picture, maps) of every line.

    stretch: height of the pictures over SIDE; a vertical line keeps its thickness.
    """
    drawn = []
    for (thickness, change, vertical), first in itertools.product(LINES, FIRST):
        factor = 1 if vertical else stretch
        start = round(first * factor)
        maps = embedded(net, thin_line(pictures, start, thickness, change, vertical))
        drawn.append((thickness / factor, change, vertical, (start + thickness / 2) / factor, maps))
    return drawn


def principal(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Variances [n], ascending, and directions [n,n], one a column, of rows [N,n]."""
    variance, axes = torch.linalg.eigh(torch.cov(rows.T).double())
    return variance.clamp(min=1e-6).float(), axes.float()


def scorers(net: SimpleNet, rows: Tensor) -> dict:
    """Name -> function of rows [N,n] to scores [N]; rows: the training rows, from which the untrained ones come."""
    bank = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))[:BANK]]
    adapted, sigma2 = net.adapter(rows), float(net.noise_std) ** 2
    (plain, axes), (variance, adapted_axes) = principal(rows), principal(adapted)

    def mahalanobis(x: Tensor) -> Tensor:
        return (((x - rows.mean(0)) @ axes) ** 2 / plain).sum(1).sqrt()

    def best(x: Tensor) -> Tensor:
        along = ((net.adapter(x) - adapted.mean(0)) @ adapted_axes) ** 2
        return (along * sigma2 / (variance * (variance + sigma2))).sum(1) / 2

    return {
        "best test of eq. (6)": best,
        "Mahalanobis": mahalanobis,
        "nearest neighbour": lambda x: torch.cdist(x, bank).amin(1),
    }


def across(change: Tensor, line: tuple) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Profile across a line of values on the grid [n,h,w], and of each of its cells the distance from the line's middle
    and the gap to its edge, in pixels.
    """
    thickness, _, vertical, middle, _ = line
    change = change.transpose(1, 2) if vertical else change
    cells = change.shape[1]
    profile = change[:, :, round(0.3 * cells) : round(0.7 * cells)].mean((0, 2)).numpy()
    distance = STRIDE * (np.arange(cells) + 0.5) - middle
    return profile, distance, np.abs(distance) - thickness / 2


def on_and_beside(changes: list[Tensor], drawn: list[tuple]) -> tuple[float, float, float]:
    """Mean on the lines, mean beside them, and offset in pixels, of values on the grid, one tensor for each line."""
    on, beside, places, weights = [], [], [], []
    for change, line in zip(changes, drawn, strict=True):
        profile, distance, gap = across(change, line)
        on.append(profile[gap < STRIDE / 2].mean())
        beside.append(profile[(gap >= STRIDE / 2) & (gap < BESIDE)].mean())
        near = np.abs(distance) < 5 * STRIDE
        places, weights = [*places, distance[near]], [*weights, profile[near].clip(min=0)]
    weights = np.concatenate(weights)
    offset = (np.concatenate(places) * weights).sum() / max(weights.sum(), 1e-9)
    return float(np.mean(on)), float(np.mean(beside)), float(offset)


def risen(score, rows: list[Tensor], drawn: list[tuple], view=lambda grid: grid) -> dict:
    """What a score of rows does at the lines; rows: of the normal pictures, then of each line. view: of the grid."""
    cells = SIDE // STRIDE
    grids = [view(score(x).unflatten(0, (-1, cells, cells))) for x in rows]
    on, beside, offset = on_and_beside([(grid - grids[0]) / grids[0].std() for grid in grids[1:]], drawn)
    return {"on": on, "beside": beside, "on - beside": on - beside, "offset": offset}


def smoothed(grid: Tensor) -> Tensor:
    """The map that is shown, averaged over each cell again: what up-sampling and smoothing add."""
    return F.avg_pool2d(localise(grid, (SIDE, SIDE), 4 * SIDE / 288)[:, None], STRIDE)[:, 0]


def trained(variant: str, maps: tuple[Tensor, ...], seed: int) -> tuple[SimpleNet, float]:
    """The variant's net, trained on maps of normal pictures, and its last loss."""
    changes, chosen = VARIANTS[variant]
    with seeded(seed, "weights"):
        net = SimpleNet(Config(**COMMON | changes))
    history = Training(net, Embeddings([[maps[k] for k in chosen]], single=False), seed).run()
    return net.requires_grad_(False), history.total.iloc[-1]


def measured(name: str, seed: int, stretch: float, variants: list[str]) -> tuple[list[dict], dict]:
    """A row for each variant and each untrained score on one ground, and what the first variant answers to."""
    height, table, answers = round(SIDE * stretch), [], {}
    frozen = SimpleNet(Config(**COMMON))
    fit, normal = (embedded(frozen, ground(name, place, seed, height)) for place in ("fit", "test"))
    drawn = with_lines(frozen, ground(name, "test", seed, height), stretch)
    for variant in variants:
        net, loss = trained(variant, fit, seed)
        rows = [net.rows(tuple(maps[k] for k in VARIANTS[variant][1])) for maps in (normal, *(d[-1] for d in drawn))]
        facts = {"ground": name, "seed": seed, "height over width": stretch, "loss": loss}
        label, score = f"SimpleNet, {variant}", lambda x, net=net: -net._output(x)
        table.append({"score": label, **facts, **risen(score, rows, drawn)})
        if variant == variants[0]:
            table.append({"score": f"{label}, map", **facts, **risen(score, rows, drawn, smoothed)})
            for other, function in scorers(net, net.rows(fit)).items():
                table.append({"score": other, **facts, **risen(function, rows, drawn)})
            answers = {"ground": name, "seed": seed, **answered(net, net.rows(fit), rows, drawn)}
        print(name, seed, stretch, variant, f"loss {loss:.2f}", flush=True)
    return table, answers


def answered(net: SimpleNet, fit: Tensor, rows: list[Tensor], drawn: list[tuple]) -> dict:
    """Which changes of a row raise the score: a step inside each sixth of the directions, and parts of the line's."""
    generator = torch.Generator().manual_seed(0)
    adapted = [net.adapter(x) for x in rows]
    normal, axes = adapted[0], principal(net.adapter(fit))[1]
    before = -net.discriminator(normal)

    def noise(shape: tuple[int, ...], length) -> Tensor:
        return F.normalize(torch.randn(shape, generator=generator), dim=1) * length

    def rise(change: Tensor) -> Tensor:
        return (-net.discriminator(normal + change) - before) / before.std()

    found, length = {}, float(net.noise_std) * len(axes) ** 0.5
    for k, part in enumerate(torch.tensor_split(axes, SIXTHS, dim=1), 1):
        found[f"step, sixth {k}"] = rise(noise((len(normal), part.shape[1]), length) @ part.T).mean().item()
    parts = {"share of the loudest sixth": [], "line": [], "without the loudest sixth": [], "random": []}
    for x in adapted[1:]:
        change = x - normal
        loud = (change @ part) @ part.T  # the last part is the loudest
        size = change.norm(dim=1, keepdim=True)
        parts["share of the loudest sixth"].append((loud.norm(dim=1) / size[:, 0].clamp(min=1e-9)) ** 2)
        parts["line"].append(rise(change))
        parts["without the loudest sixth"].append(rise(change - loud))
        parts["random"].append(rise(noise(change.shape, size)))
    cells = SIDE // STRIDE
    for what, values in parts.items():
        on, beside, _ = on_and_beside([value.unflatten(0, (-1, cells, cells)) for value in values], drawn)
        found |= {f"{what}, on": on, f"{what}, beside": beside, f"{what}, on - beside": on - beside}
    batch = torch.cat([net.adapter(fit), net.adapter(fit) + noise(fit.shape, length)])
    found["folded - unfolded"] = (net._output(fit) - net.discriminator(net.adapter(fit))).abs().max().item()
    found["running - batch statistics"] = norm_shift(net, batch)
    return found


def norm_shift(net: SimpleNet, batch: Tensor) -> float:
    """Mean |D| difference between the running batch-norm statistics and those of a batch of normal and noisy rows."""
    linear, norm, activation, last = net.discriminator
    hidden = linear(batch)
    fresh = F.batch_norm(hidden, None, None, norm.weight, norm.bias, training=True, eps=norm.eps)
    return (last(activation(norm(hidden))) - last(activation(fresh))).abs().mean().item()


def shown(values: pd.DataFrame) -> str:
    """'on / beside (difference ± sd over seeds)' of one score on one ground."""
    gap = values["on - beside"]
    spread = f" ± {gap.std():.2f}" if len(gap) > 1 else ""
    return f"{values.on.mean():.2f} / {values.beside.mean():.2f} ({gap.mean():+.2f}{spread})"


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """One row for each score and shape of picture; a column for each ground, and the offset on the first."""
    rows = []
    for (stretch, score), group in table.groupby(["height over width", "score"], sort=False):
        row = {"height over width": stretch, "score": score}
        row |= {name: shown(group[group.ground == name]) for name in GROUNDS if name in set(group.ground)}
        row["offset, smooth [px]"] = f"{group[group.ground == GROUNDS[0]].offset.mean():+.1f}"
        row["loss"] = f"{group.loss.mean():.2f}" if score.startswith("SimpleNet") else ""
        rows.append(row)
    return pd.DataFrame(rows)


def answers_text(answers: list[dict]) -> str:
    """Second table: a row for each number of `answered`, a column for each ground."""
    groups = pd.DataFrame(answers).drop(columns="seed").groupby("ground", sort=False)
    columns = {}
    for name, group in groups:
        values = group.drop(columns="ground")
        columns[name] = [f"{x.mean():.2g} ({x.min():.2g} to {x.max():.2g})" for _, x in values.items()]
    return pd.DataFrame(columns, index=values.columns).to_markdown(disable_numparse=True)


def findings(table: pd.DataFrame, answers: list[dict]) -> str:
    """What both tables show, in three sentences: does the heat avoid the line, who sees it better, and why."""
    base = f"SimpleNet, {BASE}"
    square = table[table["height over width"] == 1].groupby(["score", "ground"], sort=False)["on - beside"]
    gap, above, seeds = square.mean().unstack(), square.agg(lambda x: (x > 0).sum()).unstack(), square.size().max()
    places = [
        f"{name} {gap.loc[base, name]:+.2f} ({above.loc[base, name]} of {seeds} seeds above 0)" for name in GROUNDS
    ]
    others = [score for score in gap.index if not score.startswith("SimpleNet")]
    better = ", ".join(score for score in others if (gap.loc[score] > gap.loc[base]).all()) or "no other score"
    steps = pd.DataFrame(answers).groupby("ground", sort=False)[["step, sixth 1", "step, sixth 6"]].mean()
    quiet, loud = (f"{steps[c].min():.2g} to {steps[c].max():.2g}" for c in steps.columns)
    return (
        f"**What it shows.** SimpleNet's score on the line less that beside it: {', '.join(places)}. This difference "
        f"is larger on every ground for {better}. The discriminator's score rises by {quiet} for a step along the "
        f"directions in which normal rows hardly vary, and by {loud} along those in which they vary most."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument(
        "--out", type=Path, default=FOLDER, help="folder that receives thin_lines.md and thin_lines.csv"
    )
    args = parser.parse_args()
    torch.set_num_threads(1)
    table, answers = [], []
    for name, seed in itertools.product(GROUNDS, args.seeds):
        square, answer = measured(name, seed, 1.0, list(VARIANTS))
        table, answers = [*table, *square], [*answers, answer]
        table += measured(name, seed, SQUASH, [BASE])[0]
    table = pd.DataFrame(table)
    conditions = (
        f"{COMMON['backbone']}, {SIDE} px, {FIT} normal pictures, {len(LINES) * len(FIRST)} lines over each of {TEST} "
        f"pictures, seeds {', '.join(map(str, args.seeds))}, 1 thread. Each ground: on / beside (on - beside ± "
        "deviation over seeds), in deviations of normal cells. Written by `python benchmarks/thin_lines.py`, which "
        "explains each word."
    )
    conditions = f"{findings(table, answers)}\n\n{conditions}"
    more = f"\n{BASE}: what the discriminator answers to; mean (lowest to highest seed).\n\n{answers_text(answers)}\n"
    write(summary(table), "SimpleNet at thin lines", conditions, args.out, "thin_lines", more)
    # every seed, in place of the summary
    table.to_csv(args.out / "thin_lines.csv", index=False, lineterminator="\n", float_format="%.4g")


if __name__ == "__main__":
    main()
