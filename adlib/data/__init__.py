"""Which images exist: one table of samples per data set and category.

A data set is one function that yields samples and notes (see `table.DataSet`), registered in `DATASETS` by its module.
"""

import difflib
import hashlib
import inspect
import math
from pathlib import Path

import pandas as pd

from adlib.common.errors import UserError
from adlib.data import elpv, layouts, mixtures, textures
from adlib.data.samples import DataSet, build, exists, is_folder, listing

DATASETS: dict[str, DataSet] = {**layouts.DATASETS, **elpv.DATASETS, **textures.DATASETS}


def datasets() -> list[str]:
    """Names of all known data sets, whether they are on this machine or not."""
    return sorted(DATASETS)


def categories(dataset: str, root: str | Path | None = None) -> list[str]:
    """Valid categories of a data set (of `folder`: those that are there) or of a mixture ("mvtec_ad:screw", ...).

    UserError for an unknown data set. `mixtures` says how a mixture is written.
    """
    if mixtures.is_mixture(dataset):
        return list(_mixture(dataset, root).parts)
    source = _source(mixtures.options(dataset)[0])
    return source.categories(source.place(root))


def load(dataset: str, category: str | None = None, root: str | Path | None = None, **options) -> pd.DataFrame:
    """Table of one category: path, split (train|test), label (0 normal, 1 anomalous), defect ("good" or kind), mask.

    root: the data set's folder, default `$ADLIB_DATA/<dataset>`; options: what the data set's function takes, which may
    also stand in the name ("mtd?split=seeded"), so that runs and batch files can have them.
    mask: path or None. attrs: dataset, category, root, options, fingerprint (sha256 over relative paths, contents of
    images and masks, split), notes (what was dropped and why), mask_threshold (mask pixels above it are anomalous).
    A mixture gives the table of its part, with the mixture's canonical name and "name:category" as attrs.
    UserError: unknown data set, category or option; missing folder; no training image. Spec: common.md section 1.
    """
    if mixtures.is_mixture(dataset):
        return _load_part(_mixture(dataset, root), category, options)
    written, (dataset, named) = dataset, mixtures.options(dataset)
    source, options = _source(dataset), named | options
    root = source.place(root)
    if source.advice and not is_folder(root):
        listing(root)  # names a file or a broken link in its place
        raise UserError(f"data set {dataset} not found at {root}; {source.advice}")
    category = _category(dataset, source.categories(root), category) or root.name
    _check_options(dataset, source, options)
    samples, notes = source.samples(root, category, **options)
    if not samples:
        raise UserError(f"no image of {dataset}/{category} found in {root}; {source.advice}")
    facts = {"options": dict(options), "mask_threshold": source.mask_threshold}
    return build(samples, written, category, root, notes, **facts)


def holdback(table: pd.DataFrame, share: float = 0.1) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Normal training images to fit and to hold back for the threshold: (fit rows, held rows), in the table's order.

    The ceil(share n) first in the order of sha256(relative path), at least 5, at most half; share 0 holds none.
    UserError where share is not in 0..0.5. Spec: common.md section 4.7.
    """
    if not 0 <= share <= 0.5:
        raise UserError(f"holdback share {share} is not in 0..0.5; 0.1 is usual, 0 holds nothing back")
    train = table[(table.split == "train") & (table.label == 0)]
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
            return f"embedded, {', '.join(source.categories(root))}"
        return f"{root}: {_here(dataset, root)}" if is_folder(root) else f"missing at {root}; {source.advice}"
    except UserError as error:
        return str(error)


def _here(dataset: str, root: Path) -> str:
    """Categories that have a folder, and how many there could be."""
    from adlib.data.inspection import checks

    name = mixtures.options(dataset)[0]
    valid, place = DATASETS[name].categories(root), checks.rules(name).place
    if not valid:
        return "the folder itself is the one category"
    found = [category for category in valid if exists(place(root, category))]
    return (", ".join(found) or "none") + (f" ({len(found)} of {len(valid)})" if len(found) < len(valid) else "")


def _mixture(dataset: str, root: str | Path | None) -> mixtures.Mixture:
    if root is not None:
        raise UserError(f"mixture {dataset!r} has no folder of its own; set ADLIB_DATA to the one that holds its parts")
    return mixtures.parse(dataset, categories)


def _load_part(mixture: mixtures.Mixture, category: str | None, options: dict) -> pd.DataFrame:
    category = _category(mixture.name, list(mixture.parts), category)
    dataset, own = mixture.parts[category]
    table = load(dataset, own, **options)
    table.attrs |= {"dataset": mixture.name, "category": category}
    return table


def _source(dataset: str) -> DataSet:
    if not isinstance(dataset, str) or dataset not in DATASETS:
        raise UserError(f"unknown data set {dataset!r}{_guess(dataset, datasets())}; valid are {', '.join(datasets())}")
    return DATASETS[dataset]


def _category(dataset: str, valid: list[str], category: str | None) -> str | None:
    """The category, if it is a valid one; where the data set names none, the root is one category of any name."""
    if not valid:
        return category
    if category is None and len(valid) == 1:
        return valid[0]
    if category is None:
        raise UserError(f"data set {dataset} has {len(valid)} categories; name one of {', '.join(valid)}")
    if category not in valid:
        guess = _guess(category, valid)
        raise UserError(f"unknown category {category!r} of {dataset}{guess}; valid are {', '.join(valid)}")
    return category


def _check_options(dataset: str, source: DataSet, options: dict) -> None:
    valid = list(inspect.signature(source.samples).parameters)[2:]
    unknown = sorted(set(options) - set(valid))
    if unknown:
        raise UserError(f"unknown option {unknown[0]!r} of data set {dataset}; valid are {', '.join(valid) or 'none'}")


def _guess(name: str, valid: list[str]) -> str:
    close = difflib.get_close_matches(str(name), valid, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""
