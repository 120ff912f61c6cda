"""Pictures of flows: what is drawn is what was given, and the alternative text counts it."""

import numpy as np
import pandas as pd

from adlib.figures import flows


def test_beats_draw_the_same_points_after_each_step():
    """Five panels, four in a row: the sixth to eighth are empty; 2 of 4 points lie inside radius 2 at the end."""
    points = np.array([[0.0, 0.0], [1.0, 0.0], [3.0, 0.0], [0.0, 3.0]])
    steps = {f"after {k}": points for k in range(5)}
    fig = flows.beats(steps, np.array([True, False, False, True]), "A toy.")
    assert [ax.get_title() for ax in fig.axes] == [*steps, "", "", ""]
    assert [ax.axison for ax in fig.axes] == [True] * 5 + [False] * 3
    drawn = np.concatenate([dots.get_offsets() for dots in fig.axes[0].collections])
    np.testing.assert_array_equal(np.sort(drawn, 0), np.sort(points, 0))
    assert "50 % at the start and 50 % at the end" in fig.alt


def test_a_density_says_what_it_sums_to():
    """Everywhere 0.25 on a square of side 2: the sum is 1."""
    fig = flows.density(np.full((10, 10), 0.25), 1.0, np.zeros((3, 2)), "A box.")
    assert "its sum over the square is 1.00" in fig.alt
    assert fig.axes[0].get_xlim() == (-1, 1)


def test_roc_curves_by_kind_have_the_kind_s_auroc_against_all_normal_images():
    """Kind a wins all pairs, kind b one of two: 100 and 50 %, the better one first."""
    rows = [(0, 0.1, "good"), (0, 0.5, "good"), (1, 0.9, "a"), (1, 0.3, "b")]
    fig = flows.roc_by_kind(pd.DataFrame(rows, columns=["label", "score", "defect"]), "Four images.")
    labels = [text.get_text() for text in fig.axes[0].get_legend().get_texts()]
    assert labels == ["a (1): 100.0 %", "b (1): 50.0 %", "guessing: 50 %"]
    assert fig.alt == "ROC curves by kind of defect. AUROC: a 100.0 %, b 50.0 %."
