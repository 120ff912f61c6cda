"""SimpleNet: each equation by hand, each step against the authors' code (golden/simplenet.npz), the paper's setting."""

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from adlib.backbones import Features
from adlib.embeddings import Embeddings
from adlib.models import simplenet
from adlib.models.simplenet import Config, SimpleNet, cross_entropy, local_features, localise, truncated_l1

CASES = ("small", "uneven", "reduce", "patch1", "patch5", "wrn50", "resnet18_384", "resnet18_1536")


class FixedChannels(nn.Module):
    """A stand-in for the backbone: only its channels matter once embeddings are given."""

    def __init__(self, *channels: int):
        super().__init__()
        self.channels, self.layers, self.fingerprint = channels, tuple(range(2, 2 + len(channels))), "none"


def small_net(**changes) -> SimpleNet:
    torch.manual_seed(0)
    return SimpleNet(Config(image_size=32, resize=None, **changes), backbone=FixedChannels(8, 16))


def small_maps(batch: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(1)
    return torch.randn(batch, 8, 6, 6, generator=g), torch.randn(batch, 16, 3, 3, generator=g)


def noise_of(*arrays):
    """A generator-free noise source: replaces torch.randn by given arrays, one per call."""
    queue = [torch.as_tensor(a) for a in arrays]
    return lambda *_, **__: queue.pop(0)


@pytest.mark.parametrize("case", CASES)
def test_local_features_equal_the_authors_code(golden, case):
    """Eq. (2)-(4) against PatchMaker, MeanMapper and Aggregator; float32 sums of up to 81 terms: 1e-5."""
    g = golden("simplenet")
    pretrain, dim, patch = (int(v) for v in g[f"{case}_dims"])
    maps = tuple(torch.from_numpy(g[f"{case}_{layer}"]) for layer in ("f2", "f3"))
    found = local_features(maps, dim, pretrain, patch)
    np.testing.assert_allclose(found.numpy(), g[f"{case}_embedding"], atol=1e-5)


def test_local_features_of_one_place_by_hand():
    """One channel, one layer, 3x3 map 1..9, patch 3, dim 1: the middle is the mean 5, the corner (1+2+4+5)/9 with zeros
    outside.
    """
    x = torch.arange(1.0, 10.0).view(1, 1, 3, 3)
    found = local_features((x,), dim=1, pretrain_dim=1).view(3, 3)
    assert found[1, 1].item() == pytest.approx(5.0)
    assert found[0, 0].item() == pytest.approx(12 / 9)


def test_row_means_equal_unfolding():
    """The short form for whole kernel rows against unfold and adaptive pooling, ResNet proportions; float32."""
    maps = small_maps()
    windows = F.unfold(maps[0], 3, padding=1).transpose(1, 2)
    slow = F.adaptive_avg_pool1d(F.adaptive_avg_pool1d(windows, 24), 12).transpose(1, 2).unflatten(2, (6, 6))
    torch.testing.assert_close(simplenet._pool_windows(maps[0], 24, 12, 3), slow, atol=1e-6, rtol=0)


def test_embedding_of_a_constant_map_is_that_constant_inside():
    """Averages of a constant are the constant, away from the zero border."""
    found = local_features((torch.full((1, 8, 12, 12), 2.5), torch.full((1, 16, 6, 6), 2.5)), 24, 24)
    inside = found.view(12, 12, 24)[4:8, 4:8]
    torch.testing.assert_close(inside, torch.full_like(inside, 2.5))


def test_truncated_l1_is_equation_7_mended_by_hand():
    """Margin 0.5. Normal outputs 0.2 and 0.9 cost 0.3 and 0; noisy -0.9 and 0.1 cost 0 and 0.6: 0.15 + 0.30."""
    loss = truncated_l1(torch.tensor([0.2, 0.9]), torch.tensor([-0.9, 0.1]))
    assert loss.item() == pytest.approx(0.45, abs=1e-6)


def test_truncated_l1_is_zero_when_all_margins_are_met():
    """Beyond the margins nothing is left to gain: that is what prevents overfitting."""
    assert truncated_l1(torch.tensor([0.5, 2.0]), torch.tensor([-0.5, -3.0])).item() == 0.0


def test_cross_entropy_equals_torchs_own():
    """Output as a logit, normal = 1, noisy = 0: the sum of two means of binary cross-entropy."""
    normal, noisy = torch.tensor([0.3, -1.0]), torch.tensor([-2.0, 0.7])
    bce = F.binary_cross_entropy_with_logits
    expected = bce(normal, torch.ones(2)) + bce(noisy, torch.zeros(2))
    torch.testing.assert_close(cross_entropy(normal, noisy), expected)


@pytest.mark.parametrize(("key", "margin"), [("raw_loss_5", 0.5), ("raw_loss_8", 0.8)])
def test_truncated_l1_equals_the_authors_code(golden, key, margin):
    """Sums of 16 float32 numbers: 1e-7."""
    g = golden("simplenet")
    loss = truncated_l1(torch.from_numpy(g["raw_true"]), torch.from_numpy(g["raw_fake"]), margin)
    assert loss.item() == pytest.approx(float(g[key]), abs=1e-7)


@pytest.mark.parametrize("which", ["a", "b"])
def test_localise_equals_the_authors_segmentor(golden, which):
    """Sec. 3.7: bilinear to the input size, Gaussian of 4 pixels with mirrored borders, also beyond square."""
    g = golden("simplenet")
    expected = g[f"seg_{which}_map"]
    found = localise(torch.from_numpy(g[f"seg_{which}_patch"]), expected.shape[-2:], 4.0)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)


