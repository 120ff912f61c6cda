"""A batch file, a YAML list of entries -> work items and report items.

A work item is `notebooks/run.ipynb` with the parameters of one run (or of several short ones): it calls `reproduce`. A
report item is a paper's notebook over finished runs. What can be wrong with an entry stands in checks.py.
"""

import contextlib
import functools
import hashlib
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd

from adlib import data, models, runs
from adlib.batch import checks, gpus, reading
from adlib.batch.checks import Faults
from adlib.batch.item import Item, check_name, shortened
from adlib.common.environment import check_seeds
from adlib.common.errors import UserError, check_names, shown
from adlib.common.paths import PROJECT
from adlib.data.mixtures import slug
from adlib.models.config import Config

Load = Callable[..., pd.DataFrame]  # adlib.data.load
EMBEDDED = ("textures", ["brick"])  # pictures that are always there


def expand(path: str | Path, download: bool = True, local: bool = False) -> tuple[list[Item], list[Item]]:
    """The work items and report items of a batch file, checked: (work, reports). Nothing is executed.

    download: whether weights that are on no disk may be fetched, which a run's identity needs. local: whether the runs
    are to be made on this machine, which then needs their devices. Each category is loaded once.
    Raises UserError with one line for each entry at fault, with its number: an unknown key, method, data set, category,
    config field, device or notebook parameter, a wrong value, missing data, weights or notebooks, a bad or double name.
    """
    entries = reading.entries(Path(path))
    checks.check_count(path, entries)
    load = functools.cache(data.load)
    items: dict[str, Item] = {}
    wrong = []
    with contextlib.nullcontext() if download else checks.hub_offline():
        for number, entry in enumerate(entries, 1):
            try:
                for item in _items(entry, Path(path).parent, load, local):
                    _add(items, item)
            except UserError as error:
                wrong.append(f"{path}, entry {number}: {error}")
    if wrong:
        raise UserError("\n".join(wrong))
    work = [item for item in items.values() if item.runs]
    return work, [item for item in items.values() if not item.runs]


def _add(items: dict[str, Item], item: Item) -> None:
    """The same runs twice in a file are one item; a report's name belongs to one item, whatever its case, because some
    disks know no case.
    """
    first = items.setdefault(unicodedata.normalize("NFC", item.name).casefold(), item)
    if first != item and not (first.runs and item.runs):
        raise UserError(f"two items are called {first.name!r} and {item.name!r}; give this one another `name`")


def _items(entry: dict, beside: Path, load: Load, local: bool) -> Iterator[Item]:
    if "notebook" in entry:
        yield _report_item(entry, beside)
    else:
        yield from _work_items(entry, load, local)


def _work_items(entry: dict, load: Load, local: bool) -> Iterator[Item]:
    """One item per run, or per category or entry where `seeds_per_item` or `categories_per_item` is "all"."""
    faults = Faults()
    for key in ("method", "dataset"):
        if key not in entry:
            faults.note(f"`{key}` is missing; an entry needs `method` and `dataset`, or `notebook`")
    entry = checks.sound(entry, checks.WORK, faults)
    device = entry.get("device", "auto")
    with faults.noted():
        checks.check_device(device, local)
    for key in ("seeds_per_item", "categories_per_item"):
        if entry.get(key, 1) not in (1, "all"):
            faults.note(f"{key} is {shown(entry[key])}, but must be 1 or all")
    # a device with a number is the user's own choice, which reserving another one would spoil
    resources = checks.resources(entry, int(device in ("auto", "cuda") and bool(gpus.visible())), faults)
    planned = _plans(entry, load, faults)
    faults.raise_all()
    for change, plans in planned:
        for group in _grouped(plans, entry):
            yield _work_item(group, change, device, entry.get("together", False), resources)


def _plans(entry: dict, load: Load, faults: Faults) -> list[tuple[dict, list[runs.Plan]]]:
    """For each combination of the grid the config as written and its runs; what is missing or wrong is noted."""
    seeds, changes, categories = [0], checks.grid(entry, faults), []
    with faults.noted():
        seeds = check_seeds(entry.get("seeds", [0]))
    if "dataset" in entry:
        categories = checks.categories(entry, load, faults)
    with faults.noted():
        check_names("method", [entry["method"]] if "method" in entry else [], models.SYSTEMS)
    if entry.get("method") not in models.SYSTEMS:
        return []
    dataset = entry.get("dataset")
    if categories == []:  # what the config itself needs (weights, textures) can be asked for elsewhere
        dataset, categories = EMBEDDED
    together = entry.get("together", False)
    plan = functools.partial(runs.plans, entry["method"], dataset, categories, seeds, together=together, load=load)
    configs = checks.configs(entry["method"], changes, faults)
    with checks.hub_offline() if faults.sentences else contextlib.nullcontext():  # no download for a wrong entry
        return list(_planned(plan, configs, faults))


def _planned(
    plan: Callable[..., list[runs.Plan]], configs: list[tuple[dict, Config]], faults: Faults
) -> Iterator[tuple[dict, list[runs.Plan]]]:
    """The runs of each config. A network without weights is looked for once, not for each of a thousand configs."""
    missing = set()
    for change, config in configs:
        network = getattr(config, "backbone", None)
        if network in missing:
            continue
        try:
            yield change, plan(config=config)
        except UserError as error:
            faults.note(error)
            if network is not None and repr(network) in str(error):
                missing.add(network)


def _grouped(plans: list[runs.Plan], entry: dict) -> list[list[runs.Plan]]:
    """The runs that share an item, in order."""
    groups: dict[tuple, list[runs.Plan]] = {}
    for plan in plans:
        key = []
        if entry.get("categories_per_item", 1) == 1:
            key.append(plan.categories)
        if entry.get("seeds_per_item", 1) == 1:
            key.append(plan.seed)
        groups.setdefault(tuple(key), []).append(plan)
    return list(groups.values())


def _work_item(plans: list[runs.Plan], config: dict, device: str, together: bool, resources: dict) -> Item:
    first = plans[0]
    categories = list(dict.fromkeys(category for plan in plans for category in plan.categories))
    hashes = list(dict.fromkeys(plan.hash for plan in plans))
    seeds = list(dict.fromkeys(plan.seed for plan in plans))
    if len(hashes) == 1:
        place, identity = first.category, hashes[0]
    else:
        place, identity = f"{len(hashes)}_categories", hashlib.sha256("".join(hashes).encode()).hexdigest()[:12]
    name = f"{first.method}-{slug(first.dataset)}-{slug(place)}-{identity}-s{'+'.join(map(str, seeds))}"
    parameters = {"method": first.method, "dataset": first.dataset, "categories": categories, "seeds": seeds}
    parameters |= {"config": config, "device": device, "together": together}
    folders = tuple(str(plan.folder) for plan in plans)
    return Item(shortened(name), str(PROJECT / "notebooks" / "run.ipynb"), parameters, resources, folders)


def _report_item(entry: dict, beside: Path) -> Item:
    faults = Faults()
    entry = checks.sound(entry, checks.REPORT, faults)
    resources = checks.resources(entry, 0, faults)
    parameters = entry.get("parameters") or {}
    if "name" in entry:
        with faults.noted():
            check_name(entry["name"])
    with faults.noted():
        path = checks.notebook(entry.get("notebook", ""), beside)
        checks.check_parameters(path, parameters, faults)
    faults.raise_all()
    return Item(entry.get("name", path.stem), str(path), parameters, resources)
