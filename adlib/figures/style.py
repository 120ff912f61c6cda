"""What all figures share: colours, sizes, captions and saving to equal bytes.

Normal is blue and anomalous vermilion everywhere; published is a hollow marker, ours a filled one with its interval.
Public names: `adlib.figures`.
"""

import io
import textwrap
from collections.abc import Iterable
from contextlib import contextmanager
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from adlib.common.errors import UserError

NORMAL, ANOMALOUS = "#0173b2", "#d55e00"  # seaborn "colorblind": apart for deuteranopes too
OTHERS = ("#029e73", "#cc78bc", "#ca9161", "#56b4e9", "#949494", "#de8f05")  # for anything but the two classes
PUBLISHED = {"markerfacecolor": "white", "markeredgecolor": "#333333", "color": "#333333"}
APART = {"markerfacecolor": "white", "markeredgecolor": "#aaaaaa", "color": "#aaaaaa", "markersize": 4.5}
STYLE = {
    "figure.dpi": 100,
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "pdf.fonttype": 42,
    "svg.hashsalt": "adlib",
}


class Page(Figure):
    """A figure that a notebook shows in few bytes and with its alternative text; `caption` sets both texts."""

    alt = ""  # what one sees, in one or two sentences; `caption` sets it

    def _ipython_display_(self) -> None:
        from IPython.display import display  # for pages only

        display(compact(self))


@contextmanager
def canvas(width: float, height: float):
    """A `Page` of fixed size (inches) in the common style; closed for pyplot, so that a notebook shows it once."""
    with plt.rc_context(STYLE):
        fig = plt.figure(figsize=(width, height), layout="constrained", FigureClass=Page)
        try:
            yield fig
            # laid out while the style holds: what is drawn later cannot move
            fig.canvas.draw()
        finally:
            plt.close(fig)


def caption(fig: Figure, text: str, alt: str) -> Figure:
    """Write the caption (data, number of images, seeds) below the figure, wrapped to its width.

    alt: what one sees, for those who cannot: one or two sentences made from the data drawn. Raises UserError if empty.
    """
    if not alt.strip():
        raise UserError("a figure needs an alternative text: one or two sentences that say what one sees in it")
    fig.alt = alt
    wrapped = textwrap.fill(text, int(fig.get_figwidth() * 17))
    fig.text(0.01, -0.02, wrapped, va="top", ha="left", fontsize=8, color="#444444")
    return fig


def described(runs: Iterable) -> str:
    """ "simplenet on textures (brick, grass); 200 test images; seeds 0, 1": what every caption starts with."""
    records = [run.record for run in runs]
    if not records:
        raise UserError("no finished run to draw; `adlib.reproduce(...)` or `python -m adlib batch` makes them")
    counts = {c: f["counts"] for r in records for c, f in r["per_category"].items()}
    images = sum(c["normal"] + c["anomalous"] for c in counts.values())
    names = list(counts) if len(counts) <= 4 else [f"{len(counts)} categories"]
    seeds = sorted({r["seed"] for r in records})
    systems = ", ".join(dict.fromkeys(f"{r['method']} on {r['dataset']}" for r in records))
    word = "seeds" if len(seeds) > 1 else "seed"
    return f"{systems} ({', '.join(names)}); {images} test images; {word} {', '.join(map(str, seeds))}"


def spread(values) -> str:
    """ "from 0.12 to 0.91 (median 0.4)", for alternative texts; "none" of no values."""
    values = np.asarray(values, float)
    if not len(values):
        return "none"
    return f"from {values.min():.3g} to {values.max():.3g} (median {np.median(values):.3g})"


def legend_above(ax) -> None:
    """The legend on top of the axes, where no data are; columns as many as fit."""
    handles, labels = ax.get_legend_handles_labels()
    if not labels:
        return
    width = ax.get_figure().get_figwidth() / ax.get_subplotspec().get_gridspec().ncols - 0.6  # inches, about
    columns = max(1, min(len(labels), int(width / (0.075 * max(map(len, labels)) + 0.4))))
    place = {"loc": "lower left", "bbox_to_anchor": (0, 1), "borderaxespad": 0.3, "columnspacing": 1.2}
    ax.legend(handles, labels, fontsize=7, ncols=columns, **place)


def to_hundred(axis, values) -> None:
    """End an axis of percentages at 100, which no AUROC exceeds; values: all that is drawn, 0..1, NaN allowed."""
    lowest = 100 * float(np.nanmin(np.asarray(values, float)))
    axis.axes.set(**{f"{axis.axis_name}lim": (max(0.0, lowest - 0.08 * max(100 - lowest, 1)), 100)})


def save(fig: Figure, stem: str | Path) -> list[Path]:
    """Write stem.png (150 dpi) and stem.pdf without dates: equal figures give equal bytes. Returns the two paths."""
    stem = Path(stem)
    stem.parent.mkdir(parents=True, exist_ok=True)
    nothing = {"CreationDate": None, "ModDate": None, "Creator": None, "Producer": None}
    paths = [stem.with_name(stem.name + suffix) for suffix in (".png", ".pdf")]
    with plt.rc_context(STYLE):
        fig.savefig(paths[0], dpi=150, bbox_inches="tight", metadata={"Software": None})
        fig.savefig(paths[1], dpi=150, bbox_inches="tight", metadata=nothing)
    return paths


def compact(fig: Figure):
    """The figure as IPython's Image with its alternative text: as JPEG, or as PNG of 5 bits per channel if smaller."""
    from IPython.display import Image as Shown  # for pages only

    buffer, small, photo = io.BytesIO(), io.BytesIO(), io.BytesIO()
    with plt.rc_context(STYLE):
        fig.savefig(buffer, format="png", dpi=100, bbox_inches="tight", metadata={"Software": None})
    exact = np.asarray(Image.open(buffer).convert("RGB"))
    levels = np.round(exact.astype(int) * (31 / 255)) * (255 / 31)
    Image.fromarray(levels.round().astype(np.uint8)).save(small, "PNG", optimize=True)
    Image.fromarray(exact).save(photo, "JPEG", quality=75, optimize=True, subsampling=0)  # small letters stay sharp
    return Shown(min(small.getvalue(), photo.getvalue(), key=len), alt=getattr(fig, "alt", None) or None)
