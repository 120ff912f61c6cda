"""Which runs are to exist, what identifies each, and where it lies."""

import functools
import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import torch

from adlib import data, models
from adlib.backbones import Network
from adlib.common import paths
from adlib.common.environment import check_seeds
from adlib.common.errors import UserError, shown
from adlib.common.seeds import seeded
from adlib.data.mixtures import slug
from adlib.models.config import Config


@dataclass(frozen=True)
class Plan:
    """One run that is to exist: what identifies it, and the folder where it is or will be."""

    method: str
    dataset: str
    categories: tuple[str, ...]
    seed: int
    config: Config
    networks: tuple[Network, ...]  # frozen and starting weights
    tables: tuple[pd.DataFrame, ...] = field(compare=False, repr=False)
    texture_bank: object = field(default=None, compare=False, repr=False)  # `Detector.texture_bank`

    @property
    def category(self) -> str:
        return self.categories[0] if len(self.categories) == 1 else "together"

    @functools.cached_property
    def hash(self) -> str:
        """Everything that decides the numbers but the seed, as 12 hex digits; specs/common, section 8."""
        identity = {
            "method": self.method,
            "config": self.config.identity(),
            "dataset": self.dataset,
            "categories": list(self.categories),
            "data": [t.attrs["fingerprint"] for t in self.tables],
            "weights": [network.fingerprint for network in self.networks],
            "mask_threshold": [t.attrs.get("mask_threshold", 0) for t in self.tables],
        }
        if self.texture_bank is not None:
            identity["texture_bank"] = self.texture_bank.fingerprint
        return hashlib.sha256(json.dumps(identity, sort_keys=True, allow_nan=False).encode()).hexdigest()[:12]

    @property
    def folder(self) -> Path:
        names = (self.method, slug(self.dataset), slug(self.category))
        place = paths.results_root().joinpath("runs", *names)
        return place / f"{self.hash}-s{self.seed}"

    def __str__(self) -> str:
        return f"{self.method} {self.dataset}/{self.category} seed {self.seed}"


def plans(method, dataset, categories=None, seeds=(0,), config=None, together=False, load=data.load) -> list[Plan]:
    """The runs that `reproduce` would train or load, in order. Raises UserError for any wrong name or value.

    load: gives a category's sample table; a batch hands in one that remembers, so that each is loaded once.
    """
    detector_class = models.get(method)[0]
    config, seeds = settings(method, seeds, config)
    tables = _tables(dataset, categories, load)
    dataset = next(iter(tables.values())).attrs["dataset"]  # one name for all spellings of a mixture
    groups = [tuple(tables)] if together else [(category,) for category in tables]
    networks = _networks(method, json.dumps(config.to_dict()), str(paths.weights_root()))
    banks = {group: detector_class.texture_bank(config, dataset, group) for group in groups}
    return [
        Plan(method, dataset, group, seed, config, networks, tuple(tables[c] for c in group), banks[group])
        for group in groups
        for seed in seeds
    ]


def settings(method, seeds, config) -> tuple[Config, list[int]]:
    """The Config and the seeds. Raises UserError for any wrong name or value; looks at no data."""
    config_class = models.get(method)[1]
    config = config if isinstance(config, config_class) else config_class.from_dict(config)
    try:
        json.dumps(config.to_dict(), allow_nan=False)
    except ValueError:
        raise UserError(f"config {config.to_dict()} holds an infinite number; give finite ones") from None
    return config, _seeds(seeds)


def _seeds(seeds) -> list[int]:
    seeds = check_seeds(seeds)
    if len(set(seeds)) < len(seeds):
        raise UserError(f"seeds {shown(seeds)} names one of them twice; a run counts once")
    return seeds


def _tables(dataset: str, categories, load) -> dict[str, pd.DataFrame]:
    """{category: sample table} of the named categories, default all; in the data set's own spelling."""
    if isinstance(categories, str):
        categories = [categories]
    if not categories:
        # the user's own pictures may come without a level of categories
        categories = data.categories(dataset) or [load(dataset).attrs["category"]]
    loaded = [load(dataset, category) for category in categories]
    tables = {table.attrs["category"]: table for table in loaded}
    if len(tables) < len(loaded):
        raise UserError(f"categories {list(categories)!r} names one of them twice; a run counts once")
    return tables


@functools.lru_cache(maxsize=4096)
def _networks(method: str, config: str, _root: str) -> tuple[Network, ...]:
    """The weights that a system starts from or keeps frozen; built on the meta device, so nothing is computed."""
    detector_class, config_class = models.get(method)
    try:
        with seeded(0, "plan"), torch.device("meta"):
            detector = detector_class(config_class.from_dict(json.loads(config)))
    except UserError:
        raise
    except Exception as error:  # whatever torch or timm object to in this combination
        raise UserError(f"{method} cannot be built with config {config}: {type(error).__name__}: {error}") from error
    if any(p.numel() == 0 for p in detector.parameters()):
        raise UserError(f"{method} with config {config} has a layer without parameters; some width is 0")
    return tuple(detector.networks)
