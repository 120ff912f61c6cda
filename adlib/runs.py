"""The run folder: identity, train or load, and finished runs as a table.

`reproduce` is the only entry that notebooks, batches and tests use. A run's folder is made under a temporary name and
renamed when complete, so it is either whole or absent; the same identity and seed is never trained again.
"""

import functools
import hashlib
import json
import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from adlib import data, metrics, models, settings
from adlib.data.mixtures import slug
from adlib.settings import UserError

FILES = ("run.json", "scores.csv", "history.csv", "model.safetensors")
RESAMPLED = {"image_auroc": "image_auroc", "image_ap": "average_precision"}  # run.json's name -> the bootstrap's


@dataclass(frozen=True)
class Plan:
    """One run that is to exist: what identifies it, and the folder where it is or will be."""

    method: str
    dataset: str
    categories: tuple[str, ...]
    seed: int
    config: object
    weights: str  # fingerprint of the frozen weights, "" where there are none
    tables: tuple[pd.DataFrame, ...] = field(compare=False, repr=False)
    material: object = field(default=None, compare=False, repr=False)  # `Detector.material`

    @property
    def category(self) -> str:
        return self.categories[0] if len(self.categories) == 1 else "together"

    @functools.cached_property
    def hash(self) -> str:
        """Everything that decides the numbers but the seed, as 12 hex digits; specs/common, section 8."""
        identity = {
            "method": self.method,
            "config": self.config.to_dict(),
            "dataset": self.dataset,
            "categories": list(self.categories),
            "data": [t.attrs["fingerprint"] for t in self.tables],
            "weights": self.weights,
        }
        if self.material is not None:
            identity["material"] = self.material.fingerprint
        return hashlib.sha256(json.dumps(identity, sort_keys=True, allow_nan=False).encode()).hexdigest()[:12]

    @property
    def folder(self) -> Path:
        names = (self.method, slug(self.dataset), slug(self.category))
        place = settings.results_root().joinpath("runs", *names)
        return place / f"{self.hash}-s{self.seed}"


def plans(method, dataset, categories=None, seeds=(0,), config=None, together=False) -> list[Plan]:
    """The runs that `reproduce` would train or load, in order. Raises UserError for any wrong name or value."""
    config_class = models.get(method)[1]
    config = config if isinstance(config, config_class) else config_class.from_dict(config)
    known = data.categories(dataset)
    known = known or [data.load(dataset).attrs["category"]]  # the user's own pictures, without a level of categories
    categories = [categories] if isinstance(categories, str) else list(categories or known)
    seeds = [seeds] if isinstance(seeds, int) else list(seeds)
    if not seeds or not all(isinstance(s, int) and s >= 0 for s in seeds):
        raise UserError(f"seeds {seeds!r} must be a list of integers >= 0, e.g. [0, 1, 2]")
    for name, values in (("categories", categories), ("seeds", seeds)):
        if len(set(values)) < len(values):
            raise UserError(f"{name} {values!r} names one of them twice; a run counts once")
    tables = {c: data.load(dataset, c) for c in categories}
    dataset = tables[categories[0]].attrs["dataset"]  # one name for all spellings of a mixture
    groups = [tuple(categories)] if together else [(c,) for c in categories]
    try:
        text = json.dumps(config.to_dict(), allow_nan=False)
    except ValueError:
        raise UserError(f"config {config.to_dict()} holds an infinite number; give finite ones") from None
    weights = _weights(method, text, str(settings.weights_root()))
    material = {g: models.get(method)[0].material(config, dataset, g) for g in groups}
    return [
        Plan(method, dataset, g, s, config, weights, tuple(tables[c] for c in g), material[g])
        for g in groups
        for s in seeds
    ]


@functools.lru_cache(maxsize=64)
def _weights(method: str, config: str, _root: str) -> str:
    detector_class, config_class = models.get(method)
    try:
        detector = detector_class(config_class.from_dict(json.loads(config)))
    except UserError:
        raise
    except Exception as error:  # whatever torch or timm object to in this combination
        raise UserError(f"{method} cannot be built with config {config}: {type(error).__name__}: {error}") from error
    if any(p.numel() == 0 for p in detector.parameters()):
        raise UserError(f"{method} with config {config} has a layer without parameters; some width is 0")
    backbone = getattr(detector, "backbone", None)
    return backbone.fingerprint if backbone is not None else ""