def golden_net(g, **changes) -> SimpleNet:
    """The network of the golden training case with its start weights."""
    dim, hidden = int(g["train_dim"]), g["step0_disc_weight1"].shape[0]
    channels = FixedChannels(g["train_f2"].shape[1], g["train_f3"].shape[1])
    size = int(g["image_size"][0])
    config = Config(image_size=max(size, 32), resize=None, dim=dim, hidden=hidden, noise_std=1.0, **changes)
    net = SimpleNet(config, backbone=channels)
    load_step(net, g, 0)
    return net


NAMES = {
    "adapter_weight": "adapter.0.weight",
    "adapter_bias": "adapter.0.bias",
    "disc_weight1": "discriminator.0.weight",
    "disc_bias1": "discriminator.0.bias",
    "disc_bn_weight": "discriminator.1.weight",
    "disc_bn_bias": "discriminator.1.bias",
    "disc_bn_mean": "discriminator.1.running_mean",
    "disc_bn_var": "discriminator.1.running_var",
    "disc_weight2": "discriminator.3.weight",
}


def load_step(net: SimpleNet, g, step: int) -> None:
    values = {ours: torch.from_numpy(g[f"step{step}_{theirs}"]) for theirs, ours in NAMES.items()}
    net.load_state_dict(values, strict=False)


def test_adapter_and_discriminator_equal_the_authors_code(golden):
    """Eq. (5) and sec. 3.5 in eval mode on the golden rows, unfolded and folded into one affine map: 1e-5."""
    g = golden("simplenet")
    net = golden_net(g).eval()
    rows = net.rows((torch.from_numpy(g["train_f2"]), torch.from_numpy(g["train_f3"])))
    np.testing.assert_allclose(rows.detach().numpy(), g["train_embedding"], atol=1e-5)
    np.testing.assert_allclose(net.adapter(rows).detach().numpy(), g["adapted"], atol=1e-5)
    np.testing.assert_allclose(net.discriminator(net.adapter(rows)).detach().numpy(), g["scores_eval"], atol=1e-5)
    np.testing.assert_allclose(net._output(rows).detach().numpy(), g["scores_eval"], atol=1e-5)


def test_score_equals_the_authors_code(golden):
    """Eq. (9): image score = largest grid cell of -D(q), before smoothing."""
    g = golden("simplenet")
    net = golden_net(g).eval()
    with torch.inference_mode():
        maps = (torch.from_numpy(g["train_f2"]), torch.from_numpy(g["train_f3"]))
        grid = -net._output(net.rows(maps)).view(len(maps[0]), *maps[0].shape[-2:])
        found = net.score(maps)
    np.testing.assert_allclose(found.image.numpy(), g["image_scores"], atol=1e-5)
    np.testing.assert_allclose(localise(grid, tuple(g["image_size"]), 4.0).numpy(), g["maps"], atol=1e-5)


@pytest.mark.parametrize("loss", ["l1", "ce"])
def test_loss_in_training_mode_equals_the_authors_code(golden, monkeypatch, loss):
    """Eq. (6)-(8): normal and noisy rows share one batch-norm batch; noise given. float32: 1e-5."""
    g = golden("simplenet")
    net = golden_net(g, loss=loss).train()
    monkeypatch.setattr(torch, "randn", noise_of(g["noise"][0]))
    maps = (torch.from_numpy(g["train_f2"]), torch.from_numpy(g["train_f3"]))
    total = net.loss(maps, torch.Generator())["total"]
    assert total.item() == pytest.approx(float(g[f"loss_{loss}"]), abs=1e-5)


def test_two_training_steps_equal_the_authors_code(golden, monkeypatch):
    """Sec. 3.6: AdamW on the adapter, Adam on the discriminator. The first biases have zero gradient and only drift
    (spec. 4).
    """
    g = golden("simplenet")
    net = golden_net(g).train()
    monkeypatch.setattr(torch, "randn", noise_of(*g["noise"]))
    maps = (torch.from_numpy(g["train_f2"]), torch.from_numpy(g["train_f3"]))
    optimizers = net.optimizers(1, 10)
    loose = {"adapter_bias": 5e-4, "disc_bias1": 1e-3, "disc_bn_mean": 2e-4}
    for step in (1, 2):
        net.step(maps, optimizers, torch.Generator())
        state = net.state_dict()
        for theirs, ours in NAMES.items():
            expected, atol = g[f"step{step}_{theirs}"], loose.get(theirs, 2e-6)
            np.testing.assert_allclose(state[ours].numpy(), expected, atol=atol, rtol=0, err_msg=theirs)


