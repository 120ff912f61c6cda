"""LPIPS with real weights: documented values, frozen, a distance."""

import pytest
import torch

from adlib.perceptual import Perceptual


@pytest.fixture(scope="module")
def distance(shared):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ADLIB_WEIGHTS", str(shared / "weights"))
        return Perceptual("squeeze")


def test_the_values_documented_by_torchmetrics_come_out(distance):
    """Its page of LPIPS: seed 42, two draws of rand(2, 3, 100, 100) * 2 - 1 -> 0.1024 and 0.0938."""
    g = torch.Generator().manual_seed(42)
    x, y = torch.rand(2, 3, 100, 100, generator=g), torch.rand(2, 3, 100, 100, generator=g)
    assert distance(x, y).tolist() == pytest.approx([0.1024, 0.0938], abs=5e-5)
    assert distance(x, x).abs().max() == 0


def test_it_is_frozen_and_known_by_its_weights(distance):
    """In eval mode whatever the detector does: its layers hold dropout."""
    distance.train()
    assert not any(module.training for module in distance.modules())
    assert not any(p.requires_grad for p in distance.parameters())
    assert distance.network.name == "lpips squeeze"
    assert distance.network.file == "squeezenet1_1_fp16.safetensors"


def test_gradients_reach_the_pictures(distance):
    """It is a loss: the frozen network lets them through."""
    x = torch.full((1, 3, 64, 64), 0.5, requires_grad=True)
    distance(x, torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))).sum().backward()
    assert x.grad.abs().sum() > 0
