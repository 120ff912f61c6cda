"""DRAEM: networks and losses against the authors' code (golden/draem.npz), score and schedule by hand, training."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from adlib.common.errors import UserError
from adlib.common.seeds import seeded
from adlib.embeddings import Embeddings
from adlib.images import Geometry, resize
from adlib.losses import ssim
from adlib.models import draem
from adlib.models.draem import Config, Discriminative, Draem, Reconstructive, milestones, pool_side, smoothed
from adlib.training import Training, learnt_state

TINY = {"image_size": 32, "reconstruction_width": 4, "segmentation_width": 4, "learning_rate": 1e-3, "batch_size": 4}


class Textures:
    """Stands for a texture source: noise in colour; remembers what it was asked for."""

    def bank(self, side: int, resample: str) -> torch.Tensor:
        self.asked = side, resample
        g = torch.Generator().manual_seed(7)
        return torch.randint(256, (6, 3, side, side), generator=g, dtype=torch.uint8)


def tiny(**changes) -> Draem:
    with seeded(0, "init"):
        net = Draem(Config.from_dict(TINY | changes))
    net.equip(Textures(), "cpu")
    return net


def stripes(n: int = 8, size: int = 32) -> torch.Tensor:
    """Waves with another phase in each image, [n,3,size,size] in 0..1."""
    x = torch.arange(size).view(1, 1, 1, -1) / 2 + torch.arange(n).view(-1, 1, 1, 1)
    return (0.5 + 0.3 * torch.sin(x)).expand(n, 3, size, size).contiguous()


def embeddings(n: int = 10) -> Embeddings:
    return Embeddings([[(255 * stripes(n)).byte().numpy()]], single=True)


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def kinds(module: nn.Module) -> tuple[int, int]:
    return tuple(sum(isinstance(m, kind) for m in module.modules()) for kind in (nn.Conv2d, nn.BatchNorm2d))


@pytest.mark.parametrize(
    ("net", "width", "parameters", "layers"),
    [
        (Reconstructive, 128, 69_048_579, (23, 22)),
        (Discriminative, 64, 28_374_146, (28, 27)),
        (Reconstructive, 16, 1_083_171, (23, 22)),
        (Discriminative, 8, 446_162, (28, 27)),
    ],
)
def test_parameters_are_those_of_the_specification(net, width, parameters, layers):
    """Table of specs/draem.md, section 2: totals, convolutions and batch norms."""
    with torch.device("meta"):
        module = net(width)
    assert count(module) == parameters
    assert kinds(module) == layers


def test_blocks_have_the_specified_parameters():
    """Width 128 and 64: the rows of the table, from the first to the last block."""
    with torch.device("meta"):
        r, d = Reconstructive(), Discriminative()
    assert [count(b) for b in r.down] == [151_680, 886_272, 3_542_016, 14_161_920]
    assert count(r.bottom) == 18_880_512
    assert [count(b) for b in r.ups] == [9_440_256, 2_360_832, 590_592, 147_840]
    assert [count(b) for b in r.joins] == [14_160_384, 3_541_248, 885_888, 295_680]
    assert [count(b) for b in d.down] == [40_704, 221_952, 886_272, 3_542_016, 4_721_664]
    assert [count(b) for b in d.ups] == [2_360_832, 1_180_416, 295_296, 73_920, 37_056]
    assert [count(b) for b in d.joins] == [7_080_960, 2_360_832, 590_592, 147_840, 110_976]
    assert (count(d.bottom), count(r.head), count(d.head)) == (4_721_664, 3_459, 1_154)


def test_the_start_is_the_authors():
    """Convolutions N(0, 0.02), batch norm N(1, 0.02) and 0; 100,000 draws and more: a deviation to 2 %."""
    torch.manual_seed(0)
    net = Draem(Config(reconstruction_width=16, segmentation_width=16))
    weights = torch.cat([m.weight.flatten() for m in net.modules() if isinstance(m, nn.Conv2d)])
    scales = torch.cat([m.weight for m in net.modules() if isinstance(m, nn.BatchNorm2d)])
    assert weights.std().item() == pytest.approx(0.02, rel=0.02)
    assert weights.mean().item() == pytest.approx(0, abs=1e-4)
    assert scales.std().item() == pytest.approx(0.02, rel=0.1)
    assert scales.mean().item() == pytest.approx(1, abs=0.005)
    assert all(m.bias.abs().sum() == 0 for m in net.modules() if isinstance(m, nn.BatchNorm2d))


def fill_by_rule(net: nn.Module) -> nn.Module:
    """Weights that depend on nothing but their place: specs/draem.md, section 11, float64."""
    for m in net.double().modules():
        if isinstance(m, nn.Conv2d):
            o, i, y, x = (torch.arange(n, dtype=torch.float64) for n in m.weight.shape)
            t = 12.9898 * o.view(-1, 1, 1, 1) + 78.233 * i.view(-1, 1, 1) + 37.719 * y.view(-1, 1) + 4.581 * x + 1
            wave = 43758.5453 * torch.sin(t)
            m.weight.data = math.sqrt(6 / (9 * len(i))) * (2 * (wave - wave.floor()) - 1)
            m.bias.data = 0.1 * torch.cos(0.9 * o)
        elif isinstance(m, nn.BatchNorm2d):
            c = torch.arange(m.num_features, dtype=torch.float64)
            m.weight.data, m.bias.data = 1 + 0.1 * c.sin(), 0.05 * c.cos()
    return net


@pytest.fixture
def ruled(golden):
    """(golden arrays, network filled by the rule, image, augmented, mask) in float64."""
    g = golden("draem")
    w, v = (int(n) for n in g["net_widths"])
    config = Config(image_size=64, reconstruction_width=w, segmentation_width=v, ssim_data_range="auto")
    net = fill_by_rule(Draem(config))
    image, augmented = (torch.from_numpy(g[f"net_{k}"]).double() / 255 for k in ("image", "augmented"))
    return g, net, image, augmented, torch.from_numpy(g["net_mask"])


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_networks_equal_the_authors_code(ruled, mode):
    """Float64, every fourth pixel, 1e-5; with running statistics (mean 0, variance 1) and with the batch's."""
    g, net, _, augmented, _ = ruled
    with torch.no_grad():
        repaired, logits = net.train(mode == "train")(augmented)
    np.testing.assert_allclose(repaired[..., ::4, ::4].numpy(), g[f"net_{mode}_rec"], atol=1e-5)
    np.testing.assert_allclose(logits[..., ::4, ::4].numpy(), g[f"net_{mode}_logits"], atol=1e-5)


