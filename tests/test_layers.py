"""Shared layers against other libraries."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter

from adlib import layers
from adlib.common.errors import UserError
from adlib.layers import gaussian_blur, upsample


@pytest.mark.parametrize(("shape", "sigma"), [((40, 30), 4.0), ((9, 7), 4.0), ((16, 16), 0.5)])
def test_gaussian_blur_equals_scipy(shape, sigma):
    """scipy's reflect mode repeats the edge; also where the kernel is wider than the map. float32 sums: 1e-6."""
    x = np.random.default_rng(0).random((2, *shape), dtype=np.float32)
    expected = np.stack([gaussian_filter(m, sigma=sigma) for m in x])
    np.testing.assert_allclose(gaussian_blur(torch.from_numpy(x), sigma).numpy(), expected, atol=1e-6)


def test_gaussian_blur_of_sigma_zero_is_the_input():
    x = torch.rand(1, 4, 4)
    assert gaussian_blur(x, 0.0) is x


@pytest.mark.parametrize(
    ("corners", "expected"), [("aligned", [0, 1 / 3, 2 / 3, 1]), ("half_pixel", [0, 0.25, 0.75, 1])]
)
def test_upsample_by_hand(corners, expected):
    """0 and 1 at four places: in thirds from centre to centre, or at -1/4, 1/4, 3/4 and 5/4 with the ends cut."""
    x = torch.tensor([0.0, 1.0]).view(1, 1, 1, 2)
    for result in (upsample(x, 2, corners), layers._by_matrices(x, 2, corners)):
        torch.testing.assert_close(result[0, 0, 1], torch.tensor(expected))
        assert result.shape == (1, 1, 2, 4)


@pytest.mark.parametrize("corners", layers.CORNERS)
@pytest.mark.parametrize("factor", [2, 4])
@pytest.mark.parametrize("shape", [(2, 3, 4, 6), (1, 2, 1, 1)])
def test_upsample_by_matrices_is_torchs_interpolation(corners, factor, shape):
    """Also of one pixel, values and gradients. float64: rounding only; float32 in 0..1: 1e-6."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(shape, dtype=torch.float64, generator=generator, requires_grad=True)
    results = upsample(x, factor, corners), layers._by_matrices(x, factor, corners)
    expected = F.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=corners == "aligned")
    weights = torch.randn(expected.shape, dtype=torch.float64, generator=generator)
    slope = torch.autograd.grad((expected * weights).sum(), x)[0]
    for result in results:
        torch.testing.assert_close(result, expected)
        torch.testing.assert_close(torch.autograd.grad((result * weights).sum(), x)[0], slope)
    single = x.detach().float()
    for result in (upsample(single, factor, corners), layers._by_matrices(single, factor, corners)):
        torch.testing.assert_close(result, expected.float(), atol=1e-6, rtol=0)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_half_precision_does_not_round_the_weights(layout):
    """64 bfloat16 places at 128: the result is the exact one, rounded once to 8 bits: an error of 2^-8 at most.

    With weights of 8 bits, as torch has them for channels_first, the largest error is 0.011 more.
    """
    x = torch.randn(2, 16, 64, 64, generator=torch.Generator().manual_seed(0)).bfloat16().to(memory_format=layout)
    exact = F.interpolate(x.double(), scale_factor=2, mode="bilinear", align_corners=True)
    with torch.autocast("cpu", torch.bfloat16):
        result, matrices = upsample(x, 2, "aligned"), layers._by_matrices(x.float(), 2, "aligned")
    assert result.dtype == torch.bfloat16
    assert ((result.double() - exact).abs() <= 2**-8 * exact.abs() + 2e-5).all()  # torch finds places in float32
    torch.testing.assert_close(matrices.double(), exact, atol=1e-5, rtol=0)


def test_upsample_keeps_channels_last():
    x = torch.rand(2, 8, 4, 4).to(memory_format=torch.channels_last)
    for result in (upsample(x, 2, "aligned"), layers._by_matrices(x, 2, "aligned")):
        assert result.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU")
@pytest.mark.parametrize("corners", layers.CORNERS)
def test_the_gradient_is_deterministic_on_a_gpu(corners):
    """Twice the same bits, and the CPU's numbers but for the order of float32 sums; F.interpolate would warn."""
    x = torch.randn(2, 8, 32, 32, generator=torch.Generator().manual_seed(0))
    weights = torch.randn(2, 8, 64, 64, generator=torch.Generator().manual_seed(1))

    def gradient(device):
        leaf = x.to(device).requires_grad_()
        return torch.autograd.grad((upsample(leaf, 2, corners) * weights.to(device)).sum(), leaf)[0].cpu()

    torch.use_deterministic_algorithms(True)
    try:
        first, second = gradient("cuda"), gradient("cuda")
    finally:
        torch.use_deterministic_algorithms(False)
    assert torch.equal(first, second)
    torch.testing.assert_close(first, gradient("cpu"), atol=1e-4, rtol=0)


def test_upsample_refuses_nonsense():
    with pytest.raises(UserError, match="unknown corners 'align'; did you mean 'aligned'"):
        upsample(torch.zeros(1, 1, 2, 2), 2, "align")
    with pytest.raises(UserError, match="factor of upsample is 0"):
        upsample(torch.zeros(1, 1, 2, 2), 0, "aligned")
