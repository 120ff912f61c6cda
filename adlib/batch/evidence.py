"""The committed evidence: finished runs, tables and notebooks, copied to results/reference; README filled.

Nothing here computes a number: what is copied was written by runs, what is printed is read from the copies (`pages`).
"""

import ast
import functools
import os
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from adlib import data, figures, models, runs
from adlib.batch import compared, kept_maps, pages
from adlib.batch.file import expand
from adlib.batch.item import Item
from adlib.common import paths
from adlib.common.errors import UserError
from adlib.common.paths import PROJECT
from adlib.data.inspection import describe
from adlib.data.inspection.verify import verify
from adlib.figures.front import found_and_missed
from adlib.reports import ablation, published, systems, tables
from adlib.runs import proof
from adlib.runs.run import MAPS_SHOWN

KEPT = ("scores.csv", "history.csv", "replicates.npz", MAPS_SHOWN)  # not the weights, not all maps
BATCHES = (PROJECT / "batch" / "reference.yml", PROJECT / "batch" / "reference_ablation.yml")
LARGEST = 2_000_000  # bytes of one committed file
GRIDS = ("grid", "investigation")  # parameters of an ablation notebook that name variants
PICTURE = ("textures", "brick")  # photographs in the public domain


def collect(batches: Iterable[str | Path] = BATCHES, reference: Path | None = None) -> Path:
    """Copy the runs and reports of batch files from the results folder to `reference` (default: results/reference).

    Runs that no batch names stay out; the runs of ablation notebooks go to a folder of their own, `ablations`. Sheets
    of single runs, which a batch makes again from the runs, stay out, too. A batch of reports only adds them. README
    and the pages of `reference` are written anew. Raises UserError for a run that is missing or stale, or a file that
    is too large to commit.
    """
    work, reports = [], []
    for batch in batches:
        made, shown = expand(batch)
        work, reports = work + made, reports + shown
    reference = reference or PROJECT / "results" / "reference"
    finished = [runs.load(path) for item in work for path in item.runs]
    behind = {item.name: runs_behind(item) for item in reports}
    if work:
        _copy_runs(finished, reference / "runs", kept_maps.rows_kept(finished))
        data_reports(reference / "data")
        _picture(finished, reference / "readme")
    known = {run.path for run in finished}
    variants = {run.path: run for several in behind.values() for run in several if run.path not in known}
    if variants:
        _copy_runs(list(variants.values()), reference / "ablations", {})
    _copy_sheets(reports, reference / "notebooks")
    _copy_comparison(paths.results_root() / "comparison" / "reference", reference / "comparison")
    summarise(reference)
    _write_times(behind, reference)
    return reference


def runs_behind(item: Item) -> list[runs.Run]:
    """The finished runs that a report shows, of an ablation those of its variants too, of a page with rivals theirs;
    none for a page on data, or on runs of a whole batch.
    """
    method = Path(item.notebook).stem.partition("_")[2].removesuffix("_ablation")
    parameters = _defaults(item.notebook) | item.parameters
    if "systems" in parameters:
        return _finished(_plans_of_systems(parameters))
    if method not in models.SYSTEMS:
        return []
    configs = [parameters["config"]]
    for grid in GRIDS:
        configs += ablation.variants(parameters["config"], parameters.get(grid) or {}).values()
    chosen = (method, parameters["dataset"], parameters["categories"], parameters["seeds"])
    load = functools.cache(data.load)
    protocol = published.protocol(published.paper_of(method), parameters["dataset"])
    together = protocol["training"]["stated"] == "together"
    plans = [plan for config in configs for plan in runs.plans(*chosen, config, together, load=load)]
    for rival, config in systems.rivals(method, parameters["config"], parameters.get("rivals") or {}):
        plans += runs.plans(rival, *chosen[1:], config, load=load)
    return _finished(plans)


