"""What to know before a finished run decides anything: one set of sentences, from the numbers in run.json."""

import pytest

from adlib import metrics
from adlib.reports.cautions import cautions


def record(recall, n=8, seed=0, category="cracks", source="holdback", warnings=(), **changes):
    """run.json as far as these sentences read it; level and alpha are those of `metrics.threshold`."""
    level = metrics.threshold(range(n), 0.05)[1]
    threshold = {"tau": 1.0, "level": level, "alpha": 0.05, "n": n, "source": source}
    facts = {"metrics": {"recall@threshold": recall}, "threshold": threshold, "warnings": list(warnings)}
    known = {"method": "simplenet", "dataset": "folder", "hash": "0123456789ab", "seed": seed}
    return known | {"per_category": {category: facts}} | changes


def test_few_held_back_images_are_named_with_the_number_that_would_hold_the_level():
    """8 images hold 1/9 = 11.1 %; 5 % needs 1/0.05 - 1 = 19."""
    assert cautions([record(0.06)]) == [
        "simplenet folder (cracks), 0123456789ab: recall 0.06 at the threshold, which comes from only 8 held-back "
        "normal images: they hold the false alarms to 11.1 %, and 19 or more would hold 5 % (a larger holdback, or "
        "more normal pictures), which does not raise the recall"
    ]


@pytest.mark.parametrize(("n", "few"), [(18, True), (19, False), (20, False)])
def test_from_19_images_on_the_scores_are_to_blame(n, few):
    """More held-back images would not mend it, so the sentence does not ask for them."""
    (sentence,) = cautions([record(0.4, n)])
    assert ("19 or more" in sentence) == few
    assert ("most anomalous test images score no higher than normal ones" in sentence) != few


def test_a_threshold_from_fitted_images_holds_nothing():
    """holdback 0."""
    (sentence,) = cautions([record(0.4, 40, source="train (optimistic)")])
    assert "comes from the 40 images that were fitted" in sentence
    assert "hold back 19 or more for 5 %" in sentence


def test_nothing_is_said_from_a_recall_of_one_half_on_or_without_labels():
    """NaN where no test image is anomalous; older records lack the facts."""
    assert cautions([record(0.5), record(float("nan")), record(None)]) == []
    assert (
        cautions(
            [{"method": "m", "dataset": "d", "per_category": {"c": {"metrics": {}}}}, {"method": "m", "dataset": "d"}]
        )
        == []
    )


def test_seeds_of_one_setting_are_one_sentence():
    """Two of three below one half: their range; another setting has a sentence of its own."""
    runs = [record(r, seed=k) for k, r in enumerate((0.41, 0.2, 0.7))] + [record(0.1, hash="other")]
    first, second = cautions(runs)
    assert "recall 0.20 to 0.41 at the threshold in 2 of 3 seeds, which" in first
    assert "other: recall 0.10 at the threshold, which" in second


def test_what_a_run_found_wrong_with_its_pictures_is_said_once_for_all_seeds_and_categories():
    """Categories of the same words are joined; `predict` asks for one category alone."""
    runs = [record(0.9, seed=k, category=c, warnings=["too thin"]) for k in (0, 1) for c in ("b", "a")]
    assert cautions(runs) == ["folder (a, b): too thin"]
    assert cautions(runs, ["a"]) == ["folder (a): too thin"]
