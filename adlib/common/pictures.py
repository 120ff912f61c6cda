"""Opening a picture file: only what is a file is opened, and every way to fail is one sentence that names it."""

import contextlib
import errno
import os
import stat
import warnings
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from adlib.common.errors import UserError

LARGEST = 2 * Image.MAX_IMAGE_PIXELS  # pixels of a picture; PIL refuses to decode more
UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, IndexError, TypeError)
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # from half of it on: large, but read


def size_of(path: str | Path) -> tuple[int, int]:
    """(width, height) in pixels from the header of a picture. UserError where there is none."""
    with _named_faults(path), Image.open(path) as image:
        return image.size


def opened(path: str | Path) -> Image.Image:
    """The decoded picture in its own mode; every way to fail is one sentence."""
    with _named_faults(path):
        image = Image.open(path)
        image.load()
        return image


@contextlib.contextmanager
def _named_faults(path: str | Path) -> Iterator[None]:
    """Around reading a picture: every way to fail is a UserError that names it. A pipe, which would be waited for
    without end, a device and a folder are refused before they are opened.
    """
    path = Path(path)
    try:
        kind = path.stat().st_mode
        if not stat.S_ISREG(kind):
            raise UserError(f"image {path} is {_kind(path, kind)}; expected a picture file")
        yield
    except UserError:
        raise
    except FileNotFoundError:
        fault = "does not exist"
        if path.is_symlink():
            fault = f"is a link to {os.readlink(path)}, which does not exist"
        raise UserError(f"image {path} {fault}; expected a picture file") from None
    except Image.DecompressionBombError as error:
        raise UserError(f"image {path} has more than {LARGEST} pixels; scale it down or cut it into pieces") from error
    except UNREADABLE as error:
        if path.is_symlink() and getattr(error, "errno", None) == errno.ELOOP:
            raise UserError(f"image {path} is a link that leads to itself; expected a picture file") from None
        raise UserError(f"cannot read image {path} ({error}); expected a complete PNG, JPEG, BMP or TIFF") from error


def _kind(path: Path, mode: int) -> str:
    """What something is that is no file, for a sentence."""
    if not stat.S_ISDIR(mode):
        return "a pipe, a socket or a device"
    if not os.access(path, os.R_OK | os.X_OK):
        return "a folder that cannot be read"
    return f"a link to a folder ({path.resolve()}), which is not followed" if path.is_symlink() else "a folder"
