"""Features at three scales, and the two statistics on them: by hand, against scikit-learn and golden vectors."""

import numpy as np
import pytest
import torch
from torch import nn

from adlib.common.errors import UserError
from adlib.common.paths import cache_root
from adlib.embeddings import Embeddings, embeddings
from adlib.models import mahalanobis, multiscale, nearest_neighbour
from adlib.models.csflow import CSFlow
from adlib.models.multiscale import Pyramid
from adlib.models.validflow import ValidFlow

LITE = "tf_efficientnet_lite0"


class Three(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.channels = (channels,) * 3


def spread(rows: np.ndarray) -> Embeddings:
    """Rows [N,3C] as embeddings whose spatial means they are: three maps [N,C,2,2] of constant planes."""
    parts = np.split(rows.astype("float32"), 3, axis=1)
    return Embeddings([[np.repeat(part[:, :, None, None], 2, 2).repeat(2, 3) for part in parts]], single=False)


def test_scales_are_every_second_and_fourth_pixel():
    """F.interpolate's default, as cs-flow utils.py; `area` averages instead."""
    x = torch.arange(64.0).view(1, 1, 8, 8)
    for i, each in enumerate(multiscale.sizes(x)):
        torch.testing.assert_close(each, nn.functional.interpolate(x, size=8 // 2**i))
    assert multiscale.sizes(x, "area")[1][0, 0, 0, 0] == (0 + 1 + 8 + 9) / 4


def test_embedded_features_have_the_sixth_stage_at_three_scales():
    """lite0: 192 channels, strides 32; the finest map is that of the plain network."""
    pyramid = Pyramid(LITE, "blocks.5")
    x = torch.rand(2, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found = pyramid(x)
        half = pyramid(x[..., ::2, ::2].repeat_interleave(2, 2).repeat_interleave(2, 3))
    assert [tuple(each.shape) for each in found] == [(2, 192, 4, 4), (2, 192, 2, 2), (2, 192, 1, 1)]
    assert pyramid.strides == (32, 64, 128)
    torch.testing.assert_close(half[1], found[1])


def test_all_systems_of_the_paper_share_one_cache():
    """The same key, so features are computed once for all of them."""
    config = {"backbone": LITE, "image_size": 128}
    kinds = {
        CSFlow: {"hidden": 4, "blocks": 1},
        ValidFlow: {"hidden": 4, "blocks": 1},
        mahalanobis.Mahalanobis: {},
        nearest_neighbour.NearestNeighbour: {},
    }
    keys = [cls(cls.Config(**config, **more)).embedding_key for cls, more in kinds.items()]
    assert all(key == keys[0] for key in keys)
    other = CSFlow(CSFlow.Config(**config, hidden=4, blocks=1, pyramid="area")).embedding_key
    assert other != keys[0]


def test_b5_is_cut_and_padded_as_published():
    """17,543,204 parameters, 304 channels; at 456 pixels the published padding is timm's, at 384 it is not."""
    pyramid = Pyramid("tf_efficientnet_b5", "blocks.5", pretrained=False)
    assert sum(p.numel() for p in pyramid.model.parameters()) == 17_543_204
    assert pyramid.channels == (304,) * 3
    plain = multiscale.Features("tf_efficientnet_b5", ("blocks.5",), pretrained=False)
    x = torch.rand(1, 3, 456, 456, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(multiscale.Features.forward(pyramid, x), plain(x), atol=1e-4, rtol=1e-4)
        small = x[..., :384, :384]
        found, theirs = multiscale.Features.forward(pyramid, small)[0], plain(small)[0]
    assert found.shape == theirs.shape == (1, 304, 12, 12)
    assert (found - theirs).norm() > 1e-3 * theirs.norm()


@pytest.mark.parametrize("layer", ["blocks.9", "head", "5"])
def test_a_layer_that_the_backbone_does_not_have_is_one_sentence(layer):
    """What was asked for, of which network."""
    with pytest.raises(UserError, match=f"{LITE}.*{layer}") as error:
        Pyramid(LITE, layer)
    assert "\n" not in str(error.value)


def test_features_of_another_backbone_or_layer_are_never_taken_for_these(tmp_path):
    """The cache is found by weights, layer and making: another layer computes its own features."""
    pictures = np.random.default_rng(0).integers(0, 255, (3, 3, 128, 128), dtype=np.uint8)
    shapes = {}
    for layer in ("blocks.5", "blocks.4"):
        config = CSFlow.Config(backbone=LITE, image_size=128, layer=layer, hidden=4, blocks=1)
        found = embeddings(CSFlow(config), pictures, "pictures").take([0, 1, 2])
        shapes[layer] = [tuple(each.shape) for each in found]
    assert shapes["blocks.5"][0] == (3, 192, 4, 4)
    assert shapes["blocks.4"][0] == (3, 112, 8, 8)


def test_cached_features_are_halves_and_a_truncated_file_is_made_again():
    """float16 on disk, float32 in use; a file that lost its end is not read, but computed again."""
    pictures = np.random.default_rng(0).integers(0, 255, (3, 3, 128, 128), dtype=np.uint8)
    detector = CSFlow(CSFlow.Config(backbone=LITE, image_size=128, hidden=4, blocks=1))
    first = embeddings(detector, pictures, "pictures").take([0, 1, 2])
    (path,) = cache_root().glob("features/*/map0.npy")
    assert np.load(path).dtype == np.float16
    path.write_bytes(path.read_bytes()[:-100])
    again = embeddings(detector, pictures, "pictures").take([0, 1, 2])
    assert all(each.dtype == torch.float32 for each in first)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


def test_means_of_places():
    """A plane of 1, 2, 3, 6 has the mean 3."""
    x = torch.tensor([1.0, 2.0, 3.0, 6.0]).view(1, 1, 2, 2)
    assert multiscale.means((x, 2 * x)).tolist() == [[[3.0], [6.0]]]


def test_a_gaussian_equals_scikit_learn(golden):
    """Mean, Ledoit-Wolf precision and distance of golden/flow.npz."""
    g = golden("flow")
    mean, precision = mahalanobis.gaussian(torch.from_numpy(g["maha_train"]))
    np.testing.assert_allclose(mean.numpy(), g["maha_mean"], atol=1e-9)
    np.testing.assert_allclose(precision.numpy(), g["maha_precision"], rtol=1e-9, atol=1e-9)
    found = mahalanobis.distance(torch.from_numpy(g["maha_test"]), mean, precision)
    np.testing.assert_allclose(found.numpy(), g["maha_distance"], rtol=1e-9)


def test_a_distance_by_hand():
    """Identity precision: the Euclidean distance of (3, 4) from the origin is 5."""
    assert mahalanobis.distance(torch.tensor([[3.0, 4.0]]), torch.zeros(2).double(), torch.eye(2).double()).item() == 5


@pytest.mark.parametrize("joint", [False, True])
def test_mahalanobis_adds_its_levels(golden, joint):
    """Three scales of three numbers: the sum of three distances, or one of all nine."""
    g = golden("flow")
    detector = mahalanobis.Mahalanobis(mahalanobis.Config(joint=joint), backbone=Three(3))
    detector.fit(spread(g["maha_train"]), torch.Generator())
    test = g["maha_test"].astype("float32")
    found = detector.score(spread(test).take(range(len(test)))).image
    if joint:
        np.testing.assert_allclose(found.numpy(), g["maha_distance"], rtol=1e-4)
        return
    each = 0
    for i in range(3):
        part = slice(3 * i, 3 * i + 3)
        gaussian = mahalanobis.gaussian(torch.from_numpy(g["maha_train"][:, part]))
        each = each + mahalanobis.distance(torch.from_numpy(test[:, part]), *gaussian)
    np.testing.assert_allclose(found.numpy(), each.numpy(), rtol=1e-4)


@pytest.mark.parametrize(("normalise", "name"), [("none", "nn_distance"), ("zscore", "nn_distance_zscored")])
def test_nearest_neighbour_equals_scipy(golden, normalise, name):
    """Distances of golden/flow.npz, as they are and with each dimension by its deviation."""
    g = golden("flow")
    detector = nearest_neighbour.NearestNeighbour(nearest_neighbour.Config(normalise=normalise), backbone=Three(3))
    detector.fit(spread(g["maha_train"]), torch.Generator())
    found = detector.score(spread(g["maha_test"]).take(range(len(g["maha_test"])))).image
    np.testing.assert_allclose(found.numpy(), g[name], rtol=1e-4)


def test_nearest_neighbour_of_unit_vectors_by_hand():
    """l2: (2, 0, 0) and (0, 1, 0) as unit vectors are sqrt(2) apart; the length of a vector does not count."""
    detector = nearest_neighbour.NearestNeighbour(nearest_neighbour.Config(normalise="l2"), backbone=Three(1))
    detector.fit(spread(np.array([[2.0, 0, 0], [5.0, 0, 0]])), torch.Generator())
    found = detector.score(spread(np.array([[0, 1.0, 0], [7.0, 0, 0]])).take([0, 1])).image
    assert found.tolist() == [pytest.approx(2**0.5), pytest.approx(0.0)]


def test_one_training_image_makes_no_gaussian():
    """One sentence: what is there and what is needed."""
    detector = mahalanobis.Mahalanobis(mahalanobis.Config(), backbone=Three(3))
    with pytest.raises(UserError, match="at least 2 training images, but there is 1"):
        detector.fit(spread(np.ones((1, 9))), torch.Generator())
