"""Figures: one scale per category, threshold where it belongs, captions, equal bytes."""

import html
import io
import re
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from IPython.core.interactiveshell import InteractiveShell
from nbconvert import HTMLExporter
from nbformat.v4 import new_code_cell, new_notebook, new_output
from PIL import Image

from adlib import figures
from adlib.common.errors import UserError
from adlib.inference import heat_map
from adlib.models import get
from adlib.runs import Runs

SIDE = 32
NAMES = ("good/000", "good/001", "broken/000", "broken/001")


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A finished run on four test pictures, made by hand: normal maps in 0..1, anomalous ones reach 6, threshold 2."""
    root = tmp_path / "data" / "mvtec_ad" / "bottle"
    grey = np.full((SIDE, SIDE, 3), 120, np.uint8)
    for name in ("train/good/000", *(f"test/{n}" for n in NAMES)):
        path = root / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(grey).save(path)
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[8:20, 8:20] = 255
    for name in ("000", "001"):
        path = root / "ground_truth" / "broken" / f"{name}_mask.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(mask).save(path)
    monkeypatch.setenv("ADLIB_DATA", str(tmp_path / "data"))
    return made_run(tmp_path)


def made_run(path, seed: int = 0):
    maps = np.random.default_rng(seed).uniform(0, 1, (4, 64, 64)).astype(np.float16)
    maps[2:, 16:40, 16:40] = 6
    scores = pd.DataFrame(
        {
            "category": "bottle",
            "path": [f"bottle/test/{n}.png" for n in NAMES],
            "label": [0, 0, 1, 1],
            "defect": ["good", "good", "broken", "broken"],
            "score": [0.9, 2.5, 6.0, 1.5],
            "decision": [0, 1, 1, 0],
        }
    )
    threshold = {"tau": 2.0, "map_tau": 2.0, "map_scale": [0.0, 1.0], "level": 0.05, "alpha": 0.05, "n": 20}
    metrics = {"image_auroc": 0.75, "pixel_auroc": 0.9}
    counts = {"fit": 1, "held": 0, "normal": 2, "anomalous": 2}
    record = {
        "method": "simplenet",
        "dataset": "mvtec_ad",
        "category": "bottle",
        "seed": seed,
        "hash": "0",
        "config": get("simplenet")[1](image_size=SIDE, resize=None, resize_mode="squash").to_dict(),
        "per_category": {"bottle": {"threshold": threshold, "metrics": metrics, "counts": counts}},
    }
    history = pd.DataFrame({"epoch": [1, 2], "total": [1.0, 0.5], "p_true": [0.1, 0.6], "p_fake": [0.2, 0.7]})
    history = history.assign(lr=1e-4, seconds=1.0, **{"image_auroc (oracle)": [np.nan, 0.75]})
    return SimpleNamespace(record=record, scores=scores, maps=maps, history=history, path=path, replicates={})


def map_axes(fig) -> list:
    """The axes that hold a score map, in order: the third of four cells of every block."""
    blocks = fig.subfigs[1].subfigs  # between the headings and the colour bar
    return [block.axes[2] for block in blocks if block.axes]


def test_a_normal_image_is_not_drawn_like_a_defective_one(run):
    """Maps 0..1 against 6 at threshold 2: scale 0..4, so normal pixels stay below viridis(1/4), defects end it.

    Scaled by its own extremes, the normal map would reach the end of the colour map as well.
    """
    fig = figures.anomaly_maps(run, per_label=1)
    normal, defective = (ax.images[0] for ax in map_axes(fig))
    assert normal.get_clim() == defective.get_clim() == (0.0, 4.0)
    top = plt.get_cmap("viridis")(1.0)
    drawn = [shown.to_rgba(shown.get_array()) for shown in (normal, defective)]
    assert not np.isclose(drawn[0], top).all(-1).any()
    assert np.isclose(drawn[1], top).all(-1).mean() > 0.05
    assert drawn[0][..., 1].max() <= plt.get_cmap("viridis")(0.26)[1]


def test_an_overlay_leaves_a_score_of_zero_untouched():
    """Opacity is 0.7 times the level: level 0 shows the picture, level 1 keeps 30 % of it below magma's last colour."""
    picture = np.full((1, 2, 3), 255, np.uint8)
    over = figures.overlay(picture, np.array([[0.0, 1.0]]))
    assert over[0, 0] == pytest.approx([1, 1, 1])
    assert over[0, 1] == pytest.approx(0.3 + 0.7 * np.array(plt.get_cmap("magma")(1.0)[:3]))


