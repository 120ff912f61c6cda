"""What run.json says of a run: its identity, protocol, numbers, times and machine; and which code they came from."""

import platform
import resource
import sys
from importlib.metadata import version

import numpy as np
import torch

from adlib.runs.fingerprint import code_fingerprint

PACKAGES = ("torch", "torchvision", "timm", "numpy", "scipy", "scikit-learn", "pandas", "adlib")


def record(execution, per_category: dict[str, dict]) -> dict:
    """The whole record as plain JSON values; per_category: metrics, threshold, counts, facts and notes of each."""
    plan, config, detector = execution.plan, execution.config, execution.detector
    names = dict.fromkeys(n for found in per_category.values() for n in found["metrics"])
    backbone, material = getattr(detector, "backbone", None), plan.material
    return plain(
        {
            "method": plan.method,
            "dataset": plan.dataset,
            "category": plan.category,
            "categories": list(plan.categories),
            "seed": plan.seed,
            "hash": plan.hash,
            "config": config.to_dict(),
            "paper_config": type(config)().to_dict(),
            "protocol": protocol(execution),
            "data": {c: t.attrs["fingerprint"] for c, t in zip(plan.categories, plan.tables, strict=True)},
            "weights": backbone
            and {"name": backbone.name, "file": backbone.source, "fingerprint": backbone.fingerprint},
            "material": material
            and {
                "name": material.name,
                "count": len(material),
                "note": material.note,
                "fingerprint": material.fingerprint,
            },
            "metrics": {n: _mean([c["metrics"].get(n) for c in per_category.values()]) for n in names},
            "per_category": per_category,
            "oracle_epoch": execution.best.get("epoch"),
            "parameters": sum(p.numel() for p in detector.parameters()),
            "trainable_parameters": sum(p.numel() for p in detector.parameters() if p.requires_grad),
            "seconds": {k: round(v, 3) for k, v in execution.seconds.items()},
            "code": code_fingerprint(plan.method),
            "machine": machine(execution.device),
        }
    )


def protocol(execution) -> dict:
    """What decides whether two numbers may be compared (specs/common, section 8)."""
    c = execution.config
    return {
        "training": "per category" if len(execution.plan.categories) == 1 else "together",
        "holdback": c.holdback,
        "image_size": c.image_size,
        "resize_mode": c.resize_mode,
        "resize": c.resize,
        "resample": c.resample,
        "mask_rule": c.mask_rule,
        "metric_size": execution.size,
        "select": "last",
        "aupro": "streaming, 8-connected" if execution.streamed else "exact, 8-connected",
        "aupro_limit": 0.3,
        "epochs": c.epochs,
        "backbone": getattr(c, "backbone", None),
        **execution.detector.protocol,
    }


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
        "versions": {p: version(p) for p in PACKAGES},
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
