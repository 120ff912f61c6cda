"""Thin lines: the pixels that are asked for, and no others."""

import pytest
import torch

from adlib.common.errors import UserError
from adlib.synthesis.lines import thin_line


def test_a_line_changes_its_rows_between_a_fifth_and_four_fifths_of_the_side():
    """Side 10, rows 4 and 5, columns 2 to 7: 12 pixels a channel, 0.5 - 0.2 = 0.3; the picture handed in stays."""
    plain = torch.full((2, 3, 10, 10), 0.5)
    found = thin_line(plain, first=4, thickness=2, change=-0.2)
    expected = torch.full((10, 10), 0.5)
    expected[4:6, 2:8] = 0.3
    torch.testing.assert_close(found, expected.expand(2, 3, 10, 10))
    assert (plain == 0.5).all()


def test_a_vertical_line_is_the_horizontal_one_of_the_turned_picture():
    """Also of a picture that is not square: columns 3 and 4 of 6, rows 4 to 15 of 20; brighter than white is white."""
    found = thin_line(torch.full((1, 3, 20, 6), 0.9), first=3, thickness=2, change=0.25, vertical=True)
    expected = torch.full((20, 6), 0.9)
    expected[4:16, 3:5] = 1.0
    torch.testing.assert_close(found, expected.expand(1, 3, 20, 6))


@pytest.mark.parametrize(("first", "thickness"), [(9, 2), (-1, 1), (3, 0)])
def test_a_line_outside_the_picture_is_refused(first, thickness):
    """A slice would silently be cut, or count from the other side."""
    with pytest.raises(UserError, match="picture of 10 rows"):
        thin_line(torch.zeros(1, 3, 10, 10), first, thickness, 0.5)
