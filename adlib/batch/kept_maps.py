"""The few maps that committed copies keep: those that page 06 draws, so that it can when the runs themselves are gone.

They are the systems' own output, 64 x 64 numbers for an image; pictures and masks of the data sets are never copied.
"""

from pathlib import Path

import numpy as np

from adlib.figures.maps import choose, small_maps
from adlib.figures.side_by_side import PER_LABEL
from adlib.inference import colour_limits
from adlib.reports import comparison
from adlib.runs.run import MAPS_SHOWN, Run, Runs

STEPS = 255  # of the colours from the first to the last
LEAST_FOUND = 4  # images that page 06 draws of those that most systems miss


def rows_kept(finished: list[Run]) -> dict[Path, list[int]]:
    """{run folder: rows of its scores whose maps page 06 draws}: the first test images of each kind, and those that
    fewest systems find. Of each system on each category the first seed with maps.npz.

    The least found are those among these runs; where a later comparison finds others, the copy has no map of them.
    """
    runs, out = Runs(finished), {}
    for dataset, categories in comparison.places(runs).items():
        for category in categories:
            contenders = comparison.groups(runs, dataset, category)[0]
            least = comparison.found_by(contenders).path[:LEAST_FOUND]
            for one in contenders:
                run = next((run for run in one.runs if "maps.npz" in run.record["files"]), None)
                if run is not None:
                    own = run.scores[run.scores.category == one.category]
                    out.setdefault(run.path, set()).update(choose(own, PER_LABEL), own.index[own.path.isin(least)])
    return {path: sorted(rows) for path, rows in out.items()}


def write(run: Run, rows: list[int], folder: Path) -> None:
    """maps_shown.npz in a copy's folder: rows int32 [K], maps float16 [K,64,64], rounded to the steps of their colours.

    Rounding changes a picture by one of its 256 colours at most, and halves the file. Nothing is clipped, because
    figures enlarge a map before they colour it.
    """
    maps = small_maps(run, rows).astype(np.float32)
    for amap, category in zip(maps, run.scores.category.loc[rows], strict=True):
        low, high = colour_limits(run.record["per_category"][category]["threshold"])
        step = (high - low) / STEPS
        amap[:] = low + step * np.round((amap - low) / step)
    maps = maps.clip(-65504, 65504).astype(np.float16)
    np.savez_compressed(folder / MAPS_SHOWN, rows=np.array(rows, np.int32), maps=maps)
