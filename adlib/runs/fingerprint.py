"""Which code a run came from."""

import ast
import functools
import hashlib
import inspect

from adlib import data
from adlib.common.paths import PROJECT

ROOMS = ("runs/execution", "evaluation", "training", "models/base")  # every run goes through them and what they import
# Not part of the code that computes: settings and registries, this file, and the data sets, whose content is hashed.
OUTSIDE = ("common/", "runs/record", "models/__init__", "data/")


def code_fingerprint(method: str) -> str:
    """sha256 over the statements of the system's file and all it uses in adlib, without comments and docstrings.

    A finished run whose value differs is stale: what computes its numbers has changed since.
    """
    digest = hashlib.sha256(_statements(inspect.getsource(data.holdback)).encode())
    for name in rooms(method):
        digest.update(f"{name}\n{_statements(_source(name))}".encode())
    return digest.hexdigest()[:16]


@functools.cache
def rooms(method: str) -> list[str]:
    """Names of the files that decide a method's numbers: ROOMS, the system's file and, over imports, what they use."""
    found, todo = set(), [*ROOMS, f"models/{method}"]
    while todo:
        name = todo.pop()
        if name not in found and not name.startswith(OUTSIDE):
            found.add(name)
            todo += _imported(_source(name))
    return sorted(found)


def _source(name: str) -> str:
    return (PROJECT / "adlib" / f"{name}.py").read_text()


def _imported(source: str) -> list[str]:
    """Files of adlib that a source imports anywhere, as names without ending."""
    modules = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "adlib":
            modules += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    names = [m.replace(".", "/").removeprefix("adlib/") for m in modules]
    return [n for n in names if (PROJECT / "adlib" / f"{n}.py").is_file()]


def _statements(source: str) -> str:
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            node.body[0] = ast.Pass()
    return ast.unparse(tree)
