"""Pictures of simulated anomalies and of what repairs them: walls of images and maps, loss terms, leads over rivals.

For systems that learn from simulated anomalies (DRAEM). In one row of a wall a colour means the same value everywhere.
"""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from adlib.common.errors import UserError
from adlib.figures.results import curves
from adlib.figures.style import ANOMALOUS, NORMAL, OTHERS, canvas, caption, described, legend_above
from adlib.metrics import names as metric_names

CELL = 1.2  # inches per picture of a wall
GREY = "#666666"


def wall(
    rows: dict[str, np.ndarray],
    titles: list[str] | None = None,
    labels: list[int] | None = None,
    limits: dict[str, tuple[float, float]] | None = None,
    note: str = "",
    alt: str = "",
) -> Figure:
    """Pictures below each other, a column per sample: inputs, reconstructions, maps, masks.

    rows: {name: arrays or tensors}: colour [n,3,H,W], float in 0..1 (clipped) or uint8; masks bool [n,H,W], white where
    anomalous; maps [n,H,W] with one colour scale for the row, from `limits` or from least to largest. titles: of the
    columns, in the colour of labels (0 normal, 1 anomalous). alt: what one sees; default: the names of rows and
    columns and how much of each mask is white. UserError: rows of different length.
    """
    arrays = {name: np.asarray(row) for name, row in rows.items()}
    count = len(next(iter(arrays.values())))
    wrong = [name for name, row in arrays.items() if len(row) != count]
    if wrong:
        raise UserError(
            f"row {wrong[0]!r} has {len(arrays[wrong[0]])} pictures, the first row {count}; give equal numbers"
        )
    bars = [1] * count + [0.07]  # a narrow column for colour bars, so that all rows stand below each other
    with canvas(CELL * count + 1.1, CELL * len(arrays) + 0.25) as fig:
        axes = fig.subplots(len(arrays), count + 1, squeeze=False, width_ratios=bars)
        for line, (name, row) in zip(axes, arrays.items(), strict=True):
            _line(fig, line, name, row, (limits or {}).get(name))
        for k, title in enumerate(titles or []):
            axes[0][k].set_title(title, fontsize=8, color=(NORMAL, ANOMALOUS)[labels[k]] if labels else GREY)
        columns = f" ({', '.join(dict.fromkeys(title.replace(chr(10), ' ') for title in titles))})" if titles else ""
        told = "; ".join(_row_words(name, row) for name, row in arrays.items())
        caption(fig, note, alt or f"{count} columns of pictures{columns}; rows: {told}. {note}")
    return fig


def _row_words(name: str, row: np.ndarray) -> str:
    if row.ndim == 4:
        return name
    if row.dtype == bool:
        shares = ", ".join(f"{100 * mask.mean():.0f} %" for mask in row)
        return f"{name}, white in {shares} of the pixels"
    return f"{name}, values from {row.min():.2g} to {row.max():.2g}"


def _line(fig: Figure, line: np.ndarray, name: str, row: np.ndarray, limits: tuple[float, float] | None) -> None:
    *axes, bar = line
    if row.ndim == 4:
        row = row.transpose(0, 2, 3, 1) if row.dtype == np.uint8 else row.transpose(0, 2, 3, 1).clip(0, 1)
        style = {}
    elif row.dtype == bool:
        style = {"cmap": "gray", "vmin": 0, "vmax": 1}
    else:
        low, high = limits or (row.min(), row.max())
        style = {"cmap": "viridis", "vmin": low, "vmax": high}
    for ax, picture in zip(axes, row, strict=True):
        shown = ax.imshow(picture, interpolation="nearest", **style)
        ax.set_xticks([])
        ax.set_yticks([])
        ax.spines[:].set_visible(False)
    axes[0].set_ylabel(name.replace(", ", ",\n"), fontsize=8)
    if style.get("cmap") == "viridis":
        fig.colorbar(shown, cax=bar).ax.tick_params(labelsize=7)
    else:
        bar.axis("off")


def term_curves(runs, levels: dict[str, dict[str, float]]) -> Figure:
    """A panel per loss term (columns of the history, log axis) with the levels that need no learning.

    levels: {term: {what it is: its value}}. Lines and bands as in `results.curves`.
    """
    head, history = described(runs), runs.history
    with canvas(3.4 * len(levels), 3.1) as fig:
        for ax, (term, known) in zip(fig.subplots(1, len(levels), squeeze=False)[0], levels.items(), strict=True):
            curves(ax, history, term)
            for k, (name, value) in enumerate(known.items()):
                ax.axhline(value, color="black", linestyle=(":", "--")[k % 2], lw=1, label=f"{name}: {value:.2g}")
            ax.set_yscale("log")
            ax.set_xlabel("epoch [draws of as many images]")
            ax.set_ylabel(f"{term}, log scale")
            legend_above(ax)
        text = f"{head}. Line: mean of the runs; band: one sd over seeds. Black: needs no learning."
        ends = history[history.epoch == history.epoch.max()][list(levels)].mean()
        told = "; ".join(
            f"{term} ends at {ends[term]:.2g}"
            + "".join(f", against {value:.2g} for {name}" for name, value in known.items())
            for term, known in levels.items()
        )
        caption(fig, text, f"Loss terms over {history.epoch.max()} epochs. {told}.")
    return fig


def leads(table: pd.DataFrame, note: str = "") -> Figure:
    """How far a system is ahead of its strongest rival, a row per category and metric, with the paired interval.

    table: the leads of `reports.rivals.against_errors` (category, metric, rival, lead, low, high in 0..1).
    """
    rows = list(table.itertuples())
    names = [f"{r.category}, {metric_names.label(r.metric)}: against {r.rival}" for r in rows]
    with canvas(7.6, 0.27 * len(rows) + 1.1) as fig:
        ax = fig.subplots()
        value, low, high = (100 * table[c].to_numpy() for c in ("lead", "low", "high"))
        bars = np.nan_to_num([value - low, high - value]).clip(0)
        ax.errorbar(value, range(len(rows)), xerr=bars, fmt="o", color=OTHERS[0], capsize=2)
        ax.axvline(0, color="black", linewidth=0.8)
        ax.set_xlabel("ours minus the strongest rival [points]")
        ax.set_yticks(range(len(rows)), names)
        ax.set_ylim(len(rows) - 0.5, -0.5)
        told = "; ".join(f"{name} {100 * r.lead:+.1f}" for name, r in zip(names, rows, strict=True))
        caption(fig, f"{note} Right of the line: ours is better.".strip(), f"Leads in points. {told}.")
    return fig
