"""One lock, one way to write a file whole and to read a text, and which errors of the disk a user can mend."""

import contextlib
import errno
import fcntl
import os
import stat
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

from adlib.common.errors import UserError

# errno of what a user can mend: full disk, quota, read-only, no permission, a file where a folder should be
UNWRITABLE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST}

LARGEST_TEXT = 1_000_000  # bytes of a file that a person writes


def regular_text(path: Path, kind: str) -> str:
    """What a text file holds. Raises UserError where it is missing, larger than a megabyte, not UTF-8, or no file: a
    pipe would be waited for, and a device may never end. kind: what it is, for the sentence.
    """
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise UserError(f"{kind} {path} is no regular file")
            content = file.read(LARGEST_TEXT + 1)
        if len(content) > LARGEST_TEXT:
            raise UserError(f"{kind} {path} has more than {LARGEST_TEXT:,} bytes; split it")
        return content.decode("utf-8")
    except OSError as error:
        raise UserError(f"{kind} {path} cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{kind} {path} is no text in UTF-8: {error}") from error


def _make_folder(folder: Path) -> None:
    """As `mkdir -p`. /proc and the like take no folder and say that there is none; here that is a lack of permission,
    so that nobody who treats UNWRITABLE must treat every missing file.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileNotFoundError as error:
        raise PermissionError(errno.EACCES, "no folder can be made there", str(folder)) from error


@contextlib.contextmanager
def locked(path: Path, waiting: Callable[[str], None] | None = None) -> Iterator[int]:
    """Hold an exclusive lock on a file, which ends with the process, however that ends; yields its descriptor.

    The file stays, with the holder's process id in it: were it removed, a third process could lock a new one of the
    same name beside a waiting second. `waiting` is told the holder's process id, once, before the wait begins.
    """
    _make_folder(path.parent)
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if waiting:
                file.seek(0)
                waiting(file.read().strip())
            fcntl.flock(file, fcntl.LOCK_EX)
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield file.fileno()


@contextlib.contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside `path`; what the block wrote there gets its name when it is on the disk.

    So the file is whole or absent (or the former one), whatever stops the process. Makes the folder. An error inside
    the block, or of the disk, removes the temporary file and is raised.
    """
    _make_folder(path.parent)
    scratch = path.with_name(f".{path.name[:60]}.{uuid.uuid4().hex[:12]}.tmp")
    try:
        yield scratch
        sync(scratch)
        os.replace(scratch, path)
    finally:
        with contextlib.suppress(OSError):
            scratch.unlink()


def sync(path: Path) -> None:
    """The file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
