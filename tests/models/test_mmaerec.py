"""MMAERec: edges, memory, network, losses and score against golden/mmaerec.npz and by hand; exact sizes; bad input."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from adlib import losses
from adlib.backbones import Features
from adlib.common.errors import UserError
from adlib.common.seeds import seeded
from adlib.embeddings import Embeddings
from adlib.layers import CBAM, CoordinateAttention, SqueezeExcitation
from adlib.models import mmaerec
from adlib.models.mmaerec import Config, Memory, MemoryUNet, MMAERec, edges, entropy, mean_filter

TINY = {"image_size": 64, "width": 4, "backbone": "tf_efficientnet_lite0", "learning_rate": 1e-3, "batch_size": 4}
ITEMS = torch.eye(3)


def tiny(**changes) -> MMAERec:
    with seeded(0, "init"):
        return MMAERec(Config.from_dict(TINY | changes))


def pictures(count: int = 4, side: int = 64) -> torch.Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(1))


def prepared(net: MMAERec) -> MMAERec:
    stored = (255 * pictures(6)).byte().numpy()
    net.prepare(Embeddings([[stored]], single=True), torch.Generator().manual_seed(0))
    return net


def count(module: torch.nn.Module, learning: bool = False) -> int:
    return sum(p.numel() for p in module.parameters() if p.requires_grad or not learning)


def memory(items: torch.Tensor = ITEMS, shrink: float = 1.0, dead: str = "softmax") -> Memory:
    found = Memory(items.shape[1], len(items), shrink, dead).to(items.dtype)
    found.items.data = items.clone()
    return found


# Section 2.1


def test_edges_of_a_step_by_hand():
    """Grey 0.2 beside 0.7: the two columns at the step become 0.5, all else 0, the border too."""
    image = torch.full((1, 3, 4, 6), 0.2)
    image[..., 3:] = 0.7
    expected = torch.zeros(1, 1, 4, 6)
    expected[..., 2:4] = 0.5
    torch.testing.assert_close(edges(image), expected)
    assert edges(torch.full((1, 3, 8, 8), 0.3)).abs().max() == 0


def test_edges_are_opencvs(golden):
    g = golden("mmaerec")
    torch.testing.assert_close(
        edges(torch.from_numpy(g["edge_img"])), torch.from_numpy(g["edge_map"]), atol=1e-6, rtol=0
    )


# Equations (1) to (3): the memory


def test_addressing_by_hand():
    """Eq. (1): a vector along the first of three orthogonal items has cosines 1, 0, 0: it gets e / (e + 2) = 0.576."""
    w = memory().address(torch.tensor([[5.0, 0.0, 0.0]]))
    torch.testing.assert_close(w, torch.tensor([[math.e, 1.0, 1.0]]) / (math.e + 2))
    assert memory().address(torch.zeros(1, 3)).tolist()[0] == pytest.approx([1 / 3] * 3)


def test_shrinking_by_hand():
    """Eq. (2) with N = 4 and shrink 1: of 0.4, 0.3, 0.2, 0.1 the first two exceed 0.25; their sum is 0.7."""
    kept = memory(torch.eye(4)).shrunk(torch.tensor([[0.4, 0.3, 0.2, 0.1]]))
    torch.testing.assert_close(kept, torch.tensor([[4 / 7, 3 / 7, 0.0, 0.0]]))


@pytest.mark.parametrize(("dead", "expected"), [("zero", [0.0, 0.0]), ("softmax", [0.6, 0.4])])
def test_a_place_that_loses_all_items(dead, expected):
    """No weight exceeds 1.5 / N = 0.75: nothing as in MemAE, or the weights before the threshold."""
    found = memory(torch.eye(2), shrink=1.5, dead=dead)
    w = torch.tensor([[0.6, 0.4]])
    torch.testing.assert_close(found.shrunk(w), torch.tensor([expected]))
    assert found.lost(w) == 1
    assert found.lost(torch.tensor([[0.6, 0.4], [0.8, 0.2]])) == 0.5


def test_reading_by_hand():
    """Eq. (3): a map of two places, each nearest to one item; N = 2, shrink 1 keeps one each: the items come back."""
    items = torch.tensor([[2.0, 0.0], [0.0, 3.0]])
    z = torch.tensor([[[[1.0, 0.1]], [[0.1, 1.0]]]])  # [1, 2, 1, 2]
    answer, weights, lost = memory(items)(z)
    assert answer[0, :, 0].T.tolist() == items.tolist()
    assert weights.shape == (1, 1, 2, 2)
    assert lost == 0


@pytest.mark.parametrize(("name", "shrink"), [("1", 1), ("1p5", 1.5), ("3", 3)])
@pytest.mark.parametrize(("dead", "key"), [("zero", "zero"), ("softmax", "fallback")])
def test_memory_is_memaes(golden, name, shrink, dead, key):
    """Eqs. (1) to (3) and (5) in float64 on plain loops and MemAE's rule; also z = 0, and all places dead at 3 / N."""
    g = golden("mmaerec")
    found = memory(torch.from_numpy(g["mem_m"]), shrink, dead)
    w = found.address(torch.from_numpy(g["mem_z"]))
    hat = found.shrunk(w)
    near = lambda value, stored, atol=1e-12: np.testing.assert_allclose(value.detach().numpy(), g[stored], 0, atol)
    near(w, "mem_w")
    near(hat, f"mem_hat_{name}" if dead == "zero" else f"mem_hat_fallback_{name}")
    near(hat @ found.items, f"mem_out_{key}_{name}")
    near(-(hat * (hat + 1e-12).log()).sum(-1), f"mem_entropy_{key}_{name}", 1e-11)  # 1e-12 inside each of 5 logarithms
    assert found.lost(w) == g[f"mem_dead_{name}"].mean()


