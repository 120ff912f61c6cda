"""The one kind of error that a user can mend, and the guess at what was meant."""

import difflib
import re
from collections.abc import Iterable


class UserError(ValueError):
    """Bad input that the user can mend. One sentence: what, where, what would be valid."""

    status: int = 2  # the exit status of the command line


def shown(value: object, most: int = 120) -> str:
    """The value as it is written in code, for a sentence; of a long one the beginning and its length."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # Python writes no integer of more than 4,300 digits
        return "a number or list too large to be shown"
    return text if len(text) <= most else f"{text[:most]}... ({len(text):,} characters)"


def plain(name: object) -> str:
    """ "Class1", "class_1" -> "class1": the name in lower case without blanks, underscores and hyphens."""
    return re.sub(r"[\s_-]", "", str(name)).lower()


def nearest(name: object, valid: Iterable[str]) -> str | None:
    """The valid name that is probably meant, whatever its case, blanks, underscores and hyphens; None: none is near."""
    spelled = {plain(v): v for v in reversed(list(valid))}  # of two that are spelled alike the first
    near = difflib.get_close_matches(plain(name), spelled, 1)
    return spelled[near[0]] if near else None


def unknown(kind: str, name: object, valid: Iterable[str]) -> UserError:
    """The error for a name that is none of the valid ones, with the nearest of them: to be raised by the caller."""
    valid = [str(v) for v in valid]
    near = nearest(name, valid)
    hint = f"did you mean {near!r}? " if near else ""
    return UserError(f"unknown {kind} {shown(name)}; {hint}valid: {', '.join(valid) or 'none'}")


def check_names(kind: str, names: Iterable[object], valid: Iterable[str]) -> None:
    """Raises UserError for the first name that is none of the valid ones."""
    valid = list(valid)
    for name in names:
        if name not in valid:
            raise unknown(kind, name, valid)
