"""How names are spelled: one official spelling, and everything a person may write for it."""

from collections.abc import Iterable

from adlib.common.errors import UserError, plain, shown, unknown
from adlib.common.paths import check_place


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


def single(dataset: str, category: str | None) -> str | None:
    """The name of a category that may be called anything, for it is a folder, or the data set's own: a name, no path.

    UserError for what is none: it would lead out of the data set's folder.
    """
    if category is None:
        return None
    if not isinstance(category, str) or "/" in check_place(category) or category in (".", ".."):
        raise UserError(f"category {shown(category)} of {dataset} is no name; valid: the name of a folder")
    return category
