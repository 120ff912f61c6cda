"""Describing data: counts against official ones, defect shares, and what brightness alone gives away."""

import made_layouts
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score

from adlib import data, evaluation, images
from adlib.common.errors import UserError
from adlib.data.inspection import describe
from adlib.reports import published

SIDE = 20
TRAIN, NORMAL, BRIGHT, DARK = (100, 104), (90, 92, 94), (130, 132), (93, 95)


def save(path, grey: int, mask: np.ndarray | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((SIDE, SIDE), grey, np.uint8)).save(path)
    if mask is not None:
        base = path.parents[2] / "ground_truth" / path.parent.name
        base.mkdir(parents=True, exist_ok=True)
        Image.fromarray(mask.astype(np.uint8) * 255).save(base / f"{path.stem}_mask.png")


@pytest.fixture
def table(tmp_path, monkeypatch) -> pd.DataFrame:
    """Plain grey pictures as mvtec_ad bottle: 2 train, 3 normal, 2 of broken_large (5 of 400 pixels), 2 of scratch."""
    monkeypatch.setenv("ADLIB_DATA", str(tmp_path / "data"))
    base = tmp_path / "data" / "mvtec_ad" / "bottle"
    mask = np.zeros((SIDE, SIDE), bool)
    mask[[0, 1, 10, 10, 19], [0, 1, 10, 11, 19]] = True  # a diagonal pair, a pair and a corner: 3 regions of 5 pixels
    for part, greys, own in (
        ("train/good", TRAIN, None),
        ("test/good", NORMAL, None),
        ("test/broken_large", BRIGHT, mask),
        ("test/scratch", DARK, None),
    ):
        for k, grey in enumerate(greys):
            save(base / part / f"{k:03d}.png", grey, own)
    return data.load("mvtec_ad", "bottle")


def test_a_mask_is_measured_in_pixels_of_its_picture(table):
    """5 of 20 x 20 pixels are 0.0125 of the picture, in 3 regions, as diagonal neighbours touch; no mask: NaN."""
    measured = describe.measure(table)
    broken = measured[measured.defect == "broken_large"]
    assert broken.share.tolist() == [0.0125, 0.0125]
    assert broken.regions.tolist() == [3, 3]
    assert measured[measured.defect != "broken_large"].share.isna().all()


def test_mean_grey_is_that_of_the_whole_picture_in_grey_levels(table):
    """A picture of one grey has this grey as its mean; names are relative to the root."""
    measured = describe.measure(table).set_index("name")
    assert measured.grey["bottle/train/good/001.png"] == TRAIN[1]
    assert measured.group.value_counts()[list(describe.GROUPS)].tolist() == [2, 3, 4]
    assert set(measured["mode"]) == {"L"}


def test_limit_measures_the_first_of_each_part(table):
    """With limit 1: one picture of each of four parts, the first."""
    measured = describe.measure(table, limit=1)
    assert measured.name.str[-7:].tolist() == ["000.png"] * 4


def test_shortcuts_by_hand(table):
    """Normal 90, 92, 94; defective 130, 132, 93, 95: 130, 132, 95 win 3 pairs each, 93 wins 2: 11 of 12.

    Training median 102: distances of normal 12, 10, 8, of defective 28, 30, 9, 7: 3 + 3 + 1 + 0 = 7 of 12 pairs.
    Drift: every normal test picture is darker than every training one: 0.
    """
    row = describe.shortcuts(describe.measure(table)).iloc[0]
    assert row.auroc == pytest.approx(11 / 12)
    assert row.direction == "brighter"
    assert row.distance == pytest.approx(7 / 12)
    assert row.drift == 0
    assert row.low <= row.auroc <= row.high


def test_the_direction_is_chosen_and_said(table):
    """Exchanging the greys c for 255 - c mirrors the pairs: still 11 of 12, now darker; scikit-learn gives 1 - that."""
    measured = describe.measure(table).assign(grey=lambda m: 255 - m.grey)
    row, test = describe.shortcuts(measured).iloc[0], measured[measured.split == "test"]
    assert (row.auroc, row.direction) == (pytest.approx(11 / 12), "darker")
    assert roc_auc_score(test.label, test.grey) == pytest.approx(1 - row.auroc)


def test_the_floor_of_results_tables_is_the_same_number_on_unscaled_pictures(table):
    """At the pictures' own side nothing is resized, so `mean_grey_floor` sees the same pixels."""
    test = np.flatnonzero(table.split == "test")
    pictures = images.cached(table, images.Geometry(SIDE))[test]
    floor = evaluation.mean_grey_floor(pictures, table.label.to_numpy()[test])
    assert floor == pytest.approx(describe.shortcuts(describe.measure(table)).auroc[0])


def test_without_defects_there_is_no_auroc(table):
    """One class only: NaN, no error."""
    row = describe.shortcuts(describe.measure(table[table.label == 0])).iloc[0]
    assert np.isnan([row.auroc, row.low, row.distance]).all()
    assert row.drift == 0


def test_counts_stand_beside_the_official_ones(table):
    """Officially 209 + 20 normal and three kinds; here 2 + 3, one of these kinds, and scratch, unknown there."""
    found = describe.counts(table).set_index("part")
    assert found.images.to_dict() == {
        **dict.fromkeys(data.official("mvtec_ad")["bottle"], 0),
        **{"train/good": 2, "test/good": 3, "test/broken_large": 2, "test/scratch": 2},
    }
    assert found.official["train/good"] == 209
    assert found.official["test/scratch"] == 0
    assert found["masks"]["test/broken_large"] == 2


