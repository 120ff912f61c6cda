"""The registry: one file, one system; a system's name is its file's name."""

import difflib
import importlib

from adlib.common.errors import UserError

# name -> class of the Detector; its Config is the class attribute of that name
SYSTEMS = {
    "simplenet": "SimpleNet",
    "draem": "Draem",
}


# methods whose papers train one model per category, and what one for all of them was measured at by others
ALONE = {
    "draem": "zhangzjn/ADer's benchmark has 54.5 image AUROC for one DRAEM model on the 15 categories of MVTec AD",
}


def get(name: str) -> tuple[type, type]:
    """(Detector class, Config class) of a system. Raises UserError with the valid names."""
    if name not in SYSTEMS:
        near = difflib.get_close_matches(str(name), SYSTEMS, 1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise UserError(f"unknown method {name!r}; {hint}valid: {', '.join(SYSTEMS)}")
    detector = getattr(importlib.import_module(f"adlib.models.{name}"), SYSTEMS[name])
    return detector, detector.Config
