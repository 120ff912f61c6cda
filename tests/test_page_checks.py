"""The checks of a page find what they are for, and leave good pages alone."""

import nbformat
import page_checks
import pytest

v4 = nbformat.v4
GOOD = "# Title\n\nThe image AUROC (area under the receiver operating characteristic) decides."
CURVES = "Two curves that fall to 0.1."


def page(*cells):
    """A notebook of Markdown texts and finished cells, in order."""
    return v4.new_notebook(cells=[v4.new_markdown_cell(c) if isinstance(c, str) else c for c in cells])


def picture(alt: str | None, data: str = "aGVsbG8="):
    metadata = {} if alt is None else {"image/png": {"alt": alt}}
    output = v4.new_output("display_data", data={"image/png": data}, metadata=metadata)
    return v4.new_code_cell("draw()", outputs=[output])


def said(text: str):
    """A code cell whose output is Markdown."""
    return v4.new_code_cell("say()", outputs=[v4.new_output("execute_result", data={"text/markdown": text})])


@pytest.mark.parametrize(
    ("check", "cells"),
    [
        ("headings", [GOOD, "# Another"]),
        ("headings", [GOOD, "### Two levels down"]),
        ("headings", ["no title"]),
        ("headings", [GOOD, said("# A title made by code")]),
        ("alternative_texts", [GOOD, picture(None)]),
        ("alternative_texts", [GOOD, picture("A figure.")]),
        ("alternative_texts", [GOOD, picture(CURVES), picture(CURVES, "Yg==")]),
        ("cell_lengths", [GOOD, v4.new_code_cell("\n".join("x = 1" for _ in range(16)))]),
        ("terms", ["# Title\n\nThe AUROC decides."]),
        ("terms", [GOOD, "AP falls.", "**AP**: average precision."]),
        ("terms", [GOOD, said("The AUPRO is 0.3.")]),
        ("wording", [GOOD, "Were it so, all would fail."]),
        ("wording", [GOOD, "Here would the six look alike, D learns them."]),
        ("wording", [GOOD, "Is sigma small against the spread, it finds none."]),
        ("wording", [GOOD, said("the mere mean grey")]),
        ("wording", [GOOD, "A copy stands in the cell."]),
        ("typed_numbers", [GOOD, "It reaches 63.7 %."]),
        ("typed_numbers", [GOOD, "It gains 12 points."]),
        ("typed_numbers", [GOOD, "The AUROC is 0.637 here."]),
    ],
)  # fmt: skip
def test_a_fault_is_found(check, cells):
    """By the check that is named, and by no other."""
    assert len(getattr(page_checks, check)(page(*cells))) == 1
    assert len(page_checks.faults(page(*cells))) == 1


def test_a_sound_page_has_no_fault():
    """Derived, conventional and published numbers, code, and a figure shown twice: 99.6 is SimpleNet's image AUROC on
    average, 10 % the default of holdback.
    """
    cells = [
        GOOD,
        "## Results\n\nThe paper reports 99.6 %. We hold back 10 %. A 95 % interval; $1/8 = 12.5$ %.",
        "By hand: two of three pairs are right, so the AUROC is 0.667.",
        "`AUPRO` is a column. Were they right? How would the six look, and why?",
        said("**AP** is the average precision. The AP is 12.3 %."),
        *(picture(CURVES) for _ in range(2)),
    ]
    assert page_checks.faults(page(*cells)) == []