def test_float32_networks_stay_near_the_authors_float64(ruled):
    """Running statistics: 1e-4 for repaired images of size 1, 2e-2 for logits of size 100 (specification)."""
    g, net, _, augmented, _ = ruled
    with torch.no_grad():
        repaired, logits = net.float().eval()(augmented.float())
    np.testing.assert_allclose(repaired[..., ::4, ::4].numpy(), g["net_eval_rec"], atol=1e-4)
    np.testing.assert_allclose(logits[..., ::4, ::4].numpy(), g["net_eval_logits"], atol=2e-2)


def test_losses_and_gradients_equal_the_authors_code(ruled):
    """l2, ssim at the guessed range 2, focal, total: 1e-6 relative; the focal loss reaches R: nothing is detached."""
    g, net, image, augmented, mask = ruled
    repaired, logits = net.train()(augmented)
    terms = net.terms(repaired, logits, image, mask)
    found = [terms[k].item() for k in ("l2", "ssim", "focal", "total")]
    np.testing.assert_allclose(found, g["net_losses"], rtol=1e-6)

    def norm(term, part):
        gradients = torch.autograd.grad(terms[term], list(part.parameters()), retain_graph=True)
        return torch.cat([x.flatten() for x in gradients]).norm().item()

    parts = [("total", net.reconstructive), ("total", net.discriminative), ("focal", net.reconstructive)]
    np.testing.assert_allclose([norm(*p) for p in parts], g["net_gradnorms"], rtol=1e-6)
    assert ssim(repaired, image).item() == pytest.approx(g["net_ssim_range1"], rel=1e-6)


