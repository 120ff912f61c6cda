"""Which runs are to exist, what identifies each, and where it lies."""

import functools
import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from adlib import data, models
from adlib.common import paths
from adlib.common.errors import UserError
from adlib.data.mixtures import slug

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
        place = paths.results_root().joinpath("runs", *names)
        return place / f"{self.hash}-s{self.seed}"


def plans(method, dataset, categories=None, seeds=(0,), config=None, together=False, load=data.load) -> list[Plan]:
    """The runs that `reproduce` would train or load, in order. Raises UserError for any wrong name or value.

    load: gives a category's sample table; a batch hands in one that remembers, so that each is loaded once.
    """
    config_class = models.get(method)[1]
    config = config if isinstance(config, config_class) else config_class.from_dict(config)
    known = data.categories(dataset)
    known = known or [load(dataset).attrs["category"]]  # the user's own pictures, without a level of categories
    categories = [categories] if isinstance(categories, str) else list(categories or known)
    seeds = [seeds] if isinstance(seeds, int) else list(seeds)
    if not seeds or not all(isinstance(s, int) and s >= 0 for s in seeds):
        raise UserError(f"seeds {seeds!r} must be a list of integers >= 0, e.g. [0, 1, 2]")
    for name, values in (("categories", categories), ("seeds", seeds)):
        if len(set(values)) < len(values):
            raise UserError(f"{name} {values!r} names one of them twice; a run counts once")
    tables = {c: load(dataset, c) for c in categories}
    dataset = tables[categories[0]].attrs["dataset"]  # one name for all spellings of a mixture
    groups = [tuple(categories)] if together else [(c,) for c in categories]
    try:
        text = json.dumps(config.to_dict(), allow_nan=False)
    except ValueError:
        raise UserError(f"config {config.to_dict()} holds an infinite number; give finite ones") from None
    weights = _weights(method, text, str(paths.weights_root()))
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
