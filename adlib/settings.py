"""Where things are (data, weights, results, cache), and the one kind of error that a user can mend.

Each root comes from an environment variable or lies in the project folder; nothing depends on the working directory,
because papermill, JupyterLab and nbmake each choose another one.
"""

import contextlib
import errno
import fcntl
import os
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent


# errno of what a user can mend: full disk, quota, read-only, no permission, a file where a folder should be
UNWRITABLE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST}


class UserError(ValueError):
    """Bad input that the user can mend. One sentence: what, where, what would be valid. The command line exits with
    status 2.
    """


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


@contextlib.contextmanager
def locked(path: Path):
    """Hold an exclusive lock on a file, which ends with the process, however that ends; others wait.

    The empty file stays: were it removed, a third process could lock a new one of the same name beside a waiting
    second.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
