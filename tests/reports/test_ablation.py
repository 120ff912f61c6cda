"""Ablations: which variants exist, and that differences are paired."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from adlib.common.errors import UserError
from adlib.reports import ablation


def made_run(scores, seed=0, oracle=None, replicates=None, paths="abcd", provenance=None):
    """A run on two normal and two anomalous images; its image AUROC is the share of the four ordered pairs."""
    labels = np.array([0, 0, 1, 1])
    table = pd.DataFrame({"category": "c", "path": list(paths), "label": labels, "score": scores})
    pairs = [[(p > n) + 0.5 * (p == n) for n in table.score[labels == 0]] for p in table.score[labels == 1]]
    values = {"image_auroc": float(np.mean(pairs))}
    if oracle is not None:
        values["image_auroc (oracle best epoch)"] = oracle
    if replicates is not None:
        values["pixel_auroc"] = float(np.mean(replicates))
    facts = {"metrics": values, "provenance": provenance}
    record = {"dataset": "d", "seed": seed, "oracle_epoch": 5, "per_category": {"c": facts}}
    draws = {} if replicates is None else {"c/pixel_auroc": np.asarray(replicates, float)}
    return SimpleNamespace(record=record, scores=table, replicates=draws)


def test_variants_change_one_factor_and_leave_out_the_base():
    """Base loss l1: of {l1, ce} only ce is new; a mapping changes two fields in one step."""
    base = {"loss": "l1", "noise_relative": 0.3}
    grid = {"loss": ["l1", "ce"], "noise": [{"noise_std": 0.05, "noise_relative": None}]}
    found = ablation.variants(base, grid)
    assert list(found) == [("base", ""), ("loss", "loss=ce"), ("noise", "noise_std=0.05")]
    assert found["loss", "loss=ce"] == {"loss": "ce", "noise_relative": 0.3}
    assert found["noise", "noise_std=0.05"] == {"loss": "l1", "noise_std": 0.05, "noise_relative": None}
    with pytest.raises(UserError, match="must be a list"):
        ablation.variants(base, {"loss": "ce"})


def test_difference_is_variant_minus_base_and_paired():
    """Base ranks 2 of 4 pairs right (0.5), the variant all 4 (1.0): +0.5; equal runs differ by exactly 0."""
    base, better = made_run([1.0, 4.0, 2.0, 3.0]), made_run([1.0, 2.0, 3.0, 4.0])
    found = ablation.paired([base], [better])
    assert (found["base"], found["value"], found["difference"]) == (0.5, 1.0, 0.5)
    same = ablation.paired([base], [base])
    assert (same["difference"], same["low"], same["high"]) == (0, 0, 0)


def test_pixel_difference_uses_the_replicates_of_the_same_images():
    """Replicates that differ by 0.1 in every draw: the interval has no width, although each run's own has."""
    draws = np.linspace(0.5, 0.8, 50)
    runs = [made_run([1, 2, 3, 4], replicates=d) for d in (draws, draws + 0.1)]
    found = ablation.paired([runs[0]], [runs[1]], "pixel_auroc")
    assert [found[k] for k in ("difference", "low", "high")] == pytest.approx([0.1, 0.1, 0.1])


def test_unpaired_runs_are_refused_and_missing_metrics_left_out():
    """Other seeds or other images: one sentence; a metric that was not measured: no row."""
    base = made_run([1, 2, 3, 4])
    with pytest.raises(UserError, match="same categories and seeds"):
        ablation.paired([base], [made_run([1, 2, 3, 4], seed=1)])
    with pytest.raises(UserError, match="same test images"):
        ablation.paired([base], [made_run([1, 2, 3, 4], paths="abce")])
    assert ablation.paired([base], [base], "pixel_auroc") is None
    table = ablation.differences({ablation.BASE: [base], ("loss", "loss=ce"): [base]})
    assert list(table.metric) == ["image_auroc"]


def test_oracle_gap_is_never_negative_here_and_empty_without_looks():
    """Last 0.5, best epoch 0.75: the oracle adds 0.25; runs that never looked give no row."""
    gap = ablation.oracle_gap([made_run([1.0, 4.0, 2.0, 3.0], oracle=0.75)])
    assert gap.loc[0, ["last", "oracle", "difference"]].tolist() == [0.5, 0.75, 0.25]
    assert len(ablation.oracle_gap([made_run([1, 2, 3, 4])])) == 0


def test_reading_claims_a_difference_only_where_the_interval_excludes_zero():
    """Zero inside, or no interval: nothing is claimed."""
    found = [ablation.reading(*i) for i in ((0.01, 0.2), (-0.2, -0.01), (-0.1, 0.1), (np.nan, np.nan))]
    assert found == ["better", "worse", "no difference shown", "no interval"]


def test_a_reading_needs_all_seeds():
    """An interval above 0 with one seed below: better, but not in every seed; all seeds above: better."""
    assert ablation.reading(0.01, 0.2, [0.1, -0.01]) == "better, but not in every seed"
    assert ablation.reading(-0.2, -0.01, [-0.1, -0.2]) == "worse"
    assert ablation.reading(-0.1, 0.2, [0.1, 0.2]) == "no difference shown"


def test_answers_show_every_seed():
    """Seed 0: 0.5 -> 1, seed 1: 0.75 -> 1; mean +37.5 points. A factor that was not varied says so."""
    base = [made_run([1.0, 4.0, 2.0, 3.0]), made_run([1.0, 3.0, 2.0, 4.0], seed=1)]
    better = [made_run([1.0, 2.0, 3.0, 4.0], seed=seed) for seed in (0, 1)]
    table = ablation.differences({ablation.BASE: base, ("loss", "loss=ce"): better})
    assert "**cross-entropy**, image AUROC: +37.5 points" in ablation.answer(table, ["loss"])
    assert "seed by seed +50.0, +25.0" in ablation.answer(table, ["loss"])
    assert ablation.answer(table, ["layers"]) == "This run does not vary it."


def test_variants_are_spoken_in_words():
    """A mapping of two fields, of which one follows from the other; a field without a word of its own."""
    assert ablation.spoken("image_size", "image_size=96, metric_size=128") == "side 96"
    assert ablation.spoken("noise", "noise_std=0.015") == "sigma 0.015"
    assert ablation.spoken("layers", "layers=[2]") == "fine level only"
    assert ablation.spoken("epochs", "epochs=10") == "epochs 10"


def test_a_score_below_its_floor_or_upside_down_is_suspect():
    """AUROC 0.5 with a floor of 0.6; AUROC 0.25, negated 0.75."""
    runs = [made_run([1.0, 4.0, 2.0, 3.0]), made_run([3.0, 4.0, 1.0, 3.5], seed=1), made_run([1, 2, 3, 4], seed=2)]
    for run in runs:
        run.record["per_category"]["c"]["metrics"]["mean_grey_auroc"] = 0.6
    table = ablation.direction(runs)
    assert table.AUROC.tolist() == [0.5, 0.25, 1.0]
    assert table.negated.tolist() == [0.5, 0.75, 0.0]
    assert table.suspect.tolist() == [True, True, False]


def test_differences_and_oracle_gaps_say_where_the_images_came_from():
    """A provenance in the records stands among the notes of both tables."""
    base = made_run([1, 2, 3, 4], oracle=1.0, provenance="rescaled copies")
    note = ["d (c): rescaled copies"]
    assert ablation.differences({ablation.BASE: [base], ("loss", "loss=ce"): [base]}).attrs["notes"] == note
    assert ablation.oracle_gap([base]).attrs["notes"] == note
