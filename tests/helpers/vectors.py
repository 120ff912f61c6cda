"""Golden vectors as tensors, and closeness to them."""

import numpy as np
import torch


def tensors(golden, *names: str, of: str = "baselines") -> list[torch.Tensor]:
    """The named arrays of golden/<of>.npz."""
    g = golden(of)
    return [torch.from_numpy(np.asarray(g[name])) for name in names]


def near(found: torch.Tensor, wanted: torch.Tensor, rtol: float = 1e-4, atol: float = 1e-5) -> None:
    """Fails unless the tensors are close, whatever their dtype."""
    torch.testing.assert_close(found, wanted.to(found.dtype), rtol=rtol, atol=atol)
