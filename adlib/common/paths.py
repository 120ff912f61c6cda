"""Where things are: data, weights, results, cache.

Each root comes from an environment variable or lies in the project folder; nothing depends on the working directory,
because papermill, JupyterLab and nbmake each choose another one.
"""

import os
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]


def _root(variable: str, default: Path) -> Path:
    value = os.environ.get(variable)
    return Path(value).expanduser().resolve() if value else default


def data_root() -> Path:
    """Folder with one folder per data set: $ADLIB_DATA, default `data/`."""
    return _root("ADLIB_DATA", PROJECT / "data")


def weights_root() -> Path | None:
    """Folder with weight files that are looked at before any download: $ADLIB_WEIGHTS, default none."""
    return _root("ADLIB_WEIGHTS", None)


def results_root() -> Path:
    """Folder that receives runs/ and executed/: $ADLIB_RESULTS, default `results/`."""
    return _root("ADLIB_RESULTS", PROJECT / "results")


def cache_root() -> Path:
    """Folder for decoded images and frozen features, safe to delete: $ADLIB_CACHE, default `.cache/`."""
    return _root("ADLIB_CACHE", PROJECT / ".cache")