def test_saving_twice_gives_equal_bytes(run, tmp_path):
    """No date, no random id: the same run gives the same PNG and the same PDF."""
    curves, histograms = (lambda r: figures.training_curves(Runs([r])), lambda r: figures.score_histograms(Runs([r])))
    for draw in (figures.anomaly_maps, curves, histograms):
        first = [p.read_bytes() for p in figures.save(draw(run), tmp_path / "first" / "figure")]
        second = [p.read_bytes() for p in figures.save(draw(run), tmp_path / "second" / "figure")]
        assert first == second
        assert b"CreationDate" not in first[1]


def test_titles_name_defect_score_and_wrong_decisions(run):
    """Row 1 is normal but flagged (2.5 > 2), row 3 anomalous but passed (1.5): both titles say so."""
    fig = figures.anomaly_maps(run)
    titles = [b._suptitle.get_text() for b in fig.subfigs[1].subfigs if b.axes]
    assert "good: image score 2.5, called anomalous (false alarm)" in titles
    assert "broken: image score 1.5, called normal (missed)" in titles
    assert "broken: image score 6, called anomalous" in titles


def test_a_figure_of_maps_names_both_thresholds(run):
    """The image score decides at 2, the map is marked at 3.5: caption and bar call each by its name."""
    run.record["per_category"]["bottle"]["threshold"]["map_tau"] = 3.5
    fig = figures.anomaly_maps(run)
    text = " ".join(t.get_text() for t in fig.texts).replace("\n", " ")
    assert "an image score above 2 is called anomalous" in text
    assert "The map has its own threshold, 3.5 (black line)" in text
    assert "threshold of the map, 3.5" in fig.subfigs[2].axes[0].get_xlabel()


def test_worst_cases_are_the_highest_normal_and_the_lowest_anomalous(run):
    """Normal scores 0.9, 2.5 and anomalous 6.0, 1.5: rows 1 and 3. At threshold 2 one of each side is an error."""
    assert figures.worst_rows(run.scores, 1) == [1, 3]
    heads = [t.get_text() for t in figures.worst_cases(run, 2).subfigs[0].texts]
    assert heads[0] == "highest-scoring normal images: 1 of 2 are false alarms"
    assert heads[1] == "lowest-scoring anomalous images: 1 of 2 are missed"


def test_choose_takes_the_kinds_in_turn():
    """Two kinds, three images each: with four wanted, each kind gives its first two, whatever the scores."""
    table = pd.DataFrame({"label": [0, 1, 1, 1, 1, 1, 1], "defect": ["good"] + ["a"] * 3 + ["b"] * 3})
    assert figures.choose(table, 4) == [0, 1, 4, 2, 5]


@pytest.mark.parametrize("draw", ["training_curves", "score_histograms", "compare"])
def test_every_figure_has_units_and_a_caption_with_data_n_and_seeds(run, draw):
    """Caption: data set, category, number of test images (4) and the seed; every axis is labelled."""
    fig = getattr(figures, draw)(Runs([run]))
    text = " ".join(t.get_text() for t in fig.texts).replace("\n", " ")
    assert "mvtec_ad (bottle); 4 test images; seed 0" in text
    assert all(ax.get_xlabel() for ax in fig.axes if ax.axison)
    assert not plt.get_fignums()


def test_histogram_marks_the_threshold_of_the_run(run):
    """The dashed line stands at tau = 2; blue is normal, vermilion anomalous."""
    ax = figures.score_histograms(Runs([run])).axes[0]
    assert list(ax.lines[0].get_xdata()) == [2.0, 2.0]
    colours = {plt.matplotlib.colors.to_hex(p.get_edgecolor()) for p in ax.patches}
    assert colours == {figures.NORMAL, figures.ANOMALOUS}


