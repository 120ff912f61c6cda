"""Where the pictures at hand come from: what a file beside them says, and what their size gives away."""

from pathlib import Path

from adlib.common.errors import UserError
from adlib.common.pictures import size_of
from adlib.data.dataset import DataSet
from adlib.data.samples import exists, lines

NAME = "PROVENANCE.txt"


def sentence(source: DataSet, root: Path, category: str, picture: Path) -> str | None:
    """One line about the pictures of a category, or None where nothing is known to set them apart from the originals.

    First `altered`, then the first line of PROVENANCE.txt in the category's folder or else in the data set's. UserError
    where that file is no text.
    """
    parts = [altered(source, category, picture), _written(source.folder(root, category), root)]
    return "; ".join(part for part in parts if part) or None


def altered(source: DataSet, category: str, picture: Path) -> str | None:
    """Whether a picture has another size than the official ones: "rescaled or cropped copy: ...".

    One header is read. None where the official size is unknown, or the picture cannot be read: whoever decodes it later
    will name it.
    """
    if category not in source.sizes:
        return None
    try:
        size = size_of(picture)
    except UserError:
        return None
    if size == source.sizes[category]:
        return None
    official = "{}x{}".format(*source.sizes[category])
    return f"rescaled or cropped copy: {size[0]}x{size[1]} instead of the official {official}"


def _written(*folders: Path) -> str | None:
    for folder in folders:
        if exists(folder / NAME):
            return next(iter(lines(folder / NAME)), None)
    return None
