"""Several systems in one picture: speed against accuracy, and maps of the same images."""

from types import SimpleNamespace

import pandas as pd
import pytest

from adlib import figures
from adlib.common.errors import UserError


def speeds(**auroc):
    rows = [
        {"system": name, "what": what, "batch": batch, "fps": 10.0 * (k + 1), "image_auroc": value}
        | {"low": value - 0.1, "high": min(value + 0.1, 1)}
        for k, (name, value) in enumerate(auroc.items())
        for what in ("network", "end_to_end")
        for batch in (1, 16)
    ]
    return pd.DataFrame(rows)


def test_points_are_numbered_by_accuracy_and_named_on_the_right():
    """B is more accurate: number 1; both panels have an axis with its unit."""
    fig = figures.speed_and_auroc(speeds(A=0.7, B=0.9), "Somewhere.")
    listed = next(t.get_text() for t in fig.axes[1].texts if "\n" in t.get_text())
    assert listed.split("\n") == [" 1  B, 90.0 %", " 2  A, 70.0 %"]
    for ax in fig.axes:
        assert ax.get_xlabel() == "speed [images / s], log scale"
        places = {t.get_text(): t.get_position() for t in ax.texts if "\n" not in t.get_text()}
        assert places == {"1": (20.0, 90.0), "2": (10.0, 70.0)}
    assert "B 20/s, 90.0 %" in fig.alt
    assert fig.texts[0].get_text().startswith("Somewhere.")


def test_copies_without_maps_cannot_be_drawn():
    """One sentence that says why, and what would help."""
    one = SimpleNamespace(name="A", category="c", runs=(SimpleNamespace(maps=None),))
    with pytest.raises(UserError, match="copies without maps"):
        figures.heat_maps([one])
