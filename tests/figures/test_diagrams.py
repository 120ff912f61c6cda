"""The diagram of a method: the caller's names, a legend of the kinds that are there, no arrow over a box."""

import pytest
from matplotlib.patches import FancyBboxPatch

from adlib import figures
from adlib.common.errors import UserError
from adlib.figures import Box

BOXES = {
    "x": Box("image\n[3, 64, 64]", (0, 0), "image"),
    "phi": Box("backbone", (1, 0), "frozen"),
    "D": Box("discriminator", (2, 0), "learnt"),
}


def drawn(arrows):
    return figures.diagram(BOXES, arrows, "A network.", "An image goes through a backbone into a discriminator.")


def test_every_box_and_label_is_written_and_the_legend_names_the_kinds_used():
    """Three boxes, one arrow with a label; loss, score and tensor do not occur."""
    fig = drawn([("x", "phi", ""), ("phi", "D", "rows")])
    texts = [t.get_text() for t in fig.axes[0].texts]
    assert [t for t in texts if t] == ["image\n[3, 64, 64]", "backbone", "discriminator", "rows"]
    legend = [t.get_text() for t in fig.legends[0].get_texts()]
    assert legend == ["image", "frozen network", "learnt network"]
    assert fig.alt == "An image goes through a backbone into a discriminator."


@pytest.mark.parametrize(("end", "bent"), [("phi", False), ("D", True)])
def test_an_arrow_goes_around_a_box_that_lies_between(end, bent):
    """From x to its neighbour straight; from x to D the backbone lies in the way, so the path leaves its height."""
    fig = drawn([("x", end, "")])
    arrow = next(t.arrow_patch for t in fig.axes[0].texts if hasattr(t, "arrow_patch"))
    assert (arrow.get_connectionstyle().rad != 0) == bent


def test_boxes_do_not_overlap():
    """Columns are as far apart as the widest box and the longest label need."""
    fig = drawn([("phi", "D", "a rather long label of an arrow")])
    left, middle, right = (p.get_x() for p in fig.axes[0].patches if isinstance(p, FancyBboxPatch))
    widths = [box.size[0] for box in BOXES.values()]
    assert middle - left - widths[0] > 1.5
    assert right - middle - widths[1] > 1.5


def test_unknown_kinds_and_names_are_refused():
    """ "learned" is none of the kinds, "y" none of the boxes."""
    with pytest.raises(UserError, match="learned"):
        figures.diagram({"x": Box("x", (0, 0), "learned")}, [], "", "One box.")
    with pytest.raises(UserError, match="unknown box"):
        drawn([("x", "y", "")])
