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
EXTERNAL = ("torch", "builtins", "abc", "typing", "enum")  # where base classes come from that are not ours
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


@dataclass
class _Module:
    """Top-level definitions (name -> the statements that make it) and imports (bound name -> dotted target)."""

    definitions: dict[str, list[ast.stmt]] = field(default_factory=dict)
    imports: dict[str, str] = field(default_factory=dict)


def fingerprint(*roots: Callable, outside: tuple[str, ...] = ()) -> str:
    """16 hex digits over all definitions of this package that the roots (functions or classes) can reach.

    outside: dotted prefixes ("adlib.data", "adlib.common.paths") of definitions that do not count and are not followed.
    """
    texts = sorted(set(reachable(*roots, outside=outside).values()))
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:16]


def reachable(*roots: Callable, outside: tuple[str, ...] = ()) -> dict[str, str]:
    """{dotted name: code without comments and docstrings} of the roots and of all that they can reach; of what lies in
    other packages the dotted name alone, so that another import under the same name counts.
    """
    waiting = [(root.__module__, root.__qualname__.partition(".")[0]) for root in roots]
    homes = frozenset(module for root in roots for module in _modules_of(root))
    texts: dict[str, str] = {}
    while waiting:
        module, name = waiting.pop()
        dotted = f"{module}.{name}"
        if dotted in texts or _is_outside(dotted, outside):
            continue
        statements = _module(module).definitions[name]
        used, external = _used(module, statements, homes)
        texts[dotted] = "\n".join([*(_code(statement) for statement in statements), *external])
        waiting += used
    return texts


def _modules_of(root: Callable) -> set[str]:
    """The root's module and, of a class, those of its bases, as far as they are not a library's."""
    owners = root.__mro__ if isinstance(root, type) else (root,)
    return {o.__module__ for o in owners if o is root or o.__module__.partition(".")[0] not in EXTERNAL}


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
    file = _file(name)
    package = name if file.stem == "__init__" else name.rpartition(".")[0]
    return _parsed(file.read_text(encoding="utf-8"), package)


@functools.cache
def _parsed(text: str, package: str) -> _Module:
    made, others = _Module(), []
    for statement in ast.parse(text).body:
        _enter(statement, made, package, others)
    for statement in others:  # a loop or call at the top belongs to every definition that it names
        for name in {node.id for node in ast.walk(statement) if isinstance(node, ast.Name)}:
            if name in made.definitions:
                made.definitions[name].append(statement)
    return made


def _enter(statement: ast.stmt, module: _Module, package: str, others: list[ast.stmt]) -> None:
    """Sort one top-level statement into definitions and imports; the branches of `if` and `try` count as the top."""
    if isinstance(statement, ast.Import | ast.ImportFrom):
        module.imports.update(_bound(statement, package))
    elif isinstance(statement, FUNCTIONS):
        module.definitions.setdefault(statement.name, []).append(statement)
    elif isinstance(statement, ast.Assign | ast.AnnAssign | ast.AugAssign):
        targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
        for node in (node for target in targets for node in ast.walk(target)):
            if isinstance(node, ast.Name):
                module.definitions.setdefault(node.id, []).append(statement)
    elif isinstance(statement, ast.If | ast.Try | ast.With):
        for inner in ast.iter_child_nodes(statement):
            if isinstance(inner, ast.stmt):
                _enter(inner, module, package, others)
    else:
        others.append(statement)


def _bound(statement: ast.Import | ast.ImportFrom, package: str) -> dict[str, str]:
    """{name in this file: dotted target} of one import. Raises ValueError for a star, which names nothing."""
    if isinstance(statement, ast.Import):
        targets = {a.asname or a.name.partition(".")[0]: a.name for a in statement.names}
        return {name: target if name in _asnames(statement) else name for name, target in targets.items()}
    if any(a.name == "*" for a in statement.names):
        raise ValueError(f"`from {statement.module} import *` hides what is used; name it")
    above = package.split(".")[: len(package.split(".")) - statement.level + 1] if statement.level else []
    source = ".".join([*above, *([statement.module] if statement.module else [])])
    return {a.asname or a.name: f"{source}.{a.name}" for a in statement.names}


def _asnames(statement: ast.Import) -> set[str]:
    return {a.asname for a in statement.names if a.asname}


@functools.cache
def _code(statement: ast.stmt) -> str:
    """The statement without comments and docstrings."""
    tree = ast.parse(ast.unparse(statement))
    for node in ast.walk(tree):
        if isinstance(node, FUNCTIONS) and ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return ast.unparse(tree)


def _used(module: str, statements: list[ast.stmt], homes: frozenset[str]) -> tuple[list[tuple[str, str]], list[str]]:
    """(module, name) of every definition that the statements name, and dotted names of other packages."""
    nodes = [node for statement in statements for node in ast.walk(statement)]
    scope = dict(_module(module).imports)
    for node in nodes:
        if isinstance(node, ast.Import | ast.ImportFrom):
            scope.update(_bound(node, module.rpartition(".")[0]))
    chains = sorted({chain for node in nodes if (chain := _chain(node))})
    resolved = [_resolve(module, chain, scope, homes) for chain in chains]
    external = {scope[c[0]] for c in chains if c[0] in scope and not _known(scope[c[0]].partition(".")[0], homes)}
    return [definition for definition in resolved if definition is not None], sorted(external)


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
