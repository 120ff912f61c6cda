"""Which ranks do test images and seeds leave open? Ranges of ranks from paired bootstrap draws.

A draw of a system is a metric on test images drawn with replacement; equal draws hold the same images for all systems,
so their differences are paired (specs: 95 % intervals, 2000 draws). With several seeds each draw also draws the seeds
with replacement: a system of which one seed in three fails is not ranked as if its mean were certain.
"""

import zlib

import numpy as np

from adlib.metrics.intervals import TAILS

# they learn nothing at random: every seed gives the same numbers (PaDiM's channels have a seed of their own in Config)
DETERMINISTIC = ("mahalanobis", "nearest_neighbour", "padim", "spade")


def resampled(per_seed: np.ndarray, name: str) -> np.ndarray:
    """Draws [B] from those of each seed [S,B]: in each, S seeds are drawn with replacement and averaged.

    name: of the system; its seeds are drawn independently of those of others.
    """
    count, draws = per_seed.shape
    drawn = np.random.default_rng(zlib.crc32(name.encode())).integers(count, size=(count, draws))
    return np.take_along_axis(per_seed, drawn, axis=0).mean(axis=0)


def rank_ranges(draws: dict[str, np.ndarray | None]) -> dict[str, str]:
    """{name: "2-5"}: the ranks that the draws leave open, 1 the best; "" without draws.

    A system's best rank counts those whose paired 95 % interval lies wholly above it; its worst those wholly below.
    """
    known = {name: values for name, values in draws.items() if values is not None}
    out = dict.fromkeys(draws, "")
    for name, own in known.items():
        gaps = [np.nanpercentile(own - other, TAILS) for key, other in known.items() if key != name]
        best = 1 + sum(high < 0 for _, high in gaps)
        worst = len(known) - sum(low > 0 for low, _ in gaps)
        out[name] = str(best) if best == worst else f"{best}-{worst}"
    return out


def averaged(parts: dict[str, np.ndarray]) -> np.ndarray:
    """Draws [B] of a mean over categories {category: draws [B]}: images are drawn within each category.

    The draws of each category are put into an order of its own, the same for all systems, because generators with one
    seed would tie the images of one category to those of another.
    """
    orders = {name: np.random.default_rng(zlib.crc32(name.encode())).permutation(len(d)) for name, d in parts.items()}
    return np.mean([draws[orders[name]] for name, draws in parts.items()], axis=0)
