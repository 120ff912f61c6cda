"""Every registered system obeys the contract of models/base.py, and every Config refuses nonsense in one sentence."""

import dataclasses
import functools
import typing

import made
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from adlib import models
from adlib.common.errors import UserError
from adlib.embeddings import Embeddings
from adlib.models.base import Detector

# Settings that make each system small enough for a test; everything else stays the paper's.
SMALL = {
    "simplenet": {"image_size": 64, "resize": None, "backbone": "tf_efficientnet_lite0", "epochs": 1},
    "draem": {
        "image_size": 64,
        "epochs": 40,
        "reconstruction_width": 4,
        "segmentation_width": 4,
        "learning_rate": 3e-3,
        "anomaly_probability": 1.0,
        "rotate_probability": 0.0,
    },
    "improved_mae": made.MAE,
    "mmaerec": made.MMAEREC | {"corruption": "none"},
    **made.RIVALS,
    **made.BASELINES,
} | {name: {**made.THREE_SCALES, **more} for name, more in made.FLOWS.items()}


STEPS = {"ganomaly": 200}  # of training, here; others 40. Its codes take longer until they agree on normal pictures


def make(name: str) -> Detector:
    detector_class, config_class = models.get(name)
    torch.manual_seed(0)
    return detector_class(config_class.from_dict(SMALL[name]))


def sized(detector: Detector, images: torch.Tensor) -> torch.Tensor:
    """Pictures of 64 pixels at the system's side."""
    return F.interpolate(images, size=2 * (detector.config.image_size,))


def normal_images(n: int, size: int = 64) -> torch.Tensor:
    """Stripes with a little noise."""
    g = torch.Generator().manual_seed(0)
    x = torch.sin(torch.arange(size) / 3).view(1, 1, 1, size).expand(n, 3, size, size) * 0.3 + 0.5
    return (x + 0.02 * torch.randn(n, 3, size, size, generator=g)).clamp(0, 1)


def test_every_system_has_a_small_setting_here():
    """A new system cannot be registered without being tested."""
    assert set(SMALL) == set(models.SYSTEMS)


@pytest.fixture(params=list(SMALL))
def trained(request):
    """A system after some steps on normal images, in eval mode; no test changes it."""
    return _trained(request.param)


@functools.cache
def _trained(name: str) -> Detector:
    detector = make(name)
    bank = detector.texture_bank(detector.config, "textures", ("brick",))
    if bank is not None:
        detector.equip(bank, "cpu")
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        out = detector.embed(sized(detector, normal_images(8)))
    arrays = [o.numpy() for o in (out if isinstance(out, tuple) else (out,))]
    embeddings = Embeddings([arrays], single=not isinstance(out, tuple))
    detector.prepare(embeddings, generator)
    if detector.trains:
        steps = STEPS.get(name, 40)
        optimizers, losses = detector.train().optimizers(1, steps), []
        for _ in range(steps):
            losses.append(detector.step(embeddings.take(range(8)), optimizers, generator)["total"].item())
        assert np.mean(losses[-5:]) < np.mean(losses[:5]), "training does not lower the loss"
    detector.eval()
    if detector.fits:
        detector.fit(embeddings, generator)
    return detector


def scores_of(detector: Detector, images: torch.Tensor):
    with torch.inference_mode():
        return detector.score(detector.embed(sized(detector, images)))


def test_scores_have_the_promised_shape_and_are_finite(trained):
    found = scores_of(trained, normal_images(3))
    assert found.image.shape == (3,)
    assert torch.isfinite(found.image).all()
    if found.map is not None:
        assert found.map.ndim == 3
        assert found.map.shape[0] == 3
        assert torch.isfinite(found.map).all()


def test_a_planted_defect_scores_higher_than_normal(trained):
    """Higher = more anomalous, in the image score and at the defect's place in the map."""
    images = normal_images(2)
    images[1, :, 20:40, 20:40] = torch.rand(3, 20, 20, generator=torch.Generator().manual_seed(1))
    found = scores_of(trained, images)
    assert found.image[1] > found.image[0]
    if found.map is not None:
        maps = F.interpolate(found.map[:, None], size=(64, 64), mode="bilinear")[:, 0]
        assert maps[1, 25:35, 25:35].mean() > maps[1, 50:, 50:].mean()