def test_loss_values_of_constructed_outputs():
    """Repaired = target: l2 and ssim are 0. Logits 0: p = 0.5 everywhere, -(1/2)^2 ln(1/2) = 0.1733 but for s."""
    net, target = tiny(), stripes(2)
    terms = net.terms(target, torch.zeros(2, 2, 32, 32), target, torch.ones(2, 1, 32, 32))
    assert terms["l2"] == 0
    assert terms["ssim"].item() == pytest.approx(0, abs=1e-6)
    assert terms["focal"].item() == pytest.approx(0.25 * math.log(2), abs=1e-4)
    off = net.terms(target + 0.1, torch.zeros(2, 2, 32, 32), target, torch.ones(2, 1, 32, 32))
    assert off["l2"].item() == pytest.approx(0.01, rel=1e-4)
    total = off["l2"] + off["ssim"] + off["focal"]
    assert off["total"].item() == pytest.approx(total.item(), rel=1e-6)


def test_the_target_is_the_turned_undamaged_image():
    """A network that returns the simulator's target has l2 = 0; the damaged or the unturned image would not."""
    net, images = tiny(rotate_probability=1.0, anomaly_probability=1.0), stripes(8)
    out = net.simulator(images, net.bank, torch.Generator().manual_seed(0))
    assert not torch.equal(out.target, images)
    assert not torch.equal(out.target, out.augmented)
    seen = []
    net.forward = lambda augmented: seen.append(augmented) or (out.target, torch.zeros(8, 2, 32, 32))
    assert net.loss(images, torch.Generator().manual_seed(0))["l2"] == 0
    assert torch.equal(seen[0], out.augmented)


def test_the_weight_of_ssim_and_the_side_of_the_filter_can_be_set():
    """lambda = 3 triples ssim in the sum; 41 pixels at 256 are 5 at 32."""
    net, target = tiny(ssim_weight=3.0, score_pool=41), stripes(2)
    terms = net.terms(target.flip(3), torch.zeros(2, 2, 32, 32), target, torch.ones(2, 1, 32, 32))
    expected = terms["l2"] + 3 * terms["ssim"] + terms["focal"]
    assert terms["total"].item() == pytest.approx(expected.item(), rel=1e-6)
    assert net.side == 5


def test_losses_are_float32_where_autocast_gives_half():
    net = tiny()
    with torch.autocast("cpu", torch.bfloat16):
        repaired, logits = net(stripes(2))
        terms = net.terms(repaired, logits, stripes(2), torch.zeros(2, 1, 32, 32))
    assert repaired.dtype == torch.bfloat16
    assert {t.dtype for t in terms.values()} == {torch.float32}


def test_score_equals_the_authors_code(golden):
    """Softmax, mean of 21 x 21 with zeros counted, maximum: 1e-6."""
    g = golden("draem")
    margin = draem._margin(torch.from_numpy(g["score_logits"]))
    smooth = smoothed(margin.sigmoid(), 21)
    np.testing.assert_allclose(margin.sigmoid().numpy(), g["score_map"], atol=1e-6)
    np.testing.assert_allclose(smooth.numpy(), g["score_smooth"], atol=1e-6)
    np.testing.assert_allclose(smooth.flatten(1).amax(1).numpy(), g["score_image"], atol=1e-6)


def test_plain_resizing_is_the_authors(golden):
    """OpenCV's bilinear without a low-pass; it rounds in fixed point: one grey level."""
    g = golden("draem")
    found = resize(g["resize_image_in"], Geometry(32, resample="plain")).transpose(1, 2, 0)
    assert np.abs(found.astype(int) - g["resize_image_out"]).max() <= 1


def test_a_corner_pixel_reaches_121_of_441():
    """Half the window and its middle lie inside: 11 x 11 of 21 x 21."""
    assert smoothed(torch.ones(1, 64, 64), 21)[0, 0, 0].item() == pytest.approx(121 / 441)


