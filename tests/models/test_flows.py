"""CS-Flow, ValidFlow and DifferNet: networks, losses and scores against the authors' code and by hand, exact sizes."""

import math

import numpy as np
import pytest
import torch
from flow_weights import fill, scales
from torch import nn

from adlib.common.errors import UserError
from adlib.embeddings import Embeddings
from adlib.layers import ActNorm, Coupling, Flow, Permutation
from adlib.models import csflow, differnet, validflow
from adlib.models.csflow import CrossScale, CSFlow, negative_log_likelihood
from adlib.models.validflow import Parallel, ValidFlow
from adlib.training import Training

EXACT = {"atol": 1e-9, "rtol": 1e-9}


class Three(nn.Module):
    """A stand-in for the backbone: only its channels matter once embeddings are given."""

    def __init__(self, channels: int = 6):
        super().__init__()
        self.channels = (channels,) * 3


def tiny(cls=ValidFlow, channels: int = 6, **changes):
    """A system on six channels, its gammas set so that the couplings do something."""
    torch.manual_seed(0)
    changes = {"hidden": 8, "blocks": 1, "image_size": 256} | ({"reduction": 2} if cls is ValidFlow else {}) | changes
    detector = cls(cls.Config(**changes), backbone=Three(channels))
    for name, p in detector.named_parameters():
        if ".gamma." in name:
            nn.init.constant_(p, 0.5)
    return detector


def maps(batch: int = 4, channels: int = 6, seed: int = 0) -> tuple[torch.Tensor, ...]:
    g = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(batch, channels, s, s, generator=g) for s in (8, 4, 2))


@pytest.fixture
def on_meta():
    """Nothing is computed, only counted."""
    with torch.device("meta"):
        yield


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(("blocks", "parameters"), [(4, 275_227_288), (6, 370_504_676)])
def test_csflow_has_the_published_size(on_meta, blocks, parameters):
    """Table 5 prints 370.50 M for six blocks: 370,504,640 in layers and 36 gammas."""
    detector = CSFlow(csflow.Config(blocks=blocks), backbone=Three(304))
    assert count(detector) == parameters


def test_validflow_has_the_published_size(on_meta):
    """Table 5 prints 162.89 M for n = 3: 162,886,536 in layers, 36 gammas, 10,944 numbers in ActNorm."""
    detector = ValidFlow(validflow.Config(), backbone=Three(304))
    assert count(detector) == 162_897_516
    special = sum(p.numel() for name, p in detector.named_parameters() if ".gamma." in name or ".log_scale." in name)
    shifts = sum(count(m.bias) for m in detector.modules() if isinstance(m, ActNorm))
    assert count(detector) - special - shifts == 162_886_536


@pytest.mark.parametrize(
    ("changes", "layers"),
    [
        ({"blocks": 1}, 54_295_512),
        ({"blocks": 2}, 108_591_024),
        ({"blocks": 4}, 217_182_048),
        ({"blocks": 5}, 271_477_560),
        ({"cbam_fb": False, "cross13": False}, 133_041_588),
        ({"cross13": False}, 133_465_416),
        ({"cbam_fb": False}, 162_462_708),
    ],
)
def test_variants_of_tables_6_and_7_have_their_size(on_meta, changes, layers):
    """Layers only, as thop counts them."""
    config = validflow.Config(**changes)
    detector = ValidFlow(config, backbone=Three(304))
    assert count(detector) == layers + 12 * config.blocks + 12 * config.blocks * 304


@pytest.mark.parametrize(("channels", "hidden", "reduction"), [(6, 8, 2), (192, 64, 8), (20, 12, 7)])
def test_sizes_follow_the_closed_form(on_meta, channels, hidden, reduction):
    """The specification's formula for any widths, section 4."""
    c, h, width, q = channels, channels // 2, hidden, channels // reduction
    cbam = 2 * c * q + q + c + 100
    r1 = 3 * ((10 * h + h * width + width) + (10 * width + width * c + c)) + 3 * cbam
    r2 = 3 * (9 * h * width + width) + 9 * (9 * width * c + c) + 3 * cbam
    detector = ValidFlow(validflow.Config(hidden=hidden, reduction=reduction, blocks=2), backbone=Three(channels))
    assert count(detector) == 4 * (r1 + r2) + 12 * 2 + 12 * 2 * c


