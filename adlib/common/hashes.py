"""Content hashes of files, remembered between loads, so that a data set is read once and not at every start."""

import contextlib
import hashlib
import json
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from stat import S_ISREG

from adlib.common.errors import UserError
from adlib.common.files import written_whole
from adlib.common.paths import cache_root


def content_hashes(root: Path, paths: Sequence[Path]) -> list[str]:
    """sha256 (hex) of each file. A file is read again only when its size or one of its times has changed.

    The store is `cache_root()/hashes/<hash of root>.json`; where it is corrupt or cannot be written, files are simply
    read again. UserError names a file that cannot be read.
    """
    store = cache_root() / "hashes" / f"{hashlib.sha256(str(root).encode()).hexdigest()[:16]}.json"
    known = _read(store)
    marks = [_mark(path) for path in paths]
    stale = [i for i, path in enumerate(paths) if known.get(str(path), [None])[:-1] != marks[i]]
    with ThreadPoolExecutor() as pool:
        fresh = dict(zip(stale, pool.map(_sha256, [paths[i] for i in stale]), strict=True))
    hashes = [fresh[i] if i in fresh else known[str(path)][-1] for i, path in enumerate(paths)]
    # A file written a moment ago could change again within the clock's tick and keep its mark (git calls this racy).
    settled = time.time_ns() - 2_000_000_000
    new = {str(paths[i]): [*marks[i], hashes[i]] for i in stale if max(marks[i][1:]) < settled}
    if new:
        _write(store, new)
    return hashes


def _mark(path: Path) -> list[int]:
    try:
        stat = path.stat()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}; every listed file must be readable") from error
    if not S_ISREG(stat.st_mode):  # a pipe would be waited for without end
        raise UserError(f"{path} is no file; rename or remove it")
    return [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}; every listed file must be readable") from error


def _read(store: Path) -> dict[str, list]:
    try:
        known = json.loads(store.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(known, dict):
        return {}
    return {path: entry for path, entry in known.items() if isinstance(entry, list) and len(entry) == 4}


def _write(store: Path, new: dict[str, list]) -> None:
    """Merge with what another process may have stored meanwhile, then replace in one step."""
    # The store only saves time, so a cache that is read-only or full is no error.
    with contextlib.suppress(OSError), written_whole(store) as scratch:
        scratch.write_text(json.dumps(_read(store) | new, ensure_ascii=False), encoding="utf-8")
