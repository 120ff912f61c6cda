"""Fetch a benchmark: licence, space, archives, safe unpacking, and one rename that makes it exist.

Everything happens in `.<name>.download/` beside the target. Whatever stops it, the target is absent or as it was; the
next call goes on with the bytes that are there.
"""

import errno
import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path

from adlib.common.errors import UserError, unknown
from adlib.common.files import UNWRITABLE, locked
from adlib.common.paths import data_root
from adlib.data import CATALOGUE
from adlib.data.dataset import Archive, Source
from adlib.data.download import unpack
from adlib.data.download.transfer import TIMEOUT, Failed, check, check_space, fetch, listed

# errno of places that are none, besides those that cannot be written: /proc, a too long name, links in a circle
UNUSABLE = {errno.ENOTEMPTY, errno.ENOENT, errno.ENAMETOOLONG, errno.ELOOP, errno.EIO, errno.EINVAL}


def download(
    name: str,
    root: str | Path | None = None,
    accept_licence: bool = False,
    source: Source | None = None,
    progress: bool = True,
    timeout: float = TIMEOUT,
) -> Path:
    """Folder of a complete copy of a data set that has a `source`, fetched where it is missing.

    root: the data set's folder, default `$ADLIB_DATA/<name>`; source: instead of the data set's own; timeout in
    seconds without a byte. An archive that lies beside the folder, fetched by hand, is checked and used. A complete
    copy is left alone, and so are any other files: UserError where they are in the way. UserError also for an unknown
    name, a licence that is not accepted, too little space, wrong or hostile bytes, and where no address answers; it
    says what to fetch by hand and where to put it.
    """
    source = source or _source(name)
    target = _target(name, root)
    try:
        if _complete(name, target, source):
            return target
        _licence(name, source, accept_licence)
        with locked(target.with_name(f".{target.name}.download.lock")):
            if not _complete(name, target, source):  # another download may have been faster
                _get(name, source, target, progress, timeout)
    except OSError as error:
        if error.errno not in UNWRITABLE | UNUSABLE:
            raise
        raise UserError(
            f"cannot write {name} to {target} ({error.strerror}); make room or set ADLIB_DATA to another folder, then "
            "the same command goes on from here"
        ) from error
    return target


def _target(name: str, root: str | Path | None) -> Path:
    try:
        return (Path(root).expanduser() if root else data_root() / name).resolve()
    except RuntimeError as error:  # of expanduser, and of links that lead in a circle
        place = f"root {str(root)!r}" if root else "ADLIB_DATA"
        raise UserError(f"{place} leads nowhere ({error}); give a full path") from error


def _source(name: str) -> Source:
    offered = [known for known, dataset in CATALOGUE.items() if dataset.source]
    if name in offered:
        return CATALOGUE[name].source
    if name in CATALOGUE:
        raise UserError(
            f"{name} needs no download: {CATALOGUE[name].no_download}; there are downloads for {', '.join(offered)}"
        )
    raise unknown("download", name, offered)


def _complete(name: str, target: Path, source: Source) -> bool:
    """Whether a complete copy is there; UserError where something else is."""
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return False
    differs = _differences(target, source)
    if not differs and target.is_dir():
        _say(f"{name} is already complete in {target}, nothing to do")
        return True
    raise UserError(
        f"{target} is there but is no complete {name} ({differs[0] if differs else 'not a folder'}) and is left "
        "alone; move it away, or use another folder"
    )


def _differences(folder: Path, source: Source) -> list[str]:
    present = {pattern: sum(1 for _ in folder.glob(pattern)) for pattern in source.counts}
    return [f"{present[p]} of {n} files {p}" for p, n in source.counts.items() if present[p] != n]


def _licence(name: str, source: Source, accepted: bool) -> None:
    notice = f"licence of {name} (home page {source.homepage} ): {source.licence}"
    if not accepted:
        raise UserError(f"{notice}; if you accept it, add --accept-licence (in Python: accept_licence=True)")
    _say(f"{notice}; accepted by you")


def _get(name: str, source: Source, target: Path, progress: bool, timeout: float) -> None:
    work = target.with_name(f".{target.name}.download")
    fresh = work / "unpacked"
    check_space(target.parent, source.unpacked)
    archives = _archives(source, target.parent, timeout)
    try:
        paths = [_one(name, archive, source, target, work, progress, timeout) for archive in archives]
        shutil.rmtree(fresh, ignore_errors=True)  # of a call that was killed
        fresh.mkdir(parents=True)
        _unpack(name, paths, archives, source, work, fresh, progress)
        _extras(source, target, work, fresh, progress, timeout)
        os.sync()  # a rename must not survive a power cut that its files do not
        os.rename(fresh, target)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
        if work.is_dir() and not any(work.iterdir()):
            work.rmdir()
    shutil.rmtree(work, ignore_errors=True)
    _say(f"{name} is complete in {target}")


def _archives(source: Source, folder: Path, timeout: float) -> tuple[Archive, ...]:
    """The archives, with checksums where a listing gives them; the known addresses follow as mirrors."""
    if not source.listing or all((folder / archive.name).is_file() for archive in source.archives):
        return source.archives
    known = {archive.name: archive.urls for archive in source.archives}
    current = tuple(replace(a, urls=(*a.urls, *known.get(a.name, ()))) for a in listed(source.listing, timeout))
    return current or source.archives


def _one(name: str, archive: Archive, source: Source, target: Path, work: Path, progress: bool, timeout: float) -> Path:
    """One archive: fetched by hand and found beside the target, or fetched now."""
    by_hand = target.parent / archive.name
    try:
        if by_hand.is_file():
            check(by_hand, archive)
            _say(f"using {by_hand}")
            return by_hand
        return fetch(archive, work, source.unpacked, progress, timeout)
    except Failed as error:
        names = ", ".join(a.name for a in source.archives)
        start = f"{by_hand} is wrong" if by_hand.is_file() else f"{name} cannot be fetched"
        raise UserError(
            f"{start} ({error}); fetch {names} by hand from {source.homepage}, put it into {target.parent} and run the "
            f"same command again, or unpack it yourself so that {target / source.unpacks_to} exists"
        ) from error


def _unpack(
    name: str, paths: list[Path], archives: tuple[Archive, ...], source: Source, work: Path, fresh: Path, progress: bool
) -> None:
    """All archives into one new folder. UserError, and what was fetched is removed, where they are not the data set."""
    try:
        for path in paths:
            unpack.unpack(path, fresh, source.keep, 2 * source.unpacked, progress)
        _plausible(name, fresh, source, all(archive.checksum for archive in archives))
    except unpack.Refused as error:
        for path in paths:
            if path.parent == work:
                path.unlink(missing_ok=True)
        raise UserError(
            f"the archive of {name} is refused: {error}; nothing of it was kept, {source.homepage} may say more"
        ) from error


def _plausible(name: str, fresh: Path, source: Source, sure: bool) -> None:
    """A checksum is stronger evidence than a count: with it, other counts are only worth a note."""
    differs = _differences(fresh, source)
    if differs and (not sure or not any(fresh.iterdir())):
        raise unpack.Refused(f"it holds {', '.join(differs)}")
    if differs:
        _say(f"note: {name} has other counts than expected, though its checksum is right: {', '.join(differs)}")


def _extras(source: Source, target: Path, work: Path, fresh: Path, progress: bool, timeout: float) -> None:
    for extra in source.extras:
        try:
            os.replace(fetch(extra, work, 0, progress, timeout), fresh / extra.name)
        except Failed as error:
            _say(f"note: {extra.name} cannot be fetched ({error}); put it into {target} by hand from {extra.urls[0]}")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
