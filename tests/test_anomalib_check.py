"""benchmarks/anomalib_check.py: its rows, and the copying of weights where anomalib is installed (make cross-check)."""

import math
from argparse import Namespace

import numpy as np
import pytest
import torch
from conftest import PROJECT


@pytest.fixture
def check(monkeypatch):
    monkeypatch.syspath_prepend(PROJECT / "benchmarks")
    import anomalib_check

    return anomalib_check


@pytest.fixture
def sides(monkeypatch):
    """Data of four random pictures of 128 pixels, and both sides."""
    pytest.importorskip("anomalib")
    monkeypatch.syspath_prepend(PROJECT / "benchmarks")
    import anomalib_sides

    options = Namespace(channels=8, coreset=0.1, hidden=4, draem_width=4)
    train = np.random.default_rng(0).integers(0, 256, (4, 3, 128, 128), dtype=np.uint8)
    return anomalib_sides, anomalib_sides.Data(train, "cpu", options)


def test_rows_are_chosen_evenly_among_those_that_qualify(check):
    among = np.array([False, True, True, True, True, True, False])
    assert check.chosen(among, 3).tolist() == [1, 3, 5]
    assert check.chosen(among, None).tolist() == check.chosen(among, 9).tolist() == [1, 2, 3, 4, 5]
    every = check.chosen(np.ones(585), 195)
    assert len(set(every)) == 195
    assert (every[0], every[-1]) == (0, 584)


@pytest.mark.parametrize(
    ("quantity", "ours", "more", "verdict"),
    [
        ("batch of 1, images/s", 3.0, True, ""),
        ("batch of 1, images/s", 1.0, True, "slower"),
        ("fit to 60 images, s", 3.0, False, "slower"),
        ("fit to 60 images, s", 2.0, False, ""),
        ("peak memory, MB", 3.0, False, "more memory"),
    ],
)
def test_a_cost_has_its_ratio_and_says_where_adlib_is_worse(check, quantity, ours, more, verdict):
    row = check.compared("PaDiM", quantity, ours, 2.0, more)
    assert (row["ratio"], row["verdict"]) == (ours / 2, verdict)


def test_equal_numbers_are_judged_by_the_largest(check):
    row = check.equal("DRAEM", "logits", torch.tensor([1.0, 10.0]), torch.tensor([1.0, 10.01]), 1e-2)
    assert row["difference"] == pytest.approx(0.01, rel=1e-3)
    assert row["verdict"].startswith("equal to")
    apart = "DRAEM", "logits", torch.tensor([1.0]), torch.tensor([1.1]), 1e-2
    assert check.equal(*apart)["verdict"].startswith(check.FAILS)  # which makes the exit status 1
    assert check.equal(*apart, "another border")["verdict"] == "differs: another border"


def test_an_auroc_is_judged_by_the_interval_of_ours(check):
    labels = np.repeat([0, 1], 20)
    ours = np.random.default_rng(0).normal(size=40) + labels
    same, worse = (check.within("PaDiM", "image AUROC", labels, ours, theirs) for theirs in (2 * ours, -ours))
    assert same["difference"] == 0
    assert same["verdict"].startswith("inside")
    assert worse["verdict"].startswith("OUTSIDE")
    assert "0 NOT in" in worse["verdict"]
    assert math.isnan(same["ratio"])


def test_draem_copied_into_anomalib_s_networks_computes_the_same(sides):
    module, data = sides
    ours, theirs = (module.SYSTEMS["DRAEM"][library](data) for library in ("adlib", "anomalib"))
    module.copy_draem(ours.model, theirs.model)
    with torch.inference_mode():
        repaired, logits = ours.model(ours.inputs(2))
        other = theirs.model.reconstructive_subnetwork(ours.inputs(2))
        other_logits = theirs.model.discriminative_subnetwork(torch.cat([other, ours.inputs(2)], 1))
    torch.testing.assert_close(repaired, other, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(logits, other_logits, rtol=1e-5, atol=1e-6)


def test_csflow_copied_into_anomalib_s_flow_computes_the_same(sides):
    module, data = sides
    ours, theirs = (module.SYSTEMS["CS-Flow"][library](data) for library in ("adlib", "anomalib"))
    module.copy_flow(ours.model.flow, theirs.model)
    with torch.inference_mode():
        for (z, logdet), (other_z, other_logdet) in [(ours.model.flow(ours.inputs(1)), theirs.model(ours.inputs(1)))]:
            torch.testing.assert_close(logdet, other_logdet, rtol=1e-4, atol=1e-4)
            for mine, other in zip(z, other_z, strict=True):
                torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-4)
