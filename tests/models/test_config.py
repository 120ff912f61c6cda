"""Settings: epochs or steps, precision, and new fields that leave finished runs alone."""

from dataclasses import dataclass

import made
import pytest
import stubs
import torch

import adlib
from adlib import runs
from adlib.common.errors import UserError
from adlib.models import config
from adlib.models.config import Config, setting


@pytest.mark.parametrize(
    ("values", "expected"),
    [({}, (100, None)), ({"epochs": 3}, (3, None)), ({"steps": 50}, (None, 50)), ({"epochs": 0}, (0, None))],
)
def test_who_names_epochs_or_steps_turns_the_other_off(values, expected):
    made_config = Config.from_dict(values)
    assert (made_config.epochs, made_config.steps) == expected
    assert Config.from_dict(made_config.to_dict()) == made_config


@pytest.mark.parametrize("values", [{"epochs": 3, "steps": 5}, {"epochs": None}])
def test_exactly_one_of_epochs_and_steps_is_set(values):
    with pytest.raises(UserError, match="exactly one of them must be a number"):
        Config.from_dict(values)


def test_a_later_field_at_its_default_leaves_the_identity_alone():
    """A field that came after runs were made: its default means what those did, so their hash stays."""

    @dataclass(frozen=True, kw_only=True)
    class Grown(Config):
        tile: int | None = setting(None, low=8, later=True)
        shade: int = setting(3, low=0)

    assert "tile" not in Grown().identity()
    assert Grown(tile=64).identity()["tile"] == 64
    assert Grown().identity()["shade"] == 3
    assert Grown().to_dict()["tile"] is None
    assert "stride" not in Config().identity()
    assert Config(resize_mode="tiles", stride=64).identity()["stride"] == 64


def test_tf32_is_refused_on_a_cpu(tmp_path, monkeypatch):
    """It would be float32 under another name."""
    made.folder_dataset(tmp_path / "data", train=8, normal=2, anomalous=2)
    monkeypatch.setenv("ADLIB_DATA", str(tmp_path / "data"))
    monkeypatch.setitem(adlib.models.SYSTEMS, "stub", "stubs.DerivedImage")
    with pytest.raises(UserError, match="tf32 exists on NVIDIA GPUs only"):
        adlib.reproduce("stub", "folder", config={"precision": "tf32"}, device="cpu")


def test_bfloat16_trains_on_the_cpu_and_is_another_run(tmp_path, monkeypatch, capsys):
    """Autocast of the training steps: other numbers than float32, close to them; a CPU without the instructions is
    warned of.
    """
    made.folder_dataset(tmp_path / "data", train=12, normal=3, anomalous=3)
    monkeypatch.setenv("ADLIB_DATA", str(tmp_path / "data"))
    monkeypatch.setitem(adlib.models.SYSTEMS, "stub", "stubs.DerivedImage")
    losses = {}
    for precision in ("float32", "bfloat16"):
        run = adlib.reproduce("stub", "folder", config={"precision": precision, "eval_every": 0}, device="cpu").runs[0]
        losses[precision] = run.history.total.iloc[-1]
    assert losses["float32"] != losses["bfloat16"]
    assert losses["bfloat16"] == pytest.approx(losses["float32"], rel=0.05)
    warned = "no bfloat16 instructions" in capsys.readouterr().err
    assert warned == (not torch.cpu._is_avx512_bf16_supported())


def test_precisions_are_those_of_the_contract():
    assert config.PRECISIONS == ("float32", "tf32", "bfloat16")
    with pytest.raises(UserError, match="valid: 'float32', 'tf32', 'bfloat16'"):
        stubs.Config(precision="float16")


def test_hashes_change_with_the_texture_bank_weights_and_config_but_not_with_the_spelling(tmp_path, monkeypatch):
    made.folder_dataset(tmp_path / "data", train=8, normal=2, anomalous=2)
    monkeypatch.setenv("ADLIB_DATA", str(tmp_path / "data"))
    monkeypatch.setitem(adlib.models.SYSTEMS, "stub", "stubs.MemoryBank")
    first, same, other = (runs.plans("stub", "folder", config=c)[0].hash for c in ({}, {"share": 0.1}, {"share": 0.2}))
    assert first == same
    assert first != other
