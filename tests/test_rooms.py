"""Data flows one way: a room imports only from rooms above it, also inside functions."""

import ast
from pathlib import Path

import pytest
from conftest import PROJECT

# From top to bottom. `images` and `metrics` come before `data`: they know no data set, and the inspection of data sets
# decodes pictures and measures what their brightness gives away.
ROOMS = (
    "common",
    "images",
    "views",
    "metrics",
    "data",
    "losses",
    "layers",
    "backbones",
    "perceptual",
    "embeddings",
    "synthesis",
    "models",
    "training",
    "evaluation",
    "inference",
    "speed",
    "runs",
    "export",
    "reports",
    "figures",
    "batch",
    "options",
    "commands",
    "__main__",
)
FILES = sorted(
    path for path in (PROJECT / "adlib").rglob("*.py") if path.parent != PROJECT / "adlib" or path.stem != "__init__"
)


def room_of(path: Path) -> str:
    return path.relative_to(PROJECT / "adlib").parts[0].removesuffix(".py")


def imported(path: Path) -> list[tuple[int, str]]:
    """(line, room) of every import of adlib in a file, wherever it stands."""
    rooms = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        assert not getattr(node, "level", 0), f"{path}:{node.lineno} is a relative import"
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "adlib":
            names = [a.name for a in node.names] if node.module == "adlib" else [node.module.split(".")[1]]
            rooms += [(node.lineno, name) for name in names]
        elif isinstance(node, ast.Import):
            rooms += [(node.lineno, a.name.split(".")[1]) for a in node.names if a.name.startswith("adlib.")]
    return rooms


def test_every_room_has_its_place():
    """A new room must be put into the order before anything can import it."""
    assert {room_of(path) for path in FILES} <= set(ROOMS)


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.relative_to(PROJECT / "adlib").as_posix())
def test_a_room_imports_only_from_rooms_above_it(path):
    here = room_of(path)
    for line, room in imported(path):
        if room == "__version__":
            continue
        assert ROOMS.index(room) <= ROOMS.index(here), f"{path}:{line} imports {room}, which lies below {here}"


def test_no_circle_hides_inside_a_package():
    """Modules of one room do not import each other in a circle, not even inside functions."""
    edges: dict[str, set[str]] = {}
    names = {_dotted(path): path for path in FILES}
    for name, path in names.items():
        targets = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module:
                targets |= {node.module, *(f"{node.module}.{a.name}" for a in node.names)}
            elif isinstance(node, ast.Import):
                targets |= {a.name for a in node.names}
        # a package's own __init__ is loaded before its modules: importing the package from inside is not followed
        edges[name] = {t for t in targets if t in names and t != name and not name.startswith(t + ".")}
    circles = [name for name in edges if name in _reached(edges, name)]
    assert circles == []


def _dotted(path: Path) -> str:
    return ".".join(path.relative_to(PROJECT).with_suffix("").parts).removesuffix(".__init__")


def _reached(edges: dict[str, set[str]], start: str) -> set[str]:
    seen, waiting = set(), list(edges[start])
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            waiting += edges[name]
    return seen