def reproduce(
    method: str,
    dataset: str,
    categories: str | Iterable[str] | None = None,
    seeds: int | Iterable[int] = (0,),
    config: dict | None = None,
    device: str = "auto",
    together: bool = False,
    train: bool = True,
) -> "Runs":
    """Train what is missing, load what is finished, and return the runs as a table.

    categories: None = all of the data set; config: changes of the paper's setting; together: one model for all
    categories; train=False: only load, and name what is missing in `.missing`. Raises UserError before any work for a
    wrong name.
    """
    from adlib.training import pick_device

    device = pick_device(device)
    if together and method in models.ALONE:
        print(f"{method} is meant for one category at a time: {models.ALONE[method]}", file=sys.stderr)
    runs, missing = [], []
    for plan in plans(method, dataset, categories, seeds, config, together):
        if not _whole(plan.folder) and train:
            _train(plan, device)
        (runs.append(Run(plan.folder)) if _whole(plan.folder) else missing.append(plan))
    return Runs(runs, missing)


def _whole(folder: Path) -> bool:
    return (folder / "run.json").is_file()


def _train(plan: Plan, device: str) -> None:
    """Under a lock, so that a second process waits and then finds the first one's run."""
    from adlib.execute import Execution

    partial = plan.folder.with_name(plan.folder.name + ".partial")
    try:
        with settings.locked(plan.folder.with_name(f".{plan.folder.name}.lock")):
            if _whole(plan.folder):
                return
            partial.mkdir(parents=True, exist_ok=True)
            if not _whole(partial):  # else it was stopped between its last file and its name
                Execution(plan, device).finish(partial)
            _finish(partial, plan.folder)
    except OSError as error:
        if error.errno not in settings.UNWRITABLE:
            raise
        raise UserError(
            f"run folder {plan.folder} cannot be written ({error.strerror}); free space or set ADLIB_RESULTS"
        ) from error


def _finish(partial: Path, folder: Path) -> None:
    """Everything is on the disk before the name says so; the checkpoint has served."""
    for path in partial.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
    os.replace(partial, folder)
    for name in ("checkpoint.pt", "made_by.txt"):
        (folder / name).unlink(missing_ok=True)


def load(path: str | Path) -> "Run":
    """A finished run anywhere on disk. Raises UserError where run.json, or later a needed file, is missing."""
    return Run(path)


def find(folder: str | Path) -> "Runs":
    """All finished runs below a folder, in order of path. Raises UserError where there is none."""
    folder = Path(folder)
    found = (
        []
        if not folder.is_dir()
        else sorted(p.parent for p in folder.rglob("run.json") if p.parent.suffix != ".partial")
    )
    if not found:
        raise UserError(f"no finished run below {folder}; `python -m adlib batch batch/quick.yml` makes some")
    kept = {}
    for run in map(Run, found):  # a copy in results/reference counts once
        kept.setdefault((run.record["method"], run.record["category"], run.record["hash"], run.record["seed"]), run)
    return Runs(list(kept.values()))


