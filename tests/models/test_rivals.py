"""MKD, U-Net autoencoder and DAGAN: losses and scores against the authors' code and by hand, exact sizes."""

import made
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from adlib import models
from adlib.common.errors import UserError
from adlib.models import dagan, mkd, unet_autoencoder
from adlib.models.dagan import DAGAN
from adlib.models.mkd import MKD, Cloner, distances
from adlib.models.unet_autoencoder import Generator, UNetAutoencoder


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def small(name: str, **changes):
    detector, config = models.get(name)
    torch.manual_seed(0)
    return detector(config.from_dict(made.RIVALS[name] | changes)).eval()


def images(batch: int = 2, side: int = 64) -> torch.Tensor:
    return torch.rand(batch, 3, side, side, generator=torch.Generator().manual_seed(1))


# MKD


@pytest.mark.parametrize(("blocks", "parameters"), [(mkd.SMALL, 343_984), (mkd.EQUAL, 14_715_968)])
def test_cloners_have_the_authors_sizes(blocks, parameters):
    assert count(Cloner(blocks)) == parameters


def activations(golden, of: str) -> tuple[torch.Tensor, ...]:
    return tuple(torch.from_numpy(golden("mae")[f"mkd_{of}_{i}"]) for i in range(4))


def test_mkds_loss_and_score_equal_the_authors(golden):
    """Direction plus 0.5 times value over four layers in training; over the last three, per image, for the score."""
    cloned, source = activations(golden, "cloner"), activations(golden, "source")
    direction, value = (each.mean().item() for each in distances(cloned, source))
    assert direction + 0.5 * value == pytest.approx(float(golden("mae")["mkd_loss"]), rel=1e-5)
    assert direction == pytest.approx(float(golden("mae")["mkd_direction_loss"]), rel=1e-5)
    score = small("mkd", localise=False).distance(cloned, source)
    np.testing.assert_allclose(score, golden("mae")["mkd_score"], rtol=1e-6)


def test_distances_by_hand():
    """(1, 0) against (0, 2): cosine 0, so direction 1; mean square (1 + 4) / 2. Against itself both are 0."""
    a, b = torch.tensor([[[[1.0, 0.0]]]]), torch.tensor([[[[0.0, 2.0]]]])
    direction, value = distances((a, a), (b, a))
    assert (direction.item(), value.item()) == (pytest.approx(1.0), pytest.approx(2.5))


def test_vgg_and_its_cloner_have_the_same_shapes():
    """128 px: 128 x 32 x 32, 256 x 16 x 16, 512 x 8 x 8, 512 x 4 x 4; random weights, so nothing is fetched."""
    detector = MKD(mkd.Config(pretrained=False)).eval()
    x, *source = detector.embed(images(1, 128))
    expected = [(1, 128, 32, 32), (1, 256, 16, 16), (1, 512, 8, 8), (1, 512, 4, 4)]
    with torch.no_grad():
        assert [tuple(t.shape) for t in detector.cloner(x)] == [tuple(t.shape) for t in source] == expected
    assert all((t >= 0).all() for t in source)


def test_a_cloner_of_features_with_both_signs_ends_its_blocks_without_relu():
    """EfficientNet's blocks end linearly: a cloner that cannot go below 0 could not copy them."""
    detector = small("mkd", localise=False)
    with torch.no_grad():
        assert all((t < 0).any() for t in detector.cloner(images()))
        assert all((t < 0).any() for t in detector.source(images()))


def test_mkds_map_is_the_size_of_the_scores_gradient():
    """Central differences of the score in one pixel and colour, where callers forbid gradients; smoothing off."""
    detector, x = small("mkd", smooth=0.0, normalise=True).double(), images(1).double()
    with torch.inference_mode():
        scores = detector.score(detector.embed(x))
    assert scores.map.shape == (1, 64, 64)
    at = divmod(int(scores.map.argmax()), 64)
    total = 0.0
    for colour in range(3):
        step = torch.zeros_like(x)
        step[0, colour, at[0], at[1]] = 1e-5
        with torch.no_grad():
            up, down = (detector.distance(detector.cloner(y), detector.source(y)) for y in (x + step, x - step))
        total += ((up - down) / 2e-5).abs().item()
    assert scores.map[0, at[0], at[1]].item() == pytest.approx(total, rel=1e-2)


# U-Net autoencoder and DAGAN


