"""Which images exist: one table of samples per data set and category.

A data set is one file of this folder that holds a `DATASET` (see `adlib.data.dataset`); being there registers it.
"""

import hashlib
import importlib
import inspect
import math
import pkgutil
import typing
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from adlib.common.errors import UserError, check_names, unknown
from adlib.data import mixtures, names, provenance
from adlib.data.dataset import Counts, DataSet
from adlib.data.names import plain
from adlib.data.samples import build, exists, is_folder, listing

__all__ = [
    "CATALOGUE",
    "DATASETS",
    "categories",
    "check",
    "datasets",
    "holdback",
    "load",
    "official",
    "plain",
    "spelled",
    "where",
]


def _registered() -> dict[str, DataSet]:
    """Every DATASET of a module in this folder, in the order of the modules' names."""
    modules = [importlib.import_module(f"{__name__}.{m.name}") for m in pkgutil.iter_modules(__path__) if not m.ispkg]
    return {module.DATASET.name: module.DATASET for module in modules if hasattr(module, "DATASET")}


CATALOGUE: dict[str, DataSet] = _registered()  # with the sources of textures, which `load` refuses
DATASETS: dict[str, DataSet] = {name: source for name, source in CATALOGUE.items() if source.anomalies}


def datasets() -> list[str]:
    """Names of all data sets that `load` knows, whether they are on this machine or not."""
    return sorted(DATASETS)


def categories(dataset: str, root: str | Path | None = None) -> list[str]:
    """Valid categories of a data set (of `folder`: those that are there) or of a mixture ("mvtec_ad:screw", ...).

    UserError for an unknown data set. `mixtures` says how a mixture is written.
    """
    if mixtures.is_mixture(dataset):
        return list(_mixture(dataset, root).parts)
    source = _source(mixtures.options(dataset)[0])
    return source.categories(source.place(root))


def spelled(dataset: str, category: str, root: str | Path | None = None) -> str:
    """The official spelling of a category, whatever its case, blanks, underscores and hyphens: "class8" -> "Class8".

    UserError, with the nearest valid name, where it is none. A data set that is itself one category of any name has no
    official spelling: the name stays as it is.
    """
    return _spelled(dataset, categories(dataset, root), category)


def check(dataset: str) -> None:
    """UserError where `load` knows no such data set or mixture, or not the options in its name. Looks at no picture."""
    mixed = mixtures.is_mixture(dataset)
    for part in dict.fromkeys(name for name, _ in _mixture(dataset, None).parts.values()) if mixed else [dataset]:
        name, options = mixtures.options(part)
        _check_options(_with_anomalies(name), options)


def official(dataset: str) -> dict[str, Counts]:
    """{category: {"train/good": 209, "test/good": 20, "test/<kind>": ...}} of the complete, official data.

    Empty where nobody publishes counts. UserError for an unknown data set.
    """
    return _source(dataset).official


def load(dataset: str, category: str | None = None, root: str | Path | None = None, **options) -> pd.DataFrame:
    """Table of one category: path, split (train|test), label (0 normal, 1 anomalous), defect ("good" or kind), mask.

    category: see `spelled`; root: the data set's folder, default `$ADLIB_DATA/<dataset>`; options: what the data set's
    function takes, which may also stand in the name ("mtd?split=seeded"), so that runs and batch files can have them.
    mask: path or None. attrs: dataset, category (official spelling), root, options, fingerprint (sha256 over relative
    paths, contents of images and masks, split), notes (what was dropped and why), mask_threshold (mask pixels above it
    are anomalous), provenance (one sentence on the origin of the pictures, or None), duplicates (one on pictures that
    are in train and test, or None), reserved (paths, see `holdback`).
    A mixture gives the table of its part, with the mixture's canonical name and "name:category" as attrs.
    UserError: unknown data set, category or option; missing folder; no training image. Spec: common.md section 1.
    """
    if mixtures.is_mixture(dataset):
        return _load_part(_mixture(dataset, root), category, options)
    _with_anomalies(mixtures.options(dataset)[0])
    return listed(dataset, category, root, **options)


def listed(dataset: str, category: str | None = None, root: str | Path | None = None, **options) -> pd.DataFrame:
    """As `load`, of anything in CATALOGUE: a source of textures, too, whose pictures are all "train" and "good"."""
    written, (dataset, named) = dataset, mixtures.options(dataset)
    source, options = _source(dataset), named | options
    root = source.place(root)
    if source.advice and not is_folder(root):
        listing(root)  # names a file or a broken link in its place
        raise UserError(f"data set {dataset} not found at {root}; {source.advice}")
    category = _category(dataset, source.categories(root), category) or root.name
    _check_options(source, options)
    samples, notes = source.samples(root, category, **options)
    if not samples:
        raise UserError(f"no image of {dataset}/{category} found in {root}; {source.advice}")
    if source.checked:
        samples, notes = source.checked(samples, notes)
    facts = {"options": dict(options), "mask_threshold": source.mask_threshold}
    facts["provenance"] = provenance.sentence(source, root, category, samples[0].path)
    return build(samples, written, category, root, notes, **facts)


