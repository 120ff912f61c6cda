"""The first page's picture: what it shows is chosen by the decisions, and an error is called one."""

import pandas as pd
import pytest

from adlib import runs
from adlib.common.errors import UserError
from adlib.figures import front


def test_right_ones_first_then_one_error_and_it_is_labelled():
    """A misses picture 3 and B raises a false alarm on picture 0: pictures 1, 2 and 4 are right, a miss goes first."""
    table = pd.DataFrame({"label": [0, 0, 1, 1, 1], "defect": ["good", "good", "stain", "stain", "hole"]})
    table = table.assign(A=[0, 0, 1, 0, 1], B=[1, 0, 1, 1, 1])
    rows = front._chosen(table, ["A", "B"], 3)
    assert rows == [1, 4, 2, 3]
    titles = [front._title(table, row, ["A", "B"]) for row in [*rows, 0]]
    assert titles == ["normal", "hole", "stain", "failure: missed stain", "failure: false alarm"]


def test_a_method_s_maps_stand_below_the_pictures(small_world, monkeypatch):
    """One row of pictures and one for each method; a run on other images cannot be put below them."""
    monkeypatch.setenv("ADLIB_DATA", str(small_world / "data"))
    run = runs.find(small_world / "results").runs[0]
    figure = front.found_and_missed({"one": run, "other": run}, "stripes", right=2)
    columns = len({round(ax.get_position().x0, 3) for ax in figure.axes})
    assert len(figure.axes) == 3 * columns
    other = runs.load(run.path)
    other.scores = run.scores.assign(path=run.scores.path + "x")
    with pytest.raises(UserError, match="different images"):
        front.found_and_missed({"one": run, "other": other}, "stripes")
