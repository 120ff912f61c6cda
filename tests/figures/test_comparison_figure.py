"""Systems with their intervals: the best above, floors as lines, and the numbers in the alternative text."""

import numpy as np
import pandas as pd
import pytest

from adlib import figures
from adlib.common.errors import UserError


def table_of(rows):
    columns = ["system", "image_auroc", "image_auroc low", "image_auroc high"]
    return pd.DataFrame(rows, columns=columns)


TABLE = table_of([("A", 0.7, 0.6, 0.8), ("B", 0.9, 0.85, 0.95), ("C", np.nan, np.nan, np.nan)])
FLOORS = {"mean grey": 0.65, "mean picture": np.nan, "guessing": 0.5}


def test_the_best_is_above_and_what_is_missing_is_named():
    """B before A; C has no value, so no row, but a place in the caption. Bars reach from low to high, in percent."""
    fig = figures.intervals(TABLE, FLOORS, note="A note.")
    axes = fig.axes[0]
    assert [t.get_text() for t in axes.get_yticklabels()] == ["B", "A"]
    assert axes.get_ylim()[0] > axes.get_ylim()[1]  # the first row is at the top
    bars = [path.vertices[:, 0].tolist() for path in axes.collections[0].get_paths()]
    assert bars == [pytest.approx([85, 95]), pytest.approx([60, 80])]
    text = fig.texts[0].get_text().replace("\n", " ")
    assert text.startswith("A note.")
    assert "Without image AUROC: C." in text


def test_a_line_for_each_known_floor():
    """Two of three floors have a value; the axis shows them, too, and carries its unit."""
    axes = figures.intervals(TABLE, FLOORS).axes[0]
    labels = axes.get_legend_handles_labels()[1]
    assert {"mean grey, 65.0 %", "guessing, 50.0 %"} < set(labels)
    assert not any("mean picture" in each for each in labels)
    assert axes.get_xlim()[0] < 50
    assert axes.get_xlabel() == "image AUROC [%]"


def test_the_alternative_text_has_the_numbers():
    """B's interval is wholly above the highest floor, 65 %; A's begins at 60 %."""
    alt = figures.intervals(TABLE, FLOORS).alt
    assert "B 90.0 % [85.0, 95.0]; A 70.0 % [60.0, 80.0]" in alt
    assert "1 of 2 intervals lie wholly above the highest one, mean grey" in alt


def test_nothing_to_draw_is_said():
    with pytest.raises(UserError, match="no system of the table has image AUROC"):
        figures.intervals(TABLE[2:], FLOORS)
