"""What can be wrong with an entry of a batch file: all of it is collected before any work, a sentence each.

Every check notes what it finds in `Faults` and goes on, so that one look shows everything that has to be mended.
"""

import ast
import contextlib
import functools
import itertools
import json
import math
import operator
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import NoneType

import pandas as pd

from adlib import data, models
from adlib.batch import gpus
from adlib.batch.item import RESOURCES
from adlib.common import environment
from adlib.common.errors import UserError, check_names, shown, unknown
from adlib.common.paths import PROJECT
from adlib.models.config import Config

SHOWN = 10  # sentences on one entry; a grid of thousands may have as many
MOST_RUNS = 10_000  # of one file: a minute of planning
MOST_RESOURCES = {"threads": 1024, "gpu": 1, "mem_mb": 100_000_000, "runtime": 525_600}  # runtime: minutes of a year
Types = dict[str, tuple[tuple[type, ...], str]]

WORK: Types = {  # key: (types that YAML may give, what to write)
    "method": ((str,), "the name of a system, e.g. simplenet"),
    "dataset": ((str,), "the name of a data set, e.g. textures"),
    "categories": ((list, str, NoneType), "a list, e.g. [bottle, screw], or absent for all"),
    "seeds": ((list, int), "a list of integers >= 0, e.g. [0, 1, 2]"),
    "config": ((dict, NoneType), "a mapping of config fields, e.g. {epochs: 20}"),
    "grid": ((dict,), "a mapping of config fields to lists, e.g. {noise_std: [0.01, 0.02]}"),
    "device": ((str,), "auto, cpu, cuda or cuda:N"),
    "together": ((bool,), "true or false"),
    "seeds_per_item": ((int, str), "1 or all"),
    "categories_per_item": ((int, str), "1 or all"),
    "resources": ((dict,), "a mapping, e.g. {gpu: 1, mem_mb: 8000}"),
}
REPORT: Types = {
    "notebook": ((str,), "the name of a file in notebooks/, e.g. 03_simplenet"),
    "name": ((str,), "a text"),
    "parameters": ((dict, NoneType), "a mapping of the notebook's parameters"),
    "resources": ((dict,), "a mapping, e.g. {mem_mb: 8000}"),
}


class Faults:
    """Sentences on what is wrong with one entry, each once, in the order in which they were met."""

    def __init__(self):
        self.sentences: dict[str, None] = {}

    def note(self, sentence: object) -> None:
        """Note a sentence, or the one that an error says."""
        self.sentences[str(sentence)] = None

    @contextlib.contextmanager
    def noted(self) -> Iterator[None]:
        """A UserError inside is noted, and the code after the block goes on."""
        try:
            yield
        except UserError as error:
            self.note(error)

    def raise_all(self) -> None:
        """Raises one UserError with all sentences, if there are any."""
        if self.sentences:
            shown = list(self.sentences)[:SHOWN]
            if len(self.sentences) > SHOWN:
                shown.append(f"and {len(self.sentences) - SHOWN} more")
            raise UserError("; also: ".join(shown))


def sound(entry: dict, types: Types, faults: Faults) -> dict:
    """The part of an entry whose keys are known and whose values have the right type."""
    for key in entry:
        with faults.noted():
            check_names("key", [key], types)
    kept = {}
    for key, (kinds, example) in types.items():
        if key in entry and type(entry[key]) in kinds:  # YAML's true is no integer
            kept[key] = entry[key]
        elif key in entry:
            faults.note(f"{key} is {shown(entry[key])}, but must be {example}")
    return kept


def check_count(path: str | Path, entries: list[dict]) -> None:
    """Raises UserError where a file asks for more than MOST_RUNS runs and reports. Only lengths are multiplied."""
    total = 0
    for number, entry in enumerate(entries, 1):
        count = math.prod(map(len, _crossed(entry)))
        total += count
        if count > MOST_RUNS:
            raise UserError(
                f"{path}, entry {number}: it asks for {count:,} runs; valid: at most {MOST_RUNS:,} in a file"
            )
    if total > MOST_RUNS:
        raise UserError(f"{path} asks for {total:,} runs and reports; valid: at most {MOST_RUNS:,} in a file")


def _crossed(entry: dict) -> Iterator[list]:
    """What an entry multiplies: the lists of its grid, its seeds, its categories. What is no list counts once."""
    grid = entry.get("grid")
    lists = [*(grid.values() if isinstance(grid, dict) else ()), entry.get("seeds"), entry.get("categories")]
    yield from (one for one in lists if isinstance(one, list) and one)
    if not entry.get("categories"):
        with contextlib.suppress(UserError):  # an unknown data set is named later
            yield data.categories(entry.get("dataset")) or [None]


def check_device(device: str, local: bool) -> None:
    """Raises UserError for a device that is none, and if `local` for a GPU where this machine shows none."""
    environment.check_device(device)
    if local and device.startswith("cuda") and not gpus.visible():
        raise UserError(f"device {device!r} was asked for, but this machine shows no NVIDIA GPU; use cpu or auto")


