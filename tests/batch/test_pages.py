"""README's short table: few rows, a verdict on every printed number, and what limits a row's meaning."""

import pandas as pd
import pytest
from fake_runs import fake_runs

from adlib.batch import pages
from adlib.common.errors import UserError
from adlib.reports import measured


def screw(image: float, grey: float):
    cells = {("screw", "image_auroc"): [image] * 3, ("screw", "mean_grey_auroc"): [grey] * 3}
    return fake_runs(cells | {("screw", "pixel_auroc"): [0.9] * 3}, config={"epochs": 20})


def test_a_row_has_the_paper_s_number_and_the_verdict_on_ours():
    """Published screw, SimpleNet: 98.1 image and 99.2 pixel AUROC; 20 passes for 160 are another experiment."""
    (line,) = [line for line in pages.short_table(screw(0.8, 0.6)).splitlines() if "screw" in line]
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells == [
        "SimpleNet",
        "MVTec AD screw, 3 runs",
        "80.0 [79.0, 81.0]",
        "90.0",
        "98.1 / 99.2, not comparable",
    ]


@pytest.mark.parametrize(("grey", "warned"), [(0.81, True), (0.79, False)])
def test_a_floor_that_reaches_the_score_is_said_below_the_table(grey, warned):
    assert ("mean brightness alone reaches" in pages.short_table(screw(0.8, grey))) == warned


@pytest.mark.parametrize(("values", "warned"), [([0.99, 0.01, 0.2], True), ([0.8, 0.84, 0.82], False)])
def test_runs_that_differ_by_more_than_five_points_are_said_below_the_table(values, warned):
    """99 and 1 % give a mean that no run is near: 98 points."""
    text = pages.short_table(fake_runs({("screw", "image_auroc"): values}, provenance={"screw": "copies"}))
    assert (
        "SimpleNet on MVTec AD screw: the 3 runs differ by 98.0 points of image AUROC (1.0 to 99.0)" in text
    ) == warned
    assert ("mean says little" in text) == warned


def test_of_several_settings_the_one_with_most_seeds_is_shown_then_the_longest():
    short, long = (fake_runs({("screw", "image_auroc"): [v]}, config={"epochs": e}, run_hash=str(e)) for v, e in
                   ((0.7, 5), (0.9, 100)))  # fmt: skip
    many = screw(0.8, 0.6)
    assert "90.0" in pages.short_table(measured.settings(short) + measured.settings(long))
    settings = [setting for part in (short, long, many) for setting in measured.settings(part)]
    assert "80.0 [" in pages.short_table(settings)


def test_a_page_without_its_marks_is_refused(tmp_path):
    """Rewriting a page whose marks were lost would drop what follows them."""
    (tmp_path / "page.md").write_text("words\n<!-- table:begin -->\nmore words\n")
    with pytest.raises(UserError, match="table:end"):
        pages.insert(tmp_path / "page.md", "table", "numbers")
    assert "more words" in (tmp_path / "page.md").read_text()


def test_minutes_stand_where_they_were_measured_only():
    """500 words at 200 a minute and 100 s, in whole minutes; a page that was not measured has no number."""
    data = {"notebook": "00_data", "words": 500, "seconds": 100, "training_seconds": 0, "cores": 2}
    trained = data | {"notebook": "03_simplenet-bottle", "training_seconds": 600}
    first, second, third = pages.start(pd.DataFrame([data, trained])).splitlines()
    assert first.endswith("2 min to read, 2 min to run.")
    assert second.endswith("2 min to run after 10 min of training.")
    assert "min" not in third


def test_one_category_is_no_average(monkeypatch):
    """A row for the mean over the textures is not filled by a run on brick alone."""
    monkeypatch.setattr(pages, "FRONT", (("draem", "textures", "average"),))
    brick = fake_runs({("brick", "image_auroc"): [0.8]}, "draem", "textures")
    assert "mean of" not in pages.short_table(brick)
    both = fake_runs({("brick", "image_auroc"): [0.8], ("grass", "image_auroc"): [0.6]}, "draem", "textures")
    assert "textures (mean of 2 categories), 1 run | 70.0" in " ".join(pages.short_table(both).split())


@pytest.mark.parametrize(
    ("network", "said"), [("squeeze", "with LPIPS of squeeze"), ("off", "without the"), ("alex", None)]
)
def test_the_network_of_lpips_is_named_beside_the_number(network, said):
    """SqueezeNet stands in for AlexNet, or nothing does: never silently."""
    text = pages.short_table(fake_runs({("bottle", "image_auroc"): [0.9]}, config={"lpips": network}))
    assert ("LPIPS" in text) == (said is not None)
    assert said is None or said in text
