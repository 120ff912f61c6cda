"""The one did-you-mean."""

import pytest

from adlib.common.errors import UserError, check_names, nearest, unknown


@pytest.mark.parametrize(
    ("name", "valid", "sentence"),
    [
        ("botle", ["bottle", "cable"], "unknown category 'botle'; did you mean 'bottle'? valid: bottle, cable"),
        ("xyz", ["bottle", "cable"], "unknown category 'xyz'; valid: bottle, cable"),
        (7, [1, 2], "unknown category 7; valid: 1, 2"),
        ("x", [], "unknown category 'x'; valid: none"),
    ],
)
def test_the_sentence_names_what_was_said_the_nearest_and_all_that_is_valid(name, valid, sentence):
    assert str(unknown("category", name, valid)) == sentence


def test_the_first_wrong_name_is_raised_and_right_ones_are_not():
    check_names("field", ["a", "b"], iter("abc"))
    with pytest.raises(UserError, match="unknown field 'd'"):
        check_names("field", ["a", "d", "e"], iter("abc"))


@pytest.mark.parametrize(
    ("name", "near"), [("MVTec-AD", "mvtec_ad"), ("mvtecad", "mvtec_ad"), ("Mtd", "mtd"), ("MVTex AD", "mvtec_ad")]
)
def test_a_guess_knows_no_case_dash_blank_or_underscore(name, near):
    assert nearest(name, ["btad", "mtd", "mvtec_ad"]) == near
