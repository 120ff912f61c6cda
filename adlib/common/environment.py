"""What the caller says by words and variables, checked without torch: devices, seeds and the time budget."""

import math
import os
import re
from collections.abc import Iterable

from adlib.common.errors import UserError, shown

LARGEST_SEED = 2**32 - 1  # as NumPy's; a seed is part of file names


def check_device(name: str) -> None:
    """Raises UserError for a text that names no device; whether this machine has it is another question."""
    if not isinstance(name, str) or not re.fullmatch(r"auto|cpu|cuda(:[0-9]{1,3})?", name):
        raise UserError(f"unknown device {shown(name)}; valid: auto, cpu, cuda, cuda:0, ...")


def check_seeds(seeds: object) -> list[int]:
    """The seeds, of one or a list of them. Raises UserError for what is no seed, or a list without any."""
    listed = list(seeds) if isinstance(seeds, Iterable) and not isinstance(seeds, str | dict) else [seeds]
    if not listed or not all(type(seed) is int and 0 <= seed <= LARGEST_SEED for seed in listed):
        raise UserError(f"seeds {shown(seeds)} must be a list of integers >= 0 and <= {LARGEST_SEED}, e.g. [0, 1, 2]")
    return listed


def minutes_allowed() -> float:
    """$ADLIB_MINUTES, the time budget of a call; infinity without one. Raises UserError where it is no number."""
    text = os.environ.get("ADLIB_MINUTES", "").strip() or "0"
    try:
        minutes = float(text)
    except ValueError:
        minutes = math.nan
    if not 0 <= minutes < math.inf:
        raise UserError(f"ADLIB_MINUTES is {shown(text)}; it must be a number of minutes, or 0 for no limit")
    return minutes or math.inf
