"""A finished run as an object, several as a table."""

import functools
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from adlib import metrics, models
from adlib.backbones import read_weights
from adlib.common import paths
from adlib.common.errors import UserError
from adlib.common.seeds import pick_device, reproducible_cuda
from adlib.inference import Predictor, predict
from adlib.metrics.names import RESAMPLED
from adlib.models.base import Detector
from adlib.runs import fingerprint, proof
from adlib.runs.execution import place
from adlib.runs.plan import Plan
from adlib.training import load_learnt

SCORES = ["category", "path", "label", "defect", "score", "decision"]
GREY = "mean_grey"
MAPS_SHOWN = "maps_shown.npz"  # of copies without maps.npz
LARGEST = 8_000_000_000  # bytes of the arrays of one file, unpacked: maps of a million pictures


def _scores(path: Path) -> pd.DataFrame:
    table = pd.read_csv(path)
    chosen = table[SCORES].astype({"score": float, "label": int})
    return chosen.assign(**{GREY: table[GREY].astype(float) if GREY in table else float("nan")})


def _arrays(path: Path) -> dict[str, np.ndarray]:
    """All arrays of a .npz file. ValueError: objects in place of numbers, or arrays that no run has."""
    with zipfile.ZipFile(path) as file:
        unpacked = sum(part.file_size for part in file.infolist())
    if unpacked > LARGEST:
        raise ValueError(f"its arrays have {unpacked / 1e9:.0f} GB")
    with np.load(path, allow_pickle=False) as arrays:
        return dict(arrays)


def _shown(path: Path) -> dict[int, np.ndarray]:
    arrays = _arrays(path)
    return dict(zip(arrays["rows"].tolist(), arrays["maps"], strict=True))


class Run:
    """One finished run folder, read only. Raises `proof.Damaged` where a file is not as it was written."""

    def __init__(self, path: str | Path):
        self.path = Path(path)
        if not self.path.is_dir():
            raise UserError(f"run folder {self.path} does not exist; finished runs lie in {paths.results_root()}/runs")
        if not (self.path / proof.RECORD).is_file():
            raise UserError(f"{self.path} is no finished run: run.json is missing; repeat the command that made it")

    @functools.cached_property
    def record(self) -> dict:
        """run.json: identity, metrics per category, threshold, timings, machine."""
        record = proof.read(self.path)
        for facts in record["per_category"].values():  # null is how JSON writes NaN
            facts["metrics"] = {k: float("nan") if v is None else v for k, v in facts["metrics"].items()}
        return record

    @functools.cached_property
    def scores(self) -> pd.DataFrame:
        """One row per test image: category, path, label, defect, score, decision, and mean_grey, 0..255.

        mean_grey is that of the picture as the network sees it; NaN in runs older than this column.
        """
        return self._read("scores.csv", _scores)

    @functools.cached_property
    def history(self) -> pd.DataFrame:
        """One row per epoch: each loss term, learning rates, seconds; the oracle's AUROC where it was looked at."""
        return self._read("history.csv", pd.read_csv)

    @functools.cached_property
    def maps(self) -> np.ndarray | None:
        """Small anomaly maps float16 [N,64,64] in the order of `scores`; None where the system has none."""
        there = "maps.npz" in self.record["files"]
        return self._read("maps.npz", lambda path: _arrays(path)["maps"]) if there else None

    @functools.cached_property
    def shown_maps(self) -> dict[int, np.ndarray]:
        """{row of `scores`: small map float16 [64,64]} of the few images whose maps a committed copy keeps, rounded."""
        return self._read(MAPS_SHOWN, _shown) if MAPS_SHOWN in self.record["files"] else {}

    @functools.cached_property
    def replicates(self) -> dict[str, np.ndarray]:
        """Bootstrap replicates of the pixel metrics, "category/metric" -> [B]."""
        return self._read("replicates.npz", _arrays) if "replicates.npz" in self.record["files"] else {}

    def _read(self, name: str, reader: Callable[[Path], object]):
        """What `reader` makes of a file that is as it was written."""
        path = proof.checked(self.path, self.record, name)
        try:
            return reader(path)
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise proof.Damaged(self.path, f"{name} cannot be used ({str(error)[:120]})") from error

    @property
    def stale(self) -> bool:
        """True when the code that made this run has changed since."""
        return self.record["code"] != fingerprint.code_fingerprint(self.record["method"])

    def detector(self, device: str = "cpu") -> Detector:
        """The trained detector in eval mode. Raises UserError for missing or foreign weights."""
        if proof.WEIGHTS not in self.record["files"]:
            raise UserError(
                f"run {self.path} has no weights: it is a copy without {proof.WEIGHTS}; train it again or use the whole"
            )
        detector_class, config_class = models.get(self.record["method"])
        detector = detector_class(config_class.from_dict(self.record["config"]))
        here = {network.fingerprint: network.file for network in detector.networks}
        for known in self.record["weights"]:
            if known["fingerprint"] not in here:
                raise UserError(
                    f"run {self.path} was trained on other weights of {known['name']} (from {known['file']}) than "
                    f"those found now ({', '.join(here.values()) or 'none'}); set ADLIB_WEIGHTS to the folder with the "
                    "former"
                )
        load_learnt(detector, read_weights(proof.checked(self.path, self.record, proof.WEIGHTS)))
        if torch.device(device).type == "cuda":
            reproducible_cuda(tf32=detector.config.precision == "tf32")  # the products that gave the threshold
        return place(detector, device).eval()

    def threshold(self, category: str | None = None) -> dict:
        """The normal-only threshold and drawing scale of a category, which is needed where the run covers several."""
        known = self.record["per_category"]
        if category is None and len(known) > 1:
            raise UserError(f"run {self.path} covers several categories; name one of {', '.join(known)}")
        if category is not None and category not in known:
            raise UserError(f"run {self.path} knows no category {category!r}; valid: {', '.join(known)}")
        return known[category or next(iter(known))]["threshold"]

    def predictor(self, device: str = "auto", category: str | None = None) -> Predictor:
        """The run's detector on a device, warmed up, ready for one picture after the other."""
        device, threshold = pick_device(device), self.threshold(category)
        return Predictor(self.detector(device), threshold, device)

    def predict(self, images, device: str = "auto", category: str | None = None, maps: bool = False) -> pd.DataFrame:
        """Score pictures: paths, a folder, uint8 RGB arrays [H,W,3], or a tensor [B,3,H,W] in 0..1.

        See `adlib.inference.predict`; category is needed where the run covers several.
        """
        return predict(self.predictor(device, category), images, maps)


