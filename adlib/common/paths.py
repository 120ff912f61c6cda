"""Where things are: data, weights, results, cache.

Each root comes from an environment variable or lies in the project folder, or, where adlib is installed without it (a
wheel), in ~/adlib. Nothing depends on the working directory: papermill, JupyterLab and nbmake each choose another one.
"""

import os
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]  # of an installed wheel: site-packages


def is_checkout() -> bool:
    """Whether the project folder is there: notebooks, Snakefile, profiles; a wheel has none of them."""
    return (PROJECT / "Snakefile").is_file()


def _base() -> Path:
    return PROJECT if is_checkout() else Path.home() / "adlib"


def _root(variable: str, default: Path) -> Path:
    value = os.environ.get(variable)
    return Path(value).expanduser().resolve() if value else default


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