def test_zeros_beyond_the_border_do_not_lower_the_image_score():
    """A window at the border sees a part of what the one further in sees, so the maximum is that without padding."""
    maps = torch.rand(4, 64, 64, generator=torch.Generator().manual_seed(0)) ** 8
    maps[0, :21, :21] = 1
    whole, inside = smoothed(maps, 21), nn.functional.avg_pool2d(maps[:, None], 21, 1)
    torch.testing.assert_close(whole.flatten(1).amax(1), inside.flatten(1).amax(1))
    assert whole[0].max() == 1


@pytest.mark.parametrize(("size", "side"), [(256, 21), (128, 11), (64, 5), (32, 3), (512, 41)])
def test_the_filter_is_the_nearest_odd_number_to_21_parts_of_256(size, side):
    """10.5 -> 11; 5.25 -> 5; 2.6 -> 3; 42 lies between 41 and 43."""
    assert pool_side(size) == side


def test_score_hands_over_logit_differences_and_the_smoothed_maximum():
    net = tiny().eval()
    with torch.inference_mode():
        logits = net(stripes(3))[1]
        found = net.score(stripes(3))
    torch.testing.assert_close(found.map, logits[:, 1] - logits[:, 0])
    expected = smoothed(logits.softmax(1)[:, 1], 3).flatten(1).amax(1)
    torch.testing.assert_close(found.image, expected)
    assert net.protocol == {"image_score": "max of the 3 x 3 mean", "smoothing": "none"}


def test_parts_show_what_becomes_of_an_image():
    net = tiny().eval()
    parts = net.parts(stripes(2))
    assert parts["reconstruction"].shape == (2, 3, 32, 32)
    assert {parts[k].shape for k in ("error", "ssim", "probability", "smoothed")} == {(2, 32, 32)}
    torch.testing.assert_close(parts["error"], ((parts["reconstruction"] - stripes(2)) ** 2).mean(1))
    torch.testing.assert_close(parts["smoothed"].flatten(1).amax(1), net.score(stripes(2)).image)


def test_learning_rate_falls_to_a_fifth_at_560_and_630_of_700_epochs():
    """3 steps an epoch: epochs 1..560 learn with 1e-4, 561..630 with 2e-5, the others with 4e-6."""
    net = Draem(Config(reconstruction_width=1, segmentation_width=1))
    ((optimizer, scheduler),) = net.optimizers(3, 2100)
    rates = []
    for _ in range(700):
        rates.append(optimizer.param_groups[0]["lr"])
        for _ in range(3):
            optimizer.step()
            scheduler.step()
    assert rates[:560] == pytest.approx([1e-4] * 560)
    assert rates[560:630] == pytest.approx([2e-5] * 70)
    assert rates[630:] == pytest.approx([4e-6] * 70)
    assert type(optimizer) is torch.optim.Adam


def test_milestones_of_whole_epochs_are_the_authors():
    """MultiStepLR as the authors call it, with shares of the epochs, stepped after every epoch: equal learning rates.

    Both are whole for multiples of 10; the authors' floats never come where they are not.
    """
    for epochs in (3, 5, 7, 10, 30, 70, 100, 700):
        adam = torch.optim.Adam([nn.Parameter(torch.zeros(1))], lr=1.0)
        theirs = torch.optim.lr_scheduler.MultiStepLR(adam, [epochs * 0.8, epochs * 0.9], 0.2)
        fell = []
        for epoch in range(1, epochs + 1):
            adam.step()
            before = adam.param_groups[0]["lr"]
            theirs.step()
            fell += [epoch] * (adam.param_groups[0]["lr"] < before)
        if epochs % 10 == 0:
            assert milestones((0.8, 0.9), epochs) == fell
        else:
            assert len(fell) < 2


@pytest.mark.parametrize(
    ("epochs", "expected"),
    [
        (5, [4, 5]),  # 4 and 4.5: a half goes up; the nearest even number would decay twice after 4
        (8, [6, 7]),  # 6.4 and 7.2
        (16, [13, 14]),  # 12.8 and 14.4
        (7, [6, 7]),  # 5.6 and 6.3 are both nearest to 6
        (2, [2, 3]),  # 1.6 and 1.8: neither comes before the end
    ],
)
def test_milestones_between_epochs_are_rounded_half_up_and_never_coincide(epochs, expected):
    assert milestones((0.8, 0.9), epochs) == expected
    scheduler = tiny(epochs=epochs).optimizers(3, 3 * epochs)[0][1]
    assert dict(scheduler.milestones) == {3 * epoch: 1 for epoch in expected}


