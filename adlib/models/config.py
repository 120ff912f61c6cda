"""Settings of a system: a frozen dataclass whose fields know their range, checked when it is made."""

import dataclasses
import math
import types
import typing
from dataclasses import dataclass, field
from typing import Any

from adlib import images
from adlib.common.errors import UserError, check_names, shown

PRECISIONS = ("float32", "tf32", "bfloat16")
LARGEST_SIDE = 4096  # pixels of an input or of the evaluation grid
LARGEST_BATCH = 4096  # images
MOST_EPOCHS, MOST_STEPS = 100_000, 100_000_000
MOST_VALUES = 64  # of a field that takes several
LONGEST_TEXT = 200  # characters of a name


def setting(
    default: Any,
    *,
    low: float | None = None,
    high: float | None = None,
    choices: tuple | None = None,
    later: bool = False,
):
    """A configuration field with its valid range (inclusive) or its valid values, checked when the Config is made.

    A number has both ends, so that no setting asks for more than any machine has.

    later: the field came after runs had been made, and its default is what those did. Then the default is left out of a
    run's identity, so that the new field leaves finished runs alone.
    """
    return field(default=default, metadata={"low": low, "high": high, "choices": choices, "later": later})


@dataclass(frozen=True, kw_only=True)
class Config:
    """What all systems share. A system's own Config overrides the defaults by its paper's values.

    Training lasts `epochs` or `steps`; exactly one of them is set. Who names one in a dict or on the command line turns
    the other one off.
    """

    image_size: int = setting(256, low=8, high=LARGEST_SIDE)  # pixels per side of the network's square input
    # short_crop: resize, then the centre; pad: undistorted, in the middle; tiles: undistorted, cut in several inputs
    resize_mode: str = setting("squash", choices=images.RESIZE_MODES)
    # pixels of the shorter side before the cut (short_crop, tiles)
    resize: int | None = setting(None, low=8, high=LARGEST_SIDE)
    # pixels from tile to tile; none: image_size // 2
    stride: int | None = setting(None, low=8, high=LARGEST_SIDE, later=True)
    resample: str = setting("antialias", choices=images.RESAMPLES)  # plain: bilinear without a low-pass, as cv2
    epochs: int | None = setting(100, low=0, high=MOST_EPOCHS)  # passes over the normal training images; 0: no training
    steps: int | None = setting(None, low=1, high=MOST_STEPS)  # optimiser steps, instead of epochs
    batch_size: int = setting(8, low=1, high=LARGEST_BATCH)  # images
    # epochs between looks at the test set, for the oracle row only; 0: never
    eval_every: int = setting(0, low=0, high=MOST_EPOCHS)
    holdback: float = setting(0.1, low=0.0, high=0.5)  # share of the normal training images kept for the threshold
    # how masks come to the evaluation grid; nearest: sampled; half: mean from 0.5; any: one pixel is enough; exact_one,
    # exact_one_antialias: as published code, where the resized mask is exactly 1
    mask_rule: str = setting("nearest", choices=images.MASK_RULES)
    # pixels per side of the evaluation grid; none: image_size, of tiles the longer side of the pictures
    metric_size: int | None = setting(None, low=8, high=LARGEST_SIDE)
    # of training steps; tf32 of all products, CUDA only; bfloat16 on a CPU is fast only where that has avx512_bf16
    precision: str = setting("float32", choices=PRECISIONS)

    def __post_init__(self):
        hints = typing.get_type_hints(type(self))
        for f in dataclasses.fields(self):
            value = _coerce(f.name, getattr(self, f.name), hints[f.name])
            _check_range(f.name, value, f.metadata)
            object.__setattr__(self, f.name, value)
        if (self.epochs is None) == (self.steps is None):
            raise UserError(f"epochs is {self.epochs} and steps {self.steps}; exactly one of them must be a number")
        _ = self.geometry  # its own checks

    @classmethod
    def from_dict(cls, values: dict | None) -> "Config":
        """A Config from a batch file's mapping; an unknown name is an error that lists the valid ones."""
        values = dict(values or {})
        check_names("config field", values, [f.name for f in dataclasses.fields(cls)])
        for one, other in (("epochs", "steps"), ("steps", "epochs")):
            if values.get(one) is not None:
                values.setdefault(other, None)
        return cls(**values)

    @property
    def geometry(self) -> images.Geometry:
        """How the pictures become the network's input."""
        return images.Geometry(self.image_size, self.resize_mode, self.resize, self.resample, self.stride)

    def to_dict(self) -> dict:
        """Plain JSON values of all fields."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(self).items()}

    def identity(self) -> dict:
        """The fields that decide a run's numbers, as plain JSON values: all but later ones at their default."""
        later = {f.name for f in dataclasses.fields(self) if f.metadata.get("later") and self._is_default(f)}
        return {name: value for name, value in self.to_dict().items() if name not in later}

    def _is_default(self, f: dataclasses.Field) -> bool:
        return getattr(self, f.name) == f.default

    def changed(self) -> dict:
        """The fields whose values are not the paper's: {name: (paper, here)}."""
        paper = type(self)()
        return {k: (getattr(paper, k), v) for k, v in vars(self).items() if v != getattr(paper, k)}


def _coerce(name: str, value: Any, hint: Any) -> Any:
    """The value as the annotated type; YAML's lists become tuples and integers become floats. Raises UserError."""
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    for option in options:
        origin = typing.get_origin(option) or option
        if option is type(None) and value is None:
            return None
        if origin is tuple and isinstance(value, list | tuple) and len(value) <= MOST_VALUES:
            inner = typing.get_args(option)[0]
            return tuple(_coerce(name, v, inner) for v in value)
        if origin is float and isinstance(value, int | float) and not isinstance(value, bool):
            return _as_float(value)
        if origin in (int, bool) and type(value) is origin:
            return value
        if origin is str and type(value) is str and len(value) <= LONGEST_TEXT and value.isprintable():
            return value
    readable = " or ".join(getattr(o, "__name__", str(o)) for o in options).replace("NoneType", "none")
    raise UserError(f"config field {name!r} is {shown(value)}, but must be {readable}{_limits(value)}")


def _as_float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:  # an integer of more than 308 digits
        return math.inf if value > 0 else -math.inf


def _limits(value: Any) -> str:
    """What a text or a list may have, where the value is one."""
    if isinstance(value, str):
        return f" (a text has at most {LONGEST_TEXT} printable characters)"
    return f" (a list has at most {MOST_VALUES} values)" if isinstance(value, list | tuple) else ""


def _check_range(name: str, value: Any, rule) -> None:
    for v in value if isinstance(value, tuple) else (value,):
        if v is None:
            continue
        if rule.get("choices") and v not in rule["choices"]:
            raise UserError(f"config field {name!r} is {shown(v)}; valid: {', '.join(map(repr, rule['choices']))}")
        low, high = rule.get("low"), rule.get("high")
        # `not >=` instead of `<`: NaN fails too
        if (low is not None and not v >= low) or (high is not None and not v <= high):
            top = "" if high is None else f" and at most {high}"
            raise UserError(f"config field {name!r} is {shown(v)}; it must be at least {low}{top}")