def _plans_of_systems(parameters: dict) -> list[runs.Plan]:
    """Of a page on several systems: those of each, and PatchCore's variants where it is one of them."""
    place = (parameters["dataset"], parameters["categories"], parameters["seeds"])
    chosen = list(parameters["systems"].items())
    bank = parameters["systems"].get("patchcore")
    if bank is not None:
        chosen += [("patchcore", bank | change) for change in (parameters.get("variants") or {}).values()]
    load = functools.cache(data.load)
    return [plan for method, config in chosen for plan in runs.plans(method, *place, config, load=load)]


def _finished(plans: list[runs.Plan]) -> list[runs.Run]:
    folders = dict.fromkeys(plan.folder for plan in plans)
    return [runs.load(folder) for folder in folders if folder.is_dir() and proof.finished(folder)]


def _defaults(notebook: str) -> dict:
    """{parameter: its value} in a notebook's own parameters cell."""
    import papermill  # a second of imports

    return {name: ast.literal_eval(p["default"]) for name, p in papermill.inspect_notebook(notebook).items()}


def _copy_sheets(items: list[Item], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for item in items:
        _copy(item.sheet, folder / item.sheet.name)


def _copy_runs(finished: list[runs.Run], folder: Path, kept: dict[Path, list[int]]) -> None:
    """kept: rows of `kept_maps`; the maps that a restored copy has stay with it."""
    stale = [run.path for run in finished if run.stale]
    if stale:
        raise UserError(
            f"run {stale[0]} and {len(stale) - 1} more were made by older code; delete them and run the batch"
        )
    shutil.rmtree(folder, ignore_errors=True)
    for run in finished:
        target = folder / run.path.relative_to(paths.results_root() / "runs")
        target.mkdir(parents=True)
        for name in KEPT:
            if (run.path / name).is_file():
                _copy(run.path / name, target / name)
        if run.path in kept:
            kept_maps.write(run, kept[run.path], target)
        proof.write(target, proof.read(run.path))  # lists the files that were copied


def _copy_comparison(made: Path, target: Path) -> None:
    """Tables and figures that page 06 saved, but for its maps, which show pictures of the data sets; without them, what
    was there stays.
    """
    if made.is_dir():
        shutil.rmtree(target, ignore_errors=True)
    for file in sorted(made.glob("*.*")) if made.is_dir() else []:
        if not file.name.startswith("maps_"):
            target.mkdir(parents=True, exist_ok=True)
            _copy(file, target / file.name)


def _copy(path: Path, target: Path) -> None:
    if not path.is_file():
        raise UserError(f"{path} is missing; `make reference` makes it")
    if path.stat().st_size > LARGEST:
        raise UserError(
            f"{path} has {path.stat().st_size / 1e6:.1f} MB, more than a repository should hold; run it smaller"
        )
    shutil.copyfile(path, target)


def data_reports(folder: Path) -> None:
    """What verify and describe say of every data set that is here, and of a copy of MTD with three faults put in."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name in describe.available():
        place = data.DATASETS[name].place()
        text = describe.text(describe.describe(name)).replace(str(place), name)
        said = f"{_verified(name, place)}\n`python -m adlib data describe {name}`\n\n{text}\n"
        (folder / f"{name}.md").write_text(said, encoding="utf-8")
    textures = paths.data_root() / "dtd"
    if textures.is_dir():
        (folder / "dtd.md").write_text(_verified("dtd", textures), encoding="utf-8")
    tiles = data.DATASETS["mtd"].place()
    if tiles.is_dir():
        (folder / "mtd_with_faults.md").write_text(_verified_with_faults(tiles), encoding="utf-8")


def _verified(name: str, place: Path) -> str:
    """The command and what it says, without the folders of this machine."""
    said = str(verify(name, progress=False)).replace(str(place), name)
    return f"`python -m adlib data verify {name}`\n\n{said}\n"


def _verified_with_faults(tiles: Path) -> str:
    with tempfile.TemporaryDirectory() as scratch:
        changes = with_faults(tiles, Path(scratch) / "mtd")
        said = str(verify("mtd", Path(scratch) / "mtd", progress=False)).replace(scratch + "/", "")
    listed = "\n".join(f"- {change}" for change in changes)
    return (
        f"A copy of MTD, changed by hand:\n\n{listed}\n\n"
        f"and what `python -m adlib data verify mtd` says of it:\n\n{said}\n"
    )


def with_faults(tiles: Path, copy: Path) -> list[str]:
    """A copy of MTD (links, but for what changes) with a renamed mask, a truncated picture and a test tile in training.

    Returns what was done, a line each.
    """
    shutil.copytree(tiles, copy, copy_function=os.symlink)
    kinds = [f / "Imgs" for f in sorted(copy.glob("MT_*")) if len(list(f.glob("Imgs/*.jpg"))) > 1]
    free = copy / "MT_Free" / "Imgs"
    kind = next(f for f in kinds if f != free)
    mask, cut = min(kind.glob("*.png")), max(kind.glob("*.jpg"))
    mask.rename(mask.with_stem("renamed"))
    content = cut.read_bytes()
    cut.unlink()
    cut.write_bytes(content[: len(content) // 2])
    table = data.load("mtd", root=tiles)
    normal = table[table.label == 0].groupby("split").path.min().map(Path)
    for ending in (".jpg", ".png"):
        (free / normal["train"].with_suffix(ending).name).unlink()
        shutil.copy(normal["test"].with_suffix(ending), free / normal["train"].with_suffix(ending).name)
    return [
        f"{kind.parent.name}/Imgs/{mask.name} renamed to renamed.png",
        f"{kind.parent.name}/Imgs/{cut.name} cut to half its bytes",
        f"MT_Free/Imgs/{normal['test'].name} (test) copied over {normal['train'].name} (train), with its mask",
    ]


def summarise(reference: Path) -> None:
    """From the copies alone: tables in three formats, README's short one, the long one on `reference`'s page."""
    copies = runs.find(reference / "runs")
    (reference / "tables").mkdir(parents=True, exist_ok=True)
    tables.save(tables.summary(copies), reference / "tables" / "summary")
    text = pages.short_table(copies)
    (reference / "tables" / "readme.md").write_text(text, encoding="utf-8")
    pages.insert(PROJECT / "README.md", "table", text)
    pages.insert(reference / "README.md", "table", pages.long_table(copies))
    parts = compared.parts_of(copies)
    if parts:
        ground = compared.grounds(parts)
        tables.save(compared.table(parts, ground), reference / "tables" / "comparison")
        pages.insert(PROJECT / "README.md", "comparison", compared.text(parts, ground))
        drawn = compared.figure(parts, ground)
        if drawn is not None:
            figures.save(drawn, reference / "comparison")


def _write_times(behind: dict[str, list[runs.Run]], reference: Path) -> None:
    """times.csv, and the minutes on the pages that name the notebooks."""
    file = reference / "times.csv"
    training = pd.read_csv(file, index_col="notebook")["training_seconds"].to_dict() if file.is_file() else {}
    training |= {name: sum(r.record["seconds"].get("train", 0) for r in several) for name, several in behind.items()}
    measured = pages.times((reference / "notebooks").glob("*.ipynb"), training)
    measured.to_csv(file, index=False, lineterminator="\n")
    pages.insert(reference / "README.md", "times", pages.times_table(measured))
    pages.insert(PROJECT / "README.md", "start", pages.start(measured))


def _picture(finished: list[runs.Run], stem: Path) -> None:
    """Each method's maps of the first seed's run on PICTURE; nothing where none was run."""
    shown: dict[str, runs.Run] = {}
    for run in finished:
        own = published.paper_of(run.record["method"]) is not None
        if own and (run.record["dataset"], run.record["category"]) == PICTURE and run.maps is not None:
            shown.setdefault(pages.NAMES.get(run.record["method"], run.record["method"]), run)
    if shown:
        figures.save(found_and_missed(shown, PICTURE[1]), stem)
        stem.with_suffix(".pdf").unlink()  # a page shows the PNG