def test_memory_on_maps(golden):
    g = golden("mmaerec")
    answer, weights, _ = memory(torch.from_numpy(g["mem_m"]))(torch.from_numpy(g["mem_feat"]))
    np.testing.assert_allclose(answer.detach().numpy(), g["mem_feat_out_1"], 0, 1e-12)
    np.testing.assert_allclose(weights.detach().permute(0, 3, 1, 2).numpy(), g["mem_feat_att_1"], 0, 1e-12)


def test_a_dead_memory_teaches_nothing_unless_it_falls_back():
    """MemAE's rule gives the items no gradient once all places are lost; ours does."""
    z = torch.rand(1, 2, 2, 2, generator=torch.Generator().manual_seed(0))
    for dead, learns in (("zero", False), ("softmax", True)):
        found = memory(torch.eye(2), shrink=1.75, dead=dead)
        found(z)[0].square().sum().backward()
        assert bool(found.items.grad.abs().sum() > 0) == learns


def test_the_start_of_the_items_is_memaes():
    """Uniform within 1 / sqrt(C) = 0.1 of 0."""
    items = Memory(100).items
    assert 0.09 < items.abs().max() <= 0.1


# Equation (5)


def test_entropy_by_hand():
    """One place on one item: 0; another on two halves: ln 2. Mean ln 2 / 2, sum ln 2."""
    w = torch.tensor([[[[1.0, 0.0], [0.5, 0.5]]]])
    assert entropy(w) == pytest.approx(math.log(2) / 2)
    assert entropy(w, "sum") == pytest.approx(math.log(2))


# Attention


def test_coordinate_attention_is_the_authors(golden):
    g = golden("mmaerec")
    net = CoordinateAttention(16, 32)
    net.load_state_dict(
        {k[3:].replace("bn1", "norm"): torch.from_numpy(g[k]) for k in g if k.startswith("ca.")}, strict=False
    )
    x = torch.from_numpy(g["att_x"])
    for mode in ("eval", "train"):
        found = net.train(mode == "train")(x).detach().numpy()
        np.testing.assert_allclose(found, g[f"ca_out_{mode}"], 0, 1e-5)
    a_h, a_w = net.eval().gates(x)
    assert (a_h.shape, a_w.shape) == ((2, 16, 5, 1), (2, 16, 1, 7))


def test_squeeze_excitation_is_the_authors(golden):
    g = golden("mmaerec")
    net = SqueezeExcitation(16, 4)
    net.load_state_dict({f"fc{i}.weight": torch.from_numpy(g[f"se.fc.{k}.weight"]) for i, k in ((1, 0), (2, 2))})
    np.testing.assert_allclose(net(torch.from_numpy(g["att_x"])).detach().numpy(), g["se_out_eval"], 0, 1e-5)


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_cbam_is_the_authors(golden, mode):
    g = golden("mmaerec")
    net = CBAM(16, 4)
    names = {f"fc{i}.{p}": f"cbam.ChannelGate.mlp.{k}.{p}" for i, k in ((1, 1), (2, 3)) for p in ("weight", "bias")}
    names["spatial.weight"] = "cbam.SpatialGate.spatial.conv.weight"
    names |= {
        f"norm.{p}": f"cbam.SpatialGate.spatial.bn.{p}" for p in ("weight", "bias", "running_mean", "running_var")
    }
    net.load_state_dict({own: torch.from_numpy(g[stored]) for own, stored in names.items()}, strict=False)
    found = net.train(mode == "train")(torch.from_numpy(g["att_x"]))
    np.testing.assert_allclose(found.detach().numpy(), g[f"cbam_out_{mode}"], 0, 1e-5)


