"""Several systems in one picture: speed against accuracy, and maps of the same images."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from adlib import figures, runs
from adlib.common.errors import UserError
from adlib.figures.maps import choose


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


def contender(name, run):
    return SimpleNamespace(name=name, category="stripes", runs=(run,))


def test_copies_without_maps_cannot_be_drawn():
    """One sentence that says why, and what would help."""
    scores = pd.DataFrame({"category": ["stripes"], "path": ["a"], "label": [0], "defect": ["good"]})
    with pytest.raises(UserError, match="copies keep a few or none; run the batch again"):
        figures.heat_maps([contender("A", SimpleNamespace(maps=None, shown_maps={}, scores=scores))])


def test_a_copy_is_drawn_like_its_run_and_is_a_named_gap_where_it_lacks_a_map(small_world, monkeypatch):
    """A copy with the maps of two of four images: those two look as the run's, on its scale; a third one is a gap."""
    monkeypatch.setenv("ADLIB_DATA", str(small_world / "data"))
    run, copy = (runs.find(small_world / "results").runs[0] for _ in range(2))
    kept = choose(run.scores, 1)
    copy.maps, copy.shown_maps = None, {row: run.maps[row] for row in kept}
    both = [contender("whole", run), contender("copied", copy)]
    fig = figures.heat_maps(both, per_label=1)
    own, copied = ([ax.images[0] for ax in fig.axes[first : first + 2]] for first in (4, 6))  # below image and mask
    for mine, other in zip(own, copied, strict=True):
        assert np.array_equal(mine.get_array(), other.get_array())
        assert mine.get_clim() == other.get_clim()
    assert "Without a map" not in fig.texts[0].get_text()
    third = next(path for row, path in run.scores.path.items() if row not in kept)
    fig = figures.heat_maps(both, paths=[run.scores.path[kept[0]], third])
    assert fig.texts[0].get_text().endswith("Without a map here: copied.")