def test_a_score_does_not_depend_on_the_rest_of_the_batch(trained):
    """Batch and single image agree up to the rounding of differently blocked convolutions."""
    images = normal_images(4)
    images[:, :, 20:40, 20:40] = torch.rand(4, 3, 20, 20, generator=torch.Generator().manual_seed(1))
    whole = scores_of(trained, images).image
    single = torch.cat([scores_of(trained, images[i : i + 1]).image for i in range(4)])
    torch.testing.assert_close(whole, single, atol=1e-5, rtol=1e-5)


def test_saved_and_loaded_weights_score_bitwise_the_same(trained, tmp_path):
    from safetensors.torch import load_file, save_file

    from adlib.training import learnt_state, load_learnt

    before = scores_of(trained, normal_images(2)).image
    save_file({k: v.contiguous() for k, v in learnt_state(trained).items()}, tmp_path / "m.safetensors")
    name = next(k for k, v in models.SYSTEMS.items() if v.endswith(f".{type(trained).__name__}"))
    other = make(name).eval()
    load_learnt(other, load_file(tmp_path / "m.safetensors"))
    assert torch.equal(before, scores_of(other, normal_images(2)).image)


@pytest.mark.parametrize("name", list(SMALL))
def test_config_defaults_are_valid_and_survive_a_round_trip(name):
    config_class = models.get(name)[1]
    assert config_class.from_dict(config_class().to_dict()) == config_class()
    assert config_class().changed() == {}


@pytest.mark.parametrize("name", list(SMALL))
@pytest.mark.parametrize(
    ("values", "part"),
    [
        ({"epochz": 3}, "did you mean 'epochs'"),
        ({"epochs": "many"}, "must be int"),
        ({"epochs": True}, "must be int"),
        ({"image_size": 1}, "at least"),
        ({"image_size": None}, "must be int"),
        ({"holdback": 0.9}, "at most 0.5"),
        ({"holdback": float("nan")}, "at least 0.0"),
        ({"mask_rule": "nearly"}, "valid: 'nearest'"),
    ],
)
def test_config_refuses_nonsense_in_one_sentence(name, values, part):
    config_class = models.get(name)[1]
    with pytest.raises(UserError, match=part) as error:
        config_class.from_dict(values)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", models.SYSTEMS)
def test_every_number_of_a_config_has_both_ends(name):
    """So no setting asks for more memory or time than any machine has: setting(default, low=..., high=...)."""
    config_class = models.get(name)[1]
    hints = typing.get_type_hints(config_class)
    for f in dataclasses.fields(config_class):
        kinds = {
            kind for hint in (hints[f.name], *typing.get_args(hints[f.name])) for kind in (hint, *typing.get_args(hint))
        }
        if kinds & {int, float} and not f.metadata.get("choices"):
            assert None not in (f.metadata.get("low"), f.metadata.get("high")), f"{f.name} has no low or no high"


@pytest.mark.parametrize(
    "values",
    [{"image_size": 10**9}, {"metric_size": 100_000}, {"smooth": 1e9}, {"smooth": 10**400}, {"epochs": 10**5000},
     {"layers": list(range(99))}, {"backbone": "x" * 300}, {"backbone": "a\0b"}],
)  # fmt: skip
def test_what_no_machine_has_is_one_short_sentence(values):
    with pytest.raises(UserError) as error:
        models.get("simplenet")[1].from_dict(values)
    assert len(str(error.value)) < 300
    assert "\n" not in str(error.value)


def test_config_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        models.get("simplenet")[1]().epochs = 3


def test_unknown_method_lists_the_valid_ones():
    with pytest.raises(UserError, match="did you mean 'simplenet'"):
        models.get("simplnet")
