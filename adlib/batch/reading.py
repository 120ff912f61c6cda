"""The text of a batch file -> its entries, with bounds on what may come out of it, looked at before anything is built.

A YAML file of a few lines can stand for billions of values (an alias repeats what it names), or nest deeper than Python
can go. The parser's events are read one by one, so counting them costs no more than the file's own length.
"""

from collections.abc import Iterable
from pathlib import Path

import yaml

from adlib.common.errors import UserError, shown
from adlib.common.files import regular_text
from adlib.common.paths import ODD

VALUES = 100_000  # with every alias written out
DEPTH = 20  # lists and mappings within each other
LETTERS = 1_000  # of one text or number
Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast; not in every build of PyYAML


def entries(path: Path) -> list[dict]:
    """The entries of a batch file. Raises UserError for a file that cannot be read, is no YAML, or is out of bounds."""
    text = regular_text(path, "batch file")
    try:
        _check(yaml.parse(text, Loader))
        read = yaml.load(text, Loader)
    except UserError as error:
        raise UserError(f"batch file {path} {error}") from error
    except Exception as error:  # yaml's own, and whatever a tag's constructor raises (!!int x, a 13th month)
        raise UserError(f"batch file {path} is no YAML: {' '.join(str(error).split())}") from error
    if not isinstance(read, list) or not read or not all(isinstance(entry, dict) for entry in read):
        raise UserError(f"batch file {path} must be a list of entries with `method` or `notebook`; see batch/quick.yml")
    return read


def _check(events: Iterable[yaml.Event]) -> None:
    """Raises UserError where a text is too long or holds what no file of text does, or the whole is out of bounds."""
    anchors: dict[str, list[int]] = {}  # name -> [values, depth] of what it stands for
    opened = [[0, 0]]  # the same of each list and mapping that is not closed yet, from the outermost
    names: list[str | None] = []  # their anchors
    for event in events:
        values, depth = 0, 0
        if isinstance(event, yaml.CollectionStartEvent):
            opened.append([1, 1])
            names.append(event.anchor)
            anchors.pop(event.anchor, None)  # inside itself it stands for nothing
        elif isinstance(event, yaml.CollectionEndEvent):
            values, depth = opened.pop()
            anchors[names.pop()] = [values, depth]
        elif isinstance(event, yaml.AliasEvent):
            if event.anchor not in anchors:
                raise UserError(f"names {shown(event.anchor)}, which is not there or within itself")
            values, depth = anchors[event.anchor]
        elif isinstance(event, yaml.ScalarEvent):
            _check_scalar(event.value)
            values, depth = anchors[event.anchor] = [1, 0]
        else:
            continue
        opened[-1] = [opened[-1][0] + values, max(opened[-1][1], depth + (len(opened) > 1))]
        if opened[-1][0] > VALUES:
            raise UserError(f"stands for more than {VALUES:,} values, its aliases written out; split it")
        if max(len(opened) - 1, depth + len(opened) - 1) > DEPTH:
            raise UserError(f"has lists or mappings more than {DEPTH} deep; a batch file needs three or four")


def _check_scalar(text: str) -> None:
    if len(text) > LETTERS:
        raise UserError(f"holds {shown(text, 40)}; a text or number may have {LETTERS:,} letters")
    if ODD.search(text.replace("\n", "").replace("\t", "")):
        raise UserError(f"holds a control character in {shown(text)}; remove it")
