"""The simulator of DRAEM: golden vectors of the authors' code, equation (4) by hand, statistics, determinism."""

import math

import numpy as np
import pytest
import torch
from scipy import ndimage

from adlib import synthesis
from adlib.common.errors import UserError
from adlib.synthesis import Simulator, blend, perlin
from adlib.synthesis.operations import SETS, rotate, vary


def batch(count=8, side=64, textures=5):
    """Images and a bank of noise; images in 0.25..0.75, so that they differ from most textures."""
    torch.manual_seed(0)
    images = torch.rand(count, 3, side, side) / 2 + 0.25
    return images, torch.randint(0, 256, (textures, 3, side, side), dtype=torch.uint8)


def simulate(settings=None, seed=0, count=8, side=64):
    return (settings or Simulator())(*batch(count, side), torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def many():
    """400 samples at 32 x 32; the share of a coin of p = 0.5 then has a standard deviation of 0.025."""
    return simulate(count=400, side=32)


@pytest.mark.parametrize("case", range(4))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_perlin_equals_the_authors(golden, case, dtype):
    """Also on grids that are not square, with unequal cells. Tolerance of the specification, section 11."""
    vectors = golden("draem")
    angles, shape, res, noise = (vectors[f"perlin{case}_{key}"] for key in ("angles", "shape", "res", "noise"))
    ours = perlin(tuple(shape), tuple(res), torch.from_numpy(angles).to(dtype))
    np.testing.assert_allclose(ours.numpy(), noise, atol=1e-6)


def test_perlin_of_one_cell_by_hand():
    """2 x 2 pixels, one cell, all gradients (1, 0): pixel 0 is a lattice point, so 0; half a cell down lies midway
    between the ramps y = 0.5 and y - 1 = -0.5, so 0 again. With the gradients of the next row reversed both ramps
    are 0.5 there: sqrt(2) x 0.5.
    """
    down, up = 0.0, math.pi
    level = perlin((2, 2), (1, 1), torch.tensor([[down, down], [down, down]]))
    torch.testing.assert_close(level, torch.zeros(2, 2), atol=1e-6, rtol=0)
    hill = perlin((2, 2), (1, 1), torch.tensor([[down, down], [up, up]]))
    expected = torch.tensor([[0.0, 0.0], [math.sqrt(2) / 2, math.sqrt(2) / 2]])
    torch.testing.assert_close(hill, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("shape", [(64, 64), (50, 37)])
def test_a_batch_of_mixed_resolutions_equals_single_fields(shape):
    """37 and 50 are no multiples of the cells, which breaks the authors' code; sums of 33 terms in float32: 1e-5."""
    cells = torch.tensor([[1, 32], [32, 1], [4, 8], [16, 2], [1, 1]])
    angles = 2 * math.pi * torch.rand(5, 33, 33, generator=torch.manual_seed(0))
    fields = perlin(shape, cells, angles)
    for field, (r0, r1), phi in zip(fields, cells.tolist(), angles, strict=True):
        torch.testing.assert_close(field, perlin(shape, (r0, r1), phi[: r0 + 1, : r1 + 1]), atol=1e-5, rtol=0)


def test_perlin_draws_from_its_generator_only():
    state = torch.get_rng_state()
    first, second = (perlin((32, 32), (4, 4), generator=torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(state, torch.get_rng_state())
    assert not torch.equal(first, perlin((32, 32), (4, 4), generator=torch.Generator().manual_seed(4)))


def test_perlin_says_what_it_needs():
    with pytest.raises(UserError, match="less than one cell"):
        perlin((8, 8), (0, 2))
    with pytest.raises(UserError, match=r"\[5, 5\] lattice points are needed"):
        perlin((8, 8), (4, 4), torch.zeros(3, 3))


def test_the_turned_mask_equals_opencvs(golden):
    """OpenCV places pixels on a grid of 1/32; tolerances of the specification."""
    vectors = golden("draem")
    turned = rotate(torch.from_numpy(vectors["perlin0_noise"])[None, None], torch.from_numpy(vectors["rot_angle"]))[0]
    np.testing.assert_allclose(turned.numpy(), vectors["rot_noise"], atol=0.02)
    assert ((turned > 0.5).numpy() != (vectors["rot_mask"] > 0)).mean() <= 0.002


def test_blend_equals_the_authors(golden):
    names = ("image", "texture", "mask", "opacity", "out")
    image, texture, mask, opacity, out = (torch.from_numpy(golden("draem")[f"blend_{name}"]) for name in names)
    torch.testing.assert_close(blend(image, texture, mask, opacity), out, atol=1e-6, rtol=0)


def test_blend_is_the_mended_equation_4_by_hand():
    """I = 0.2, A = 1, beta = 0.25: under the mask 0.75 x 0.2 + 0.25 x 1 = 0.4; outside, the image.

    With the equation as printed (M where its complement belongs) the outside would be black.
    """
    image, texture = torch.full((1, 1, 4, 4), 0.2), torch.ones(1, 1, 4, 4)
    mask = torch.zeros(1, 1, 4, 4)
    mask[..., :2, 2:] = 1
    blended = blend(image, texture, mask, 0.25)
    expected = torch.tensor([[0.2, 0.2, 0.4, 0.4]] * 2 + [[0.2] * 4] * 2)
    torch.testing.assert_close(blended[0, 0], expected, atol=1e-6, rtol=0)


def test_blend_takes_an_opacity_per_sample():
    """Opacity 1 shows the texture alone, 0 the image."""
    image, texture = torch.rand(2, 3, 4, 4), torch.rand(2, 3, 4, 4)
    blended = blend(image, texture, torch.ones(2, 1, 4, 4), torch.tensor([1.0, 0.0]))
    torch.testing.assert_close(blended[0], texture[0], atol=1e-6, rtol=0)
    assert torch.equal(blended[1], image[1])


def test_simulated_has_the_promised_form(many):
    assert many.augmented.shape == many.target.shape == (400, 3, 32, 32)
    assert many.mask.shape == (400, 1, 32, 32)
    for tensor in many:
        assert tensor.dtype == torch.float32
        assert tensor.min() >= 0
        assert tensor.max() <= 1
    assert set(many.mask.unique().tolist()) == {0.0, 1.0}


def test_outside_the_mask_nothing_changes(many):
    """Bit for bit, so an empty mask is a normal sample; under the mask opacity >= 0.2 changes nearly every pixel."""
    differs = (many.augmented != many.target).any(1, keepdim=True)
    assert not (differs & (many.mask == 0)).any()
    assert differs[many.mask == 1].float().mean() > 0.95
    empty = many.mask.sum((1, 2, 3)) == 0
    assert torch.equal(many.augmented[empty], many.target[empty])


def test_half_of_the_samples_stay_clean(many):
    """Anomalous: 0.5 x (1 - 0.048) = 0.476; four standard deviations of 400 coins: 0.1."""
    assert (many.mask.amax((1, 2, 3)) > 0).float().mean().item() == pytest.approx(0.476, abs=0.1)


def test_three_in_ten_images_are_turned(many):
    """Turned ones have black corners, in the target too; 4 x sqrt(0.3 x 0.7 / 400) = 0.092.

    Of a uniform angle within 90 degrees about 1 in 50 turns by less than what blackens a corner.
    """
    images, _ = batch(400, 32)
    turned = (many.target != images).flatten(1).any(1)
    assert turned.float().mean().item() == pytest.approx(0.3, abs=0.092)
    assert (many.target[turned][:, :, 0, 0].amax(1) == 0).float().mean() > 0.9


def test_masks_have_the_reference_statistics():
    """Spec section 6, S = 128, n = 600, 4 sigma: area 0.0459 within 0.138/sqrt(n), empty 0.0472 within 0.85/sqrt(n),
    8-connected components 23.5 within 156/sqrt(n), each with the reference's own standard error added.
    """
    n, side = 600, 128
    settings = Simulator(anomaly_probability=1, operations="none", rotate_probability=0)
    images, bank = torch.zeros(n // 6, 3, side, side), torch.zeros(1, 3, side, side, dtype=torch.uint8)
    draws = torch.Generator().manual_seed(0)
    masks = torch.cat([settings(images, bank, draws).mask[:, 0] for _ in range(6)]).numpy()
    components = [ndimage.label(mask, structure=np.ones((3, 3)))[1] for mask in masks]
    empty = np.mean([not mask.any() for mask in masks])
    assert masks.mean() == pytest.approx(0.0459, abs=0.138 / n**0.5 + 4 * 0.0007)
    assert empty == pytest.approx(0.0472, abs=0.85 / n**0.5 + 4 * 0.0046)
    assert np.mean(components) == pytest.approx(23.5, abs=156 / n**0.5 + 4 * 0.7)


def test_opacity_stays_in_its_range():
    """Black images, white textures, no operation: the value under the mask is the opacity."""
    images, bank = torch.zeros(64, 3, 32, 32), torch.full((1, 3, 32, 32), 255, dtype=torch.uint8)
    settings = Simulator(operations="none", opacity=(0.1, 0.3), anomaly_probability=1)
    simulated = settings(images, bank, torch.Generator().manual_seed(0))
    values = simulated.augmented[simulated.mask.expand_as(simulated.augmented) == 1]
    assert values.min() >= 0.1
    assert values.max() <= 0.3  # the image's weight would be 0.7..0.9
    assert values.std() > 0.03  # a uniform draw in 0.1..0.3 has 0.058


def test_a_batch_equals_its_samples_one_by_one():
    """Each sample gets its own turn, cells, angles, threshold, texture, operations and opacity, whoever stands beside
    it; the steps of the specification, section 4, written out for one sample. Matrix products in float32: 1e-5.
    """
    images, bank = batch()
    settings = Simulator(anomaly_probability=0.6, rotate_probability=0.5)
    simulated = settings(images, bank, torch.Generator().manual_seed(3))
    draws = settings._draw(len(images), len(bank), torch.Generator().manual_seed(3))
    assert 1 < draws.anomalous.sum() < len(images)
    for i, image in enumerate(images):
        row = slice(i, i + 1)
        target = rotate(image[None], draws.turn_degrees[row]) if draws.turned[i] else image[None]
        mask = torch.zeros(1, 1, 64, 64)
        if draws.anomalous[i]:
            noise = perlin((64, 64), draws.cells[row], draws.angles[row])
            mask = (rotate(noise[:, None], draws.noise_degrees[row]) > 0.5).float()
        picture = bank[draws.texture[row]]
        texture = vary(picture, draws.order[row], draws.parameters[row], SETS["code"]).float() / 255
        augmented = blend(target, texture, mask, draws.opacity[row])
        for found, expected in zip(simulated, (augmented, target, mask), strict=True):
            torch.testing.assert_close(found[row], expected, atol=1e-5, rtol=0)


def test_draws_have_the_specified_distributions():
    """4,000 samples, four standard errors: of a share p sqrt(p (1 - p) / n), of a uniform mean range / sqrt(12 n)."""
    n = 4000
    draws = Simulator()._draw(n, 5, torch.Generator().manual_seed(0))
    share = lambda p: 4 * (p * (1 - p) / n) ** 0.5
    exponents = draws.cells.log2().round().long()
    pairs = torch.bincount(6 * exponents[:, 0] + exponents[:, 1], minlength=36) / n
    assert (pairs - 1 / 36).abs().max() < share(1 / 36)  # rows and columns independent of each other
    for degrees in (draws.noise_degrees, draws.turn_degrees):
        assert -90 <= degrees.min() < -89
        assert 89 < degrees.max() <= 90
        assert degrees.mean().abs() < 4 * 180 / (12 * n) ** 0.5
    assert draws.opacity.mean().item() == pytest.approx(0.6, abs=4 * 0.8 / (12 * n) ** 0.5)
    assert (torch.bincount(draws.texture, minlength=5) / n - 0.2).abs().max() < share(0.2)
    assert draws.order.shape == (n, 3)
    assert (draws.order.sort(1).values.diff() > 0).all()  # three different ones
    for column in draws.order.unbind(1):  # each operation as often in each place
        assert (torch.bincount(column, minlength=10) / n - 0.1).abs().max() < share(0.1)
    together = draws.parameters.flatten(1).T.corrcoef() - torch.eye(40)
    assert together.abs().max() < 5 / n**0.5  # 780 pairs, hence five


def test_a_mask_draw_that_comes_out_empty_is_a_normal_sample():
    """No field exceeds 1: every sample is drawn to be damaged and none is."""
    simulated = simulate(Simulator(anomaly_probability=1, noise_threshold=1.0))
    assert simulated.mask.sum() == 0
    assert torch.equal(simulated.augmented, simulated.target)


def test_the_same_generator_gives_the_same_bytes():
    """And the global generator is neither read nor moved."""
    torch.manual_seed(1)
    first = simulate(seed=7)
    torch.manual_seed(2)
    second = simulate(seed=7)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert not torch.equal(first.augmented, simulate(seed=8).augmented)


def test_a_generator_restored_goes_on_where_it_was():
    """What resuming from a checkpoint needs: nothing else carries state."""
    images, bank = batch()
    draws, settings = torch.Generator().manual_seed(0), Simulator()
    settings(images, bank, draws)
    state = draws.get_state()
    expected = settings(images, bank, draws)
    restored = settings(images, bank, torch.Generator().set_state(state))
    assert torch.equal(restored.augmented, expected.augmented)


def test_settings_do_not_move_the_other_draws():
    """Fixed draws per sample: without operations and with a threshold per sample, the same images are turned."""
    plain, changed = simulate(), simulate(Simulator(noise_threshold=None, opacity=(0.1, 1.0)))
    assert torch.equal(plain.target, changed.target)


def test_half_precision_around_it_changes_nothing():
    """Mixed precision would move masks: P is compared with 0.5, and bfloat16 has 3 digits."""
    expected = simulate()
    with torch.autocast("cpu", torch.bfloat16):
        assert all(torch.equal(a, b) for a, b in zip(simulate(), expected, strict=True))


def test_arguments_stay_as_they_were():
    images, bank = batch()
    copies = images.clone(), bank.clone()
    Simulator(anomaly_probability=1, rotate_probability=1)(images, bank, torch.Generator().manual_seed(0))
    assert torch.equal(images, copies[0])
    assert torch.equal(bank, copies[1])


@pytest.mark.parametrize("probability", [0.0, 1.0])
@pytest.mark.parametrize("count", [1, 3])
def test_all_clean_and_all_anomalous_work_for_any_batch(probability, count):
    """Threshold 0 leaves about half of every field above it, so no mask comes out empty."""
    settings = Simulator(anomaly_probability=probability, noise_threshold=0.0, rotate_probability=probability)
    simulated = simulate(settings, count=count)
    assert bool((simulated.mask.amax((1, 2, 3)) == probability).all())


def test_the_papers_text_can_be_set():
    """Seven operations, opacity from 0.1, a random threshold, turns within 45 degrees: larger masks than the code's."""
    paper = Simulator(operations="paper", opacity=(0.1, 1.0), noise_threshold=None, rotate_degrees=45)
    assert simulate(paper, count=64).mask.mean() > 2 * simulate(count=64).mask.mean()


def test_a_side_that_no_power_of_two_divides_works():
    assert simulate(side=50).mask.shape == (8, 1, 50, 50)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"operations": "all"}, "valid are code, paper, none"),
        ({"operations_per_texture": 11}, r"not in 0\.\.10"),
        ({"opacity": (0.9, 0.2)}, "smaller one first"),
        ({"opacity": (0.2, 1.5)}, "exceeds 1"),
        ({"noise_exponents": (-1, 5)}, "noise_exponents"),
        ({"anomaly_probability": 2.0}, "probability"),
    ],
)
def test_wrong_settings_are_one_sentence(changes, message):
    with pytest.raises(UserError, match=message):
        Simulator(**changes)


def test_a_bank_of_another_size_or_none_is_one_sentence():
    images, bank = batch()
    draws = torch.Generator()
    for wrong in (bank[..., :32, :32], bank[:0]):
        with pytest.raises(UserError, match="texture bank"):
            Simulator()(images, wrong, draws)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device: the masks of a GPU are not compared")
def test_the_same_angles_give_the_same_masks_on_a_gpu():
    angles = 2 * math.pi * torch.rand(4, 9, 9, generator=torch.manual_seed(0))
    cells = torch.full((4, 2), 8)
    torch.testing.assert_close(
        synthesis.perlin((64, 64), cells, angles.cuda()).cpu(), perlin((64, 64), cells, angles), atol=1e-5, rtol=0
    )
