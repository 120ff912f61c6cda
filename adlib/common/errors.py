"""The one kind of error that a user can mend, and the guess at what was meant."""

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """Bad input that the user can mend. One sentence: what, where, what would be valid."""

    status = 2  # of the command line


def unknown(kind: str, name: object, valid: Iterable[str]) -> UserError:
    """The error for a name that is none of the valid ones, with the nearest of them: to be raised by the caller."""
    valid = [str(v) for v in valid]
    near = difflib.get_close_matches(str(name), valid, 1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return UserError(f"unknown {kind} {name!r}; {hint}valid: {', '.join(valid) or 'none'}")


def check_names(kind: str, names: Iterable[object], valid: Iterable[str]) -> None:
    """Raises UserError for the first name that is none of the valid ones."""
    valid = list(valid)
    for name in names:
        if name not in valid:
            raise unknown(kind, name, valid)
