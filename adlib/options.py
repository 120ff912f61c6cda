"""The command line's parser, whose errors are sentences, and a system's settings as options, made from its Config."""

import argparse
import ast
import dataclasses
import functools
import inspect
import io
import re
import textwrap
import tokenize
import types
import typing
from collections.abc import Iterable
from itertools import takewhile

from adlib.common.errors import UserError, check_names, shown, unknown
from adlib.common.paths import ODD, check_place

PREFIX = "config."  # of the names in argparse's namespace, so that no field meets an argument of the command
LONGEST_WORD = 100_000  # characters


class Whole:
    """An argument's type: an integer from `low` to `high`."""

    def __init__(self, low: int, high: int):
        self.low, self.high = low, high

    def __call__(self, text: str) -> int:
        if not self.low <= int(text) <= self.high:
            raise ValueError(text)
        return int(text)

    def __str__(self) -> str:
        return f"an integer from {self.low} to {self.high}"


def check_words(words: Iterable[str]) -> None:
    """Raises UserError for a word of the command line that can mean nothing: too long, or no text."""
    for word in words:
        if len(word) > LONGEST_WORD:
            raise UserError(
                f"the command line holds {shown(word)}; valid: words of at most {LONGEST_WORD:,} characters"
            )
        if ODD.search(word.replace("\n", "").replace("\t", "")):
            raise UserError(f"the command line holds {shown(word)}, which is no text: a control character, or no UTF-8")


class Parser(argparse.ArgumentParser):
    """argparse whose errors are UserErrors, each one sentence. Takes no abbreviated options."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs, allow_abbrev=False)
        self.set_defaults(parser=self)  # in the namespace: that of the innermost command

    def parse_known_args(self, args, namespace=None):
        """As argparse, but a wrong option is named before anything that is missing."""
        before = takewhile(lambda word: word != "--", args)
        # what follows a command's name is the affair of that command's own parser
        self.check_options(takewhile(is_option, before) if self._subparsers else before)
        return super().parse_known_args(args, namespace)

    def check_options(self, words: Iterable[str]) -> None:
        """UserError for the first option among the words that this command does not take."""
        check_names("option", [word.partition("=")[0] for word in words if is_option(word)], self.options())

    @property
    def subject(self) -> str:
        """What a sentence is about: "data verify"; `main` puts "adlib: " before it."""
        return self.prog.partition(" ")[2] or "the command line"

    def options(self) -> list[str]:
        """All options, as they are written."""
        return list(self._option_string_actions)

    def refuse(self, surplus: list[str]) -> None:
        """UserError where words are left over."""
        if surplus:
            raise UserError(f"{self.subject} has no use for {_some_words(surplus)}; see `{self.prog} --help`")

    def error(self, message: str) -> typing.NoReturn:
        """What argparse found, as a sentence."""
        name, _, problem = message.removeprefix("argument ").partition(": ")
        if name == "the following arguments are required":
            raise UserError(self.needs(problem.split(", ")))
        if problem.startswith("expected"):
            amount = "at least one value" if "at least" in problem else "a value"
            raise UserError(f"{name} needs {amount}; see `{self.prog} --help`")
        if problem.startswith("ignored explicit argument"):
            raise UserError(f"{name} takes no value; see `{self.prog} --help`")
        raise UserError(f"{self.subject}: {message}; see `{self.prog} --help`")

    def needs(self, names: list[str]) -> str:
        """The sentence for what is missing; of commands it lists the valid ones."""
        written = [name if is_option(name) else name.upper() for name in names]
        commands = [name for a in self._actions if isinstance(a, argparse._SubParsersAction) for name in a.choices]
        hint = f"valid: {', '.join(commands)}" if commands else f"see `{self.prog} --help`"
        return f"{self.subject} needs {_some_words(written)}; {hint}"

    def _check_value(self, action, value):
        if action.choices is not None and value not in action.choices:
            raise unknown((action.metavar or action.dest).lower(), value, action.choices)

    def _get_value(self, action, text):
        try:
            return super()._get_value(action, text)
        except argparse.ArgumentError:
            name = (action.option_strings or [action.dest])[0]
            raise UserError(f"{name} is {shown(text)}; it must be {_word(action.type)}") from None


def is_option(word: str) -> bool:
    """Whether a word is an option, not a value: -1 is a number."""
    return re.match(r"--?[a-zA-Z]", word) is not None


def names_first(argv: list[str], flags: Iterable[str]) -> tuple[list[str], list[str]]:
    """(names, options with their values) of a command line, wherever the names stand. flags: options without a value.

    Any other option takes the word after it, and then each number: which ones take several values is not known before
    torch is there, and all of them take numbers.
    """
    names, rest = [], []
    wanted = ""  # what the last option may still take: "any" word, "number"s, nothing
    for place, word in enumerate(argv):
        if word == "--":
            return names + argv[place + 1 :], rest
        if is_option(word):
            rest.append(word)
            wanted = "" if word in flags or "=" in word else "any"
        elif wanted == "any" or (wanted == "number" and _is_number(word)):
            rest.append(word)
            wanted = "number"
        else:
            names.append(word)
            wanted = ""
    return names, rest


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _some_words(words: list[str]) -> str:
    """ "a", "a and b", "a, b and c"."""
    return " and ".join([", ".join(words[:-1])] * (len(words) > 1) + words[-1:])


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
                f"{option_string} is given twice, as {_joined(former)} and as {_joined(values)}; give it once"
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
            raise UserError(
                f"--{name.replace('_', '-')} is {shown(one)}, but --config has {shown(other)}; give one of them"
            )
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
    raise UserError(f"--{name.replace('_', '-')} is {shown(_joined(text))}; it must be {valid}")


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
    if isinstance(kind, Whole):
        return str(kind)
    if kind is check_place:
        return "the name of a file or folder"
    return {bool: "true or false", int: "an integer", float: "a number", str: "a text"}.get(kind, "none")


def _joined(text: str | list[str]) -> str:
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
