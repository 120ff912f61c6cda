"""Pictures of simulated anomalies: what is drawn where, one scale per row, equal bytes."""

from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch

from adlib import figures
from adlib.common.errors import UserError
from adlib.figures import simulation as figures_simulation

COUNTS = {"fit": 1, "held": 0, "normal": 4, "anomalous": 6}


def runs(categories=("brick",), seeds=(0,)):
    """Runs with a history of two epochs, l2 = 0.1 then 0.01 (seed 1: twice that)."""
    single = [
        SimpleNamespace(
            record={"method": "draem", "dataset": "textures", "seed": s, "per_category": {c: {"counts": COUNTS}}}
        )
        for c in categories
        for s in seeds
    ]
    history = pd.concat(
        pd.DataFrame({"epoch": [1, 2], "l2": [0.1 * (1 + s), 0.01 * (1 + s)], "category": c, "seed": s})
        for c in categories
        for s in seeds
    )

    class Several(list):
        pass

    several = Several(single)
    several.history = history
    return several


def captions(fig) -> str:
    return " ".join(text.get_text() for text in fig.texts).replace("\n", " ")


def pictures(fig) -> list:
    return [ax for ax in fig.axes if ax.images]


def test_a_wall_has_a_column_per_sample_and_a_row_per_name():
    """Two samples, three rows; row names at the left, titles above in the colour of the label."""
    rows = {"input": torch.rand(2, 3, 8, 8), "map": torch.rand(2, 8, 8), "mask": torch.zeros(2, 8, 8) > 0}
    fig = figures_simulation.wall(rows, ["good: 0.1", "hole: 0.9"], [0, 1], note="Two images.")
    shown = pictures(fig)
    assert len(shown) == 6
    assert [shown[k].get_ylabel() for k in (0, 2, 4)] == ["input", "map", "mask"]
    assert [ax.get_title() for ax in shown[:2]] == ["good: 0.1", "hole: 0.9"]
    assert [ax.title.get_color() for ax in shown[:2]] == [figures.NORMAL, figures.ANOMALOUS]
    assert captions(fig) == "Two images."


def test_a_row_of_maps_has_one_scale_and_a_bar():
    """Maps of 0..1 and 2..3 share the scale 0..3, or the one that is given; masks are black and white."""
    maps = np.stack([np.linspace(0, 1, 4).reshape(2, 2), np.linspace(2, 3, 4).reshape(2, 2)])
    for limits, expected in ((None, (0, 3)), ({"map": (0, 10)}, (0, 10))):
        fig = figures_simulation.wall({"map": maps, "mask": maps > 1}, limits=limits)
        scales = [ax.images[0].get_clim() for ax in pictures(fig)]
        assert scales == [expected, expected, (0, 1), (0, 1)]
        assert [ax.axison for ax in fig.axes if not ax.images] == [True, False]  # the places for bars


def test_colour_pictures_are_shown_as_they_are_and_clipped():
    """A linear reconstruction may leave 0..1: -0.5 is shown black and 2 white; uint8 keeps its levels."""
    wide = torch.tensor([-0.5, 2.0]).view(1, 1, 1, 2).expand(1, 3, 1, 2)
    levels = np.full((1, 3, 1, 2), 7, np.uint8)
    first, second = pictures(figures_simulation.wall({"repaired": wide, "texture": levels}))
    assert first.images[0].get_array()[0, :, 0].tolist() == [0, 1]
    assert np.unique(second.images[0].get_array()) == [7]


def test_rows_stand_below_each_other_with_and_without_a_bar():
    """The left edges of the first column agree to a hundredth of a picture."""
    fig = figures_simulation.wall({"input": torch.rand(3, 3, 8, 8), "map": torch.rand(3, 8, 8)})
    shown = pictures(fig)
    left = [shown[k].get_position().x0 for k in (0, 3)]
    assert abs(left[0] - left[1]) < 0.01 * shown[0].get_position().width


def test_a_wall_refuses_rows_of_different_length():
    with pytest.raises(UserError, match=r"'map' has 3 pictures, the first row 2"):
        figures_simulation.wall({"input": torch.rand(2, 3, 8, 8), "map": torch.rand(3, 8, 8)})


def drawn(ax) -> list:
    """Lines with points; seaborn adds empty ones for its legend."""
    return [line for line in ax.lines if len(line.get_ydata())]


def test_term_curves_draw_the_mean_a_band_and_the_levels():
    """Seeds 0 and 1: l2 0.1 and 0.2, so mean 0.15 and sd 0.0707; two levels are horizontal lines with their number."""
    levels = {"l2": {"one colour everywhere": 0.05, "a copy of the input": 0.02}}
    (ax,) = figures_simulation.term_curves(runs(seeds=(0, 1)), levels).axes
    assert [line.get_ydata()[0] for line in drawn(ax)] == pytest.approx([0.15, 0.05, 0.02])
    band = ax.collections[0].get_paths()[0].vertices
    first = band[band[:, 0] == band[:, 0].min(), 1]
    assert [first.min(), first.max()] == pytest.approx([0.15 - 0.0707107, 0.15 + 0.0707107], abs=1e-6)
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert labels == ["brick", "one colour everywhere: 0.05", "a copy of the input: 0.02"]
    assert ax.get_yscale() == "log"


def test_many_categories_get_one_common_mean():
    """Seven categories are more than readers tell apart: one line, whose label says so."""
    fig = figures_simulation.term_curves(runs([f"c{k}" for k in range(7)]), {"l2": {}})
    (line,) = drawn(fig.axes[0])
    assert line.get_label() == "mean of all"


def ahead():
    rows = [("brick", "image_auroc", "1 - SSIM", -0.05, -0.1, 0.01), ("brick", "pixel_ap", "error", 0.1, 0.05, 0.2)]
    return pd.DataFrame(rows, columns=["category", "metric", "rival", "lead", "low", "high"])


def test_leads_name_metric_and_rival_and_are_points():
    """-5 and +10 points at the rows 0 and 1; the alternative text says both."""
    fig = figures_simulation.leads(ahead(), "A note.")
    names = ["brick, image AUROC: against 1 - SSIM", "brick, pixel AP: against error"]
    assert [t.get_text() for t in fig.axes[0].get_yticklabels()] == names
    points = fig.axes[0].containers[0].lines[0]
    assert points.get_xdata().tolist() == pytest.approx([-5, 10])
    assert points.get_ydata().tolist() == [0, 1]
    assert "image AUROC: against 1 - SSIM -5.0; brick, pixel AP: against error +10.0" in fig.alt


def test_equal_input_gives_equal_bytes(tmp_path):
    rows = {"input": torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))}
    first, second = (figures.save(figures_simulation.wall(rows), tmp_path / name) for name in ("a", "b"))
    assert [p.read_bytes() for p in first] == [p.read_bytes() for p in second]


def test_no_figure_stays_open():
    """Open figures cost memory and are shown twice in a notebook."""
    figures_simulation.leads(ahead())
    figures_simulation.wall({"input": torch.rand(1, 3, 8, 8)})
    assert plt.get_fignums() == []
