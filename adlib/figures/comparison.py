"""Many systems on the same test images: what the images can tell apart, and what needs no model."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from adlib.common.errors import UserError
from adlib.figures.style import OTHERS, canvas, caption, legend_above
from adlib.metrics.names import axis_label, label

DASHES = ("--", ":", "-.", (0, (5, 1, 1, 1, 1, 1)))  # floors are told apart without colour
COLOURS = (OTHERS[5], OTHERS[1], OTHERS[4], OTHERS[2])


def intervals(table: pd.DataFrame, floors: dict[str, float], metric: str = "image_auroc", note: str = "") -> Figure:
    """A dot per system with its 95 % interval, the best above, and a vertical line per floor.

    table: what `adlib.reports.comparison.table` returns; systems without the metric are left out, and the caption names
    them. floors: {name: value in 0..1}, NaN where there is none. note: data and seeds. Raises UserError where no system
    has the metric.
    """
    drawn = table[table[metric].notna()].sort_values(metric, ascending=False, kind="stable")
    if not len(drawn):
        raise UserError(f"no system of the table has {label(metric)}; there is nothing to draw")
    known = {name: value for name, value in floors.items() if not np.isnan(value)}
    mean, low, high = (100 * drawn[column].to_numpy(float) for column in (metric, f"{metric} low", f"{metric} high"))
    bars = np.clip(np.nan_to_num([mean - low, high - mean]), 0, None)
    with canvas(7, 0.27 * len(drawn) + 1.3) as fig:
        ax = fig.subplots()
        places = np.arange(len(drawn))
        ax.errorbar(mean, places, xerr=bars, fmt="o", color=OTHERS[0], capsize=2, clip_on=False, label="measured here")
        for k, (name, value) in enumerate(known.items()):
            text = f"{name}, {100 * value:.1f} %"
            ax.axvline(100 * value, color=COLOURS[k % len(COLOURS)], linestyle=DASHES[k % len(DASHES)], label=text)
        ax.set_yticks(places, drawn.system)
        ax.set_ylim(len(drawn) - 0.5, -0.5)
        left = np.nanmin([*mean, *low, *(100 * value for value in known.values())])
        ax.set_xlim(max(0.0, left - 3), 100)
        ax.set_xlabel(axis_label(metric))
        ax.grid(axis="y", color="#dddddd", linewidth=0.6)
        ax.set_axisbelow(True)
        legend_above(ax)
        text = f"{note} Bar: 95 % interval over test images. Lines: what needs no model."
        left_out = table.system[table[metric].isna()]
        text += f" Without {label(metric)}: {', '.join(left_out)}." if len(left_out) else ""
        caption(fig, text.strip(), _told(drawn, known, metric))
    return fig


def _told(drawn: pd.DataFrame, floors: dict[str, float], metric: str) -> str:
    """Alternative text: every system, best first, and how many lie above the highest floor with their interval."""
    rows = drawn[["system", metric, f"{metric} low", f"{metric} high"]].itertuples(index=False, name=None)
    words = [f"{name} {100 * mean:.1f} % [{100 * low:.1f}, {100 * high:.1f}]" for name, mean, low, high in rows]
    told = f"Dots of {label(metric)} with intervals, best first: {'; '.join(words)}."
    if not floors:
        return told
    name = max(floors, key=floors.get)
    above = int((drawn[f"{metric} low"] > floors[name]).sum())
    lines = ", ".join(f"{key} {100 * value:.1f} %" for key, value in floors.items())
    return f"{told} Floors: {lines}. {above} of {len(drawn)} intervals lie wholly above the highest one, {name}."
