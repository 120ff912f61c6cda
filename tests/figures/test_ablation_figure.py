"""Differences of an ablation: every seed is drawn, names are said once, the interval is named."""

import pandas as pd

from adlib import figures


def drawn(seeds):
    rows = [
        ("epochs", "epochs=10", 0.01),
        ("noise", "noise_std=0.05", -0.02),
        ("adapter_layers", "adapter_layers=0", 0.0),
    ]
    table = pd.DataFrame(rows, columns=["factor", "variant", "difference"])
    return figures.differences(table.assign(metric="image_auroc", low=-0.1, high=0.1, seeds=[seeds] * 3), "A note.")


def test_a_variant_is_labelled_once_and_in_words():
    """ "epochs 10", "sigma 0.05", "no adapter": neither the factor twice nor a field where a word will do."""
    labels = [t.get_text() for t in drawn([0.01]).axes[0].get_yticklabels()]
    assert labels == ["epochs 10", "sigma 0.05", "no adapter"]


def test_single_seeds_are_open_circles_in_points():
    """Two seeds of 1 and -2 points lie in each row, and the caption says what they are; one seed draws none."""
    fig = drawn([0.01, -0.02])
    circles = [line for line in fig.axes[0].lines if line.get_markerfacecolor() == "none"]
    assert [line.get_xdata().tolist() for line in circles] == [[1.0, -2.0]] * 3
    assert "single seeds" in fig.texts[0].get_text().replace("\n", " ")
    assert "single seeds" not in drawn([0.01]).texts[0].get_text().replace("\n", " ")


def test_the_alternative_text_has_the_numbers():
    """Every row's difference in points."""
    assert "epochs 10, image AUROC +1.0; sigma 0.05, image AUROC -2.0" in drawn([0.01]).alt