# The network: sections 2.3 and 4.6


@pytest.mark.parametrize(
    ("changes", "all_of_them", "learning"),
    [
        ({}, 94_108_803, 69_246_275),
        ({"attention": "none"}, 93_972_675, None),
        ({"attention": "se"}, 94_146_755, None),
        ({"attention": "cbam"}, 94_149_195, None),
        ({"items": 10}, 94_071_683, None),
        ({"items": 50}, 94_145_923, None),
        ({"branches": "edge"}, 69_182_403, None),
        ({"branches": "memory"}, 75_369_219, None),
        ({"levels": 5}, 138_339_555, None),
        ({"backbone": "resnet18", "width": 32}, 7_135_075, 4_352_291),
        ({"backbone": "resnet18", "width": 16}, 3_931_395, 1_148_611),
    ],
    ids=str,
)
def test_parameters_are_those_of_the_specification(changes, all_of_them, learning):
    """Section 4.6 prints 9.61 M, impossible for the printed widths: ten times that is 2 % above the 94.1 M found."""
    with torch.device("meta"):
        net = MemoryUNet(Config.from_dict({"pretrained": False} | changes))
    assert count(net) == all_of_them
    assert learning in (None, count(net, learning=True))


@pytest.mark.slow
def test_the_full_network_steps_once_and_costs_what_is_printed():
    """At 256 px and the paper's widths: 52.418 GMac, printed 52.21 (0.4 %); one step changes memory and decoder."""
    net = MMAERec(Config.from_dict({"pretrained": False, "corruption": "none", "batch_size": 1}))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net.eval()(pictures(1, 256))
    assert counter.get_total_flops() / 2e9 == pytest.approx(52.418, abs=1e-3)
    before = [net.unet.memories[3].items.clone(), net.unet.head.weight.clone()]
    terms = net.train().step(pictures(1, 256), net.optimizers(1, 1), torch.Generator())
    assert all(torch.isfinite(value) for value in terms.values())
    assert not torch.equal(before[0], net.unet.memories[3].items)
    assert not torch.equal(before[1], net.unet.head.weight)


def test_levels_have_the_printed_sizes():
    """Section 2.3 at 64 px and width 4: channels 4, 8, 16, 32 at strides 2 to 16; the picture comes back whole."""
    net = tiny().eval()
    maps, weights, _ = net.unet.remembered(pictures(2))
    assert [m.shape for m in maps] == [(2, 4, 32, 32), (2, 8, 16, 16), (2, 16, 8, 8), (2, 32, 4, 4)]
    assert [w.shape for w in weights] == [(2, s, s, 30) for s in (32, 16, 8, 4)]
    assert net(pictures(2))[0].shape == (2, 3, 64, 64)


def test_a_backbone_that_begins_at_stride_4_is_enlarged():
    """ConvNeXt has no map at stride 2: each of its four is one octave too small."""
    maps, _, _ = tiny(backbone="convnext_atto", pretrained=False).eval().unet.remembered(pictures(1))
    assert [m.shape[-1] for m in maps] == [32, 16, 8, 4]


@pytest.mark.parametrize("branches", ["memory", "edge"])
def test_each_source_alone_rebuilds(branches):
    """Table 5: without memories there is no frozen network and no weight; without edges no encoder."""
    net = tiny(branches=branches).eval()
    rebuilt, weights, _ = net(pictures(2))
    assert rebuilt.shape == (2, 3, 64, 64)
    assert len(weights) == (4 if branches == "memory" else 0)
    assert hasattr(net.unet, "encoder") == (branches == "edge")
    assert bool(net.networks) == (branches == "memory")


@pytest.mark.parametrize("levels", [1, 3, 5])
def test_levels_without_a_memory_use_the_edges(levels):
    """Table 7; the fifth lies at the bottom."""
    rebuilt, weights, _ = tiny(levels=levels).eval()(pictures(2))
    assert rebuilt.shape == (2, 3, 64, 64)
    assert [w.shape[1] for w in weights] == [32, 16, 8, 4, 2][:levels]


