"""A system's settings as options of the command line, generated from its Config: help, range and default."""

import argparse
import ast
import dataclasses
import functools
import inspect
import io
import textwrap
import tokenize
import types
import typing

from adlib.common.errors import UserError

PREFIX = "config."  # of the names in argparse's namespace, so that no field meets an argument of the command


def add(parser: argparse.ArgumentParser, config_class: type) -> None:
    """One option per field: `--image-size` for `image_size`; what is not given does not appear in the namespace."""
    group = parser.add_argument_group("settings", "each default is the paper's setting; `none` where there is no value")
    hints = typing.get_type_hints(config_class)
    for field in dataclasses.fields(config_class):
        group.add_argument(
            f"--{field.name.replace('_', '-')}",
            dest=PREFIX + field.name,
            nargs="+" if _is_tuple(hints[field.name]) else None,
            metavar=_metavar(hints[field.name], field.metadata),
            action=Once,
            default=argparse.SUPPRESS,
            help=_help(config_class, field),
        )


class Once(argparse.Action):
    """An option that may be repeated, but not with another value: the last would win in silence."""

    def __call__(self, parser, namespace, values, option_string=None):
        former = getattr(namespace, self.dest, values)
        if former != values:
            raise UserError(
                f"{option_string} is given twice, as {_shown(former)} and as {_shown(values)}; give it once"
            )
        setattr(namespace, self.dest, values)


def values(args: argparse.Namespace, config_class: type) -> dict:
    """The settings given as options, as values of the fields' types. UserError for a text that is none of them.

    Ranges are checked by the Config itself.
    """
    hints = typing.get_type_hints(config_class)
    given = {name.removeprefix(PREFIX): text for name, text in vars(args).items() if name.startswith(PREFIX)}
    return {name: _value(name, text, hints[name]) for name, text in given.items()}


def combined(options: dict, config: dict) -> dict:
    """Both sources in one. UserError where they give one field two values."""
    for name in options.keys() & config.keys():
        one = options[name]
        other = tuple(config[name]) if isinstance(config[name], list) else config[name]
        if one != other:
            raise UserError(f"--{name.replace('_', '-')} is {one!r}, but --config has {other!r}; give one of them")
    return config | options


def _kinds(hint) -> list:
    """The types that a field takes, of `int | None` int and NoneType; text comes last, because everything is one."""
    kinds = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    return sorted(kinds, key=lambda kind: kind is str)


def _is_tuple(hint) -> bool:
    return any(typing.get_origin(kind) is tuple for kind in _kinds(hint))


def _value(name: str, text: str | list[str], hint):
    """A text, or the several of a tuple, as the first type of the field that can read it."""
    if text in ("none", ["none"]) and type(None) in _kinds(hint):
        return None
    for kind in _kinds(hint):
        if typing.get_origin(kind) is tuple:
            return tuple(_value(name, part, typing.get_args(kind)[0]) for part in text)
        try:
            return {bool: _boolean, int: int, float: float, str: str}[kind](text)
        except (ValueError, KeyError):
            continue
    valid = " or ".join(_word(kind) for kind in _kinds(hint))
    raise UserError(f"--{name.replace('_', '-')} is {_shown(text)!r}; it must be {valid}")


def _boolean(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError(text)
    return text == "true"


def _word(kind) -> str:
    """A type in a sentence: "an integer", "true or false"."""
    if typing.get_origin(kind) is tuple:
        return f"several values, each {_word(typing.get_args(kind)[0])}"
    if isinstance(kind, types.UnionType):
        return " or ".join(_word(k) for k in _kinds(kind))
    return {bool: "true or false", int: "an integer", float: "a number", str: "a text"}.get(kind, "none")


def _shown(text: str | list[str]) -> str:
    return text if isinstance(text, str) else " ".join(text)


def _metavar(hint, metadata) -> str:
    if metadata.get("choices"):
        return "{" + ",".join(map(str, metadata["choices"])) + "}"
    kind = next(kind for kind in _kinds(hint) if kind is not type(None))
    if typing.get_origin(kind) is tuple:
        kind = typing.get_args(kind)[0]
    return {bool: "{true,false}", int: "INTEGER", float: "NUMBER"}.get(kind, "TEXT")


def _help(config_class: type, field: dataclasses.Field) -> str:
    """ "pixels per side; at least 8; default 256", from the field's metadata or the comment beside it."""
    low, high = field.metadata.get("low"), field.metadata.get("high")
    limits = [f"at least {low}"] if low is not None else []
    limits += [f"at most {high}"] if high is not None else []
    described = field.metadata.get("help") or comments(config_class).get(field.name, "")
    parts = [described, " and ".join(limits), f"default {_written(field.default)}"]
    return "; ".join(part for part in parts if part).replace("%", "%%")


def _written(value) -> str:
    """A value as one writes it on the command line."""
    if isinstance(value, tuple):
        return " ".join(map(_written, value))
    if value is None or isinstance(value, bool):
        return str(value).lower()
    return str(value)


@functools.cache
def comments(config_class: type) -> dict[str, str]:
    """{field: the comment on its lines, or else the one above it}; a class's fields override those of its bases.

    A field that overrides without a comment keeps its base's.
    """
    texts: dict[str, str] = {}
    for parent in reversed(config_class.__mro__):
        if dataclasses.is_dataclass(parent):
            texts |= _comments_of(textwrap.dedent(inspect.getsource(parent)))
    return texts


def _comments_of(source: str) -> dict[str, str]:
    lines = {
        token.start[0]: (token.string.lstrip("# "), token.line.lstrip().startswith("#"))
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    }
    texts = {}
    for node in ast.parse(source).body[0].body:
        if not isinstance(node, ast.AnnAssign):
            continue
        beside = [lines[n][0] for n in range(node.lineno, node.end_lineno + 1) if n in lines]
        above = []
        n = node.lineno - 1
        while n in lines and lines[n][1]:
            above.insert(0, lines[n][0])
            n -= 1
        if beside or above:
            texts[node.target.id] = " ".join(beside or above)
    return texts
