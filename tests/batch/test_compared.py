"""README's first table: every system on the same images, ranges of ranks, the floor in the last row, gaps as dashes."""

import numpy as np
import pytest
from compared_runs import FAIR, GOOD, run_of

from adlib.batch import compared


def parts():
    """Bottle: PaDiM and SPADE; screw, which brightness solves: PaDiM and 1-NN."""
    bottle, screw = {"category": "bottle", "grey": 0.6}, {"category": "screw", "grey": 0.95}
    runs = [run_of("padim", GOOD, auroc=1.0, **bottle), run_of("spade", FAIR, auroc=0.8, **bottle)]
    runs += [run_of("padim", FAIR, auroc=0.7, **screw), run_of("nearest_neighbour", GOOD, auroc=0.9, **screw)]
    return compared.parts_of(runs)


def made():
    """The parts and their floors; the pictures are not at hand, so mean grey alone."""
    return parts(), compared.grounds(parts())


def test_places_without_two_systems_are_left_out():
    """Nothing was run on MTD or DAGM."""
    assert list(parts()) == ["bottle", "screw"]


def test_the_mean_leaves_out_what_brightness_solves_and_the_floor_is_last():
    """Brightness reaches 95 % on screw: only bottle counts. 1-NN has no run on it: no mean, and no zero."""
    table = compared.table(*made()).set_index("system")
    assert table.index.tolist() == ["PaDiM", "SPADE", "1-NN", "mean grey alone"]
    assert table.loc["PaDiM", "mean, unsolved"] == pytest.approx(1.0)
    assert np.isnan(table.loc["1-NN", ["bottle", "mean, unsolved"]].astype(float)).all()
    assert table.loc["mean grey alone", ["bottle", "screw", "mean, unsolved"]].tolist() == [0.6, 0.95, 0.6]


def test_the_text_has_ranges_of_ranks_and_says_what_is_solved():
    """A system without randomness needs no mark for one seed; a missing run is a dash."""
    text = compared.text(*made())
    row = next(line for line in text.splitlines() if "1-NN" in line)
    assert [cell.strip() for cell in row.strip("|").split("|")][2] == "-"
    assert "100.0 (1-2) |" in text  # six images cannot tell them apart
    assert "What needs no model solves screw" in text
    assert "4 of the 4 cells are runs in a smaller setting" in text
    assert compared.figure(*made()) is None  # no run on MTD


def test_scatter_of_seeds_and_one_seed_are_marked():
    """RIAD's seeds are 20 points apart, an sd of 14; CutPaste has one."""
    runs = [run_of("riad", GOOD, 0, auroc=1.0), run_of("riad", FAIR, 1, auroc=0.8), run_of("cutpaste", FAIR, auroc=0.8)]
    parts = compared.parts_of(runs)
    text = compared.text(parts, compared.grounds(parts))
    cells = {cell.strip() for line in text.splitlines() for cell in line.split("|")}
    assert {"90.0 ± 14 (1-2)", "80.0 (1-2) ¹"} <= cells
