"""How names are spelled: one official spelling, and everything a person may write for it."""

from collections.abc import Iterable

from adlib.common.errors import plain, unknown


def spelled(kind: str, name: object, valid: Iterable[str]) -> str:
    """The one of the valid names that is meant: it itself, or the only one that differs in case, blanks, `_` and `-`.

    UserError, with the nearest of them, where none is meant or several could be. kind: what the name is of, for that.
    """
    valid = list(valid)
    if name in valid:
        return name
    meant = [other for other in valid if plain(other) == plain(name)]
    if len(meant) != 1:
        raise unknown(kind, name, valid)
    return meant[0]
