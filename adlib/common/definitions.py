"""Which code decides a result: a hash over the definitions that a function or class can reach, by their content.

A definition is a function, a class or a constant at the top of a module. From the roots it follows every name: through
imports (also inside functions), through `module.name` and through re-exports of packages. Comments, docstrings, the
order of definitions and the files they stand in count for nothing, so moving code changes no hash; neither does a
definition that is added beside the reachable ones. It errs on one side: a local name that equals a definition's counts.
"""

import ast
import functools
import hashlib
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

PACKAGE = __name__.partition(".")[0]
EXTERNAL = ("torch", "builtins")  # where base classes of systems come from that are not ours


@dataclass
class _Module:
    """Top-level definitions (name -> the statements that make it) and imports (bound name -> dotted target)."""

    definitions: dict[str, list[ast.stmt]] = field(default_factory=dict)
    imports: dict[str, str] = field(default_factory=dict)


def fingerprint(*roots: Callable, outside: tuple[str, ...] = ()) -> str:
    """16 hex digits over all definitions of this package that the roots (functions or classes) can reach.

    outside: dotted prefixes ("adlib.data", "adlib.common.paths") of definitions that do not count and are not followed.
    """
    return _digest(reachable(*roots, outside=outside).values())


def method_fingerprint(cls: type, method: str, *roots: Callable, outside: tuple[str, ...] = ()) -> str:
    """The same over one method: its code, that of the methods that it calls on `self`, and all that these and the
    further roots can reach. Other methods of the class do not count.
    """
    texts, waiting = {}, [method]
    names: list[tuple[str, str]] = []
    while waiting:
        attribute = waiting.pop()
        owner = next((c for c in cls.__mro__ if attribute in vars(c) and _file(c.__module__)), None)
        node = owner and _member(owner, attribute)
        if node is None or attribute in texts or owner.__module__.partition(".")[0] in EXTERNAL:
            continue
        texts[attribute] = _code(node)
        names += _used(owner.__module__, [node], frozenset({cls.__module__}))
        waiting += [chain[1] for n in ast.walk(node) if len(chain := _chain(n)) > 1 and chain[0] == "self"]
    texts |= _followed(names + [_home(root) for root in roots], frozenset({cls.__module__}), outside)
    return _digest(texts.values())


def reachable(*roots: Callable, outside: tuple[str, ...] = ()) -> dict[str, str]:
    """{dotted name: code without comments and docstrings} of the roots and of all that they can reach."""
    waiting = [_home(root) for root in roots]
    return _followed(waiting, frozenset(module for module, _ in waiting), outside)


def _home(root: Callable) -> tuple[str, str]:
    return root.__module__, root.__qualname__.partition(".")[0]


def _digest(texts) -> str:
    return hashlib.sha256("\n".join(sorted(set(texts))).encode()).hexdigest()[:16]


def _followed(waiting: list[tuple[str, str]], homes: frozenset[str], outside: tuple[str, ...]) -> dict[str, str]:
    texts: dict[str, str] = {}
    waiting = list(waiting)
    while waiting:
        module, name = waiting.pop()
        dotted = f"{module}.{name}"
        if dotted in texts or _is_outside(dotted, outside):
            continue
        statements = _module(module).definitions[name]
        texts[dotted] = "\n".join(_code(statement) for statement in statements)
        waiting += _used(module, statements, homes)
    return texts


def _member(cls: type, name: str) -> ast.stmt | None:
    """The statement that defines a method or attribute in the body of a class; None where there is no such text."""
    body = _module(cls.__module__).definitions.get(cls.__qualname__.partition(".")[0], [])
    for statement in (inner for outer in body for inner in getattr(outer, "body", [])):
        if isinstance(statement, ast.FunctionDef) and statement.name == name:
            return statement
    return None


def _is_outside(dotted: str, outside: tuple[str, ...]) -> bool:
    return any(dotted == prefix or dotted.startswith(prefix + ".") for prefix in outside)


def _known(module: str, homes: frozenset[str]) -> bool:
    """Whether a module's definitions are followed: those of this package, and the roots' own."""
    return module.partition(".")[0] == PACKAGE or module in homes