def test_published_is_hollow_and_absent_for_another_data_set(run):
    """A verdict of mvtec_ad is drawn as hollow diamonds; one of other data is not drawn, and the caption says so."""
    cells = pd.DataFrame(
        {"dataset": ["mvtec_ad"], "category": ["bottle"], "metric": ["image_auroc"], "published": [1.0]}
    )
    fig = figures.compare(Runs([run]), cells)
    hollow = [line for line in fig.axes[0].lines if line.get_marker() == "D"]
    assert [line.get_markerfacecolor() for line in hollow] == ["white"]
    assert list(hollow[0].get_xdata()) == [100.0]
    other = figures.compare(Runs([run]), cells.assign(dataset="btad"))
    assert not [line for line in other.axes[0].lines if line.get_marker() == "D"]
    assert "The paper has no number" in other.texts[0].get_text()


def test_a_published_number_that_cannot_be_compared_does_not_look_as_if_it_agreed(run):
    """Bottle's row is 0. A comparable diamond is on it and dark, another one is below it, lighter, and named."""
    cells = pd.DataFrame({"dataset": ["mvtec_ad"], "category": ["bottle"], "metric": ["image_auroc"]})
    drawn = {}
    for verdict in ("reproduced", "not comparable"):
        fig = figures.compare(Runs([run]), cells.assign(published=0.75, verdict=verdict))
        diamonds = [line for line in fig.axes[0].lines if line.get_marker() == "D"]
        assert len(diamonds) == 1
        drawn[verdict] = diamonds[0]
        labels = [t.get_text() for t in fig.legends[0].get_texts()]
        assert labels[-1] == "published" + ", not comparable" * (verdict == "not comparable")
    assert list(drawn["reproduced"].get_ydata()) == [0]
    assert drawn["not comparable"].get_ydata()[0] > 0.2
    dark, light = (int(drawn[v].get_markeredgecolor()[1:3], 16) for v in drawn)
    assert light - dark > 100


def test_without_a_verdict_nothing_is_said_of_the_paper(run):
    """No table of published numbers was given, so the caption cannot know whether there is one."""
    assert "paper" not in figures.compare(Runs([run])).texts[0].get_text()


def test_a_map_in_another_unit_than_the_score_says_so(run):
    """DRAEM's image score is a probability, its map log-odds: bar and caption name the unit of the map's threshold."""
    own = figures.anomaly_maps(run)
    assert "anomaly map [score units]" in bar_label(own)
    run.record["method"] = "draem"
    try:
        other = figures.maps._levels(run, next(iter(run.record["per_category"])))
    finally:
        run.record["method"] = "simplenet"
    assert "log-odds (black line)" in other
    assert "log-odds" not in own.texts[-1].get_text()


def bar_label(fig):
    """Label of the colour bar of a figure of maps."""
    return next(ax.get_xlabel() for ax in fig.axes if ax.get_xlabel())


def test_no_auroc_axis_goes_beyond_one(run):
    """100 % ends the axes of `compare` and of speed, 1 that of the oracle's curve."""
    fig = figures.compare(Runs([run]))
    assert [ax.get_xlim()[1] for ax in fig.axes] == [100.0, 100.0]
    table = pd.DataFrame([("simplenet", "network", 50.0, 1.0, 0.95, 1.0)])
    table.columns = ["system", "what", "fps", "image_auroc", "low", "high"]
    assert figures.speed_against_auroc(table).axes[0].get_ylim()[1] == 100.0
    assert figures.training_curves(Runs([run])).axes[-1].get_ylim()[1] == 1.0


def test_a_legend_without_anything_published_names_nothing_published(run):
    """The verdict has a number of another category only: no diamond, no legend entry, a sentence instead."""
    cells = pd.DataFrame({"dataset": ["mvtec_ad"], "category": ["cable"], "metric": ["image_auroc"]})
    fig = figures.compare(Runs([run]), cells.assign(published=0.9))
    assert [t.get_text() for t in fig.legends[0].get_texts()] == ["ours"]
    assert "The paper has no number for mvtec_ad (bottle)" in fig.texts[0].get_text().replace("\n", " ")