def test_differnet_has_the_published_size(on_meta):
    """Eight couplings on 768 numbers: 172,077,056; AlexNet's features: 2,469,696."""
    detector = differnet.DifferNet(differnet.Config(), backbone=Three(256))
    assert count(detector) == 172_077_056
    assert count(differnet.AlexNetPyramid(pretrained=False).features) == 2_469_696


@pytest.mark.slow
@pytest.mark.parametrize(("cls", "changes"), [(CSFlow, {"blocks": 6}), (ValidFlow, {})])
def test_the_full_nets_score_and_take_a_step(cls, changes):
    """370 and 163 million parameters on small maps: finite scores, and a step that changes them; 6 GB."""
    torch.manual_seed(0)
    detector = cls(cls.Config(**changes), backbone=Three(304))
    g = torch.Generator().manual_seed(0)
    x = tuple(torch.randn(2, 304, s, s, generator=g) for s in (4, 2, 1))
    terms = detector.train().step(x, detector.optimizers(1, 1), g)
    with torch.no_grad():
        after = detector.eval().score(x)
    assert torch.isfinite(terms["total"])
    assert torch.isfinite(after.image).all()
    assert any(step.s1.gamma[0] != 0 for step in detector.flow if isinstance(step, Coupling))


def test_the_cross_scale_network_equals_the_authors(golden):
    """Three scales that exchange, gamma not zero."""
    g = golden("flow")
    found = fill(CrossScale(3, 4), g, "subnet")(scales(g, "subnet_input"))
    for i, each in enumerate(found):
        np.testing.assert_allclose(each.detach().numpy(), g[f"subnet_output{i}"], **EXACT)


def test_r1_and_r2_equal_a_second_build(golden):
    """Section 2 of the paper as specified; no code of the authors exists."""
    g = golden("flow")
    networks = {"r1": Parallel(3, 4, reduction=2), "r2": CrossScale(3, 4, far=True, reduction=2)}
    for name, network in networks.items():
        found = fill(network, g, f"validflow_{name}")(scales(g, f"validflow_{name}_input"))
        for i, each in enumerate(found):
            np.testing.assert_allclose(each.detach().numpy(), g[f"validflow_{name}_output{i}"], **EXACT)


def test_r1_keeps_the_scales_apart():
    """Changing one scale changes no other scale's output; in r2 it changes all."""
    torch.manual_seed(0)
    x = tuple(each[:, :3] for each in maps())
    other = (x[0] + 1, x[1], x[2])
    for network, changed in ((Parallel(3, 8), [True, False, False]), (CrossScale(3, 8, far=True), [True] * 3)):
        for gamma in network.gamma:
            nn.init.ones_(gamma)
        pairs = zip(network.eval()(x), network(other), strict=True)
        assert [not torch.equal(a, b) for a, b in pairs] == changed


def authors_net(golden) -> CSFlow:
    """CS-Flow of two blocks, kernel 3 throughout, with the weights of the authors' net."""
    detector = CSFlow(csflow.Config(blocks=2, hidden=4, last_kernel=3, image_size=256), backbone=Three(6)).double()
    couplings = [step for step in detector.flow if isinstance(step, Coupling)]
    for k, step in enumerate(couplings):
        for s in (1, 2):
            fill(getattr(step, f"s{s}"), golden, "net", f"block{k}.s{s}.")
    for k, step in enumerate(step for step in detector.flow if isinstance(step, Permutation)):
        for i in range(3):
            setattr(step, f"order{i}", torch.from_numpy(golden[f"net_perm_block{k}_scale{i}"]).long())
    return detector.eval()


def test_csflow_equals_the_authors(golden):
    """z, log-determinant, loss, image score and map of the whole net."""
    g = golden("flow")
    detector, x = authors_net(g), scales(g, "net_input")
    with torch.no_grad():
        z, logdet = detector.flow(x)
        found = detector.score(x)
    for i, each in enumerate(z):
        np.testing.assert_allclose(each.numpy(), g[f"net_z{i}"], **EXACT)
    np.testing.assert_allclose(
        logdet.numpy(),
        sum(g[f"net_logdet{i}"] for i in range(3)),
        **EXACT,
    )
    np.testing.assert_allclose(found.image.numpy(), g["net_image_score"], **EXACT)
    np.testing.assert_allclose(found.map.numpy(), g["net_map_mean_scale0"], **EXACT)
    assert detector.loss(x, None)["total"].item() == pytest.approx(float(g["net_nll"]), abs=1e-9)


