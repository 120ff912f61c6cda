"""What proves that a run folder is whole: its record lists every other file with size and sha256, and seals itself.

run.json is written last, aside, and renamed. So a folder without it is unfinished, and one whose files or record do not
agree with it is damaged: cut short by a full disk, a crash or a copy, or changed by hand. Nothing reads such a run as
if it were whole. A copy that leaves files out has a record of its own that lists what is there.
"""

import errno
import functools
import hashlib
import json
import os
import re
import stat
import sys
from pathlib import Path
from typing import BinaryIO

from adlib.common.errors import UserError
from adlib.common.files import written_whole

RECORD = "run.json"
WEIGHTS = "model.safetensors"
WORKING = ("checkpoint.pt", "made_by.txt")  # of training; they go when the run is whole
LARGEST = 64_000_000  # bytes of a record; those of runs have thousands
# what every reader of a record relies on
FIELDS = dict.fromkeys(("method", "dataset", "category", "hash", "code"), str)
FIELDS |= dict.fromkeys(("config", "paper_config", "protocol", "metrics", "per_category", "seconds", "machine"), dict)
FIELDS |= {"categories": list, "weights": list, "seed": int, "files": dict}
FIELDS_OF_CATEGORY = dict.fromkeys(("metrics", "threshold", "counts", "pixel"), dict) | {"notes": list}


class Damaged(UserError):
    """A run folder that is there and does not prove to be whole; `fault` is what is wrong, without advice."""

    def __init__(self, folder: Path, fault: str):
        super().__init__(
            f"run {folder} is damaged: {fault}; copy it again, or repeat the command that made it, which makes it anew"
        )
        self.fault = fault


def write(folder: Path, record: dict) -> None:
    """Write run.json for a folder whose other files are complete: `record` with their sizes and hashes, sealed."""
    names = sorted(path.name for path in folder.iterdir() if path.name not in (RECORD, *WORKING))
    listed = {name: _facts(folder / name) for name in names if not name.startswith(".")}
    facts = {name: value for name, value in record.items() if name != "seal"} | {"files": listed}
    with written_whole(folder / RECORD) as scratch:
        scratch.write_text(json.dumps(facts | {"seal": _seal(facts)}, indent=1, allow_nan=False) + "\n")


def _opened(path: Path) -> BinaryIO:
    """A regular file; OSError for anything else: a pipe would be waited for, and a device may never end."""
    file = open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb")
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "no regular file", str(path))
    return file


def _facts(path: Path) -> dict:
    with _opened(path) as file:
        return {"size": os.fstat(file.fileno()).st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def _seal(facts: dict) -> str:
    """sha256 of the record without its seal, whatever its layout in the file."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def read(folder: Path) -> dict:
    """The record as it was written (null where a number is not defined). Raises Damaged; UserError: not readable."""
    path = folder / RECORD
    try:
        with _opened(path) as file:
            content = file.read(LARGEST + 1)
        if len(content) > LARGEST:
            raise Damaged(folder, f"run.json has more than {LARGEST / 1e6:.0f} MB")
        facts = json.loads(content)
    except FileNotFoundError as error:
        raise Damaged(folder, "run.json is missing") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); a run folder needs it") from error
    except (ValueError, RecursionError) as error:
        raise Damaged(folder, f"run.json is no run record: {str(error)[:80] or 'empty'}") from error
    if not isinstance(facts, dict) or not _has(facts, FIELDS):
        raise Damaged(folder, "run.json is no run record: fields are missing or of another type")
    categories = facts["per_category"].values()
    if not categories or not all(isinstance(one, dict) and _has(one, FIELDS_OF_CATEGORY) for one in categories):
        raise Damaged(folder, "run.json is no run record: what it says of a category is incomplete")
    if not all(isinstance(one, dict) and _has(one, {"size": int, "sha256": str}) for one in facts["files"].values()):
        raise Damaged(folder, "run.json is no run record: its list of files is incomplete")
    fault = next(filter(None, map(_fault_of_category, categories)), None) or _fault_of_names(facts["files"])
    if fault:
        raise Damaged(folder, f"run.json is no run record: {fault}")
    if facts.pop("seal", None) != _seal(facts):
        raise Damaged(folder, "run.json was changed after it was written")
    return facts


def _fault_of_category(facts: dict) -> str | None:
    """What every reader takes for granted of a category's numbers."""
    numbers = [*facts["metrics"].values(), facts["threshold"].get("tau")]
    if not all(value is None or type(value) in (int, float) for value in numbers) or numbers[-1] is None:
        return "a metric or the threshold is no number"
    if not _has(facts["counts"], {"normal": int, "anomalous": int}):
        return "the counts of test images are missing"
    return None


def _fault_of_names(files: dict) -> str | None:
    if not {"scores.csv", "history.csv"} <= set(files):
        return "its list of files lacks scores.csv or history.csv"
    odd = [name for name in files if not re.fullmatch(r"\w[\w.-]{0,99}", name, re.ASCII)]
    return f"it lists {odd[0]!a}, which is no file of a run" if odd else None


def _has(facts: dict, fields: dict[str, type]) -> bool:
    return all(type(facts.get(name)) is kind for name, kind in fields.items())


def checked(folder: Path, record: dict, name: str) -> Path:
    """The path of a file of the run, once its content is what the record says. Raises Damaged."""
    promised = record["files"].get(name)
    fault = f"{name} is not in it" if promised is None else _fault_of(folder / name, promised, content=True)
    if fault:
        raise Damaged(folder, fault)
    return folder / name


def _fault_of(path: Path, promised: dict, content: bool) -> str | None:
    try:
        with _opened(path) as file:
            size = os.fstat(file.fileno()).st_size
        if size != promised["size"]:
            return f"{path.name} has {size:,} bytes instead of {promised['size']:,}"
        if content and _remembered(path, size, path.stat().st_mtime_ns) != promised["sha256"]:
            return f"{path.name} has another content than was written"
    except FileNotFoundError:
        return f"{path.name} is missing"
    except OSError as error:
        return f"{path.name} cannot be read ({error.strerror})"
    return None


@functools.lru_cache(maxsize=65536)
def _remembered(path: Path, _size: int, _time: int) -> str:
    return _facts(path)["sha256"]


def check(folder: Path, weights: bool = False) -> None:
    """Raises Damaged unless every file of the run is there with its size and content; UserError: not readable.

    weights: whether those, which may have hundreds of megabytes, are read too; else their size counts.
    """
    record = read(folder)
    for name, promised in record["files"].items():
        fault = _fault_of(folder / name, promised, content=weights or name != WEIGHTS)
        if fault:
            raise Damaged(folder, fault)


def finished(folder: Path, weights: bool = False, named: bool = False) -> bool:
    """Whether the folder holds a whole run, see `check`; named: one that does not is told of on stderr."""
    try:
        check(folder, weights)
    except UserError as error:
        if named:
            print(f"left out: {error}", file=sys.stderr)
        return False
    return True


def set_aside(folder: Path, damage: Damaged) -> None:
    """Rename a damaged run to NAME.broken, so that it can be made again; says so on stderr."""
    taken = [folder.with_name(f"{folder.name}.broken{number}") for number in ("", *map(str, range(2, 1000)))]
    aside = next(path for path in taken if not path.exists())
    os.replace(folder, aside)
    print(f"run {folder} is damaged: {damage.fault}; it is kept as {aside.name} and made again", file=sys.stderr)


def is_run(folder: Path) -> bool:
    """Whether a folder's name is that of a finished run, not of an unfinished or broken one."""
    return not (folder.suffix == ".partial" or folder.suffix.startswith(".broken"))
