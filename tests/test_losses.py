"""The shared losses: against the authors' code (golden/draem.npz), against numbers by hand, and what they refuse."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from adlib.common.errors import UserError
from adlib.losses import cielab, focal, global_ssim, gradient_similarity, guessed_range, ssim


def pair(size: int = 16) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    return torch.rand(2, 3, size, size, generator=g), torch.rand(2, 3, size, size, generator=g)


def tensors(golden, *names: str) -> list[torch.Tensor]:
    g = golden("draem")
    return [torch.from_numpy(g[name]) for name in names]


def test_ssim_equals_the_authors_code(golden):
    """Map 2e-5, loss 1e-5: float32 differences of squares, the tolerances of the specification."""
    x, y, expected = tensors(golden, "ssim_x", "ssim_y", "ssim_map")
    torch.testing.assert_close(ssim(x, y, reduction="none"), expected, atol=2e-5, rtol=0)
    assert ssim(x, y).item() == pytest.approx(float(golden("draem")["ssim_loss"]), abs=1e-5)


def test_the_authors_switch_of_the_range_is_data_range_auto(golden):
    """The second pair's x goes below -0.5, so that their L is 2; with L = 1 the map is another one."""
    x, y, wide, narrow = tensors(golden, "ssim2_x", "ssim_y", "ssim2_map", "ssim2_map_range1")
    torch.testing.assert_close(ssim(x, y, data_range="auto", reduction="none"), wide, atol=2e-5, rtol=0)
    torch.testing.assert_close(ssim(x, y, reduction="none"), narrow, atol=2e-5, rtol=0)
    assert ssim(x, y, data_range="auto").item() == pytest.approx(float(golden("draem")["ssim2_loss"]), abs=1e-5)


@pytest.mark.parametrize(
    ("low", "high", "span"), [(0, 1, 1), (-0.4, 1, 1), (-0.6, 1, 2), (0, 255, 255), (-1, 255, 256)]
)
def test_the_guessed_range_follows_the_extremes(low, high, span):
    assert guessed_range(torch.tensor([low, high])).item() == span


def test_equal_images_have_similarity_one_and_loss_zero():
    x, _ = pair()
    torch.testing.assert_close(ssim(x, x, reduction="none"), torch.ones_like(x))
    assert ssim(x, x).item() == pytest.approx(0, abs=1e-6)


def test_ssim_of_constant_images_by_hand():
    """No variance: the second factor is 1 and SSIM = (2ab + C1) / (a^2 + b^2 + C1); 0.2 and 0.6: 0.2401 / 0.4001."""
    x, y = torch.full((1, 1, 13, 13), 0.2), torch.full((1, 1, 13, 13), 0.6)
    found = ssim(x, y, padding="valid", reduction="none")
    assert found.shape == (1, 1, 3, 3)
    torch.testing.assert_close(found, torch.full_like(found, 0.2401 / 0.4001), atol=1e-4, rtol=0)


def test_ssim_equals_scikit_image_where_the_window_fits():
    """Float64, population variances, Gaussian of 11 x 11 pixels (truncate 3.5 sigma): rounding only."""
    from skimage.metrics import structural_similarity

    x, y = (t[0, 0].double() for t in pair(24))
    _, expected = structural_similarity(
        x.numpy(), y.numpy(), gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1, full=True
    )
    found = ssim(x[None, None], y[None, None], padding="valid", reduction="none")[0, 0]
    np.testing.assert_allclose(found.numpy(), expected[5:-5, 5:-5], atol=1e-9)


def test_paddings_agree_inside_and_differ_at_the_border():
    x, y = pair(20)
    maps = {p: ssim(x, y, padding=p, reduction="none") for p in ("zero", "reflect", "valid")}
    torch.testing.assert_close(maps["zero"][..., 5:-5, 5:-5], maps["valid"])
    torch.testing.assert_close(maps["reflect"][..., 5:-5, 5:-5], maps["valid"])
    assert (maps["zero"] - maps["reflect"]).abs().max() > 0.01


def test_half_precision_is_computed_in_float32():
    """The inputs' rounding remains; the result's type and its loss are those of float32."""
    x, y = (t.bfloat16() for t in pair())
    assert ssim(x, y).dtype == torch.float32
    assert ssim(x, y).item() == ssim(x.float(), y.float()).item()


