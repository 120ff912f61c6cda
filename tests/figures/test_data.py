"""Figures of a data set: everything is drawn, captions name data and number, equal bytes."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from adlib import data, figures
from adlib.common.errors import UserError
from adlib.data.inspection import describe
from adlib.figures import data as figures_data


@pytest.fixture
def table(tmp_path) -> pd.DataFrame:
    """A user's own data: 60 x 40 pictures, kinds `hole` (mask of 4 x 6 pixels at the border) and `stain` (no mask)."""
    for sub, number, grey in (("normal", 10, 100), ("test/normal", 4, 110), ("hole", 3, 120), ("stain", 2, 90)):
        (tmp_path / sub).mkdir(parents=True)
        for k in range(number):
            Image.fromarray(np.full((40, 60), grey + k, np.uint8)).save(tmp_path / sub / f"{k}.png")
    mask = np.zeros((40, 60), np.uint8)
    mask[:4, :6] = 255
    (tmp_path / "masks" / "hole").mkdir(parents=True)
    for k in range(3):
        Image.fromarray(mask).save(tmp_path / "masks" / "hole" / f"{k}.png")
    return data.load("folder", root=tmp_path)


@pytest.fixture
def measured(table) -> pd.DataFrame:
    return describe.measure(table)


def captions(fig) -> str:
    return " ".join(text.get_text() for text in fig.texts).replace("\n", " ")


def test_examples_show_each_kind_once_and_keep_the_aspect_ratio(table):
    """One normal picture, one of hole, one of stain; 60 x 40 becomes 30 x 20 at side 30."""
    fig = figures_data.examples(table, side=30)
    shown = [ax for ax in fig.axes if ax.images]
    assert [ax.get_title() for ax in shown] == ["good", "hole", "stain"]
    assert {ax.images[0].get_array().shape for ax in shown} == {(20, 30, 3)}


def test_the_outline_stands_where_the_mask_is(table):
    """A mask of 6 x 4 pixels in the upper left corner, at half size 3 x 2: lines at -0.5 and 2.5, -0.5 and 1.5.

    The border between pixel centres 2 and 3 is 2.5; outside of the picture the mask ends half a pixel beyond 0.
    """
    ax = figures_data.examples(table, side=30).axes[1]
    paths = [path for drawn in ax.collections for path in drawn.get_paths() if len(path.vertices)]
    points = np.concatenate([path.vertices for path in paths])
    assert (points.min(0).tolist(), points.max(0).tolist()) == ([-0.5, -0.5], [2.5, 1.5])
    assert not figures_data.examples(table, side=30).axes[2].collections  # stain has no mask


def test_defect_sizes_are_in_percent(measured):
    """24 of 2400 pixels are 1 %; 3 pictures have a mask."""
    fig = figures_data.defect_sizes(measured)
    assert list(fig.axes[0].lines[0].get_xdata()) == pytest.approx([1, 1, 1])
    assert "3 images with a mask" in captions(fig)


def test_without_masks_there_are_no_defect_sizes(measured):
    """elpv has none: a sentence, not an empty axis."""
    with pytest.raises(UserError, match="no image of these data has a mask"):
        figures_data.defect_sizes(measured.assign(share=np.nan))


def test_brightness_draws_shares_of_each_group(measured):
    """The heights of each of the three histograms add up to 100 %."""
    ax = figures_data.brightness(measured).axes[0]
    heights = [np.diff(np.asarray(patch.get_xy())[:, 0]) for patch in ax.patches]
    assert len(heights) == len(describe.GROUPS)
    assert ax.get_xlabel() == "mean grey [0 to 255]"


def test_grey_auroc_draws_all_three_and_their_line_of_no_information(measured):
    """Defective 120-122, 90-91 against 110-113: 3 kinds of marks, and the line at 0.5."""
    found = describe.shortcuts(measured)
    ax = figures_data.grey_auroc(found).axes[0]
    drawn = {float(line.get_xdata()[0]) for line in ax.lines}
    assert {0.5, found.auroc[0], found.distance[0], found.drift[0]} <= drawn


def test_every_figure_names_its_data_and_is_closed(table, measured):
    """A caption below each, and pyplot keeps none of them open."""
    drawn = [figures_data.examples(table), figures_data.defect_sizes(measured), figures_data.brightness(measured)]
    drawn.append(figures_data.grey_auroc(describe.shortcuts(measured)))
    text = [captions(fig) for fig in drawn]
    assert table.attrs["category"] in text[0]
    assert ["19 images" in text[2], "9 test images" in text[3]] == [True, True]
    assert not plt.get_fignums()


def test_saving_twice_gives_equal_bytes(table, tmp_path):
    """No date, no random spread: the same table gives the same PNG and the same PDF."""
    figs = [figures_data.examples(table, side=30) for _ in range(2)]
    first, second = ([p.read_bytes() for p in figures.save(fig, tmp_path / f"{k}/f")] for k, fig in enumerate(figs))
    assert first == second