def resources(entry: dict, gpu: int, faults: Faults) -> dict:
    """The entry's resources over the defaults; gpu: how many it needs where it does not say."""
    given = entry.get("resources", {})
    for name, value in given.items():
        with faults.noted():
            check_names("resource", [name], RESOURCES)
            low, high = (0 if name == "gpu" else 1), MOST_RESOURCES[name]
            if type(value) is not int:
                raise UserError(f"resource {name} is {shown(value)}, but must be a whole number (runtime: minutes)")
            if not low <= value <= high:
                reason = ", but a run uses one GPU; valid: 0 or 1" if name == "gpu" else f"; valid: {low} to {high}"
                raise UserError(f"resource {name} is {shown(value)}{reason}")
    return RESOURCES | {"gpu": gpu} | given


def categories(entry: dict, load: Callable[..., pd.DataFrame], faults: Faults) -> list[str] | None:
    """The entry's categories that can be loaded, None for a data set without that level; [] where there are none."""
    try:
        known = data.categories(entry["dataset"])
    except UserError as error:
        faults.note(error)
        return []
    wanted = entry.get("categories") or known or None
    if wanted is None or isinstance(wanted, str):
        wanted = [wanted]
    usable, missing = [], {}
    for category in wanted:
        try:
            if not isinstance(category, str | NoneType):
                raise UserError(
                    f"category {shown(category)} is no text; valid: {', '.join(known) or 'names of folders'}"
                )
            load(entry["dataset"], category)
            usable.append(category)
        except UserError as error:
            form = re.sub(rf"(?<!\w){re.escape(str(category))}(?!\w)", "\0", str(error))
            missing.setdefault(form, []).append(str(category))
    for form, names in missing.items():  # what is said of several in the same words is said once
        faults.note(form.replace("\0", ", ".join(names)))
    return None if usable == [None] else usable


def grid(entry: dict, faults: Faults) -> list[dict]:
    """The entry's config, changed by every combination of its grid; a mapping changes several fields in one step."""
    steps = []
    for name, values in entry.get("grid", {}).items():
        if isinstance(values, list) and values:
            steps.append([value if isinstance(value, dict) else {name: value} for value in values])
        else:
            faults.note(f"grid field {shown(name)} is {shown(values)}, but must be a list of the values to cross")
    base = entry.get("config") or {}
    return [functools.reduce(operator.or_, changes, base) for changes in itertools.product(*steps)]


def configs(method: str, changes: list[dict], faults: Faults) -> list[tuple[dict, Config]]:
    """Each change of the paper's setting that is valid, with the Config that it makes."""
    config_class = models.get(method)[1]
    valid = []
    for change in changes:
        try:
            valid.append((change, config_class.from_dict(change)))
        except UserError as error:
            faults.note(error)
            for field in change:
                _note_field(config_class, field, change[field], faults)
    return valid


def _note_field(config_class: type[Config], field: str, value, faults: Faults) -> None:
    """Notes what is wrong with one field by itself; what only clashes with another field's default is not."""
    try:
        config_class.from_dict({field: value})
    except UserError as error:
        if f"config field {field!r}" in str(error):
            faults.note(error)


def notebook(name: str, beside: Path) -> Path:
    """notebooks/NAME.ipynb, or for one's own notebooks a path ending in .ipynb relative to the batch file."""
    if name.endswith(".ipynb"):
        path = (beside / name).resolve()
        if not path.is_file():
            raise UserError(f"notebook {path} does not exist; valid: a path relative to {beside}, or a name")
        return path
    valid = sorted(path.stem for path in (PROJECT / "notebooks").glob("*.ipynb"))
    if name not in valid:
        raise unknown("notebook", name, [*valid, "a path to an .ipynb file"])
    return PROJECT / "notebooks" / f"{name}.ipynb"


def check_parameters(path: Path, parameters: dict, faults: Faults) -> None:
    """papermill itself accepts misspelt names and notebooks without parameters, and then uses the defaults."""
    with faults.noted():
        valid = _parameters_cell(path)
        for name in parameters:
            with faults.noted():
                check_names(f"parameter of {path.stem}", [name], valid)
    with faults.noted():
        try:
            json.dumps(parameters, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise UserError(
                f"parameters {shown(parameters)} must be numbers, texts, lists and mappings ({error})"
            ) from error


def _parameters_cell(path: Path) -> list[str]:
    """The names that a notebook's parameters cell assigns. Raises UserError where it has none."""
    import nbformat  # a third of a second

    try:
        cells = nbformat.read(path, 4).cells
        source = "\n".join(cell.source for cell in cells if "parameters" in cell.metadata.get("tags", []))
        # papermill's own reading of the cell stumbles over a ; or = in a comment
        body = ast.parse(source).body
        names = [node.targets[0].id for node in body if isinstance(node, ast.Assign)]
        names += [node.target.id for node in body if isinstance(node, ast.AnnAssign)]
    except Exception as error:  # nbformat raises many kinds here
        raise UserError(f"notebook {path} cannot be read ({error}); is it a Jupyter notebook?") from error
    if not names:
        raise UserError(f"notebook {path} has no parameters; tag the cell that assigns them with `parameters`")
    return names


@contextlib.contextmanager
def hub_offline() -> Iterator[None]:
    """Inside, weights come from files and from the hub's cache of this machine: nothing is downloaded."""
    before = os.environ.get("ADLIB_OFFLINE")
    os.environ["ADLIB_OFFLINE"] = "1"  # adlib.backbones reads it at each call
    try:
        yield
    finally:
        if before is None:
            del os.environ["ADLIB_OFFLINE"]
        else:
            os.environ["ADLIB_OFFLINE"] = before