@pytest.mark.parametrize(
    ("values", "part"),
    [
        ({"window": 10}, "must be odd"),
        ({"padding": "same"}, "valid: zero, reflect, valid"),
        ({"reduction": "sum"}, "valid: mean, none"),
        ({"window": 17, "padding": "valid"}, "more than the image"),
    ],
)
def test_ssim_refuses_nonsense(values, part):
    with pytest.raises(UserError, match=part):
        ssim(*pair(), **values)


def test_ssim_refuses_images_of_different_shapes():
    with pytest.raises(UserError, match="shape"):
        ssim(torch.zeros(1, 3, 16, 16), torch.zeros(1, 1, 16, 16))


def test_focal_equals_the_authors_code(golden):
    """Value to 1e-5 (relative), gradient by the logits to 1e-6; some logits are saturated."""
    logits, prob, target, grad = tensors(golden, "focal_logits", "focal_prob", "focal_target", "focal_grad")
    logits.requires_grad_()
    loss = focal(logits.softmax(1), target)
    loss.backward()
    assert loss.item() == pytest.approx(float(golden("draem")["focal_value"]), rel=1e-5)
    assert focal(prob, target).item() == pytest.approx(loss.item(), rel=1e-5)
    torch.testing.assert_close(logits.grad, grad, atol=1e-6, rtol=0)


@pytest.mark.parametrize(("p", "cost"), [(0.5, 0.25 * math.log(2)), (0.0, -math.log(2e-5)), (1.0, 0.0)])
def test_focal_of_one_pixel_by_hand(p, cost):
    """q = p up to s: 0.173 at p = 0.5; q = 2e-5, so 10.82, at p = 0; nothing at p = 1. s = 1e-5 moves it by 2e-4."""
    probabilities = torch.tensor([1 - p, p]).view(1, 2, 1, 1)
    loss = focal(probabilities, torch.ones(1, 1, 1, 1))
    assert loss.item() == pytest.approx(cost, abs=1e-3)


def test_gamma_zero_is_cross_entropy():
    """Without the focusing factor and the smoothing nothing but the negative logarithm remains."""
    g = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 2, 8, 8, generator=g)
    target = torch.randint(2, (2, 8, 8), generator=g)
    loss = focal(logits.softmax(1), target, gamma=0.0, smooth=0.0)
    torch.testing.assert_close(loss, F.cross_entropy(logits, target))


def test_certain_pixels_have_finite_gradients_for_any_gamma():
    """At p = 1, 1 - q is 0 or just below by rounding, and a power of 0.5 of that would not be a number."""
    logits = torch.tensor([-200.0, 200.0]).view(1, 2, 1, 1).requires_grad_()
    for gamma in (2.0, 1.5):
        focal(logits.softmax(1), torch.ones(1, 1, 1), gamma).backward()
        assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("shape", [(2, 1, 8, 8), (2, 8, 8)])
def test_focal_takes_masks_with_and_without_a_channel_of_any_type(shape):
    probabilities = torch.full((2, 2, 8, 8), 0.5)
    values = {focal(probabilities, torch.ones(shape).to(t)).item() for t in (torch.float32, torch.bool, torch.uint8)}
    assert len(values) == 1


def test_focal_refuses_other_shapes():
    with pytest.raises(UserError, match="K >= 2"):
        focal(torch.rand(2, 1, 8, 8), torch.zeros(2, 1, 8, 8))
    with pytest.raises(UserError, match="class numbers"):
        focal(torch.rand(2, 2, 8, 8), torch.zeros(2, 1, 4, 4))


# Paper 01: eqs. (5) to (11), and the window as other libraries have it.


def mae_pairs(golden) -> list[tuple[torch.Tensor, torch.Tensor]]:
    x, y = (torch.from_numpy(golden("mae")[f"pair_{k}"]).double() for k in "xy")
    return list(zip(x.split(1), y.split(1), strict=True))


def test_global_ssim_is_the_printed_product_of_three_terms(golden):
    """Noise, contrast, independent and constant pairs; all exponents 1."""
    ours = [1 - global_ssim(x, y).item() for x, y in mae_pairs(golden)]
    np.testing.assert_allclose(ours, golden("mae")["ssim_global_channel"], rtol=1e-6)


def test_windowed_ssim_equals_scikit_image_and_kornia(golden):
    ours = [1 - ssim(x, y, padding="valid").item() for x, y in mae_pairs(golden)]
    np.testing.assert_allclose(ours, golden("mae")["ssim_window_skimage"], rtol=1e-6)
    np.testing.assert_allclose(ours, golden("mae")["ssim_window_kornia_valid"], rtol=1e-6)


