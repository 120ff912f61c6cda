"""One run, from a plan to the files of its folder: embed, train, score, measure, write."""

import ast
import functools
import hashlib
import json
import os
import platform
import resource
import sys
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from adlib import backbones, data, evaluation, images, models, settings
from adlib.settings import PROJECT, locked
from adlib.training import Training, learnt_state, load_learnt, seeded, stream

PACKAGES = ("torch", "torchvision", "timm", "numpy", "scipy", "scikit-learn", "pandas", "adlib")
ROOMS = (
    *("backbones", "evaluation", "images", "intervals", "layers", "losses", "metrics", "ranking", "streaming"),
    *("synthesis", "training", "models/base"),
)
PIXEL_METRICS = ("pixel_auroc", "pixel_ap", "aupro@0.3", "pixel_f1_max (oracle)")
ORACLE = "(oracle best epoch)"


def geometry(config) -> images.Geometry:
    """How a system's config wants its pictures."""
    return images.Geometry(config.image_size, config.resize_mode, config.resize)


def code_fingerprint(method: str) -> str:
    """sha256 over the statements of the system's file and the rooms it uses, without comments and docstrings.

    A finished run whose value differs is stale: what computes its numbers has changed since.
    """
    digest = hashlib.sha256()
    for name in (*ROOMS, f"models/{method}"):
        path = PROJECT / "adlib" / f"{name}.py"
        if path.is_file():
            digest.update(f"{name}\n{_statements(path.read_text())}".encode())
    return digest.hexdigest()[:16]


def _statements(source: str) -> str:
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            node.body[0] = ast.Pass()
    return ast.unparse(tree)


