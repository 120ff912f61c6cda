"""Mixtures: several data sets, or some categories of them, under one name, e.g. "mvtec_ad:screw + mtd".

Parts are joined by "+"; each is a data set, `name`, or some of its categories, `name:category,category`. The categories
of a mixture are "name:category"; multi-class methods train on all of them together. A data set's options may follow its
name, here and elsewhere: "mtd?split=seeded&split_seed=1".
"""

import hashlib
import re
from collections.abc import Callable
from typing import NamedTuple

from adlib.common.errors import UserError, shown
from adlib.data.names import spelled

EXAMPLE = '"mvtec_ad:screw,bottle + mtd"'


class Mixture(NamedTuple):
    """name: canonical text with every category written out; parts: "name:category" -> (data set, category)."""

    name: str
    parts: dict[str, tuple[str, str]]


def is_mixture(text: object) -> bool:
    """Whether a data set's name is that of a mixture; "mvtec_ad:screw" is one, of a single part."""
    return isinstance(text, str) and ("+" in text or ":" in text)


def options(text: object) -> tuple[object, dict[str, str | int]]:
    """Name and options of a data set: "mtd?split=seeded&split_seed=1" -> ("mtd", {"split": "seeded", "split_seed": 1}).

    UserError: an option that is no name=value or comes twice, a split_seed that is no number.
    """
    if not isinstance(text, str) or "?" not in text:
        return text, {}
    name, _, written = text.partition("?")
    chosen = {}
    for one in written.split("&"):
        key, equals, value = (piece.strip() for piece in one.partition("="))
        if not key or not equals or not value:
            raise UserError(
                f"option {shown(one)} of data set {shown(text)} is no name=value; valid is mtd?split=seeded"
            )
        if key in chosen:
            raise UserError(f"option {key} of data set {shown(text)} comes twice; name it once")
        number = re.fullmatch(r"[0-9]{1,9}", value)
        if key == "split_seed" and not number:
            raise UserError(
                f"split_seed {shown(value)} of data set {shown(text)} is no whole number from 0, of at most 9 digits; "
                "0 is usual"
            )
        chosen[key] = int(value) if number else value
    return name.strip(), chosen


def parse(text: str, known: Callable[[str], list[str]]) -> Mixture:
    """Parts in order, those of one data set together. known: valid categories of a data set, or UserError.

    UserError: an empty part, an unknown data set or category, a category named twice, a data set under two options (its
    splits would share pictures).
    """
    taken: dict[str, list[str]] = {}
    written: dict[object, str] = {}
    for part in text.split("+"):
        dataset, colon, chosen = (piece.strip() for piece in part.partition(":"))
        listed = [name.strip() for name in chosen.split(",")] if colon else None
        if not dataset or (listed is not None and not all(listed)):
            raise UserError(
                f"part {shown(part.strip())} of mixture {shown(text)} names nothing; a valid mixture is {EXAMPLE}"
            )
        first = written.setdefault(options(dataset)[0], dataset)
        if first != dataset:
            raise UserError(f"mixture {shown(text)} names {first} and {dataset}; a data set has one split in a mixture")
        for category in _checked(dataset, listed, known(dataset)):
            if category in taken.setdefault(dataset, []):
                raise UserError(f"mixture {shown(text)} names {dataset}:{category} twice; a category counts once")
            taken[dataset].append(category)
    parts = {f"{dataset}:{c}": (dataset, c) for dataset, names in taken.items() for c in names}
    return Mixture(" + ".join(f"{dataset}:{','.join(names)}" for dataset, names in taken.items()), parts)


def _checked(dataset: str, chosen: list[str] | None, valid: list[str]) -> list[str]:
    if not valid:  # one category, of any name: that of the user's own pictures
        return chosen or [dataset]
    return [spelled(f"{dataset} category", name, valid) for name in chosen or valid]


def slug(text: str) -> str:
    """A name for files and folders: letters (of any script), digits and `._+-` only, at most 100 bytes.

    "mvtec_ad:screw + mtd:all" -> "mvtec_ad-screw+mtd-all". The name of a single data set stays as it is. Where
    characters had to go, texts that differ may share a slug: tell them apart by a hash, as runs do.
    """
    name = re.sub(r"[^\w.+-]+", "-", re.sub(r"\s*([+:,])\s*", r"\1", text.strip())).lstrip(".-") or "unnamed"
    if len(name.encode()) <= 100:
        return name
    return name.encode()[:91].decode(errors="ignore") + "-" + hashlib.sha256(text.encode()).hexdigest()[:8]