@pytest.mark.parametrize(
    ("side", "width", "parameters"),
    [(128, 64, 41_828_995), (256, 64, 54_413_955), (64, 16, 1_830_563), (64, 32, 7_314_755), (128, 32, 10_461_507)],
)
def test_generators_have_the_authors_sizes(side, width, parameters):
    with torch.device("meta"):
        generator = Generator(side, width)
        assert count(generator) == parameters
        assert generator(torch.zeros(2, 3, side, side)).shape == (2, 3, side, side)


@pytest.mark.parametrize(("width", "parameters"), [(64, 1_315_587), (16, 83_139)])
def test_discriminators_have_the_known_sizes(width, parameters):
    discriminator = dagan.Discriminator(width)
    assert count(discriminator) == parameters
    assert discriminator(2 * images() - 1).shape == (2, 3, 64, 64)


def test_skips_carry_activated_features():
    """The last join sees LeakyReLU of the first convolution's output: its negative values are a fifth."""
    generator = Generator(32, 2).eval()
    seen = {}
    generator.up[-1].register_forward_hook(lambda _, x, y: seen.update(x=x[0]))
    with torch.no_grad():
        generator(2 * images(1, 32) - 1)
        first = generator.down[0](2 * images(1, 32) - 1)
    expected = F.relu(F.leaky_relu(first, 0.2))  # and the ReLU before every transposed convolution
    torch.testing.assert_close(seen["x"][:, :2], expected)


def test_the_residual_is_scored_in_units_of_0_to_1():
    """The network works in -1..1, where a difference is twice as large and its square four times."""
    detector, x = small("unet_autoencoder"), images()
    with torch.no_grad():
        made_again = (detector.generator(2 * x - 1) + 1) / 2
        scores = detector.score(x)
    torch.testing.assert_close(scores.map, (made_again - x).square().mean(1))
    torch.testing.assert_close(scores.image, (made_again - x).square().mean((1, 2, 3)))


def test_dagans_losses_by_hand():
    """Networks that halve and negate: x = 1, G = 0.5; D(x) = -1, D(G) = -0.5. Content 0.25, L_adv 0.25, L_Dcon 4."""

    class Times(nn.Module):
        def __init__(self, factor: float):
            super().__init__()
            self.factor = factor

        def forward(self, x):
            return self.factor * x

    detector = small("dagan")
    detector.generator, detector.discriminator = Times(0.5), Times(-1.0)
    x = torch.ones(1, 3, 8, 8)
    terms = detector.generator_terms(x, detector.generator(x))
    assert (terms["content"].item(), terms["adversarial"].item()) == (0.25, 0.25)
    assert terms["total"].item() == 40 * 0.25 + 0.25
    assert detector.discriminator_loss(x, detector.generator(x)).item() == 4 - 0.25


def test_each_network_of_dagan_is_moved_by_its_own_optimiser_only():
    detector = small("dagan").train()
    optimizers = detector.optimizers(1, 10)
    assert [{id(p) for g in o.param_groups for p in g["params"]} for o, _ in optimizers] == [
        {id(p) for p in detector.generator.parameters()},
        {id(p) for p in detector.discriminator.parameters()},
    ]
    before = {name: p.detach().clone() for name, p in detector.named_parameters()}
    detector.step(images(4), optimizers, torch.Generator())
    moved = {name.partition(".")[0] for name, p in detector.named_parameters() if not torch.equal(p, before[name])}
    assert moved == {"generator", "discriminator"}


def test_the_u_net_is_the_generator_of_dagan():
    """The same class and the same score, so that the comparison shows the discriminator."""
    assert issubclass(DAGAN, UNetAutoencoder)
    assert type(small("dagan").generator) is type(small("unet_autoencoder").generator) is Generator
    assert DAGAN.score is UNetAutoencoder.score


@pytest.mark.parametrize(
    ("module", "changes", "says"),
    [
        (mkd, {"image_size": 100}, "image_size 100 is not a multiple of 32; use 96 or 128"),
        (mkd, {"layers": "features.9"}, "it must have 4 names joined by commas"),
        (unet_autoencoder, {"image_size": 96}, "image_size 96 is no power of two; use 64 or 128"),
        (dagan, {"image_size": 96}, "image_size 96 is no power of two; use 64 or 128"),
    ],
)
def test_settings_that_cannot_be_are_refused_in_one_sentence(module, changes, says):
    with pytest.raises(UserError, match=says):
        module.Config(**changes)


def test_layers_at_other_strides_are_refused():
    with pytest.raises(UserError, match=r"have strides \[4, 8, 8, 16\]; they must have 4, 8, 16, 32"):
        small("mkd", layers="blocks.1, blocks.2, blocks.2.0, blocks.4")