def reproducible_cuda() -> None:
    """Deterministic kernels where there are some, and full float32 products (TF32 is off by 1e-3, sigma is 0.015)."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False


class Execution:
    """Does the work of one plan (`adlib.runs.Plan`) on a device; `finish(folder)` writes the run's files there."""

    def __init__(self, plan, device: str):
        self.plan, self.config, self.device = plan, plan.config, device
        self.seconds: dict[str, float] = {}
        self.draws: dict[str, np.ndarray] = {}  # bootstrap replicates of the pixel metrics
        self.size = plan.config.metric_size or plan.config.image_size
        self.streamed = False
        if torch.device(device).type == "cuda":
            reproducible_cuda()
            torch.cuda.reset_peak_memory_stats()

    def finish(self, folder: Path) -> None:
        """Train (or go on from the folder's checkpoint) and write run.json last."""
        self._load()
        for k in range(len(self.plan.categories)):
            self._truth(k)  # a mask that does not fit its image must not cost a training
        self._forget_other_code(folder)
        self._train(folder)
        record = self._record(self._measure())
        self.history.to_csv(folder / "history.csv", index=False, lineterminator="\n")
        self.table.to_csv(folder / "scores.csv", index=False, lineterminator="\n")
        from safetensors.torch import save

        state = {k: v.contiguous() for k, v in learnt_state(self.detector).items()}
        # as bytes, because safetensors' own writer turns a full disk into an error class of its own
        (folder / "model.safetensors").write_bytes(save(state, metadata={"method": self.plan.method}))
        if self.small is not None:
            np.savez_compressed(folder / "maps.npz", maps=self.small)
        if self.draws:
            np.savez_compressed(folder / "replicates.npz", **self.draws)
        (folder / "run.json").write_text(json.dumps(_plain(record), indent=1, allow_nan=False) + "\n")

    def _forget_other_code(self, folder: Path) -> None:
        """A checkpoint of other code or another kind of device is not gone on with: the run would be neither."""
        stamp, here = folder / "made_by.txt", f"{code_fingerprint(self.plan.method)} {torch.device(self.device).type}\n"
        if (folder / "checkpoint.pt").is_file() and (not stamp.is_file() or stamp.read_text() != here):
            print("the checkpoint was made by other code or on another kind of device: starting over", file=sys.stderr)
            (folder / "checkpoint.pt").unlink()
        stamp.write_text(here)

    def _clock(self, name: str, start: float) -> None:
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start

    def _load(self) -> None:
        start = time.perf_counter()
        detector_class, _ = models.get(self.plan.method)
        with seeded(self.plan.seed, "init"):
            self.detector = detector_class(self.config).to(self.device)
        self.pictures = [images.cached(t, geometry(self.config)) for t in self.plan.tables]
        self._clock("decode", start)
        start = time.perf_counter()
        with locked(settings.cache_root() / "features.lock"):  # parallel seeds: one computes, the others find it
            self.embedded = [
                backbones.embeddings(self.detector, p, f"{t.attrs['fingerprint']} {geometry(self.config)}", self.device)
                for p, t in zip(self.pictures, self.plan.tables, strict=True)
            ]
        self._clock("embed", start)

    def _rows(self, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Row numbers of category k: to fit, held back for the threshold, test."""
        table = self.plan.tables[k]
        fit, held = data.holdback(table, self.config.holdback)
        return fit.index.to_numpy(), held.index.to_numpy(), np.flatnonzero(table.split == "test")

    def _train(self, folder: Path) -> None:
        parts = [e.subset(self._rows(k)[0]) for k, e in enumerate(self.embedded)]
        training = Training(
            self.detector,
            parts[0] if len(parts) == 1 else backbones.Joined(parts),
            self.plan.seed,
            self.device,
            folder / "checkpoint.pt",
            watch=lambda epoch: self._watch(epoch, training),
        )
        with seeded(self.plan.seed, "train"):
            self.history = training.run()
        self.best = training.best
        self.seconds["train"] = float(self.history["seconds"].sum())

    def _watch(self, epoch: int, training: Training) -> dict:
        """Image AUROC on the test set after this epoch: an oracle, recorded beside the last epoch."""
        start, values = time.perf_counter(), []
        for k, table in enumerate(self.plan.tables):
            rows = self._rows(k)[2]
            scored = evaluation.score_all(self.detector, self.embedded[k].subset(rows), evaluation.SMALL, self.device)
            values.append(evaluation.image_metrics(table.label.to_numpy()[rows], scored.scores, 0.0)["image_auroc"])
        training.keep_best(epoch, float(np.mean(values)))
        self._clock("watch", start)
        return {"image_auroc (oracle)": float(np.mean(values))}

    def _measure(self) -> dict[str, dict]:
        """Metrics per category of the last epoch; with `eval_every`, those of the best test epoch beside them."""
        start = time.perf_counter()
        found, tables, small = {}, [], []
        for k, category in enumerate(self.plan.categories):
            found[category], scored, draws = self._category(k)
            self.draws |= {f"{category}/{name}": values for name, values in draws.items()}
            tables.append(self._scores_table(k, category, scored, found[category]["threshold"]["tau"]))
            small.append(scored.small)
        self.table = pd.concat(tables, ignore_index=True)
        self.small = np.concatenate(small) if small[0] is not None else None
        if self.best:
            last = learnt_state(self.detector)
            load_learnt(self.detector, self.best["state"])
            for k, category in enumerate(self.plan.categories):
                oracle = self._category(k, replicates=False)[0]["metrics"]
                keys = [m for m in ("image_auroc", "image_ap", "pixel_auroc", "pixel_ap", "aupro@0.3") if m in oracle]
                found[category]["metrics"] |= {f"{m} {ORACLE}": oracle[m] for m in keys}
            load_learnt(self.detector, last)
        self._clock("measure", start)
        return found

    def _category(self, k: int, replicates: bool = True) -> tuple[dict, evaluation.Scored, dict]:
        """Metrics and facts, scores with maps, and bootstrap replicates of the pixel metrics of category k."""
        table, embedded = self.plan.tables[k], self.embedded[k]
        fit, held, test = self._rows(k)
        normal_rows, source = (held, "holdback") if len(held) else (fit, "train (optimistic)")
        normal = evaluation.score_all(self.detector, embedded.subset(normal_rows), self.size, self.device)
        chosen = evaluation.thresholds(normal, source)
        labels = table.label.to_numpy()[test]
        truth = self._truth(k)
        pixel, draws = {}, {}
        large = len(test) * self.size**2 > evaluation.IN_MEMORY
        if large and truth.usable:
            self.streamed = True
            scored, pixel = evaluation.streamed_pixel_metrics(
                truth, self.detector, embedded.subset(test), self.size, self.device
            )
        else:
            drop = (lambda start, maps: None) if large else None
            scored = evaluation.score_all(self.detector, embedded.subset(test), self.size, self.device, drop)
            if scored.maps is not None and truth.usable:
                pixel = evaluation.pixel_metrics(truth, scored.maps)
                if replicates:
                    draws = evaluation.pixel_replicates(truth, scored.maps, stream(0, table.attrs["fingerprint"]))
        values = evaluation.image_metrics(labels, scored.scores, chosen["tau"])
        values |= {k: v for k, v in pixel.items() if k in PIXEL_METRICS}
        values["mean_grey_auroc"] = evaluation.mean_grey_floor(self.pictures[k][test], labels)
        counts = {
            "fit": len(fit),
            "held": len(held),
            "normal": int((labels == 0).sum()),
            "anomalous": int(labels.sum()),
        }
        found = {"metrics": values, "threshold": chosen, "counts": counts, "pixel": truth.facts | pixel}
        return found | {"notes": table.attrs["notes"]}, scored, draws

    @functools.cache  # noqa: B019 - an Execution lives as long as its run
    def _truth(self, k: int) -> evaluation.PixelTruth:
        test = self.plan.tables[k].iloc[self._rows(k)[2]]
        return evaluation.PixelTruth(test, geometry(self.config).at(self.size), self.config.mask_rule)

    def _scores_table(self, k: int, category: str, scored: evaluation.Scored, tau: float) -> pd.DataFrame:
        test = self.plan.tables[k].iloc[self._rows(k)[2]]
        root = Path(test.attrs["root"])
        return pd.DataFrame(
            {
                "category": category,
                "path": [Path(p).relative_to(root).as_posix() for p in test.path],
                "label": test.label.to_numpy(),
                "defect": test.defect.to_numpy(),
                "score": scored.scores,
                "decision": (scored.scores > tau).astype(int),
            }
        )

    def _record(self, per_category: dict[str, dict]) -> dict:
        plan, config = self.plan, self.config
        names = dict.fromkeys(n for found in per_category.values() for n in found["metrics"])
        backbone = getattr(self.detector, "backbone", None)
        return {
            "method": plan.method,
            "dataset": plan.dataset,
            "category": plan.category,
            "categories": list(plan.categories),
            "seed": plan.seed,
            "hash": plan.hash,
            "config": config.to_dict(),
            "paper_config": type(config)().to_dict(),
            "protocol": self._protocol(),
            "data": {c: t.attrs["fingerprint"] for c, t in zip(plan.categories, plan.tables, strict=True)},
            "weights": backbone
            and {"name": backbone.name, "file": backbone.source, "fingerprint": backbone.fingerprint},
            "metrics": {n: _mean([c["metrics"].get(n) for c in per_category.values()]) for n in names},
            "per_category": per_category,
            "oracle_epoch": self.best.get("epoch"),
            "parameters": sum(p.numel() for p in self.detector.parameters()),
            "trainable_parameters": sum(p.numel() for p in self.detector.parameters() if p.requires_grad),
            "seconds": {k: round(v, 3) for k, v in self.seconds.items()},
            "code": code_fingerprint(plan.method),
            "machine": self._machine(),
        }

    def _protocol(self) -> dict:
        c = self.config
        return {
            "training": "per category" if len(self.plan.categories) == 1 else "together",
            "holdback": c.holdback,
            "image_size": c.image_size,
            "resize_mode": c.resize_mode,
            "resize": c.resize,
            "resample": "antialias",
            "mask_rule": c.mask_rule,
            "metric_size": self.size,
            "select": "last",
            "aupro": "streaming, 8-connected" if self.streamed else "exact, 8-connected",
            "aupro_limit": 0.3,
            "epochs": c.epochs,
            "backbone": getattr(c, "backbone", None),
            **self.detector.protocol,
        }

    def _machine(self) -> dict:
        cuda = torch.device(self.device).type == "cuda"
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        return {
            "device": torch.cuda.get_device_name(self.device) if cuda else platform.processor() or platform.machine(),
            "device_type": "cuda" if cuda else "cpu",
            "threads": torch.get_num_threads(),
            "tf32": bool(cuda and torch.backends.cudnn.allow_tf32),
            "peak_host_bytes": peak,
            "peak_device_bytes": torch.cuda.max_memory_allocated(self.device) if cuda else None,
            "python": platform.python_version(),
            "versions": {p: version(p) for p in PACKAGES},
        }


def _mean(values: list) -> float:
    """Mean of the values that are defined; NaN where none is."""
    known = [v for v in values if v is not None and np.isfinite(v)]
    return float(np.mean(known)) if known else float("nan")


def _plain(value):
    """Numbers as JSON knows them: NaN becomes null."""
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, float | np.floating):
        return float(value) if np.isfinite(value) else None
    return int(value) if isinstance(value, np.integer) else value
