"""The diagram of a method: boxes for images, tensors, networks, losses and scores, and arrows between them.

A box's kind is its colour and its line, named in a legend. Names and shapes come from the caller, who reads them off
modules and real tensors. Public names: `adlib.figures`.
"""

from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from adlib.common.errors import UserError, check_names
from adlib.figures.style import canvas, caption

# fills that stay apart for the colour-blind, and a line each that tells them apart in grey
KINDS = {
    "image": ("image", {"facecolor": "#ffffff", "edgecolor": "#333333", "linewidth": 1.6}),
    "tensor": ("tensor", {"facecolor": "#e6e6e6", "edgecolor": "#777777", "linewidth": 0.8}),
    "frozen": ("frozen network", {"facecolor": "#b9dcf2", "edgecolor": "#0173b2", "linewidth": 1.2, "linestyle": "--"}),
    "learnt": ("learnt network", {"facecolor": "#fbd5ab", "edgecolor": "#b35900", "linewidth": 2.2}),
    "loss": ("loss", {"facecolor": "#f0d3e9", "edgecolor": "#9b4f87", "linewidth": 1.2, "linestyle": ":"}),
    "score": ("score", {"facecolor": "#b5e6d5", "edgecolor": "#017a57", "linewidth": 1.2, "linestyle": "-."}),
}
LETTER, LINE = 0.066, 0.145  # inches: width of a letter, height of a line, at font size 8
BEND = 0.35  # of an arrow that would cross a box, as a share of its length


@dataclass(frozen=True)
class Box:
    """A box of a diagram: its text (lines broken by the caller), (column, row) from the upper left, kind of KINDS."""

    text: str
    at: tuple[float, float]
    kind: str = "tensor"

    @property
    def size(self) -> tuple[float, float]:
        """Width and height in inches."""
        lines = self.text.split("\n")
        return LETTER * max(map(len, lines)) + 0.2, LINE * len(lines) + 0.18


def diagram(boxes: dict[str, Box], arrows: list[tuple[str, str, str]], note: str, alt: str) -> Figure:
    """Boxes on a grid and arrows between them, drawn from edge to edge, around a box that lies between.

    boxes: {name: Box}; columns and rows may be fractions. arrows: (from, to, label), names of boxes; label may be "".
    Raises UserError for an unknown kind or name.
    """
    if not boxes:
        raise UserError("a diagram needs a box at least")
    check_names("kind of box", [box.kind for box in boxes.values()], KINDS)
    check_names("box", [name for start, end, _ in arrows for name in (start, end)], boxes)
    places, (width, height) = _places(boxes, arrows)
    with canvas(width, height + 0.35) as fig:
        ax = fig.subplots()
        ax.set(xlim=(0, width), ylim=(height, 0), aspect="equal")
        ax.axis("off")
        patches = {name: _draw(ax, box, places[name]) for name, box in boxes.items()}
        for start, end, label in arrows:
            _arrow(ax, patches, places, boxes, (start, end), label)
        used = [kind for kind in KINDS if any(box.kind == kind for box in boxes.values())]
        handles = [FancyBboxPatch((0, 0), 1, 1, label=KINDS[kind][0], **KINDS[kind][1]) for kind in used]
        fig.legend(handles=handles, loc="outside upper center", ncols=len(used), fontsize=8)
        caption(fig, note, alt)
    return fig


def _places(boxes: dict[str, Box], arrows: list) -> tuple[dict[str, np.ndarray], tuple[float, float]]:
    """Centre of every box in inches, and the size of the drawing."""
    sizes = np.array([box.size for box in boxes.values()])
    grid = np.array([box.at for box in boxes.values()], float)
    longest = max((len(line) for *_, label in arrows for line in label.split("\n")), default=0)
    gaps = np.array([max(0.4, LETTER * longest + 0.2), 0.45])
    pitch = sizes.max(0) + gaps
    centres = (grid - grid.min(0)) * pitch + sizes.max(0) / 2 + 0.1
    return dict(zip(boxes, centres, strict=True)), tuple((centres + sizes / 2).max(0) + 0.1)


def _draw(ax, box: Box, centre: np.ndarray) -> FancyBboxPatch:
    corner = centre - np.array(box.size) / 2
    patch = FancyBboxPatch(corner, *box.size, boxstyle="round,pad=0,rounding_size=0.06", **KINDS[box.kind][1])
    ax.add_patch(patch)
    ax.text(*centre, box.text, ha="center", va="center", fontsize=8, linespacing=1.25)
    return patch


def _arrow(ax, patches: dict, places: dict, boxes: dict[str, Box], ends: tuple[str, str], label: str) -> None:
    start, end = (places[name] for name in ends)
    way = np.linspace(start, end, 41)
    bend = BEND if any(_meets(way, places[n], boxes[n].size) for n in boxes if n not in ends) else 0.0
    style = {"arrowstyle": "-|>", "color": "#444444", "linewidth": 1, "mutation_scale": 10}
    style |= {"patchA": patches[ends[0]], "patchB": patches[ends[1]], "shrinkA": 1, "shrinkB": 1}
    ax.annotate("", end, start, arrowprops=style | {"connectionstyle": f"arc3,rad={bend}"})
    if label:
        x, y = _middle(way, [(places[n], boxes[n].size) for n in ends])
        across = np.array([end[1] - start[1], start[0] - end[0]]) * bend / 2  # where the arc is farthest from the line
        flat = abs(end[0] - start[0]) >= abs(end[1] - start[1])
        shift = (0, -0.05) if flat else (0.06, 0)
        x, y = x - across[0] + shift[0], y - across[1] + shift[1]
        place = {"ha": "center", "va": "bottom"} if flat else {"ha": "left", "va": "center"}
        ax.text(x, y, label, fontsize=7, color="#444444", **place)


def _meets(way: np.ndarray, centre: np.ndarray, size: tuple[float, float]) -> np.bool_:
    return (abs(way - centre) < np.array(size) / 2 + 0.03).all(1).any()


def _middle(way: np.ndarray, ends: list) -> np.ndarray:
    """Middle of the visible part of a straight way, between the edges of its two boxes."""
    hidden = np.any([(abs(way - centre) < np.array(size) / 2).all(1) for centre, size in ends], axis=0)
    return way[~hidden].mean(0) if (~hidden).any() else way.mean(0)
