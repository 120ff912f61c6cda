"""A batch file -> work items and report items, which Snakemake executes as notebooks.

A work item is `notebooks/run.ipynb` with the parameters of one run (or of several short ones): it calls `reproduce`. A
report item is a paper's notebook over finished runs. Targets of the engine are the executed notebooks, never files of a
run folder: Snakemake deletes the outputs of a failed job, and a finished run must outlive a fault in its sheet. Whether
a run is whole is decided by its folder alone (adlib.runs): the same command completes a batch stopped anywhere.
"""

import ast
import contextlib
import difflib
import functools
import hashlib
import itertools
import json
import operator
from collections.abc import Iterator
from pathlib import Path

import yaml

from adlib.batch.item import RESOURCES, Item
from adlib.batch.notebook import visible_gpus
from adlib.common.errors import UserError
from adlib.common.paths import PROJECT
from adlib.data.mixtures import slug

WORK_KEYS = ("method", "dataset", "categories", "seeds", "config", "grid", "device", "together")
WORK_KEYS += ("seeds_per_item", "categories_per_item", "resources")
SHEET = PROJECT / "notebooks" / "run.ipynb"
REPORT_KEYS = ("notebook", "parameters", "name", "resources")


def expand(path: str | Path) -> tuple[list[Item], list[Item]]:
    """The work items and report items of a batch file, checked: (work, reports). Nothing is executed.

    Raises UserError, with the file and the entry's number, for an unknown key, method, data set, category, config field
    or notebook, a misspelt notebook parameter, a notebook without a parameters cell, missing data or weights.
    """
    work, reports = {}, {}
    for number, entry in enumerate(_read(Path(path)), 1):
        with _named(f"{path}, entry {number}"):
            for item in _report_item(entry, path) if "notebook" in entry else _work_items(entry):
                known = reports if not item.runs else work
                if known.setdefault(item.name, item) != item and not item.runs:
                    raise UserError(f"two reports are called {item.name!r}; give this one another `name`")
    return list(work.values()), list(reports.values())


def _read(path: Path) -> list[dict]:
    try:
        entries = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"batch file {path} cannot be read ({error.strerror}); see batch/quick.yml") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"batch file {path} is no YAML: {' '.join(str(error).split())}") from error
    if not isinstance(entries, list) or not entries or not all(isinstance(e, dict) for e in entries):
        raise UserError(f"batch file {path} must be a list of entries with `method` or `notebook`; see batch/quick.yml")
    return entries


@contextlib.contextmanager
def _named(where: str) -> Iterator[None]:
    try:
        yield
    except UserError as error:
        raise UserError(f"{where}: {error}") from error


