"""Steps of normalizing flows, and CBAM: by the authors' code (golden/flow.npz), autograd's Jacobian, and by hand."""

import math

import numpy as np
import pytest
import torch
from flow_weights import fill, scales
from torch import nn

from adlib.layers import CBAM, ActNorm, Coupling, Flow, Permutation, soft_clamp
from adlib.models.csflow import CrossScale

EXACT = {"atol": 1e-9, "rtol": 1e-9}  # float64 against float64


class Plus(nn.Module):
    """A coupling's network with known output: a = 0.5 * x, b = x + 1."""

    def forward(self, x):
        return tuple(torch.cat([0.5 * each, each + 1], 1) for each in x)


def random_scales(*sides: int, channels: int = 6, batch: int = 2, seed: int = 0) -> tuple[torch.Tensor, ...]:
    g = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(batch, channels, s, s, generator=g) for s in sides)


def jacobian_logdet(step, x: tuple[torch.Tensor, ...]) -> float:
    """log |det| of the whole Jacobian of one image, by autograd; float64."""
    shapes = [each.shape for each in x]
    sizes = [each.numel() for each in x]

    def flat(values):
        parts = [part.view(shape) for part, shape in zip(values.split(sizes), shapes, strict=True)]
        return torch.cat([each.flatten() for each in step(tuple(parts))[0]])

    matrix = torch.autograd.functional.jacobian(flat, torch.cat([each.flatten() for each in x]))
    return torch.linalg.slogdet(matrix).logabsdet.item()


def test_soft_clamp_equals_the_authors(golden):
    """c(h) and exp(c(h)); |c| < 0.999 alpha."""
    g = golden("flow")
    h = torch.from_numpy(g["softclamp_input"]).double()
    found = soft_clamp(h, float(g["softclamp_alpha"]))
    np.testing.assert_allclose(found.numpy(), g["softclamp_log_scale"], **EXACT)
    np.testing.assert_allclose(found.exp().numpy(), g["softclamp_scale"], **EXACT)


def test_soft_clamp_by_hand():
    """atan(1) is pi / 4: c(3) = 3 * 0.636 * pi / 4 with alpha 3; never beyond 3 * 0.636 * pi / 2 = 2.997."""
    assert soft_clamp(torch.tensor(3.0)).item() == pytest.approx(3 * 0.636 * math.pi / 4)
    assert soft_clamp(torch.tensor(1e9)).item() == pytest.approx(2.9971, abs=1e-4)


@pytest.mark.parametrize("seed", [0, 1, 5])
def test_permutations_equal_the_authors(golden, seed):
    """numpy's RandomState(seed), three draws of 304."""
    g = golden("flow")
    step = Permutation(304, 3, seed)
    for i in range(3):
        np.testing.assert_array_equal(getattr(step, f"order{i}").numpy(), g[f"perm_seed{seed}_scale{i}"])


def test_a_permutation_moves_channels_there_and_back(golden):
    """Seed 5 on the example, log-determinant 0, and the inverse."""
    g = golden("flow")
    x = (torch.from_numpy(g["perm_example_input"]),)
    step = Permutation(304, 1, 5)
    y, logdet = step(x)
    np.testing.assert_array_equal(y[0].numpy(), g["perm_example_output_seed5_scale0"])
    np.testing.assert_array_equal(step.inverse(y)[0].numpy(), g["perm_example_roundtrip"])
    assert logdet.tolist() == [0.0] * len(x[0])


def test_actnorm_equals_freia(golden):
    """The first batch starts it, the second is only transformed."""
    g = golden("flow")
    step = ActNorm(5, 1).double().train()
    (y,), logdet = step((torch.from_numpy(g["actnorm_input"]).double(),))
    np.testing.assert_allclose(y.detach().numpy(), g["actnorm_output"], **EXACT)
    np.testing.assert_allclose(step.log_scale[0].detach().numpy(), g["actnorm_log_scale"], **EXACT)
    np.testing.assert_allclose(step.bias[0].detach().numpy(), g["actnorm_bias"], **EXACT)
    np.testing.assert_allclose(logdet.detach().numpy(), g["actnorm_logdet"], **EXACT)
    (again,), _ = step((torch.from_numpy(g["actnorm_second_input"]).double(),))
    np.testing.assert_allclose(again.detach().numpy(), g["actnorm_second_output"], **EXACT)


def test_actnorm_starts_with_mean_0_and_deviation_1():
    """By its definition, at every scale."""
    x = tuple(3 * each + 7 for each in random_scales(8, 4, batch=16))
    y, _ = ActNorm(6, 2).train()(x)
    for each in y:
        values = each.transpose(0, 1).flatten(1)
        torch.testing.assert_close(values.mean(1), torch.zeros(6), atol=1e-5, rtol=0)
        torch.testing.assert_close(values.std(1), torch.ones(6), atol=1e-5, rtol=0)


def test_a_loaded_actnorm_is_not_started_again():
    """Else a resumed training would begin with other scales; and a system in use is never started by its pictures."""
    first = ActNorm(6, 1).train()
    first(random_scales(4))
    second = ActNorm(6, 1).train()
    second.load_state_dict(first.state_dict())
    before = second.log_scale[0].clone()
    second(random_scales(4, seed=1))
    assert torch.equal(second.log_scale[0], before)
    unused = ActNorm(6, 1).eval()
    x = random_scales(4)
    assert torch.equal(unused(x)[0][0], x[0])