@functools.cache
def _file(module: str) -> Path | None:
    """The source of a module; None where there is no such module."""
    if module in sys.modules:
        source = getattr(sys.modules[module], "__file__", None)
        return Path(source) if source else None
    try:
        spec = find_spec(module)
    except ModuleNotFoundError:
        return None
    return Path(spec.origin) if spec and spec.origin else None


@functools.cache
def _module(name: str) -> _Module:
    return _parsed(_file(name).read_text(encoding="utf-8"))


@functools.cache
def _parsed(text: str) -> _Module:
    made = _Module()
    for statement in ast.parse(text).body:
        _enter(statement, made)
    return made


def _enter(statement: ast.stmt, module: _Module) -> None:
    """Sort one top-level statement into definitions and imports; the branches of `if` and `try` count as the top."""
    if isinstance(statement, ast.Import | ast.ImportFrom):
        module.imports.update(_bound(statement))
    elif isinstance(statement, ast.FunctionDef | ast.ClassDef):
        module.definitions.setdefault(statement.name, []).append(statement)
    elif isinstance(statement, ast.Assign | ast.AnnAssign | ast.AugAssign):
        targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
        for node in (node for target in targets for node in ast.walk(target)):
            if isinstance(node, ast.Name):
                module.definitions.setdefault(node.id, []).append(statement)
    elif isinstance(statement, ast.If | ast.Try | ast.With):
        for inner in ast.iter_child_nodes(statement):
            if isinstance(inner, ast.stmt):
                _enter(inner, module)


def _bound(statement: ast.Import | ast.ImportFrom) -> dict[str, str]:
    """{name in this file: dotted target} of one import."""
    if isinstance(statement, ast.Import):
        return {(a.asname or a.name.partition(".")[0]): (a.name if a.asname else a.name.partition(".")[0])
                for a in statement.names}  # fmt: skip
    return {a.asname or a.name: f"{statement.module}.{a.name}" for a in statement.names}


@functools.cache
def _code(statement: ast.stmt) -> str:
    """The statement without comments and docstrings."""
    tree = ast.parse(ast.unparse(statement))
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return ast.unparse(tree)


def _used(module: str, statements: list[ast.stmt], homes: frozenset[str]) -> list[tuple[str, str]]:
    """(module, name) of every definition that the statements name."""
    nodes = [node for statement in statements for node in ast.walk(statement)]
    scope = dict(_module(module).imports)
    for node in nodes:
        if isinstance(node, ast.Import | ast.ImportFrom):
            scope.update(_bound(node))
    chains = {chain for node in nodes if (chain := _chain(node))}
    resolved = [_resolve(module, chain, scope, homes) for chain in sorted(chains)]
    return [definition for definition in resolved if definition is not None]


def _chain(node: ast.AST) -> tuple[str, ...]:
    """("losses", "ssim") of the expression losses.ssim; () of anything that does not begin with a name."""
    names = []
    while isinstance(node, ast.Attribute):
        names.append(node.attr)
        node = node.value
    return (node.id, *reversed(names)) if isinstance(node, ast.Name) else ()


def _resolve(
    module: str, chain: tuple[str, ...], scope: dict[str, str], homes: frozenset[str]
) -> tuple[str, str] | None:
    """The definition behind a chain of names seen from a module; None for what lies outside this package."""
    first, *rest = chain
    if first in scope:
        target = [*scope[first].split("."), *rest]
    elif first in _module(module).definitions:
        return module, first
    else:
        return None
    if not _known(".".join(target[:1]), homes) and not _known(".".join(target[:-1]), homes):
        return None
    return _definition(target, homes)


def _definition(target: list[str], homes: frozenset[str]) -> tuple[str, str] | None:
    """("adlib.losses", "ssim") of ["adlib", "losses", "ssim", ...]: the longest module first, then a name in it."""
    for length in range(len(target) - 1, 0, -1):
        module, name = ".".join(target[:length]), target[length]
        if not _known(module, homes) or _file(module) is None:
            continue
        known = _module(module)
        if name in known.definitions:
            return module, name
        if name in known.imports and known.imports[name] != ".".join(target[: length + 1]):
            return _definition([*known.imports[name].split("."), *target[length + 1 :]], homes)
    return None