def test_no_two_milestones_fall_on_one_epoch():
    """A product that misses a half by a rounding error goes up all the same: 0.7 * 45 = 31.499999999999996 -> 32."""
    assert all(len(set(milestones((0.8, 0.9), epochs))) == 2 for epochs in range(1, 1001))
    assert milestones((0.7,), 45) == [32]


def test_milestones_of_a_training_in_steps_are_shares_of_the_steps():
    """0.8 and 0.9 of 1,234 steps: 987.2 and 1110.6, whatever an epoch is."""
    net = tiny()
    object.__setattr__(net.config, "epochs", None)
    assert dict(net.optimizers(7, 1234)[0][1].milestones) == {987: 1, 1111: 1}


@pytest.mark.parametrize("resample", ["antialias", "plain"])
def test_textures_are_resampled_as_the_images_are(resample):
    textures, net = Textures(), tiny(resample=resample)
    net.equip(textures, "cpu")
    assert textures.asked == (32, resample)


def test_defaults_are_the_specifications():
    """Section 10, last line."""
    c = Config()
    assert (c.image_size, c.reconstruction_width, c.segmentation_width) == (256, 128, 64)
    assert (c.epochs, c.batch_size, c.learning_rate, c.decay, c.decay_at) == (700, 8, 1e-4, 0.2, (0.8, 0.9))
    assert (c.anomaly_probability, c.opacity, c.noise_exponents, c.noise_threshold) == (0.5, (0.2, 1.0), (0, 5), 0.5)
    assert (c.noise_degrees, c.operations, c.operations_per_texture) == (90, "code", 3)
    assert (c.rotate_probability, c.rotate_degrees, c.ssim_data_range, c.score_pool) == (0.3, 90, 1, 21)
    assert Draem.replacement


def test_the_simulator_has_the_configs_settings():
    simulator = tiny(opacity=[0.1, 1.0], operations="paper", rotate_degrees=45, noise_threshold=None).simulator
    assert (simulator.opacity, simulator.operations, simulator.rotate_degrees) == ((0.1, 1.0), "paper", 45)
    assert simulator.noise_threshold is None


@pytest.mark.parametrize(
    ("values", "part"),
    [
        ({"image_size": 100}, "image_size 100 is not a multiple of 32; use 96 or 128"),
        ({"operations": "seven"}, "valid: 'code', 'paper', 'none'"),
        ({"textures": "imagenet"}, "valid: 'auto', 'dtd', 'photographs'"),
        ({"ssim_data_range": 2.0}, "valid: 1.0, 'auto'"),
        ({"opacity": [0.5]}, "must be two numbers"),
        ({"opacity": [0.9, 0.1]}, "no range"),
        ({"operations_per_texture": 11}, "at most 10"),
        ({"resize": 300}, "no meaning"),
    ],
)
def test_config_refuses_nonsense_in_one_sentence(values, part):
    with pytest.raises(UserError, match=part) as error:
        Config.from_dict(values)
    assert "\n" not in str(error.value)


def test_training_without_textures_is_one_sentence():
    net = Draem(Config.from_dict(TINY))
    with pytest.raises(UserError, match="trains on textures"):
        net.loss(stripes(2), torch.Generator())


def test_one_image_of_32_pixels_cannot_train_batch_norm():
    """At stride 32 one value would be left per channel, whose deviation is 0."""
    with pytest.raises(UserError, match="another batch_size or image_size 64"):
        tiny().train().loss(stripes(1), torch.Generator().manual_seed(0))


def test_textures_are_not_stored_and_not_needed_to_score():
    net = tiny()
    assert not [k for k in learnt_state(net) if "bank" in k]
    fresh = Draem(Config.from_dict(TINY)).eval()
    fresh.load_state_dict(learnt_state(net))
    assert torch.equal(fresh.score(stripes(2)).image, net.eval().score(stripes(2)).image)