class Runs:
    """Finished runs as tables; `missing` names the plans that have no run yet."""

    def __init__(self, runs: list[Run], missing: list[Plan] | None = None):
        self.runs, self.missing = list(runs), list(missing or [])

    def __iter__(self):
        return iter(self.runs)

    def __len__(self) -> int:
        return len(self.runs)

    def __add__(self, other: "Runs") -> "Runs":
        return Runs(self.runs + other.runs, self.missing + other.missing)

    def __repr__(self) -> str:
        lines = [f"{len(self.runs)} runs"]
        lines += [f"missing: {p.method} {p.dataset} {p.category} seed {p.seed}" for p in self.missing]
        return "\n".join(lines)

    def _joined(self, name: str) -> pd.DataFrame:
        parts = [
            getattr(r, name).assign(**{k: r.record[k] for k in ("method", "dataset", "seed", "hash")})
            for r in self.runs
        ]
        if name == "history":
            parts = [p.assign(category=r.record["category"]) for p, r in zip(parts, self.runs, strict=True)]
        return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()

    @property
    def scores(self) -> pd.DataFrame:
        """All runs' scores, with method, dataset, seed and hash."""
        return self._joined("scores")

    @property
    def history(self) -> pd.DataFrame:
        """All runs' histories, with method, dataset, category, seed and hash."""
        return self._joined("history")

    @functools.cached_property
    def per_seed(self) -> pd.DataFrame:
        """One row per run, category and metric: the single values behind the means."""
        rows = [
            {k: r.record[k] for k in ("method", "dataset", "hash", "seed")} | {"category": c, "metric": m, "value": v}
            for r in self.runs
            for c, facts in r.record["per_category"].items()
            for m, v in facts["metrics"].items()
        ]
        return pd.DataFrame(rows)

    @functools.cached_property
    def metrics(self) -> pd.DataFrame:
        """One row per method, dataset, category, setting (hash) and metric: mean, sd over seeds, 95 % interval of the
        mean.
        """
        rows = []
        keys = ["method", "dataset", "hash", "category"]
        for identity, group in self.per_seed.groupby(keys, sort=False):
            _, _, run_hash, category = identity
            alike = [r for r in self.runs if r.record["hash"] == run_hash and category in r.record["per_category"]]
            for metric, per_seed in group.groupby("metric", sort=False):
                low, high, interval_method = _interval(alike, category, metric)
                row = dict(zip(keys, identity, strict=True)) | {"metric": metric}
                row |= {"mean": per_seed.value.mean(), "sd": per_seed.value.std(ddof=1)}  # NaN for one seed
                row |= {"n_seeds": len(per_seed), "n_images": _images(alike, category)}
                rows.append(row | {"low": low, "high": high, "interval_method": interval_method})
        return pd.DataFrame(rows)

    def maps(self, k: int = 0) -> np.ndarray | None:
        """Small anomaly maps of the k-th run."""
        return self.runs[k].maps


def _images(runs: list[Run], category: str) -> int:
    counts = runs[0].record["per_category"][category]["counts"]
    return counts["normal"] + counts["anomalous"]


def _interval(runs: list[Run], category: str, metric: str) -> tuple[float, float, str]:
    """95 % interval of the mean over seeds: images are resampled jointly for all of them; NaN where none is defined."""
    if metric in RESAMPLED:
        tables = [r.scores[r.scores.category == category] for r in runs]
        labels = tables[0].label.to_numpy()
        if len(set(labels)) == 2:
            scores = np.stack([t.score.to_numpy() for t in tables])
            interval = metrics.bootstrap_interval(labels, scores, RESAMPLED[metric])
            return interval.low, interval.high, interval.method
    draws = [r.replicates[f"{category}/{metric}"] for r in runs if f"{category}/{metric}" in r.replicates]
    if len(draws) == len(runs) and draws:
        low, high = np.nanpercentile(np.mean(draws, axis=0), [2.5, 97.5])
        return float(low), float(high), "bootstrap"
    return float("nan"), float("nan"), ""