def _check_names(kind: str, names, valid) -> None:
    for name in names:
        if name not in valid:
            near = difflib.get_close_matches(str(name), valid, 1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise UserError(f"unknown {kind} {name!r}; {hint}valid: {', '.join(valid)}")


def _check_type(entry: dict, key: str, kind: type | tuple, example: str) -> None:
    if key in entry and not isinstance(entry[key], kind):
        raise UserError(f"{key} is {entry[key]!r}, but must be {example}")


def _resources(entry: dict, gpu: int = 0) -> dict:
    _check_type(entry, "resources", dict, "a mapping, e.g. {gpu: 1, mem_mb: 8000}")
    given = entry.get("resources", {})
    _check_names("resource", given, RESOURCES)
    for name, value in given.items():
        if type(value) is not int or value < (0 if name == "gpu" else 1):
            raise UserError(f"resource {name} is {value!r}, but must be a whole number (runtime: minutes)")
    return RESOURCES | {"gpu": gpu} | given


def _work_items(entry: dict) -> Iterator[Item]:
    """One item per run, or per category or entry where `seeds_per_item` or `categories_per_item` is "all"."""
    from adlib import runs

    _check_names("key", entry, WORK_KEYS)
    for key in ("method", "dataset"):
        if key not in entry:
            raise UserError(f"`{key}` is missing; an entry needs `method` and `dataset`, or `notebook`")
    _check_type(entry, "categories", (list, str, type(None)), "a list, e.g. [bottle, screw], or absent for all")
    _check_type(entry, "seeds", (list, int), "a list, e.g. [0, 1, 2]")
    _check_type(entry, "config", (dict, type(None)), "a mapping of config fields, e.g. {epochs: 20}")
    _check_type(entry, "device", str, "auto, cpu or cuda")
    _check_type(entry, "together", bool, "true or false")
    for key in ("seeds_per_item", "categories_per_item"):
        if entry.get(key, 1) not in (1, "all"):
            raise UserError(f"{key} is {entry[key]!r}, but must be 1 or all")
    device, together = entry.get("device", "auto"), entry.get("together", False)
    resources = _resources(entry, gpu=int(device != "cpu" and bool(visible_gpus())))
    for config in _grid(entry):
        plans = runs.plans(
            entry["method"], entry["dataset"], entry.get("categories"), entry.get("seeds", [0]), config, together
        )
        for group in _grouped(plans, entry):
            yield _work_item(group, config, {"device": device, "together": together}, resources)


def _grid(entry: dict) -> Iterator[dict]:
    """The entry's config, changed by every combination of its grid; a mapping changes several fields in one step."""
    _check_type(entry, "grid", dict, "a mapping of config fields to lists, e.g. {noise_std: [0.01, 0.02]}")
    grid = entry.get("grid", {})
    for name, values in grid.items():
        if not isinstance(values, list) or not values:
            raise UserError(f"grid field {name!r} is {values!r}, but must be a list of the values to cross")
    steps = [[v if isinstance(v, dict) else {name: v} for v in values] for name, values in grid.items()]
    for changes in itertools.product(*steps):
        yield functools.reduce(operator.or_, changes, entry.get("config") or {})


def _grouped(plans: list, entry: dict) -> list[list]:
    groups: dict[tuple, list] = {}
    for plan in plans:
        one_category = entry.get("categories_per_item", 1) == 1
        one_seed = entry.get("seeds_per_item", 1) == 1
        groups.setdefault((plan.categories if one_category else 0, plan.seed if one_seed else 0), []).append(plan)
    return list(groups.values())


def _work_item(plans: list, config: dict, how: dict, resources: dict) -> Item:
    categories = list(dict.fromkeys(c for p in plans for c in p.categories))
    hashes = list(dict.fromkeys(p.hash for p in plans))
    seeds = list(dict.fromkeys(p.seed for p in plans))
    place = plans[0].category if len(hashes) == 1 else f"{len(hashes)}_categories"
    identity = hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()[:12]
    name = f"{plans[0].method}-{slug(plans[0].dataset)}-{slug(place)}-{identity}-s{'+'.join(map(str, seeds))}"
    what = {"method": plans[0].method, "dataset": plans[0].dataset, "categories": categories, "seeds": seeds}
    parameters = what | {"config": config} | how
    return Item(name, str(PROJECT / "notebooks/run.ipynb"), parameters, resources, tuple(str(p.folder) for p in plans))


def _report_item(entry: dict, file: str | Path) -> Iterator[Item]:
    _check_names("key", entry, REPORT_KEYS)
    _check_type(entry, "notebook", str, "the name of a file in notebooks/, e.g. 03_simplenet")
    _check_type(entry, "name", str, "a text")
    _check_type(entry, "parameters", (dict, type(None)), "a mapping of the notebook's parameters")
    notebook = _notebook(entry["notebook"], Path(file).parent)
    parameters = entry.get("parameters") or {}
    _check_parameters(notebook, parameters)
    name = entry.get("name", notebook.stem)
    if not name or "/" in name:
        raise UserError(f"name {name!r} must be a file name without a folder")
    yield Item(name, str(notebook), parameters, _resources(entry))


def _notebook(name: str, beside: Path) -> Path:
    """notebooks/NAME.ipynb, or for one's own notebooks a path ending in .ipynb relative to the batch file."""
    path = (beside / name).resolve() if name.endswith(".ipynb") else PROJECT / "notebooks" / f"{name}.ipynb"
    if not path.is_file():
        valid = sorted(p.stem for p in (PROJECT / "notebooks").glob("*.ipynb"))
        near = difflib.get_close_matches(name, valid, 1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise UserError(f"notebook {path} does not exist; {hint}valid: {', '.join(valid)}, or a path to an .ipynb file")
    return path


def _check_parameters(notebook: Path, parameters: dict) -> None:
    """papermill itself accepts misspelt names and notebooks without parameters, and then uses the defaults."""
    import nbformat

    try:
        cells = nbformat.read(notebook, 4).cells
        source = [c.source for c in cells if "parameters" in c.metadata.get("tags", [])]
        # papermill's own reading of the cell stumbles over a ; or = in a comment
        assigned = [node for node in ast.parse("\n".join(source)).body if isinstance(node, ast.Assign | ast.AnnAssign)]
        valid = [(node.target if isinstance(node, ast.AnnAssign) else node.targets[0]).id for node in assigned]
    except Exception as error:  # nbformat raises many kinds here
        raise UserError(f"notebook {notebook} cannot be read ({error}); is it a Jupyter notebook?") from error
    if not valid:
        raise UserError(f"notebook {notebook} has no parameters; tag the cell that assigns them with `parameters`")
    _check_names(f"parameter of {notebook.stem}", parameters, valid)
    try:
        json.dumps(parameters, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise UserError(f"parameters {parameters!r} must be numbers, texts, lists and mappings ({error})") from error


def needs(report: Item, work: list[Item]) -> list[Item]:
    """The work items whose sheets a report waits for: those of the method in its notebook's name, else all."""
    named = [w for w in work if w.parameters["method"] in Path(report.notebook).stem]
    return named or work
