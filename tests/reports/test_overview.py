"""Every printed number in one table: filters, double prints, recomputed means."""

import pytest

from adlib.common.errors import UserError
from adlib.reports import overview, published


def test_nothing_is_lost_without_a_filter():
    """As many rows as the papers' files have cells."""
    assert len(overview.numbers()) == len(published.load())


def test_filters_take_a_value_or_a_list():
    """MMAERec's screw is printed as 89.9; two metrics are more rows than one."""
    one = overview.numbers(dataset="mvtec_ad", category="screw", system="MMAERec", metric="image_auroc")
    assert one.value.tolist() == [89.9]
    both = overview.numbers(paper="mmaerec", metric=["image_auroc", "aupro"])
    assert len(both) > len(overview.numbers(paper="mmaerec", metric="aupro"))


@pytest.mark.parametrize(("chosen", "said"), [({"sytem": "PaDiM"}, "system"), ({"system": "PaDim"}, "PaDiM")])
def test_a_wrong_filter_is_one_sentence_with_the_nearest_name(chosen, said):
    """A column or a value that no table has."""
    with pytest.raises(UserError, match=said):
        overview.numbers(**chosen)


def test_a_cell_that_two_tables_print_differently_is_flagged_with_both():
    """PaDiM's screw: 85.8 in paper 02, 97.5 in paper 03, read off both tables."""
    row = overview.double_prints().set_index(overview.CELL).printed["mvtec_ad", "screw", "PaDiM", "image_auroc"]
    assert "85.8 in mmaerec table1" in row
    assert "97.5 in simplenet table1" in row
    flagged = overview.numbers(category="screw", system="PaDiM", metric="image_auroc")
    assert (flagged.elsewhere == row).all()


def test_equal_numbers_with_other_decimals_are_no_double_print():
    """ValidFlow's mean is 99.2 in one table and 99.21 in another."""
    cells = overview.double_prints()
    assert not ((cells.system == "ValidFlow") & (cells.category == "average")).any()


def test_wrong_means_by_hand():
    """PaDiM's textures in paper 03: 99.8, 96.7, 100, 98.1, 99.2 have the mean 98.76; printed is 95.5."""
    rows = overview.recomputed().set_index(["paper", "system", "category"])
    found = rows.loc[("simplenet", "PaDiM", "avg_textures")]
    assert (found.printed, found.recomputed) == (95.5, pytest.approx((99.8 + 96.7 + 100 + 98.1 + 99.2) / 5))


def test_wrong_means_are_among_the_errata():
    """What is recomputed here is listed there, with the same value."""
    listed = published.errata()
    listed = listed[listed.kind == "mean"].set_index(["paper", "table", "system", "category", "metric"]).corrected
    for row in overview.recomputed().itertuples():
        assert float(listed[row.paper, row.table, row.system, row.category, row.metric]) == pytest.approx(
            row.recomputed, abs=0.01
        )


def test_the_wide_table_has_averages_last_and_no_ablation_rows():
    """Columns: categories, then averages; rows: systems, none of which is a variant."""
    table = overview.wide(dataset="mvtec_ad", metric="image_auroc")
    assert list(table.columns[-3:]) == ["average", "avg_textures", "avg_objects"]
    assert table.loc[("PaDiM", "mmaerec"), "screw"] == "85.8*"
    assert table.loc[("PaDiM", "simplenet"), "avg_textures"] == "95.5+"
    assert table.loc[("AE-SSIM", "simplenet"), "bottle"] == "93+"  # is pixel AUROC
    assert not table.index.get_level_values("system").str.contains("memory only").any()


def test_several_metrics_and_data_sets_keep_rows_of_their_own():
    """BTAD has image and pixel AUROC: two rows for each system; the unit names both."""
    table = overview.wide(dataset="btad")
    assert set(table.index.get_level_values("metric")) == {"image_auroc", "pixel_auroc"}
    assert overview.unit(["image_auroc", "aupro"]) == "image AUROC [%], AUPRO [%]"