class Run:
    """One finished run folder, read only."""

    def __init__(self, path: str | Path):
        self.path = Path(path)
        if not self.path.is_dir():
            raise UserError(
                f"run folder {self.path} does not exist; finished runs lie in {settings.results_root()}/runs"
            )
        if not (self.path / "run.json").is_file():
            raise UserError(f"{self.path} is no finished run: run.json is missing; repeat the command that made it")

    @functools.cached_property
    def record(self) -> dict:
        """run.json: identity, metrics per category, threshold, timings, machine."""
        try:
            record = json.loads((self.path / "run.json").read_text())
            for found in record["per_category"].values():  # null is how JSON writes NaN
                found["metrics"] = {k: float("nan") if v is None else v for k, v in found["metrics"].items()}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(
                f"{self.path}/run.json is no run record ({error}); delete the folder or copy it again"
            ) from error
        return record

    @functools.cached_property
    def scores(self) -> pd.DataFrame:
        """One row per test image: category, path, label, defect, score, decision."""
        return pd.read_csv(self.path / "scores.csv")

    @functools.cached_property
    def history(self) -> pd.DataFrame:
        """One row per epoch: each loss term, learning rates, seconds; the oracle's AUROC where it was looked at."""
        return pd.read_csv(self.path / "history.csv")

    @functools.cached_property
    def maps(self) -> np.ndarray | None:
        """Small anomaly maps float16 [N,64,64] in the order of `scores`; None where the system has none."""
        path = self.path / "maps.npz"
        return np.load(path)["maps"] if path.is_file() else None

    @functools.cached_property
    def replicates(self) -> dict[str, np.ndarray]:
        """Bootstrap replicates of the pixel metrics, "category/metric" -> [B]."""
        path = self.path / "replicates.npz"
        return dict(np.load(path)) if path.is_file() else {}

    @property
    def stale(self) -> bool:
        """True when the code that made this run has changed since."""
        from adlib.record import code_fingerprint

        return self.record["code"] != code_fingerprint(self.record["method"])

    def detector(self, device: str = "cpu"):
        """The trained detector in eval mode. Raises UserError for missing or foreign weights."""
        from adlib.backbones import read_weights
        from adlib.training import load_learnt

        path = self.path / "model.safetensors"
        if not path.is_file():
            raise UserError(
                f"run {self.path} has no weights: model.safetensors is missing; train it again or copy the file"
            )
        detector_class, config_class = models.get(self.record["method"])
        detector = detector_class(config_class.from_dict(self.record["config"]))
        known = self.record["weights"]
        if known and detector.backbone.fingerprint != known["fingerprint"]:
            raise UserError(
                f"run {self.path} was trained on other weights of {known['name']} (from {known['file']}) than those "
                f"found now ({detector.backbone.source}); set ADLIB_WEIGHTS to the folder with the former"
            )
        load_learnt(detector, read_weights(path))
        return detector.to(device).eval()

    def predict(self, images, device: str = "auto", category: str | None = None, maps: bool = False) -> pd.DataFrame:
        """Score pictures: paths, a folder, uint8 RGB arrays [H,W,3], or a tensor [B,3,H,W] in 0..1.

        See `adlib.inference.predict`; category is needed where the run covers several.
        """
        from adlib import inference

        return inference.predict(self, images, device, category, maps)


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

    @property
    def per_seed(self) -> pd.DataFrame:
        """One row per run, category and metric: the single values behind the means."""
        rows = [
            {k: r.record[k] for k in ("method", "dataset", "hash", "seed")} | {"category": c, "metric": m, "value": v}
            for r in self.runs
            for c, found in r.record["per_category"].items()
            for m, v in found["metrics"].items()
        ]
        return pd.DataFrame(rows)

    @property
    def metrics(self) -> pd.DataFrame:
        """One row per method, dataset, category, setting (hash) and metric: mean, sd over seeds, 95 % interval of the
        mean.
        """
        rows = []
        keys = ["method", "dataset", "hash", "category"]
        for values, group in self.per_seed.groupby(keys, sort=False):
            chosen = [r for r in self.runs if r.record["hash"] == values[2] and values[3] in r.record["per_category"]]
            for metric, found in group.groupby("metric", sort=False):
                sd = found.value.std(ddof=1) if len(found) > 1 else float("nan")
                low, high, how = _interval(chosen, values[3], metric)
                facts = {
                    "mean": found.value.mean(),
                    "sd": sd,
                    "n_seeds": len(found),
                    "n_images": _images(chosen, values[3]),
                }
                facts |= {"low": low, "high": high, "interval_method": how}
                rows.append(dict(zip(keys, values, strict=True)) | {"metric": metric} | facts)
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
            found = metrics.bootstrap_interval(labels, scores, RESAMPLED[metric])
            return found.low, found.high, found.method
    draws = [r.replicates[f"{category}/{metric}"] for r in runs if f"{category}/{metric}" in r.replicates]
    if len(draws) == len(runs) and draws:
        low, high = np.nanpercentile(np.mean(draws, axis=0), [2.5, 97.5])
        return float(low), float(high), "bootstrap"
    return float("nan"), float("nan"), ""