def test_loss_and_score_equal_the_authors(golden):
    """Equation (3) for each dimension, and the mean of z^2 / 2."""
    g = golden("flow")
    z = scales(g, "nll_z")
    logdet = sum(torch.from_numpy(g[f"nll_logdet{i}"]).double() for i in range(3))
    nll = negative_log_likelihood(z, logdet) / csflow.dimensions(z)
    assert nll.mean().item() == pytest.approx(float(g["nll_value"]), abs=1e-9)
    detector = CSFlow(csflow.Config(blocks=1, hidden=4), backbone=Three(6))
    detector.flow = Flow()  # z is the input
    np.testing.assert_allclose(detector.score(z).image.numpy(), g["nll_image_score"], **EXACT)


def test_negative_log_likelihood_by_hand():
    """z = (1, 2) and (2), logdet 0.5: (1 + 4 + 4) / 2 - 0.5 = 4; three standard normals but for the constant."""
    z = (torch.tensor([[1.0, 2.0]]), torch.tensor([[2.0]]))
    found = negative_log_likelihood(z, torch.tensor([0.5]))
    assert found.tolist() == [4.0]
    density = torch.distributions.Normal(0.0, 1.0).log_prob(torch.tensor([1.0, 2.0, 2.0])).sum() + 0.5
    assert -density.item() - 1.5 * math.log(2 * math.pi) == pytest.approx(4.0, abs=1e-5)


@pytest.mark.parametrize("cls", [CSFlow, ValidFlow])
def test_a_flow_starts_as_a_permutation_of_its_input(cls):
    """gamma is 0: every coupling is the identity, so z holds the input's (after ActNorm, normalised) numbers."""
    torch.manual_seed(0)
    options = {"actnorm": False, "reduction": 2} if cls is ValidFlow else {}
    detector = cls(cls.Config(blocks=2, hidden=8, **options), backbone=Three(6)).eval()
    x = maps()
    z, logdet = detector.flow(x)
    for each, before in zip(z, x, strict=True):
        assert torch.equal(each.sort(1).values, before.sort(1).values)
    assert logdet.tolist() == [0.0] * 4


@pytest.mark.parametrize("cls", [CSFlow, ValidFlow])
def test_whole_flows_go_back(cls):
    """x -> z -> x in float32: 1e-4; a flow that loses nothing."""
    detector = tiny(cls)
    detector.flow.train()(maps())  # starts the ActNorms
    x = maps(seed=1)
    z, _ = detector.eval().flow(x)
    for back, each in zip(detector.flow.inverse(z), x, strict=True):
        torch.testing.assert_close(back, each, atol=1e-4, rtol=0)


def test_cells_pool_to_the_image_score():
    """Their mean is the mean of z^2 / 2 over all scales; without the padding it is the mean of the rest."""
    detector = tiny().eval()
    z, _ = detector.flow(maps())
    numbers = torch.cat([each.flatten(1) for each in z], 1)
    found = detector.score(maps())
    torch.testing.assert_close(found.image, numbers.square().mean(1) / 2)
    valid = torch.zeros(4, 8, 8, dtype=torch.bool)
    valid[:, :4] = True
    torch.testing.assert_close(detector.pool(found.cells, valid), found.cells[:, :4].mean((1, 2)))


def test_a_defect_in_the_features_scores_higher():
    """Trained on noise of deviation 1, the flow calls a shifted corner anomalous, and the map shows where."""
    embedded = Embeddings([[each.numpy() for each in maps(32)]], single=False)
    detector = tiny(epochs=5, learning_rate=1e-2)
    Training(detector, embedded, seed=0).run()
    normal = maps(8, seed=5)
    broken = tuple(each.clone() for each in normal)
    broken[0][:, :, :3, :3] += 3
    with torch.no_grad():
        before, after = detector.score(normal), detector.score(broken)
    assert (after.image > before.image).all()
    inside = after.map[:, :3, :3].flatten(1).amax(1)
    assert torch.equal(after.map.flatten(1).amax(1), inside)


@pytest.mark.parametrize("cls", [CSFlow, ValidFlow])
def test_one_training_image_is_enough_to_train_on(cls):
    """Also where its coarsest map is a single place, of which no deviation is known."""
    one = [each[:, :, :s, :s].numpy() for each, s in zip(maps(1), (4, 2, 1), strict=True)]
    detector = tiny(cls, epochs=2)
    history = Training(detector, Embeddings([one], single=False), seed=0).run()
    assert history.total.notna().all()
    assert torch.isfinite(detector.score(tuple(torch.from_numpy(each) for each in one)).image).all()


