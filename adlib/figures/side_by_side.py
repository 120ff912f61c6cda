"""Several systems in one picture: their maps of the same images on one scale, and speed against accuracy."""

from collections.abc import Collection, Sequence

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from adlib.common.errors import UserError
from adlib.figures.maps import _material, _show, choose, scale, small_maps
from adlib.figures.style import OTHERS, canvas, caption

CELL = 0.92  # inches
PER_LABEL = 3  # images; committed copies keep the maps of as many
PANELS = (("network", 1), ("end_to_end", 16))  # of speed: what is timed, images at once


def heat_maps(contenders, per_label: int = PER_LABEL, paths: Sequence[str] | None = None) -> Figure:
    """The same test images in every system: a row each for image, mask and system, a column per image.

    contenders: of one category, see adlib.reports.comparison; drawn is the first seed of each that has the maps of all
    these images: a whole run has every map, a copy a few. Other systems are named as gaps. paths: of the images, as in
    `Run.scores`; default: `per_label` normal, then as many anomalous ones, by kind. Colours mean the same in every row:
    darkest is the median of that system's maps of normal images, the middle its threshold. Raises UserError where no
    run has these maps.
    """
    own = _tests(contenders[0], contenders[0].runs[0])
    paths = [own.path[row] for row in choose(own, per_label)] if paths is None else list(paths)
    found = [(one, _with_maps(one, paths)) for one in contenders]
    drawn = [(one, run) for one, run in found if run is not None]
    if not drawn:
        raise UserError("no run here has the maps of these images: copies keep a few or none; run the batch again")
    gaps = [one.name for one, run in found if run is None]
    defects = [own.defect[own.path == path].iloc[0] for path in paths]
    with canvas(CELL * len(paths) + 1.5, CELL * (len(drawn) + 2) + 0.9) as fig:
        axes = fig.subplots(len(drawn) + 2, len(paths), squeeze=False)
        for place, (one, run) in enumerate(drawn):
            _row(axes, place + 2, one, run, paths, with_picture=place == 0)
        for ax, defect in zip(axes[0], defects, strict=True):
            ax.set_title(defect, fontsize=8)
        for ax, name in zip(axes[:, 0], ["image", "mask", *(one.name for one, _ in drawn)], strict=True):
            ax.text(-0.08, 0.5, name, ha="right", va="center", fontsize=8, transform=ax.transAxes)
        text = (
            "Each row on its system's own scale: darkest, the median of its maps of normal images; middle green, its "
            "threshold from normal images alone. One seed of each system."
        )
        text += f" Without a map here: {', '.join(gaps)}." if gaps else ""
        told = f"Maps of {len(drawn)} systems ({', '.join(one.name for one, _ in drawn)}) for {', '.join(defects)}."
        caption(fig, text, told)
    return fig


def _tests(one, run) -> pd.DataFrame:
    return run.scores[run.scores.category == one.category]


def _rows(one, run, paths: list[str]) -> list[int]:
    own = _tests(one, run)
    return [own.index[own.path == path][0] for path in paths]


def _with_maps(one, paths: list[str]):
    """The contender's first run that has the maps of all these images, or None."""
    return next((run for run in one.runs if small_maps(run, _rows(one, run, paths)) is not None), None)


def _row(axes, place: int, one, run, paths: list[str], with_picture: bool) -> None:
    """One system's maps into a row of axes; of the first also images and masks into the two rows on top."""
    rows = _rows(one, run, paths)
    norm, material = scale(run, one.category), _material(run, one.category, rows)
    for k, row in enumerate(rows):
        picture, mask, amap = material[row]
        _show(axes[place][k], amap, cmap="viridis", norm=norm)
        if with_picture:
            _show(axes[0][k], picture)
            axes[1][k].axis("off")
            if mask is not None:
                _show(axes[1][k], mask, cmap="gray", vmin=0, vmax=1)


def speed_and_auroc(table: pd.DataFrame, note: str = "", untimed: Collection[str] = ()) -> Figure:
    """Images per second (log) against image AUROC, a numbered point per system: network alone, and from file to map.

    table: what `adlib.reports.cost.speeds` gives (system, what, batch, fps, image_auroc, low, high; 0..1). Numbers run
    from the highest AUROC downwards; their names are on the right. untimed: names of the systems that have no point,
    which the caption then names.
    """
    best = table.drop_duplicates("system").sort_values("image_auroc", ascending=False, kind="stable")
    number = {name: k for k, name in enumerate(best.system, 1)}
    with canvas(10, 4.4) as fig:
        for ax, (what, batch) in zip(fig.subplots(1, 2, sharey=True), PANELS, strict=True):
            _points(ax, table[(table.what == what) & (table.batch == batch)], number)
            ax.set_xlabel("speed [images / s], log scale")
            ax.set_title(f"{'network alone' if what == 'network' else 'from file to map'}, batch {batch}")
        fig.axes[0].set_ylabel("image AUROC [%]")
        lowest = 100 * table.low.min()
        fig.axes[0].set_ylim(max(0, lowest - 3), 102)
        listed = "\n".join(f"{number[r.system]:2d}  {r.system}, {100 * r.image_auroc:.1f} %" for r in best.itertuples())
        fig.axes[1].text(1.03, 0.98, listed, va="top", fontsize=7.5, transform=fig.axes[1].transAxes)
        one = table[(table.what == PANELS[0][0]) & (table.batch == PANELS[0][1])]
        told = "; ".join(f"{r.system} {r.fps:.3g}/s, {100 * r.image_auroc:.1f} %" for r in one.itertuples())
        text = f"{note} Line: 95 % interval over test images. Numbers: systems by image AUROC."
        text += f" Not timed: {', '.join(untimed)}." if untimed else ""
        caption(fig, text.strip(), f"Images per second and image AUROC. {told}.")
    return fig


def _points(ax, shown: pd.DataFrame, number: dict[str, int]) -> None:
    for row in shown.itertuples():
        k, y = number[row.system], 100 * row.image_auroc
        colour = OTHERS[(k - 1) % len(OTHERS)]
        ax.plot([row.fps] * 2, [100 * row.low, 100 * row.high], color=colour, linewidth=0.8, alpha=0.6)
        ax.plot(row.fps, y, "o", color=colour, markersize=11, alpha=0.85)
        ax.text(row.fps, y, str(k), ha="center", va="center_baseline", fontsize=7)
    ax.set_xscale("log")
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 3)))
    ax.xaxis.set_major_formatter("{x:g}")
    ax.xaxis.set_minor_formatter("")
    ax.margins(x=0.12)