def holdback(table: pd.DataFrame, share: float = 0.1) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Normal training images to fit and to hold back for the threshold: (fit rows, held rows), in the table's order.

    The ceil(share n) first in the order of sha256(relative path), at least 5, at most half; share 0 holds none. Where
    the data set reserves training images for this (attrs["reserved"]), exactly these are held, whatever the share above
    0: others would share pixels, or an object, with fitted ones. UserError where share is not in 0..0.5. Spec:
    common.md section 4.7.
    """
    if not 0 <= share <= 0.5:
        raise UserError(f"holdback share {share} is not in 0..0.5; 0.1 is usual, 0 holds nothing back")
    train = table[(table.split == "train") & (table.label == 0)]
    reserved = train.path.isin(table.attrs.get("reserved", ()))
    if share and reserved.any():
        return train[~reserved], train[reserved]
    count = min(max(math.ceil(share * len(train) - 1e-9), 5), len(train) // 2) if share else 0
    root = Path(table.attrs["root"])
    order = train.path.map(lambda path: hashlib.sha256(Path(path).relative_to(root).as_posix().encode()).hexdigest())
    held = train.index.isin(order.sort_values().index[:count])
    return train[~held], train[held]


def where(dataset: str) -> str:
    """Where a data set, or each part of a mixture, lies and whether it is there, as one phrase for people."""
    if mixtures.is_mixture(dataset):
        parts = dict.fromkeys(name for name, _ in _mixture(dataset, None).parts.values())
        return "; ".join(f"{name}: {where(name)}" for name in parts)
    source = _source(mixtures.options(dataset)[0])
    try:
        root = source.place()
        if not source.advice:
            return f"embedded: {', '.join(source.categories(root))}"
        return f"{root}: {_here(source, root)}" if is_folder(root) else f"missing at {root}; {source.advice}"
    except UserError as error:
        return str(error)


def _here(source: DataSet, root: Path) -> str:
    """Categories that have a folder, and how many there could be."""
    valid = source.categories(root)
    if not valid:
        return "the folder itself is the one category"
    present = [category for category in valid if exists(source.folder(root, category))]
    share = f" ({len(present)} of {len(valid)})" if len(present) < len(valid) else ""
    return (", ".join(present) or "none") + share


def _mixture(dataset: str, root: str | Path | None) -> mixtures.Mixture:
    if root is not None:
        raise UserError(f"mixture {dataset!r} has no folder of its own; set ADLIB_DATA to the one that holds its parts")
    return mixtures.parse(dataset, categories)


def _load_part(mixture: mixtures.Mixture, category: str | None, options: dict) -> pd.DataFrame:
    category = _category(mixture.name, list(mixture.parts), category)
    table = load(*mixture.parts[category], **options)
    table.attrs |= {"dataset": mixture.name, "category": category}
    return table


def _source(dataset: str) -> DataSet:
    if not isinstance(dataset, str) or dataset not in CATALOGUE:
        raise unknown("data set", dataset, sorted(CATALOGUE))
    return CATALOGUE[dataset]


def _with_anomalies(dataset: str) -> DataSet:
    """The data set, if it is one to detect anomalies in."""
    if isinstance(dataset, str) and dataset in CATALOGUE and dataset not in DATASETS:
        raise UserError(
            f"{dataset} is a source of textures, no data set to detect anomalies in; valid: {', '.join(datasets())}"
        )
    if not isinstance(dataset, str) or dataset not in DATASETS:
        raise unknown("data set", dataset, datasets())
    return DATASETS[dataset]


def _check_options(source: DataSet, options: Mapping[str, object]) -> None:
    """UserError for an option that the layout does not take, or a value that is none of its `Literal`."""
    hints = typing.get_type_hints(source.samples)
    check_names(f"{source.name} option", options, list(inspect.signature(source.samples).parameters)[2:])
    for name, value in options.items():
        if typing.get_origin(hints[name]) is typing.Literal:
            check_names(f"{source.name} {name}", [value], typing.get_args(hints[name]))


def _category(dataset: str, valid: list[str], category: str | None) -> str | None:
    """The category, if it is a valid one; where the data set names none, the root is one category of any name."""
    if category is None and len(valid) == 1:
        return valid[0]
    if category is None and valid:
        raise UserError(f"data set {dataset} has {len(valid)} categories; name one of {', '.join(valid)}")
    return _spelled(dataset, valid, category)


def _spelled(dataset: str, valid: list[str], category: str | None) -> str | None:
    return names.spelled(f"{dataset} category", category, valid) if valid else names.single(dataset, category)
