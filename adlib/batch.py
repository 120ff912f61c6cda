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
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import yaml

from adlib import engine, settings
from adlib.data.mixtures import slug
from adlib.engine import RESOURCES, Item, execute_item
from adlib.settings import PROJECT, UserError

__all__ = ["Item", "execute_item", "expand", "main", "needs", "write_plan"]

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
    resources = _resources(entry, gpu=int(device != "cpu" and bool(engine.visible_gpus())))
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


def write_plan(file: str | Path, work: list[Item], reports: list[Item]) -> Path:
    """The expanded batch as JSON, for the Snakefile and for repeating one item: names, sheets, needs, roots."""
    items = {
        i.name: asdict(i) | {"sheet": str(i.sheet), "needs": [str(w.sheet) for w in needs(i, work)] * (not i.runs)}
        for i in [*work, *reports]
    }
    roots = {k: v for k, v in os.environ.items() if k.startswith("ADLIB_")} | {
        "ADLIB_RESULTS": str(settings.results_root())
    }
    path = engine.executed() / "logs" / f"{Path(file).stem}.plan.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"roots": roots, "executed": str(engine.executed()), "items": items}, indent=1) + "\n")
    return path


def main(file: str | Path, cores: int | None = None, profile: str = "local", dry_run: bool = False, extra=()) -> int:
    """Run a batch file and print what became of it. Returns 0, or 1 where something failed or is left.

    cores: None = all of this machine. profile: a name in profiles/ or a folder. extra: further options of Snakemake.
    Raises UserError before any work for bad input, and KeyboardInterrupt after a Ctrl-C, when all processes have ended.
    """
    start = time.monotonic()
    work, reports = expand(file)
    items = [*work, *reports]
    options = [*engine.profile_options(profile, cores, items), *extra]
    if dry_run:
        print("\n".join(f"{'done' if i.finished else 'left':5s} {i.name}" for i in items))
        return 0
    with engine.locked(engine.executed() / "batch.lock", _say_waiting) as lock:
        plan = write_plan(file, work, reports)
        for item in items:
            _settle(item)
        progress = Progress(items)
        whole = engine.snakemake(plan, options, lock, progress.show)
    print(summary(file, plan, work, reports, time.monotonic() - start), flush=True)
    if not whole:
        raise KeyboardInterrupt
    return 0 if all(i.finished for i in items) else 1


def _say_waiting(holder: str) -> None:
    print(f"waiting: process {holder} runs a batch in {engine.executed()}; this one goes on after it", flush=True)


def _settle(item: Item) -> None:
    """Remove what would mislead the engine: a sheet without its runs, a report with other parameters, an old end."""
    item.log.with_suffix(".json").unlink(missing_ok=True)
    if not item.sheet.is_file():
        return
    try:
        made_with = json.loads(item.sheet.read_text())["metadata"]["papermill"]["parameters"]
    except (ValueError, KeyError):
        made_with = None
    if not item.finished or (not item.runs and made_with != item.parameters):
        item.sheet.unlink()


class Progress:
    """Prints one line for each item that ends while the engine is at work."""

    def __init__(self, items: list[Item]):
        self.items, self.told = items, set()
        print(f"{len(items)} items, {sum(i.finished for i in items)} of them done before", flush=True)

    def show(self) -> None:
        for item in [i for i in self.items if i.name not in self.told and i.outcome]:
            self.told.add(item.name)
            end, ended = item.outcome, sum(bool(i.finished or i.outcome) for i in self.items)
            word = "failed" if end["failed"] else "done"
            print(f"[{ended}/{len(self.items)}] {word} {item.name} ({end['seconds']:.0f} s)", flush=True)


def summary(file: str | Path, plan: Path, work: list[Item], reports: list[Item], seconds: float) -> str:
    """What was done, failed (with its log and how to repeat it alone) and left; the runs' table; what to open."""
    items = [*work, *reports]
    failed = [i for i in items if i.outcome.get("failed")]
    done = [i for i in items if i.finished and i not in failed]
    lines = []
    for item in failed:
        lines += [f"failed  {item.name}: {item.outcome['failed']}", f"  log     {item.log}"]
        lines += [f"  repeat  {sys.executable} -m adlib.engine {plan} {item.name}"]
    left = [i for i in items if i not in failed and not i.finished]
    lines += [f"left    {i.name}" for i in left]
    lines += ["", *_table(work)]
    lines += [f"open    {i.sheet}" for i in reports if i.finished]
    if any(i.finished for i in work):
        lines.append(f"        {engine.executed() / 'runs'}/ (a sheet for each run)")
    if left and not failed:
        lines.append(f"why     {engine.engine_log(plan)}, unless you stopped it")
    counts = f"{len(done)} done, {len(failed)} failed, {len(left)} left"
    again = "; the same command goes on from here" if failed + left else ""
    lines.append(f"{file}: {counts} of {len(items)} in {seconds / 60:.1f} min{again}")
    return "\n".join(lines)


def _table(work: list[Item]) -> list[str]:
    from adlib import runs, tables

    found = [runs.load(r) for i in work for r in i.runs if (Path(r) / "run.json").is_file()]
    return [tables.to_markdown(tables.summary(runs.Runs(found)))] if found else []
