"""What run.json says of a run: its identity, protocol, numbers, times and machine."""

import platform
import resource
import sys
from importlib.metadata import version

import numpy as np
import torch

import adlib
from adlib.models.base import Detector
from adlib.runs.plan import Plan

PACKAGES = ("torch", "torchvision", "timm", "numpy", "scipy", "scikit-learn", "pandas")


def record(
    plan: Plan,
    detector: Detector,
    device: str,
    code: str,
    per_category: dict[str, dict],
    protocol: dict,
    seconds: dict[str, float],
    oracle_epoch: int | None,
) -> dict:
    """The whole record as plain JSON values.

    per_category: metrics, threshold, counts, facts, notes, provenance and warnings of each; seconds: of each stage;
    code: its fingerprint; oracle_epoch: the best on the test set where it was looked at.
    """
    names = dict.fromkeys(name for one in per_category.values() for name in one["metrics"])
    bank = plan.texture_bank
    return plain(
        {
            "method": plan.method,
            "dataset": plan.dataset,
            "category": plan.category,
            "categories": list(plan.categories),
            "seed": plan.seed,
            "hash": plan.hash,
            "config": plan.config.to_dict(),
            "paper_config": type(plan.config)().to_dict(),
            "protocol": protocol,
            "data": {c: t.attrs["fingerprint"] for c, t in zip(plan.categories, plan.tables, strict=True)},
            "weights": [network._asdict() for network in detector.networks],
            "texture_bank": None if bank is None else _bank(bank),
            "metrics": {name: _mean([one["metrics"].get(name) for one in per_category.values()]) for name in names},
            "per_category": per_category,
            "oracle_epoch": oracle_epoch,
            "parameters": sum(p.numel() for p in detector.parameters()),
            "trainable_parameters": sum(p.numel() for p in detector.parameters() if p.requires_grad),
            "seconds": {stage: round(value, 3) for stage, value in seconds.items()},
            "code": code,
            "machine": machine(device),
        }
    )


def _bank(bank) -> dict:
    return {"name": bank.name, "count": len(bank), "note": bank.note, "fingerprint": bank.fingerprint}


def machine(device: str) -> dict:
    """Device, threads, versions and the process's highest memory so far."""
    cuda = torch.device(device).type == "cuda"
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return {
        "device": torch.cuda.get_device_name(device) if cuda else platform.processor() or platform.machine(),
        "device_type": "cuda" if cuda else "cpu",
        "threads": torch.get_num_threads(),
        "tf32": bool(cuda and torch.backends.cudnn.allow_tf32),
        "peak_host_bytes": peak,
        "peak_device_bytes": torch.cuda.max_memory_allocated(device) if cuda else None,
        "python": platform.python_version(),
        "versions": {package: version(package) for package in PACKAGES} | {"adlib": adlib.__version__},
    }


def _mean(values: list) -> float:
    """Mean of the values that are defined; NaN where none is."""
    known = [v for v in values if v is not None and np.isfinite(v)]
    return float(np.mean(known)) if known else float("nan")


def plain(value):
    """Numbers as JSON knows them: NaN becomes null."""
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, float | np.floating):
        return float(value) if np.isfinite(value) else None
    return int(value) if isinstance(value, np.integer) else value
