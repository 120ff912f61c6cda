"""What the caller says by words and variables, checked without torch: devices and the time budget."""

import math
import os
import re

from adlib.common.errors import UserError


def check_device(name: str) -> None:
    """Raises UserError for a text that names no device; whether this machine has it is another question."""
    if not isinstance(name, str) or not re.fullmatch(r"auto|cpu|cuda(:\d+)?", name):
        raise UserError(f"unknown device {name!r}; valid: auto, cpu, cuda, cuda:0, ...")


def minutes_allowed() -> float:
    """$ADLIB_MINUTES, the time budget of a call; infinity without one. Raises UserError where it is no number."""
    text = os.environ.get("ADLIB_MINUTES", "").strip() or "0"
    try:
        minutes = float(text)
    except ValueError:
        minutes = math.nan
    if not 0 <= minutes < math.inf:
        raise UserError(f"ADLIB_MINUTES is {text!r}; it must be a number of minutes, or 0 for no limit")
    return minutes or math.inf