def test_training_lowers_the_loss_of_both_flows():
    """Both learn a density of the same features."""
    embedded = Embeddings([[each.numpy() for each in maps(32)]], single=False)
    for cls in (CSFlow, ValidFlow):
        history = Training(tiny(cls, epochs=4, learning_rate=1e-3, adam_eps=1e-8), embedded, seed=0).run()
        assert history.total.iloc[-1] < history.total.iloc[0]


def test_values_that_are_not_finite_name_step_and_layer():
    """No NaN passes silently: the third step fails, in the second coupling."""
    detector = tiny(CSFlow, blocks=2)
    detector.loss(maps(), None)
    detector.loss(maps(), None)
    with torch.no_grad():
        detector.flow[3].s1.out[0].bias.fill_(torch.inf)
    with pytest.raises(UserError, match=r"step 3: values of layer flow\.3 \(Coupling\) are not finite"):
        detector.loss(maps(), None)
    broken = (maps()[0] * torch.nan, *maps()[1:])
    with pytest.raises(UserError, match="the features are not finite"):
        tiny(CSFlow).loss(broken, None)


def test_stored_weights_that_are_not_finite_are_refused():
    """They would score everything alike."""
    detector = tiny()
    state = detector.state_dict()
    name = next(name for name in state if name.endswith("hidden.0.0.weight"))
    state[name] = torch.full_like(state[name], torch.nan)
    with pytest.raises(UserError, match=r"stored weights of flow\.\S+ are not finite"):
        tiny().load_state_dict(state)


def test_gradients_are_clipped():
    """Total norm 1, as the authors' train.py."""
    detector = tiny(CSFlow)
    (10_000 * detector.loss(maps(), None)["total"]).backward()
    detector.clip()
    norms = [p.grad.norm() for p in detector.parameters() if p.grad is not None]
    assert torch.stack(norms).norm().item() == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"image_size": 200}, "multiple of 128, e.g. 128 or 256"),
        ({"kernel": 4}, "'kernel' is 4; it must be odd"),
        ({"reduction": 512}, "with 6 channels it is at most that"),
    ],
)
def test_settings_that_cannot_work_are_one_sentence(changes, match):
    """What, where, what would be valid."""
    with pytest.raises(UserError, match=match):
        ValidFlow(validflow.Config(**changes), backbone=Three(6))


def test_an_odd_number_of_channels_has_no_halves():
    """A backbone of 7 channels."""
    with pytest.raises(UserError, match="has 7 channels; halves need an even number"):
        CSFlow(csflow.Config(), backbone=Three(7))


def test_a_differnet_coupling_equals_the_authors(golden):
    """One coupling of vectors; four linear layers."""
    g = golden("flow")
    step = Coupling(*(fill(differnet.Dense(3, 7), g, "differnet", f"s{k}.") for k in (1, 2)))
    (y,), logdet = step((torch.from_numpy(g["differnet_input"]).double(),))
    np.testing.assert_allclose(y.detach().numpy(), g["differnet_output"], **EXACT)
    np.testing.assert_allclose(logdet.detach().numpy(), g["differnet_logdet"], **EXACT)


def test_differnet_scores_the_mean_over_angles_and_dimensions():
    """With no coupling z is the input: angles (1, 1) and (3, 3) give (1 + 9) / 2 = 5."""
    config = differnet.Config(blocks=1, hidden=4, rotations=2, image_size=256, backbone="any")
    detector = differnet.DifferNet(config, backbone=Three(2))
    detector.flow = Flow()
    found = detector.score(torch.tensor([[[1.0] * 6, [3.0] * 6]]))
    assert found.image.tolist() == [5.0]
    assert found.map is None


def test_differnet_embeds_every_angle():
    """Two angles, 0 and 180 degrees: the second is the first of the picture turned by hand."""

    class Corners(Three):
        def forward(self, images):
            return tuple(images[:, :2, :s, :s] for s in (8, 4, 2))

    config = differnet.Config(rotations=2, blocks=1, hidden=4)
    detector = differnet.DifferNet(config, backbone=Corners(2))
    picture = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    found = detector.embed(picture)
    assert found.shape == (1, 2, 6)
    torch.testing.assert_close(found[:, 1], detector.embed(picture.flip(2, 3))[:, 0])