def test_a_constant_channel_does_not_blow_up():
    """Its deviation counts as 1e-6; one value for each channel keeps its scale."""
    y, _ = ActNorm(6, 1).train()((torch.full((2, 6, 2, 2), 3.0),))
    assert torch.equal(y[0], torch.zeros(2, 6, 2, 2))
    y, logdet = ActNorm(6, 1).train()((torch.full((1, 6, 1, 1), 3.0),))
    assert torch.equal(y[0], torch.zeros(1, 6, 1, 1))
    assert logdet.tolist() == [0.0]


def test_a_coupling_by_hand():
    """x = (1, 2), s: a = x / 2, b = x + 1. y1 = exp(c(1)) * 1 + 3; y2 = exp(c(y1 / 2)) * 2 + y1 + 1."""
    step = Coupling(Plus(), Plus(), alpha=3.0)
    c = lambda h: 3 * 0.636 * math.atan(h / 3)
    y1 = math.exp(c(1.0)) + 3
    y2 = math.exp(c(y1 / 2)) * 2 + y1 + 1
    (y,), logdet = step((torch.tensor([[1.0, 2.0]]),))
    assert y.tolist() == [[pytest.approx(y1), pytest.approx(y2)]]
    assert logdet.item() == pytest.approx(c(1.0) + c(y1 / 2))


def authors_coupling(golden) -> Coupling:
    return Coupling(*(fill(CrossScale(3, 4), golden, "coupling", f"s{k}.") for k in (1, 2)))


def test_a_coupling_equals_the_authors(golden):
    """Equations (4)-(7): output and log-determinant of each image."""
    g = golden("flow")
    y, logdet = authors_coupling(g)(scales(g, "coupling_input"))
    for i, each in enumerate(y):
        np.testing.assert_allclose(each.detach().numpy(), g[f"coupling_output{i}"], **EXACT)
    np.testing.assert_allclose(logdet.detach().numpy(), g["coupling_logdet_total"], **EXACT)


def test_a_coupling_goes_back(golden):
    """x -> y -> x; the authors' own inverse does not."""
    g = golden("flow")
    x, step = scales(g, "coupling_input"), authors_coupling(g)
    for back, each in zip(step.inverse(step(x)[0]), x, strict=True):
        torch.testing.assert_close(back, each, atol=1e-12, rtol=0)


def test_logdet_equals_the_jacobian_of_autograd(golden):
    """One coupling of the authors' weights, image 0; then ActNorm, permutation and coupling together."""
    g = golden("flow")
    x = tuple(each[:1] for each in scales(g, "coupling_input"))
    step = authors_coupling(g)
    assert jacobian_logdet(step, x) == pytest.approx(float(g["coupling_logdet_image0_by_autograd"]), abs=1e-9)
    assert step(x)[1].item() == pytest.approx(jacobian_logdet(step, x), abs=1e-9)
    norm = ActNorm(6, 3).double().train()
    norm(scales(g, "coupling_input"))
    whole = Flow(norm, Permutation(6, 3, 2), step).eval()
    assert whole(x)[1].item() == pytest.approx(jacobian_logdet(whole, x), abs=1e-9)


def test_a_flow_goes_back():
    """Round trip of three steps, in float32: 1e-4."""
    torch.manual_seed(0)
    networks = [CrossScale(3, 8) for _ in range(2)]
    for network in networks:
        for gamma in network.gamma:
            nn.init.constant_(gamma, 0.7)
    flow = Flow(ActNorm(6, 3), Permutation(6, 3, 1), Coupling(*networks)).train()
    x = random_scales(8, 4, 2, batch=4)
    z, _ = flow(x)
    assert not torch.equal(z[0], x[0])
    for back, each in zip(flow.eval().inverse(z), x, strict=True):
        torch.testing.assert_close(back, each, atol=1e-4, rtol=0)


def test_cbam_equals_the_authors(golden):
    """Channel gate, then both gates, in eval mode."""
    g = golden("flow")
    cbam = fill(CBAM(8, 4), g, "cbam")
    x = torch.from_numpy(g["cbam_input"]).double()
    gated = x * cbam.channel_gate(x)[:, :, None, None]
    np.testing.assert_allclose(gated.detach().numpy(), g["cbam_after_channel_gate"], **EXACT)
    np.testing.assert_allclose(cbam(x).detach().numpy(), g["cbam_output"], **EXACT)


def test_cbam_learns_from_one_image_of_one_place():
    """The last batch may hold one image, whose coarsest map may have one place: no batch statistics exist."""
    cbam = CBAM(4, 2).train()
    assert torch.isfinite(cbam(torch.rand(1, 4, 1, 1))).all()


def test_cbam_of_zero_weights_quarters_its_input():
    """Both gates are sigmoid(0) = 1/2: by hand, 1/4 of the input."""
    cbam = CBAM(4, 2).eval()
    for p in cbam.parameters():
        nn.init.zeros_(p)
    x = torch.arange(16.0).view(1, 4, 2, 2)
    assert torch.allclose(cbam(x), x / 4)