def test_grey_data_train_and_score():
    """Grey pictures come as three equal channels; the textures stay coloured."""
    net = tiny().train()
    grey = stripes(4).mean(1, keepdim=True).expand(-1, 3, -1, -1)
    terms = net.step(grey, net.optimizers(1, 10), torch.Generator().manual_seed(0))
    assert all(torch.isfinite(v) for v in terms.values())
    assert torch.isfinite(net.eval().score(grey).image).all()


def test_a_batch_without_any_anomaly_trains():
    """An empty mask is a normal sample: target and augmented are equal and the loss is finite."""
    net = tiny(anomaly_probability=0.0, rotate_probability=0.0).train()
    out = net.simulator(stripes(4), net.bank, torch.Generator().manual_seed(0))
    assert out.mask.sum() == 0
    assert torch.equal(out.augmented, stripes(4))
    assert torch.isfinite(net.loss(stripes(4), torch.Generator().manual_seed(0))["total"])


def test_eight_images_are_learnt_by_heart():
    """100 steps without rotations: reconstruction to a tenth of its error, focal loss to less than half, and simulated
    defects stand out of their images in the map.
    """
    net = tiny(batch_size=8, learning_rate=3e-3, rotate_probability=0.0).train()
    images, g, history = stripes(8), torch.Generator().manual_seed(0), []
    optimizers = net.optimizers(1000, 100_000)
    for _ in range(100):
        terms = net.step(images, optimizers, g)
        history.append([terms[k].item() for k in ("l2", "ssim", "focal")])
    first, last = np.mean(history[:5], 0), np.mean(history[-10:], 0)
    assert (last < np.array([0.1, 0.1, 0.5]) * first).all(), (first, last)
    seen = net.simulator(images, net.bank, g)
    margin = net.eval().score(seen.augmented).map
    inside = seen.mask[:, 0] > 0
    assert margin[inside].mean() > margin[~inside].mean() + 0.2


def trained(tmp_path=None, stop: int | None = None, seed: int = 0) -> tuple[dict, list]:
    """States and history of a training of 4 epochs; stop: killed after that epoch and started again."""
    path = tmp_path and tmp_path / "c.pt"

    def kill(epoch, optimizers, work):
        if epoch > stop:
            raise KeyboardInterrupt
        return work(epoch, optimizers)

    if stop is not None:
        broken = Training(tiny(epochs=4), embeddings(), seed, checkpoint=path, minutes=0)
        broken._epoch = lambda epoch, optimizers, work=broken._epoch: kill(epoch, optimizers, work)
        with pytest.raises(KeyboardInterrupt):
            broken.run()
    net = tiny(epochs=4)
    history = Training(net, embeddings(), seed, checkpoint=path).run()
    return net.state_dict(), history.drop(columns="seconds").to_numpy()


def test_one_seed_gives_the_same_bytes_and_another_does_not():
    (a, first), (b, second), (c, _) = trained(), trained(), trained(seed=1)
    assert all(torch.equal(a[k], b[k]) for k in a)
    np.testing.assert_array_equal(first, second)
    assert not all(torch.equal(a[k], c[k]) for k in a)


@pytest.mark.parametrize("stop", [1, 3])
def test_interrupted_and_resumed_equals_uninterrupted(tmp_path, stop):
    """Weights, running statistics, losses and learning rates, bit by bit; epochs are draws with replacement."""
    (a, first), (b, second) = trained(), trained(tmp_path, stop)
    assert all(torch.equal(a[k], b[k]) for k in a)
    np.testing.assert_array_equal(first, second)


def test_the_papers_networks_do_a_forward_and_a_step():
    """Widths 128 and 64 at 32 pixels, batch 2: 1.6 GB of weights, gradients and Adam's moments."""
    net = Draem(Config(image_size=32, batch_size=2))
    net.equip(Textures(), "cpu")
    before = net.reconstructive.head.weight.detach().clone()
    terms = net.train().step(stripes(2), net.optimizers(1, 10), torch.Generator().manual_seed(0))
    assert torch.isfinite(terms["total"])
    assert not torch.equal(before, net.reconstructive.head.weight)
    assert net.eval().score(stripes(2)).map.shape == (2, 32, 32)
