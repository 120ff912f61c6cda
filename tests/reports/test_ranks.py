"""Ranges of ranks: paired draws over images, seeds drawn too, averages over categories."""

import numpy as np
import pytest
import torch
from compared_runs import FAIR, GOOD, run_of

from adlib import models
from adlib.embeddings import Embeddings
from adlib.reports import comparison, ranks


def test_rank_ranges_by_hand():
    """A always above C, B above and below A but always above C: 1-2, 1-2, 3. Without draws there is no rank."""
    wave = np.tile([0.05, -0.05], 20)
    draws = {"A": np.full(40, 0.9), "B": 0.9 + wave, "C": np.full(40, 0.8), "D": None}
    assert ranks.rank_ranges(draws) == {"A": "1-2", "B": "1-2", "C": "3", "D": ""}


def test_a_system_of_which_one_seed_in_three_fails_is_not_ranked_as_if_its_mean_were_certain():
    """Seeds at 1, 1 and 0, images that leave no doubt: of 27 draws of three seeds 8 hold no failure, 1 holds three."""
    per_seed = np.repeat([[1.0], [1.0], [0.0]], 20_000, axis=1)
    drawn = ranks.resampled(per_seed, "draem")
    assert np.mean(drawn == 1) == pytest.approx(8 / 27, abs=0.02)
    assert np.mean(drawn == 0) == pytest.approx(1 / 27, abs=0.01)
    rival = np.full(20_000, 0.9)
    assert ranks.rank_ranges({"draem": drawn, "padim": rival}) == {"draem": "1-2", "padim": "1-2"}
    assert ranks.rank_ranges({"draem": per_seed.mean(0), "padim": rival}) == {"draem": "2", "padim": "1"}


def test_equal_seeds_change_nothing_and_systems_draw_their_own():
    """Three equal seeds give the draws themselves; two systems do not share the drawn seeds."""
    draws = np.random.default_rng(0).random(50)
    assert np.allclose(ranks.resampled(np.tile(draws, (3, 1)), "spade"), draws)
    per_seed = np.random.default_rng(1).random((3, 50))
    assert not np.array_equal(ranks.resampled(per_seed, "draem"), ranks.resampled(per_seed, "riad"))


def test_draws_of_a_contender_hold_its_seeds():
    """Two seeds that rank the images differently: with drawn seeds the draws scatter more."""
    [group] = comparison.groups([run_of("cutpaste", GOOD, 0), run_of("cutpaste", FAIR, 1)], "mvtec_ad", "bottle")
    plain, wide = (group[0].draws("image_auroc", seeds) for seeds in (False, True))
    assert plain.mean() == pytest.approx(wide.mean(), abs=0.02)
    assert wide.std() > plain.std()


def test_an_average_keeps_the_pairs_of_systems_and_unties_categories():
    """The same order for all systems: a constant lead stays one. Equal draws of two categories do not move together."""
    draws = np.random.default_rng(0).random(2000)
    a, b = (ranks.averaged({"x": draws + lead, "y": draws + lead}) for lead in (0.1, 0.0))
    assert np.allclose(a - b, 0.1)
    assert a.std() < 0.8 * draws.std()  # 1 / sqrt(2) for independent categories, 1 for tied ones


@pytest.mark.parametrize("method", ranks.DETERMINISTIC)
def test_what_is_called_deterministic_fits_alike_with_any_seed(method):
    """Other random numbers for `fit`, the same scores."""
    kind, config = models.get(method)
    small = {"backbone": "tf_efficientnet_lite0", "image_size": 128, "resize_mode": "squash", "resize": None}
    known = {field: value for field, value in small.items() if hasattr(config, field)}
    images, scores = torch.rand(6, 3, 128, 128, generator=torch.Generator().manual_seed(0)), []
    for seed in (1, 2):
        net = kind(config.from_dict(known | ({"channels": 20} if method == "padim" else {}))).eval()
        with torch.no_grad():
            made = net.embed(images)
            parts = [made] if isinstance(made, torch.Tensor) else list(made)
            net.fit(Embeddings([parts], single=isinstance(made, torch.Tensor)), torch.Generator().manual_seed(seed))
            scores.append(net.score(made).image)
    assert torch.equal(*scores)