def test_nobody_publishes_counts_of_a_users_own_data(table):
    """Unknown data sets have NA, not 0: 0 would call every picture superfluous."""
    table.attrs |= {"dataset": "folder", "category": "mine"}
    assert describe.counts(table).official.isna().all()


def test_a_part_of_a_mixture_has_the_counts_of_its_own_data_set(table):
    """`mvtec_ad:bottle` of a mixture is bottle of mvtec_ad: 209 training pictures."""
    table.attrs |= {"dataset": "mvtec_ad:bottle + mtd:all", "category": "mvtec_ad:bottle"}
    assert describe.counts(table).set_index("part").official["train/good"] == 209


def test_describe_has_a_row_per_part_and_names_what_is_absent(table):
    """Only bottle is here: 14 of 15 are noted. All 11 of 12 pairs; against normal, broken_large alone wins all."""
    described = describe.describe("mvtec_ad")
    rows = described.set_index("part")
    assert rows.loc["all", ["images", "masks"]].tolist() == [9, 2]
    assert rows.official["all"] == sum(data.official("mvtec_ad")["bottle"].values())
    assert rows[describe.ORACLE][["all", "test/broken_large"]].tolist() == pytest.approx([11 / 12, 1])
    assert rows["size"]["all"] == "20 x 20"
    assert described.attrs["notes"][:2] == [
        "not here: 14 of 15, cable, capsule, carpet, grid, hazelnut and 9 more",
        "bottle: rescaled or cropped copy: 20x20 instead of the official 900x900",
    ]
    assert "1.25" in describe.text(described)  # the share in percent


def test_a_named_category_that_is_absent_is_an_error(table):
    """Left out in silence it would look as if it had been described."""
    with pytest.raises(UserError, match="no image of mvtec_ad/cable"):
        describe.describe("mvtec_ad", ["bottle", "cable"])


def test_a_category_that_is_there_but_empty_is_an_error(table, tmp_path):
    """A folder cable/ without images is a fault, not an absent category."""
    (tmp_path / "data" / "mvtec_ad" / "cable").mkdir()
    with pytest.raises(UserError, match="cable"):
        describe.describe("mvtec_ad")


def test_a_mask_of_another_size_is_named(table):
    """Its share would be that of another picture."""
    Image.fromarray(np.zeros((9, 8), np.uint8)).save(table["mask"].dropna().iloc[0])
    with pytest.raises(UserError, match=r"000_mask.png is 8x9 but its image .* is 20x20"):
        describe.measure(table)


def test_table_1_of_validflow_has_73_kinds_and_shows_what_the_folders_lack(table):
    """73 = the official folders, not the 70 of the text; here bottle lacks two of its kinds and has one too many."""
    kinds = describe.defect_types([table], pd.read_csv(published.FOLDER / "validflow_table1.csv")).set_index("category")
    assert kinds.printed.sum() == kinds.official.sum() == 73
    assert (kinds.missing["bottle"], kinds.extra["bottle"]) == ("broken_small, contamination", "scratch")
    assert kinds.folders.notna().sum() == 1


def test_quantiles_of_brightness_and_of_defects(table):
    """Median of 90, 92, 94 is 92; every mask holds 0.0125."""
    measured = describe.measure(table)
    assert describe.brightness(measured).set_index("group").q50["normal test"] == 92
    assert describe.defect_shares(measured)[["q10", "q50", "q90"]].iloc[0].tolist() == pytest.approx([0.0125] * 3)
    assert describe.sizes(measured).loc[0, ["images", "mode", "sizes", "width"]].tolist() == [9, "L", 1, "20"]


def test_without_any_mask_the_table_of_defect_sizes_is_empty(table):
    """elpv has no masks: no row, all columns."""
    found = describe.defect_shares(describe.measure(table[table["mask"].isna()]))
    assert len(found) == 0
    assert list(found) == ["dataset", "category", "defect", "images", "q10", "q50", "q90"]


def test_on_screw_brightness_alone_is_perfect(shared, monkeypatch):
    """Its 41 normal test pictures were taken darker than its 119 defective ones: 1.000, and 0.006 for the distance."""
    if not (shared / "data" / "mvtec_ad" / "screw").is_dir():
        pytest.skip(f"{shared}/data/mvtec_ad/screw is missing")
    monkeypatch.setenv("ADLIB_DATA", str(shared / "data"))
    row = describe.shortcuts(describe.measure(data.load("mvtec_ad", "screw"))).iloc[0]
    assert (row.auroc, row.direction) == (1, "brighter")
    assert row.distance < 0.05
    assert row.drift < 0.05


def test_a_source_of_textures_is_described_though_load_refuses_it(tmp_path, monkeypatch):
    """Two classes of three pictures; officially 120 each."""
    monkeypatch.setenv("ADLIB_DATA", str(tmp_path))
    made_layouts.make("dtd", tmp_path)
    rows = describe.describe("dtd").set_index(["category", "part"])
    assert rows.loc[("cracked", "train/good"), ["images", "official", "size"]].tolist() == [3, 120, "32 to 34 x 24"]
    assert len(rows) == 4
    assert "dtd" not in describe.available()
