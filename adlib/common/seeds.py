"""Named random streams, the global generators, and the device: all that decides whether a run can be repeated."""

import contextlib
import hashlib
import os
import random

import numpy as np
import torch

from adlib.common.environment import check_device
from adlib.common.errors import UserError


def stream(seed: int, name: str) -> int:
    """Seed of a named stream: first 8 bytes of sha256("seed:name"), so that a new consumer moves no other stream."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{name}".encode()).digest()[:8], "big") >> 1


def generator(seed: int, name: str, device: str = "cpu") -> torch.Generator:
    """A torch generator for a named stream on a device."""
    return torch.Generator(device).manual_seed(stream(seed, name))


@contextlib.contextmanager
def seeded(seed: int, name: str):
    """Global generators of Python, NumPy and torch inside the block; restored afterwards."""
    states = generator_states()
    value = stream(seed, name)
    random.seed(value)
    np.random.seed(value % 2**32)
    torch.manual_seed(value)
    try:
        yield
    finally:
        restore_generators(states)


def generator_states() -> dict:
    """States of the global generators of Python, NumPy and torch (CPU), as a checkpoint can hold them."""
    name, keys, *rest = np.random.get_state()
    numpy_state = [name, torch.from_numpy(keys.astype(np.int64)), *rest]
    return {"python": random.getstate(), "numpy": numpy_state, "torch": torch.get_rng_state()}


def restore_generators(states: dict) -> None:
    """Inverse of `generator_states`."""
    name, keys, *rest = states["numpy"]
    version, internal, gauss = states["python"]
    random.setstate((version, tuple(internal), gauss))
    np.random.set_state((name, keys.cpu().numpy().astype(np.uint32), *rest))
    torch.set_rng_state(states["torch"].cpu())


def pick_device(name: str = "auto") -> str:
    """ "auto" is CUDA where there is one. Raises UserError for a device that this machine lacks."""
    check_device(name)
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name != "cpu" and not torch.cuda.is_available():
        raise UserError(f"device {name!r} was asked for, but torch sees no GPU here; use 'cpu' or 'auto'")
    return name


def reproducible_cuda(tf32: bool = False) -> None:
    """Deterministic kernels where there are some, and full float32 products unless TF32 is asked for.

    TF32 is off by 1e-3; SimpleNet's sigma is 0.015. Memory that is about to be written is not filled first.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = tf32