def test_the_trunk_keeps_its_weights_and_statistics():
    """Neither the start of the rest nor a step changes the frozen network, batch norm's averages included."""
    net = prepared(tiny()).train()
    untouched = Features("tf_efficientnet_lite0", (0, 1, 2, 3)).state_dict()
    items = net.unet.memories[0].items.clone()
    net.step(pictures(), net.optimizers(1, 1), torch.Generator().manual_seed(0))
    found = net.unet.trunk.state_dict()
    assert all(torch.equal(found[k], untouched[k]) for k in untouched)
    assert not torch.equal(items, net.unet.memories[0].items)


# Equations (4) and (6)


def test_terms_by_hand():
    """Target 0.5, rebuilt 0.7, one level with one place on two halves: 0.04 + 2 SSIM + 0.1 ln 2."""
    net = tiny(ssim_weight=2.0, entropy_weight=0.1)
    target, rebuilt = torch.full((1, 3, 64, 64), 0.5), torch.full((1, 3, 64, 64), 0.7)
    terms = net.terms(rebuilt, target, [torch.tensor([[[[0.5, 0.5]]]])])
    ssim = losses.ssim(rebuilt, target)
    assert terms["l2"] == pytest.approx(0.04)
    assert terms["entropy"] == pytest.approx(math.log(2))
    assert terms["total"] == pytest.approx(0.04 + 2 * float(ssim) + 0.1 * math.log(2), rel=1e-5)
    only = tiny(use_l2=False).terms(rebuilt, target, [])
    assert only["total"] == pytest.approx(float(ssim))


def test_l2_and_ssim_are_those_of_draem(golden):
    """Eq. (4) with the mean over pixels; the range is 1 whatever the values are."""
    g = golden("mmaerec")
    x, y = torch.from_numpy(g["ssim_x"]), torch.from_numpy(g["ssim_y"])
    terms = tiny().terms(x, y, [])
    assert terms["ssim"] == pytest.approx(float(g["ssim_loss"]), abs=1e-5)
    assert terms["l2"] == pytest.approx(float(g["mse"]), abs=1e-5)


def test_the_learning_rate_falls_where_it_is_printed():
    """600 epochs of 10 steps: times 0.2 at epoch 300 and at 480."""
    [(optimizer, schedule)] = tiny(epochs=600, learning_rate=1e-4).optimizers(10, 6000)
    rates = {}
    for step in range(1, 6001):
        optimizer.step()
        schedule.step()
        rates[step] = schedule.get_last_lr()[0]
    for step, rate in ((2999, 1e-4), (3000, 2e-5), (4799, 2e-5), (4800, 4e-6)):
        assert rates[step] == pytest.approx(rate)


def test_a_quarter_is_pasted_and_a_quarter_masked():
    """EdgRec: two branches, each of which leaves half of its pictures alone; the target is never damaged."""
    net = prepared(tiny())
    batch, g = pictures(200), torch.Generator().manual_seed(0)
    images, target = net.corrupted(batch, g)
    same = (images == target).flatten(1).all(1).float().mean()
    assert 0.4 < same < 0.62  # one half, and the masks that come out empty
    turned = (target != batch).flatten(1).any(1).float().mean()
    assert 0.2 < turned < 0.4


def test_without_corruption_the_input_is_the_target():
    net = tiny(corruption="none").train()
    assert net.bank is None
    assert torch.isfinite(net.loss(pictures(), torch.Generator())["total"])


def test_training_without_textures_says_what_to_call():
    with pytest.raises(UserError, match="call prepare"):
        tiny().loss(pictures(), torch.Generator())


# Equations (7), (13), (14): the score


def test_equal_pictures_differ_nowhere():
    x = pictures(2)
    assert mmaerec.structure_difference(x, x).abs().max() < 1e-6
    assert mmaerec.colour_difference(x, x).abs().max() == 0


def test_a_constant_picture_gives_numbers():
    """No NaN from the gradients, and no edge of the picture in the map: 21 and 11 pixels mirror the border."""
    x, y = torch.full((1, 3, 64, 64), 0.5), torch.full((1, 3, 64, 64), 0.6)
    x.requires_grad_()
    structure, colour = mmaerec.structure_difference(x, y), mmaerec.colour_difference(x, y)
    (structure.sum() + colour.sum()).backward()
    assert torch.isfinite(x.grad).all()
    inner = colour[..., 5:-5, 5:-5]
    torch.testing.assert_close(colour.amin(), inner.amax(), rtol=1e-4, atol=0)


