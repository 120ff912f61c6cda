"""Pictures, masks, anomaly maps and overlays: one colour scale per category, taken from normal training images only.

Scaling every map by its own extremes paints normal images red; here a colour means the same score in all pictures of a
category, and the threshold has its place on the colour bar. Public names: `adlib.figures`.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from PIL import Image

from adlib import data, images
from adlib.common.errors import UserError
from adlib.figures.style import ANOMALOUS, NORMAL, canvas, caption, described
from adlib.inference import colour_limits, overlay
from adlib.models import get

COLUMNS = ("image", "mask", "map", "overlay")
MAP_UNITS = {"draem": "log-odds"}  # of maps in another unit than the image score; DRAEM's score is a probability
SIDES = ("normal test images", "anomalous test images")


def scale(run, category: str) -> Normalize:
    """Score -> 0..1 for every map of the category: median of normal maps at 0, the normal-only threshold at 0.5."""
    chosen = run.record["per_category"][category]["threshold"]
    if "map_scale" not in chosen:
        raise UserError(f"{run.record['method']} makes no anomaly maps; there is nothing to draw for {category}")
    return Normalize(*colour_limits(chosen), clip=True)


def sample_images(table: pd.DataFrame, per_label: int = 4, side: int = 128) -> Figure:
    """The first test images of a sample table: normal ones above, anomalous ones (spread over the kinds) below."""
    test = table[table.split == "test"].reset_index(drop=True)
    rows = choose(test, per_label)
    geometry = images.Geometry(side)
    with canvas(1.4 * per_label, 3.2) as fig:
        axes = fig.subplots(2, per_label, squeeze=False)
        for ax in axes.flat:
            ax.axis("off")
        for label in (0, 1):
            for ax, row in zip(axes[label], [r for r in rows if test.label[r] == label], strict=False):
                _show(ax, _picture(test.path[row], geometry))
                ax.set_title(test.defect[row], color=(NORMAL, ANOMALOUS)[label])
        a = table.attrs
        text = f"{a['dataset']} {a['category']}, test images, {side} px; above normal, below anomalous."
        kinds = dict.fromkeys(test.defect[r] for r in rows if test.label[r] == 1)
        counts = [sum(test.label[r] == label for r in rows) for label in (0, 1)]
        told = f"{counts[0]} normal pictures above, {counts[1]} anomalous ones below ({', '.join(kinds)})"
        caption(fig, text, f"Test images of {a['dataset']} {a['category']}: {told}.")
    return fig


def choose(scores: pd.DataFrame, per_label: int = 4) -> list[int]:
    """Row numbers of `per_label` normal, then anomalous images: the first of each kind in turn, not by score."""
    chosen = []
    for label in (0, 1):
        of_label = scores[scores.label == label]
        turn = of_label.groupby("defect").cumcount()
        chosen += list(of_label.index[np.lexsort((of_label.defect, turn))][:per_label])
    return chosen


def small_maps(run, rows: Sequence[int]) -> np.ndarray | None:
    """Small maps float16 [len(rows),64,64] of rows of `run.scores`: of the run, else those that its copy keeps.

    None unless all of them are there.
    """
    if run.maps is not None:
        return run.maps[list(rows)]
    kept = run.shown_maps
    return np.stack([kept[row] for row in rows]) if rows and set(rows) <= set(kept) else None


def anomaly_maps(run, rows: Sequence[int] | None = None, per_label: int = 4, category: str | None = None) -> Figure:
    """image | mask | map | overlay of some test images of one category: normal ones left, anomalous ones right.

    rows: row numbers of `run.scores`; default: `per_label` per label (`choose`). The title has the kind, the image
    score and the decision. Raises UserError for a system without maps or rows of several categories.
    """
    category, scores = _scores_of(run, category)
    return _drawn(run, category, scores, choose(scores, per_label) if rows is None else list(rows), SIDES)


def worst_cases(run, k: int = 3, category: str | None = None) -> Figure:
    """Left the k normal images that score highest, right the k anomalous ones that score lowest.

    Only what the threshold gets wrong is called a false alarm or missed.
    """
    category, scores = _scores_of(run, category)
    rows = worst_rows(scores, k)
    wrong = [sum(scores.label[r] == label != scores.decision[r] for r in rows) for label in (0, 1)]
    of = [sum(scores.label[r] == label for r in rows) for label in (0, 1)]
    sides = (
        f"highest-scoring normal images: {wrong[0]} of {of[0]} are false alarms",
        f"lowest-scoring anomalous images: {wrong[1]} of {of[1]} are missed",
    )
    return _drawn(run, category, scores, rows, sides)


def _scores_of(run, category: str | None) -> tuple[str, pd.DataFrame]:
    if run.maps is None:
        raise UserError(f"run {run.path} has no maps.npz; {run.record['method']} makes no anomaly maps")
    category = category or next(iter(run.record["per_category"]))
    return category, run.scores[run.scores.category == category]


def _drawn(run, category: str, scores: pd.DataFrame, rows: list[int], sides: tuple[str, str]) -> Figure:
    """The picture of `rows`; sides: what the images on the left and on the right are."""
    if not rows or not set(rows) <= set(scores.index):
        raise UserError(
            f"rows {rows} are not all in the scores of {category}; valid: {scores.index[0]} to {scores.index[-1]}"
        )
    columns = [[r for r in rows if scores.label[r] == label] for label in (0, 1)]
    height = max(map(len, columns))
    with canvas(9, 1.45 * height + 1.05) as fig:
        head, body, foot = fig.subfigures(3, 1, height_ratios=[0.25, 1.45 * height, 0.6])
        blocks = body.subfigures(height, 2, squeeze=False)
        drawn = _material(run, category, rows)
        for k, (column, side) in enumerate(zip(columns, sides, strict=True)):
            if column:
                head.text(0.25 + 0.5 * k, 0.4, side, ha="center", va="center", fontsize=9, weight="bold")
            for place, row in enumerate(column):
                _block(blocks[place][k], scores.loc[row], *drawn[row], scale(run, category), place == 0)
        _bar(foot, run, category)
        caption(fig, f"{described([run])}. {_levels(run, category)}", _told(run, category, scores, drawn, rows, sides))
    return fig


def _levels(run, category: str) -> str:
    """The two thresholds of a category: of the image score, which decides, and of the map, which is drawn."""
    known = run.record["per_category"][category]["threshold"]
    unit = MAP_UNITS.get(run.record["method"])
    tau = f"{known['map_tau']:.3g}" + (f" {unit}" if unit else "")
    return (
        f"{category}: an image score above {known['tau']:.3g} is called anomalous. The map has its own threshold, "
        f"{tau} (black line). Both come from normal images alone. One colour scale for all maps."
    )


def _told(run, category: str, scores: pd.DataFrame, drawn: dict, rows: list[int], sides: tuple[str, str]) -> str:
    """Alternative text: what is on each side, and where the maps pass the threshold of the map."""
    tau, parts = run.record["per_category"][category]["threshold"]["map_tau"], []
    for label, side in enumerate(sides):
        own = [r for r in rows if scores.label[r] == label]
        if own:
            bright = sum(bool((drawn[r][2] > tau).any()) for r in own)
            values = ", ".join(f"{scores.score[r]:.3g}" for r in own)
            parts.append(f"{side}: image scores {values}, {bright} of {len(own)} maps pass the map's threshold")
    return f"Images, masks, anomaly maps and overlays of {run.record['dataset']} {category}. {'; '.join(parts)}."


def worst_rows(scores: pd.DataFrame, k: int = 3) -> list[int]:
    """Row numbers of the k highest-scoring normal, then the k lowest-scoring anomalous images."""
    ordered = scores.sort_values("score", kind="stable")
    return [*ordered.index[ordered.label == 0][::-1][:k], *ordered.index[ordered.label == 1][:k]]


def _material(run, category: str, rows: Sequence[int]) -> dict[int, tuple]:
    """{row: (picture uint8 [h,w,3] as the network sees it, mask bool [h,w] or None, map float [h,w])}.

    h = w = S, but less where the picture was padded. Of tiles the whole picture on the grid of the pixel metrics.
    """
    config = get(run.record["method"])[1].from_dict(run.record["config"])
    tiled = config.resize_mode == "tiles"
    shape = config.geometry.at(run.record["protocol"]["metric_size"]) if tiled else config.geometry
    table = data.load(run.record["dataset"], category)
    root = Path(table.attrs["root"])
    places = {Path(p).relative_to(root).as_posix(): i for i, p in enumerate(table.path)}
    wanted = run.scores.loc[list(rows), "path"]
    lost = [p for p in wanted if p not in places]
    if lost:
        raise UserError(f"picture {lost[0]} of run {run.path} is not in {root}; the data changed since the run")
    chosen = table.iloc[[places[p] for p in wanted]]
    masks, info = images.masks(chosen, shape, config.mask_rule)
    out, maps = {}, small_maps(run, rows)
    for k, row in enumerate(rows):
        decoded = images.decode(chosen.path.iloc[k])
        size, stored = decoded.shape[:2], maps[k].astype(np.float32)
        inside = shape.inside(*size)
        picture = images.resize(decoded, shape).transpose(1, 2, 0)[inside]
        small = Image.fromarray(np.ascontiguousarray(stored[shape.at(len(stored)).inside(*size)]))
        amap = np.asarray(small.resize(picture.shape[1::-1], Image.Resampling.BILINEAR))
        out[row] = picture, None if k in info["no_mask"] else masks[k][inside], amap
    return out


def _picture(path: str, geometry: images.Geometry) -> np.ndarray:
    return images.resize(images.decode(path), geometry).transpose(1, 2, 0)


def _show(ax, picture: np.ndarray, **options) -> None:
    ax.imshow(picture, interpolation="antialiased", **options)  # "nearest" drops thin masks of large pictures
    ax.axis("off")


def _block(fig, row, picture, mask, amap, norm: Normalize, header: bool) -> None:
    """Four cells of one image; the title's colour is the decision's."""
    axes = fig.subplots(1, 4)
    level = np.asarray(norm(amap))
    _show(axes[0], picture)
    if mask is None:
        axes[1].axis("off")
        axes[1].text(0.5, 0.5, "no mask", ha="center", va="center", transform=axes[1].transAxes)
    else:
        _show(axes[1], mask, cmap="gray", vmin=0, vmax=1)
    _show(axes[2], amap, cmap="viridis", norm=norm)
    _show(axes[3], overlay(picture, level))
    for ax, name in zip(axes, COLUMNS, strict=True):
        ax.set_title(name if header else "", fontsize=7, color="#666666", pad=2)
    decision = "anomalous" if row.decision else "normal"
    error = "" if row.decision == row.label else (" (false alarm)", " (missed)")[row.label]
    colour = ANOMALOUS if row.decision else NORMAL
    fig.suptitle(f"{row.defect}: image score {row.score:.3g}, called {decision}{error}", fontsize=8, color=colour)


def _bar(fig, run, category: str) -> None:
    """Colour bar with the map threshold marked."""
    chosen = run.record["per_category"][category]["threshold"]
    ax = fig.add_axes((0.3, 0.55, 0.4, 0.25))
    fig.colorbar(ScalarMappable(scale(run, category), "viridis"), cax=ax, orientation="horizontal", extend="max")
    ax.axvline(chosen["map_tau"], -0.25, 1.25, color="black", linewidth=2.5, clip_on=False)
    unit = MAP_UNITS.get(run.record["method"], "score units")
    ax.set_xlabel(f"anomaly map [{unit}]; black line: threshold of the map, {chosen['map_tau']:.3g}", fontsize=8)
