"""Where things are: data, weights, results, cache.

Each root comes from an environment variable or lies in the project folder, or, where adlib is installed without it (a
wheel), in ~/adlib. Nothing depends on the working directory: papermill, JupyterLab and nbmake each choose another one.
"""

import os
import re
from pathlib import Path

from adlib.common.errors import UserError, shown

LONGEST_PART, LONGEST = 255, 4095  # bytes of a name and of a whole path, as Linux takes them
ODD = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")  # control characters, and bytes that are no UTF-8

PROJECT = Path(__file__).resolve().parents[2]  # of an installed wheel: site-packages


def is_checkout() -> bool:
    """Whether the project folder is there: notebooks, Snakefile, profiles; a wheel has none of them."""
    return (PROJECT / "Snakefile").is_file()


def _base() -> Path:
    return PROJECT if is_checkout() else Path.home() / "adlib"


def check_place(text: str) -> str:
    """The text, which is to name a file or folder. Raises UserError for one that no file can have on any disk."""
    parts = [len(part.encode(errors="replace")) for part in text.split("/")]
    if not text.strip():
        fault = "empty"
    elif ODD.search(text):
        fault = f"{shown(text)}, which holds a control character or is no UTF-8"
    elif max(parts) > LONGEST_PART or sum(parts) + len(parts) > LONGEST:
        fault = f"{shown(text)}, which is longer than a name may be"
    else:
        return text
    raise UserError(f"a path is {fault}; valid: the name of a file or folder")


def _root(variable: str, default: Path | None) -> Path | None:
    """Raises UserError for a variable that can name no folder. Makes nothing."""
    value = os.environ.get(variable)
    if not value:
        return default
    try:
        folder = Path(check_place(value)).expanduser().resolve()
        existing = next(place for place in (folder, *folder.parents) if os.path.lexists(place))
        if not existing.is_dir():
            raise UserError(f"{existing} is no folder")
        return folder
    except (UserError, RuntimeError, OSError) as error:  # RuntimeError: ~ of nobody, a link to itself
        raise UserError(f"{variable} is {shown(value)}, which is no place for a folder: {error}") from error


def data_root() -> Path:
    """Folder with one folder per data set: $ADLIB_DATA, default `data/`."""
    return _root("ADLIB_DATA", _base() / "data")


def weights_root() -> Path | None:
    """Folder with weight files that are looked at before any download: $ADLIB_WEIGHTS, default none."""
    return _root("ADLIB_WEIGHTS", None)


def results_root() -> Path:
    """Folder that receives runs/ and executed/: $ADLIB_RESULTS, default `results/`."""
    return _root("ADLIB_RESULTS", _base() / "results")


def cache_root() -> Path:
    """Folder for decoded images and frozen features, safe to delete: $ADLIB_CACHE, default `.cache/`."""
    return _root("ADLIB_CACHE", _base() / ".cache")