def test_noise_has_the_deviation_of_equation_6():
    """sigma 0.015 everywhere with mix_noise 1; with 3 one of 0.015 * 1.1^k."""
    generator = torch.Generator().manual_seed(0)
    torch.testing.assert_close(small_net().noise_scale(50, generator), torch.full((50, 1), 0.015))
    found = torch.unique(small_net(mix_noise=3).noise_scale(200, generator))
    torch.testing.assert_close(found, 0.015 * 1.1 ** torch.arange(3))


def test_relative_noise_is_a_multiple_of_the_embeddings_deviation():
    """sigma = 0.5 * mean over dimensions of the deviation of all rows, computed here by numpy in one piece."""
    maps = small_maps(4)
    net = small_net(noise_relative=0.5)
    net.prepare(Embeddings([[m.numpy() for m in maps]], single=False), torch.Generator())
    expected = 0.5 * net.rows(maps).numpy().astype(np.float64).std(0, ddof=1).mean()
    assert net.noise_std.item() == pytest.approx(expected, rel=1e-5)


def test_folded_scores_equal_unfolded_ones():
    """At test adapter, first layer and batch norm are one affine map; float32 products of 24 terms: 1e-5."""
    net = small_net()
    net.step(
        small_maps(), net.optimizers(1, 10), torch.Generator().manual_seed(0)
    )  # running statistics off their start
    net.eval()
    rows = net.rows(small_maps())
    torch.testing.assert_close(net._output(rows), net.discriminator(net.adapter(rows)), atol=1e-5, rtol=0)


def test_folding_is_forgotten_when_weights_change():
    """Scores after loading other weights are those of the new weights."""
    net, other = small_net().eval(), small_net()
    nn.init.constant_(other.discriminator[3].weight, 0.1)
    maps = small_maps()
    with torch.no_grad():
        before = net.score(maps).image
        net.load_state_dict(other.state_dict())
        assert not torch.allclose(before, net.score(maps).image)
        torch.testing.assert_close(net.score(maps).image, other.eval().score(maps).image)


def test_the_default_config_is_the_papers_setting_and_steps():
    """Config() is WRN-50 at 288 px: 3,937,792 trainable parameters on 24,862,528 frozen ones (spec. 4, 12); one
    forward, one step.
    """
    net = SimpleNet(Config(), backbone=Features("wide_resnet50_2.tv_in1k", (2, 3), pretrained=False))
    trainable = sum(p.numel() for p in net.parameters() if p.requires_grad)
    assert (trainable, sum(p.numel() for p in net.backbone.parameters())) == (3_937_792, 24_862_528)
    maps = net.embed(torch.rand(1, 3, 288, 288))
    assert [tuple(m.shape[1:]) for m in maps] == [(512, 36, 36), (1024, 18, 18)]
    terms = net.train().step(maps, net.optimizers(1, 10), torch.Generator().manual_seed(0))
    assert terms["total"].item() > 0
    scores = net.eval().score(maps)
    assert scores.image.shape == (1,)
    assert scores.map.shape == (1, 288, 288)


def test_resnet18_has_the_specified_width():
    """dim 384, hidden 256: 147,840 + 99,328 parameters (spec. 4)."""
    net = SimpleNet(Config(image_size=64, resize=None), backbone=FixedChannels(128, 256))
    assert sum(p.numel() for p in net.adapter.parameters()) == 147_840
    assert sum(p.numel() for p in net.discriminator.parameters()) == 99_328


@pytest.mark.parametrize(("layers", "parameters"), [(0, 0), (1, 600), (2, 1200)])
def test_adapter_layers_of_the_ablation(layers, parameters):
    """Linear(24, 24) has 24 * 25 = 600 parameters; none, one, or two of them."""
    net = small_net(adapter_layers=layers)
    assert sum(p.numel() for p in net.adapter.parameters()) == parameters
    terms = net.step(small_maps(), net.optimizers(1, 10), torch.Generator().manual_seed(0))
    assert torch.isfinite(terms["total"])


def test_rows_per_step_limits_the_rows_of_a_step(monkeypatch):
    """10 of 72 rows reach the discriminator, each once plain and once with noise."""
    net, seen = small_net(rows_per_step=10), []
    net.discriminator.register_forward_hook(lambda module, inputs, output: seen.append(len(inputs[0])))
    net.loss(small_maps(), torch.Generator().manual_seed(0))
    assert seen == [20]


@pytest.mark.parametrize(
    ("loss", "last", "doubted"), [("l1", 0.96, True), ("l1", 0.9, False), ("ce", 1.35, True), ("ce", 1.2, False)]
)
def test_a_run_that_learnt_nothing_says_so(loss, last, doubted):
    """Who answers 0 to everything pays 0.5 + 0.5 = 1, or 2 ln 2 = 1.386 as cross-entropy; doubt within 5 % of it."""
    detector = SimpleNet(Config(backbone="tf_efficientnet_lite0", loss=loss, pretrained=False))
    assert (detector.doubt(pd.DataFrame({"total": [2.0, last]})) is not None) == doubted
    assert detector.doubt(pd.DataFrame()) is None  # nothing was trained
