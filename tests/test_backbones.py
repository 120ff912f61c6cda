"""Frozen networks by name and layer: what is built, what a fingerprint knows, where weights come from."""

import socket
import subprocess
import sys
import time

import pytest
import torch
from conftest import PROJECT
from torch import nn

from adlib import backbones
from adlib.backbones import Features, Frozen, Network, networks
from adlib.common.errors import UserError


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(
    ("name", "layer", "count", "channels", "stride"),
    [("tf_efficientnet_b5", "blocks.5", 17_543_204, 304, 32), ("vgg16", "features.29", 14_714_688, 512, 16)],
)
def test_layers_may_be_names_of_modules(name, layer, count, channels, stride):
    """EfficientNet-B5 to blocks.5 (ValidFlow) and VGG-16's convolutions (MKD), counted in the specifications."""
    features = Features(name, (layer,), pretrained=False)
    assert parameters(features) == count
    assert (features.channels, features.strides) == ((channels,), (stride,))
    (maps,) = features(torch.rand(1, 3, 64, 64))
    assert maps.shape == (1, channels, 64 // stride, 64 // stride)


def test_names_and_indices_give_the_same_maps():
    """Index 2 of timm's test_resnet is the output of its module layer2."""
    images = torch.rand(2, 3, 32, 32)
    by_index = Features("test_resnet", (2,), pretrained=False)
    by_name = Features("test_resnet", ("layer2",), pretrained=False)
    by_name.model.load_state_dict(by_index.model.state_dict(), strict=False)
    torch.testing.assert_close(by_index(images)[0], by_name(images)[0])


def test_normalising_can_be_left_out():
    """(x - mean) / std of the network before, x itself without: equal on what was normalised by hand."""
    with_, without = (Features("test_resnet", (1,), pretrained=False, normalise=n) for n in (True, False))
    images = torch.rand(1, 3, 32, 32)
    torch.testing.assert_close(with_(images)[0], without((images - with_.mean) / with_.std)[0])
    assert with_.network != without.network


def test_random_weights_are_the_same_in_every_process():
    """Seeded by the name: a control's runs can be loaded again. Global random numbers do not matter."""
    code = "from adlib.backbones import Features; print(Features('test_resnet', (1,), False).network.fingerprint)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=PROJECT)
    torch.manual_seed(3)
    here = Features("test_resnet", (1,), pretrained=False)
    assert done.stdout.strip() == here.network.fingerprint
    assert here.network != Features("test_vit", (1,), pretrained=False).network


def test_what_decides_the_maps_is_in_the_fingerprint():
    made = [Features("test_resnet", layers, pretrained=False).network.fingerprint for layers in ((1,), (2,), (1, 2))]
    assert len(set(made)) == 3


def test_a_frozen_network_stays_in_eval_mode_without_gradients():
    features = Features("test_resnet", (1,), pretrained=False)
    nn.Sequential(features).train()
    assert not any(module.training for module in features.modules())
    assert not any(p.requires_grad for p in features.parameters())


def test_all_networks_of_a_module_are_found_whatever_holds_them():
    """Two attributes and a list; the same weights count once."""

    class Other(Frozen):
        def __init__(self):
            super().__init__()
            self.layer = nn.Conv2d(3, 2, 1)
            self.freeze("perceptual", "a package")

    holder = nn.Module()
    holder.teacher = Features("test_resnet", (1,), pretrained=False)
    holder.parts = nn.ModuleList([Other(), Features("test_resnet", (1,), pretrained=False)])
    assert [network.name for network in networks(holder)] == ["test_resnet", "perceptual"]


def test_a_started_network_is_named_by_the_weights_it_started_from():
    """Training changes the tensors and not the name."""
    import timm

    def build():
        return timm.create_model("tf_efficientnet_lite0", features_only=True, out_indices=(0,))

    model = backbones.start(build, "tf_efficientnet_lite0")
    before = model.network
    assert isinstance(before, Network)
    with torch.no_grad():
        next(model.parameters()).add_(1.0)
    assert networks(nn.Sequential(model)) == [before]
    assert next(model.parameters()).requires_grad
    with torch.device("meta"):
        assert backbones.start(build, "tf_efficientnet_lite0").network == before


@pytest.mark.parametrize("layers", [("blocks.77",), (99,)])
def test_a_layer_that_is_not_there_is_one_sentence(layers):
    with pytest.raises(UserError, match="cannot be built by timm") as error:
        Features("test_resnet", layers, pretrained=False)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("layers", [(), (3, 2), (2, 2), (1, "layer2"), ("layer2", "layer2")])
def test_layers_are_of_one_kind_each_once_and_in_order(layers):
    with pytest.raises(UserError, match="must be ascending indices"):
        Features("test_resnet", layers, pretrained=False)


def test_maps_come_in_the_order_of_the_names_and_a_list_of_tokens_is_refused():
    names = ("layer1", "layer2")
    forth, back = (Features("test_resnet", layers, pretrained=False) for layers in (names, names[::-1]))
    assert forth.channels == back.channels[::-1]
    assert [x.shape[1] for x in back(torch.rand(1, 3, 64, 64))] == list(back.channels)
    with pytest.raises(UserError, match=r"no map \[B,C,h,w\]"):
        Features("test_vit", ("blocks.1",), pretrained=False)


class Perceptual(Frozen):
    """As LPIPS: fills itself from a file in its constructor."""

    def __init__(self, path):
        super().__init__()
        self.layer = nn.Conv2d(3, 2, 1)
        self.layer.load_state_dict(backbones.read_weights(path))
        self.freeze("perceptual", path.name)


def test_a_frozen_network_from_a_file_is_planned_once_without_its_numbers(tmp_path, monkeypatch):
    """On the meta device it is read on the CPU the first time, named as the real one, and holds no numbers."""
    from safetensors.torch import save_file

    save_file({k: v.contiguous() for k, v in nn.Conv2d(3, 2, 1).state_dict().items()}, tmp_path / "w.safetensors")
    reads, read = [], backbones.read_weights
    monkeypatch.setattr(backbones, "read_weights", lambda path: reads.append(1) or read(path))
    with torch.device("meta"):
        planned = [Perceptual(tmp_path / "w.safetensors") for _ in range(3)]
    assert len(reads) == 1
    assert planned[2].network == Perceptual(tmp_path / "w.safetensors").network
    assert {p.device.type for p in planned[2].parameters()} == {"meta"}


def test_a_frozen_network_without_a_name_and_one_in_a_plain_list_are_refused():
    """They would be neither stored with a run nor part of its identity."""

    class Forgotten(Frozen):
        def __init__(self):
            super().__init__()
            self.layer = nn.Conv2d(3, 2, 1)

    with pytest.raises(TypeError, match="frozen network without a name"):
        networks(nn.Sequential(Forgotten()))
    holder = nn.Module()
    holder.scales = [Features("test_resnet", (1,), pretrained=False)]
    with pytest.raises(TypeError, match=r"plain list; use nn\.ModuleList"):
        networks(holder)


def test_half_precision_weights_have_a_fingerprint():
    kinds = (torch.bfloat16, torch.float16)
    assert len({backbones.state_fingerprint({"a": torch.zeros(2, dtype=kind)}) for kind in kinds}) == 2


def test_offline_asks_no_hub(monkeypatch):
    """What is neither in a file, nor in a package, nor in the hub's cache is missing, and that is said at once."""
    monkeypatch.setenv("ADLIB_OFFLINE", "1")
    monkeypatch.delenv("ADLIB_WEIGHTS", raising=False)
    with pytest.raises(UserError, match=r"weights of backbone 'wide_resnet50_2\.tv_in1k' are neither in ADLIB_WEIGHTS"):
        Features("wide_resnet50_2.tv_in1k", (2, 3))


@pytest.mark.parametrize("name", ["resnet18.tv_in1k", "hf-hub:timm/resnet18.tv_in1k"])
def test_a_hub_that_never_answers_is_given_up_soon_and_without_its_client_s_words(name, tmp_path, monkeypatch, capfd):
    """A socket that takes connections and says nothing: the hub's own client tries for minutes."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        monkeypatch.delenv("ADLIB_OFFLINE")
        monkeypatch.delenv("ADLIB_WEIGHTS", raising=False)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
        start = time.monotonic()
        with pytest.raises(UserError) as error:
            Features(name, (2, 3))
    assert time.monotonic() - start < 5
    assert name in str(error.value)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", ["../*", "**", "a\0b", "/etc/passwd"])
def test_a_backbone_s_name_is_no_pattern_of_files(name, tmp_path, monkeypatch):
    monkeypatch.setenv("ADLIB_WEIGHTS", str(tmp_path))
    with pytest.raises(UserError, match="cannot be built by timm"):
        Features(name, (2, 3))


def test_planning_a_thousand_settings_reads_the_weights_once(monkeypatch):
    """On the meta device a network is built once per name, layers and place, and holds no numbers."""
    from adlib.models.simplenet import Config, SimpleNet

    reads = []
    load = backbones.load_weights
    monkeypatch.setattr(backbones, "load_weights", lambda *arguments: reads.append(1) or load(*arguments))
    monkeypatch.setattr(backbones, "_PLANNED", {})
    with torch.device("meta"):
        planned = [
            SimpleNet(Config(backbone="tf_efficientnet_lite0", noise_std=0.001 * k, image_size=64, resize=None))
            for k in range(50)
        ]
    assert len(reads) == 1
    assert {p.device.type for p in planned[0].parameters()} == {"meta"}
