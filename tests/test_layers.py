"""Shared layers against other libraries."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from adlib.layers import gaussian_blur


@pytest.mark.parametrize(("shape", "sigma"), [((40, 30), 4.0), ((9, 7), 4.0), ((16, 16), 0.5)])
def test_gaussian_blur_equals_scipy(shape, sigma):
    """scipy's reflect mode repeats the edge; also where the kernel is wider than the map. float32 sums: 1e-6."""
    x = np.random.default_rng(0).random((2, *shape), dtype=np.float32)
    expected = np.stack([gaussian_filter(m, sigma=sigma) for m in x])
    np.testing.assert_allclose(gaussian_blur(torch.from_numpy(x), sigma).numpy(), expected, atol=1e-6)


def test_gaussian_blur_of_sigma_zero_is_the_input():
    x = torch.rand(1, 4, 4)
    assert gaussian_blur(x, 0.0) is x