def test_heat_map_is_white_where_the_crop_left_out():
    """Level 0 is viridis' first colour, level 1 its last; what was not seen is white."""
    drawn = heat_map(np.array([[0.0, 1.0, 0.5]]), np.array([[True, True, False]]))
    ends = [plt.get_cmap("viridis")(v)[:3] for v in (0.0, 1.0)]
    assert drawn[0, :2] == pytest.approx(np.array(ends))
    assert drawn[0, 2].tolist() == [1, 1, 1]


def test_speed_without_a_comparable_auroc_is_a_line(run):
    """77 images per second of another machine without an AUROC on this data: a vertical line at 77."""
    rows = [("simplenet", "network", 50.0, 0.98, 0.95, 0.99), ("original", "published", 77.0, np.nan, np.nan, np.nan)]
    table = pd.DataFrame(rows, columns=["system", "what", "fps", "image_auroc", "low", "high"])
    ax = figures.speed_against_auroc(table).axes[0]
    assert ax.get_xscale() == "log"
    assert any(list(line.get_xdata()) == [77.0, 77.0] for line in ax.lines)


def test_a_notebook_shows_a_figure_with_its_alternative_text(run):
    """<img alt=...> of nbconvert's template "classic" ("lab" of nbconvert 7 knows no alternative texts).

    Two normal scores 0.9 and 2.5, one of them above the threshold 2.
    """
    fig = figures.score_histograms(Runs([run]))
    shown = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("IPython.display.display", shown.append)
        fig._ipython_display_()
    data, metadata = InteractiveShell.instance().display_formatter.format(shown[0])
    output = new_output("display_data", data, metadata=metadata)
    cell = new_code_cell("figure", outputs=[output])
    page, _ = HTMLExporter(template_name="classic").from_notebook_node(new_notebook(cells=[cell]))
    assert len(re.findall("<img", page)) == 1
    alt = html.unescape(re.search(r'<img[^>]*alt="([^"]*)"', page)[1])
    assert alt == fig.alt
    assert "2 normal scores, from 0.9 to 2.5 (median 1.7), of which 1 lie above the threshold 2" in alt


@pytest.mark.parametrize("draw", ["training_curves", "score_histograms", "compare"])
def test_alternative_texts_are_made_from_the_data(run, draw):
    """Other numbers, another text; an empty text is refused."""
    before = getattr(figures, draw)(Runs([run])).alt
    run.history *= 0.5
    run.scores.score += 0.25
    run.record["per_category"]["bottle"]["metrics"] |= {"image_auroc": 0.7}
    assert len(before) > 40
    assert getattr(figures, draw)(Runs([run])).alt != before
    with pytest.raises(UserError, match="alternative text"), figures.canvas(2, 2) as fig:
        figures.caption(fig, "a caption", " ")


def test_errors_say_what_is_missing(run):
    """No run, no maps, foreign rows: one sentence each."""
    with pytest.raises(UserError, match="no finished run"):
        figures.training_curves(Runs([]))
    with pytest.raises(UserError, match="valid: 0 to 3"):
        figures.anomaly_maps(run, rows=[7])
    run.maps = None
    with pytest.raises(UserError, match="no anomaly maps"):
        figures.anomaly_maps(run)


def test_a_feature_cloud_is_the_same_whatever_the_sign_of_the_components():
    """Rows along one line: the first component is that line, its largest weight counted positive."""
    rows = np.outer(np.arange(6.0), [0.0, -2.0, 1.0])
    points = figures.feature_cloud(rows, rows + 0.1).axes[0].collections[1].get_offsets()
    assert np.asarray(points)[:, 0] == pytest.approx(-np.sqrt(5) * (np.arange(6) - 2.5), abs=1e-6)


def test_a_compact_picture_is_smaller_and_looks_the_same(run, tmp_path):
    """At most two of 255 grey levels off on average, half a step of the 31-step PNG; always the same bytes."""
    draw = lambda: figures.anomaly_maps(run)
    first, second = (figures.compact(draw()).data for _ in range(2))
    assert first == second
    draw().savefig(tmp_path / "full.png", dpi=100, bbox_inches="tight")
    full, small = (
        np.asarray(Image.open(p).convert("RGB")).astype(int) for p in (tmp_path / "full.png", io.BytesIO(first))
    )
    assert np.abs(full - small).mean() <= 2
    assert len(first) < (tmp_path / "full.png").stat().st_size
