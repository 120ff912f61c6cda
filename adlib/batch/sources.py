"""Finished runs by where they come from: a batch file, a run folder, or a folder with runs below it."""

from pathlib import Path

from adlib import runs
from adlib.batch.made import made
from adlib.common.paths import PROJECT
from adlib.runs.run import Runs

BATCH = (".yml", ".yaml")


def finished(source: str | Path) -> Runs:
    """The runs of a batch file (`.missing` names those that are not there), or those in or below a folder.

    A relative path that is not in this folder is looked for in the project's. Nothing is trained or downloaded. Raises
    UserError for a wrong batch file, a folder without runs, or a batch of which no run is finished.
    """
    path = Path(source)
    if not path.exists() and (PROJECT / path).exists():
        path = PROJECT / path
    return made(path) if path.suffix in BATCH and not path.is_dir() else runs.find(path)