def test_global_ssim_by_hand():
    """Two pixels 0 and 1 against 0.5 and 1: means 0.5, 0.75; variances (N - 1) 0.5, 0.125; covariance 0.25."""
    x, y = torch.tensor([0.0, 1.0]).view(1, 1, 1, 2), torch.tensor([0.5, 1.0]).view(1, 1, 1, 2)
    luminance = (2 * 0.375 + 1e-4) / (0.25 + 0.5625 + 1e-4)
    assert global_ssim(x, y).item() == pytest.approx(1 - luminance * (0.5 + 9e-4) / (0.625 + 9e-4), abs=1e-6)
    assert global_ssim(x, x).item() == pytest.approx(0, abs=1e-6)


def test_global_ssim_of_constant_pictures_has_a_finite_gradient():
    x, y = torch.full((1, 3, 8, 8), 0.5), torch.full((1, 3, 8, 8), 0.5, requires_grad=True)
    global_ssim(x, y).backward()
    assert torch.isfinite(y.grad).all()


def test_global_ssim_refuses_other_shapes():
    with pytest.raises(UserError, match="images of shape"):
        global_ssim(torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 8, 9))


# Gradients and colour


def test_gradient_similarity_by_hand():
    """One scale, middle pixel: a ramp of 0.3 per column has the Prewitt gradient 0.6; against a constant picture the
    similarity is c / (0.36 + c).
    """
    x = (0.3 * torch.arange(3.0)).expand(1, 1, 3, 3)
    found = gradient_similarity(x, torch.full_like(x, 0.5), scales=1)[0, 0, 1, 1]
    assert found == pytest.approx(0.0026 / (0.36 + 0.0026), rel=1e-3)  # 1e-12 under the root


def test_gradient_similarity_of_equal_images_is_one():
    x = torch.rand(2, 3, 32, 40, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(gradient_similarity(x, x), torch.ones(2, 1, 32, 40))


@pytest.mark.parametrize("scales", [2, 3, 4])
def test_gradient_similarity_is_riads(golden, scales):
    g = golden("mmaerec")
    x, y = torch.from_numpy(g["ms_x"]), torch.from_numpy(g["ms_y"])
    found = 1 - gradient_similarity(x, y, scales)
    np.testing.assert_allclose(found.numpy(), g[f"ms_map_s{scales}"], 0, 1e-5)
    assert found.mean() == pytest.approx(float(g[f"ms_loss_s{scales}"]), abs=1e-5)


def test_gradient_similarity_refuses_other_shapes_and_too_many_scales():
    x = torch.zeros(1, 3, 8, 8)
    with pytest.raises(UserError, match="not \\[1, 3, 8, 8\\] with \\[1, 3, 8, 4\\]"):
        gradient_similarity(x, x[..., :4])
    with pytest.raises(UserError, match="5 scales"):
        gradient_similarity(x, x, scales=5)


def test_cielab_of_eight_colours_is_scikit_images():
    """Eqs. (8) to (12) of paper 02: within 0.01 of another library, from black to white and the corners of the cube."""
    from skimage.color import rgb2lab

    colours = [
        (0, 0, 0),
        (1, 1, 1),
        (0.5, 0.5, 0.5),
        (1, 0, 0),
        (0, 1, 0),
        (0, 0, 1),
        (0.8, 0.5, 0.2),
        (0.02, 0.03, 0.01),
    ]
    rgb = torch.tensor(colours, dtype=torch.float32)
    found = cielab(rgb.T[None, :, :, None])[0, :, :, 0].T
    np.testing.assert_allclose(found.numpy(), rgb2lab(rgb.double().numpy()[None])[0], 0, 0.01)


def test_cielab_is_opencvs_within_its_table(golden):
    g = golden("mmaerec")
    found = cielab(torch.from_numpy(g["lab_img"])).numpy()
    np.testing.assert_allclose(found, g["lab_img_sk"], 0, 0.01)
    np.testing.assert_allclose(found, g["lab_img_cv"], 0, 0.5)


def test_cielab_has_a_gradient_everywhere_and_wants_colours():
    x = torch.zeros(1, 3, 2, 2, requires_grad=True)
    cielab(x).sum().backward()
    assert torch.isfinite(x.grad).all()
    with pytest.raises(UserError, match="takes colour images"):
        cielab(torch.zeros(1, 1, 2, 2))
