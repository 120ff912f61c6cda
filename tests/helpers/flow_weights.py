"""Weights of golden/flow.npz for the modules here, which register theirs in the same order under other names."""

import torch
from torch import nn


def fill(module: nn.Module, golden, group: str, prefix: str = "") -> nn.Module:
    """Copy golden's arrays "<group>_w/<prefix>*" into a module, in float64; gammas come last here and first there."""
    names = [name for name in golden.files if name.startswith(f"{group}_w/{prefix}")]
    names = sorted(names, key=lambda name: name.rpartition(".")[2].startswith("gamma") or "/gamma" in name)
    state = {k: v for k, v in module.double().state_dict().items() if not k.endswith("num_batches_tracked")}
    assert len(names) == len(state)
    filled = {
        key: torch.from_numpy(golden[name]).double().reshape(v.shape)
        for (key, v), name in zip(state.items(), names, strict=True)
    }
    module.load_state_dict(filled, strict=False)
    return module.eval()


def scales(golden, name: str) -> tuple[torch.Tensor, ...]:
    """Arrays "<name>0" to "<name>2", in float64."""
    return tuple(torch.from_numpy(golden[f"{name}{i}"]).double() for i in range(3))