def test_the_score_is_the_specifications(golden):
    """Eqs. (7), (13), (14) with scikit-image's CIELAB and OpenCV's blur, mu = 1e-3, at the full size of the filters."""
    g = golden("mmaerec")
    x, y = torch.from_numpy(g["sc_x"]), torch.from_numpy(g["sc_y"])
    structure, colour = mmaerec.structure_difference(x, y), mmaerec.colour_difference(x, y)
    np.testing.assert_allclose(structure.numpy(), g["sc_struct"], 0, 1e-5)
    np.testing.assert_allclose(colour.numpy(), g["sc_color"], 1e-3, 0.05)
    found = structure + 1e-3 * colour
    np.testing.assert_allclose(found.numpy(), g["sc_map"], 0, 1e-4)
    np.testing.assert_allclose(found.amax().item(), g["sc_image"][0], 0, 1e-4)


@pytest.mark.parametrize("side", [11, 21])
def test_the_mean_filter_is_opencvs(golden, side):
    g = golden("mmaerec")
    np.testing.assert_allclose(mean_filter(torch.from_numpy(g["mf_x"]), side).numpy(), g[f"mf_{side}_reflect"], 0, 1e-6)


def test_bytes_wrap_around():
    """Lab in bytes: white against black differs by 255 in L; 255^2 = 65025 = 254 * 256 + 1, so the difference is 1."""
    white, black = torch.ones(1, 3, 16, 16), torch.zeros(1, 3, 16, 16)
    found = mmaerec.colour_difference(white, black, 11, "uint8")
    torch.testing.assert_close(found, torch.ones(1, 1, 16, 16))
    assert mmaerec.colour_difference(white, black).amin() == pytest.approx(100.0**2, rel=1e-4)


def test_the_map_is_the_sum_and_the_score_its_maximum():
    net = tiny().eval()
    with torch.inference_mode():
        parts, scores = net.parts(pictures(3)), net.score(pictures(3))
    torch.testing.assert_close(scores.map, parts["structure"] + parts["colour"])
    torch.testing.assert_close(scores.image, scores.map.flatten(1).amax(1))
    assert parts["rebuilt"].amin() >= 0
    assert parts["rebuilt"].amax() <= 1


def test_the_filters_shrink_with_the_picture():
    """21 and 11 pixels at 256, as printed; about half of it at 128."""
    assert tiny(image_size=256).sides == (21, 11)
    assert tiny(image_size=128).sides == (11, 5)
    assert tiny(image_size=256).protocol["smoothing"] == "means over 21 and 11 pixels"


# Bad input


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"image_size": 100}, "not a multiple of 32; use 96 or 128"),
        ({"image_size": 32}, "must be at least 64"),
        ({"shrink": 7.0}, "no weight ever exceeds 6.09 / N"),
        ({"branches": "memory", "levels": 2}, "the decoder needs all 4"),
        ({"attention": "self"}, "valid: 'coordinate', 'se', 'cbam', 'none'"),
    ],
    ids=str,
)
def test_settings_that_cannot_be(changes, said):
    with pytest.raises(UserError, match=said):
        Config(**changes)


def test_grey_pictures_and_other_sizes_are_named():
    for shape in ((1, 1, 64, 64), (1, 3, 64, 80), (3, 64, 64)):
        with pytest.raises(UserError, match=r"takes colour images \[B,3,H,W\] whose sides are multiples of 32"):
            tiny()(torch.zeros(shape))
    assert tiny().eval()(torch.zeros(1, 3, 64, 96))[0].shape == (1, 3, 64, 96)  # the parts of an elongated picture


@pytest.mark.parametrize(("dead", "what"), [("zero", "answers with zeros"), ("softmax", "mixes all its items")])
def test_a_memory_that_loses_all_its_items_is_named(dead, what):
    """lost_2 and lost_4 ended at 1: two levels, and the setting to change. A history without a loss says nothing."""
    net = tiny(shrink=2.0, dead=dead)
    history = pd.DataFrame({"total": [1.0, 0.9], "lost_1": [0.5, 0.1], "lost_2": [0.5, 1.0], "lost_4": [1.0, 1.0]})
    said = net.doubt(history)
    assert said.startswith("the memory of level 2, 4 has lost its items")
    assert what in said
    assert "lower `shrink` to 1" in said
    assert net.doubt(history.assign(lost_2=0.0, lost_4=0.0)) is None


def test_at_three_nths_every_place_of_a_new_memory_is_lost():
    """Shrink 3, the upper end of the printed range, on the features of pictures: not one weight exceeds it."""
    _, _, lost = tiny(shrink=3.0).eval().unet.remembered(pictures(2))
    assert [float(share) for share in lost] == [1.0] * 4
