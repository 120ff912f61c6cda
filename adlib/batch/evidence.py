"""The committed evidence: finished runs, tables and notebooks, copied to results/reference; README's table and picture.

Nothing here computes a number: what is copied was written by runs, what is printed is read from the copies.
"""

import os
import shutil
import tempfile
from pathlib import Path

from adlib import data, figures, runs
from adlib.batch.file import expand
from adlib.batch.item import Item
from adlib.common import paths
from adlib.common.errors import UserError
from adlib.common.files import written_whole
from adlib.common.paths import PROJECT
from adlib.data.inspection import describe
from adlib.data.inspection.verify import verify
from adlib.reports import tables
from adlib.runs import proof

KEPT = ("scores.csv", "history.csv", "replicates.npz")  # all but the weights and the maps
BATCH = PROJECT / "batch" / "reference.yml"
LARGEST = 2_000_000  # bytes of one committed file
BEGIN, END = "<!-- table:begin -->", "<!-- table:end -->"
HEADLINE = ["image_auroc", "mean_grey_auroc", "pixel_auroc", "pixel_ap", "aupro@0.3"]
PICTURE = ("simplenet", "textures", "brick")  # photographs in the public domain


def collect(batch: str | Path = BATCH, reference: Path | None = None) -> Path:
    """Copy the runs and reports of a batch file from the results folder to `reference` (default: results/reference).

    Runs that the batch does not name stay out; a batch of reports only adds them. Raises UserError for a run that is
    missing or stale, or a file that is too large to commit.
    """
    work, reports = expand(batch)
    reference = reference or PROJECT / "results" / "reference"
    if work:
        finished = [runs.load(path) for item in work for path in item.runs]
        _copy_runs(finished, reference)
        shutil.rmtree(reference / "notebooks" / "runs", ignore_errors=True)
        data_reports(reference / "data")
        summarise(reference)
        _picture(finished, reference / "readme")
    _copy_sheets(reports, reference / "notebooks")
    _copy_sheets(work, reference / "notebooks" / "runs")
    return reference


def _copy_sheets(items: list[Item], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for item in items:
        _copy(item.sheet, folder / item.sheet.name)


def _copy_runs(finished: list[runs.Run], reference: Path) -> None:
    stale = [run.path for run in finished if run.stale]
    if stale:
        raise UserError(
            f"run {stale[0]} and {len(stale) - 1} more were made by older code; delete them and run the batch"
        )
    shutil.rmtree(reference / "runs", ignore_errors=True)
    for run in finished:
        target = reference / "runs" / run.path.relative_to(paths.results_root() / "runs")
        target.mkdir(parents=True)
        for name in KEPT:
            if (run.path / name).is_file():
                _copy(run.path / name, target / name)
        proof.write(target, proof.read(run.path))  # lists the files that were copied


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
    """Tables of all copied runs, as Markdown, LaTeX and CSV, and the README's table between its marks."""
    copies = runs.find(reference / "runs")
    (reference / "tables").mkdir(parents=True, exist_ok=True)
    tables.save(tables.summary(copies), reference / "tables" / "summary")
    text = readme_table(copies)
    (reference / "tables" / "readme.md").write_text(text + "\n", encoding="utf-8")
    _insert(PROJECT / "README.md", text)


def readme_table(copies: runs.Runs) -> str:
    """Markdown: the headline metrics per data set, category and setting, and where rescaled pictures come from."""
    return tables.to_markdown(tables.summary(copies, HEADLINE)).rstrip("\n")


def _insert(readme: Path, text: str) -> None:
    before, _, rest = readme.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    with written_whole(readme) as scratch:
        scratch.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}", encoding="utf-8")


def _picture(finished: list[runs.Run], stem: Path) -> None:
    """Anomaly maps of the first seed's run that PICTURE names, if it was run."""
    for run in finished:
        if (run.record["method"], run.record["dataset"], run.record["category"]) == PICTURE:
            figures.save(figures.anomaly_maps(run, per_label=3), stem)
            stem.with_suffix(".pdf").unlink()  # a page shows the PNG
            return
