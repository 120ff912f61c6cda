"""Safe unpacking: an archive from the network is hostile until every member has shown that it is not."""

import errno
import lzma
import re
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import BinaryIO, NamedTuple

from tqdm import tqdm

MEMBERS = 100_000  # more files than this are refused; the largest benchmark has 18,000
CHUNK = 1 << 18
# a name that is no UTF-8 and an offset that is no number are ValueErrors
DAMAGED = (
    *(zipfile.BadZipFile, tarfile.TarError, lzma.LZMAError, zlib.error, struct.error),
    *(EOFError, RuntimeError, ValueError, LookupError, OverflowError),
)
# errno of what an archive is to blame for: seeking before its start, a name that no disk takes
THEIRS = {None, errno.EINVAL, errno.ENAMETOOLONG, errno.EILSEQ}


class Refused(Exception):
    """An archive that is damaged or would do what no data set needs; says what it holds."""


class _Member(NamedTuple):
    name: str
    plain: bool  # a regular file or a folder: no link, no device
    folder: bool
    open: Callable[[], BinaryIO]


def is_archive(path: Path) -> bool:
    """Whether a file is a whole zip, or begins as a tar (plain, gz, bz2, xz)."""
    try:
        return zipfile.is_zipfile(path) or tarfile.is_tarfile(path)
    except DAMAGED:  # the first block of a compressed tar that ends within it
        return False


def unpack(path: Path, target: Path, keep: str, limit: int, progress: bool = True) -> int:
    """Unpack the members whose name matches `keep` to target/<group 1>; returns how many.

    Refused: an absolute path, "..", a link, a device, a member that comes twice, more than `limit` bytes (of what
    is kept) or MEMBERS members (of all), a damaged archive. What was written before stays in target: the caller unpacks
    into a temporary folder and removes it.
    """
    written = files = 0
    pattern = re.compile(keep)
    try:
        members = _zip(path) if zipfile.is_zipfile(path) else _tar(path)
        for count, member in enumerate(tqdm(members, "unpack", unit=" files", disable=None if progress else True)):
            if count >= MEMBERS:
                raise Refused(f"it holds more than {MEMBERS} members")
            place = _place(member, pattern)
            if place:
                written += _write(member, target / place, limit - written)
                files += 1
    except DAMAGED as error:
        raise Refused(f"it is damaged ({error or type(error).__name__})") from error
    except OSError as error:
        if error.errno not in THEIRS:  # the disk's errors carry other numbers, those of gzip and tarfile none
            raise
        raise Refused(f"it is damaged ({error.strerror or error})") from error
    return files


def _zip(path: Path) -> Iterator[_Member]:
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            kind = stat.S_IFMT(info.external_attr >> 16)
            plain = kind in (0, stat.S_IFREG, stat.S_IFDIR)
            yield _Member(info.filename, plain, info.is_dir(), lambda info=info: archive.open(info))


def _tar(path: Path) -> Iterator[_Member]:
    with tarfile.open(path) as archive:
        for info in archive:
            plain = info.isreg() or info.isdir()
            yield _Member(info.name, plain, info.isdir(), lambda info=info: archive.extractfile(info))


def _place(member: _Member, pattern: re.Pattern) -> str | None:
    """Where a member goes, relative to the target; None: not needed. Refused where it could do harm."""
    name = member.name.replace("\\", "/")  # some zips come from Windows
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\0" in name or re.match(r"[A-Za-z]:", name):
        raise Refused(f"its member {member.name!r} points outside the data set's folder")
    if not member.plain:
        raise Refused(f"its member {member.name!r} is a link or a device")
    rubbish = any(part.startswith((".", "__MACOSX")) or part == "Thumbs.db" for part in path.parts)
    match = None if member.folder or rubbish else pattern.search(path.as_posix())
    return match.group(1) if match else None


def _write(member: _Member, path: Path, limit: int) -> int:
    """Copy one member; bytes are counted while they come, because the size in the header may be a lie."""
    size = 0
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        target = path.open("xb")
    except (FileExistsError, NotADirectoryError) as error:
        raise Refused(f"its member {member.name!r} comes twice") from error
    with target, member.open() as source:
        while chunk := source.read(CHUNK):
            size += len(chunk)
            if size > limit:
                raise Refused("it unpacks to far more bytes than the data set has")
            target.write(chunk)
    return size
