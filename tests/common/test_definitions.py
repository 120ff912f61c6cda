"""The fingerprint of code: what a function can reach, by content; places, comments and neighbours count for nothing."""

import importlib
import sys

import pytest

from adlib.common import definitions

SOURCES = {
    "room/__init__.py": "from room.shelf import tool\n",
    "room/shelf.py": '"""A shelf."""\nSIZE = 3\n\ndef tool(x):\n    return x * SIZE\n\ndef other(x):\n    return x\n',
    "room/desk.py": (
        "import room\nfrom room import shelf as board\n\n"
        "class Desk:\n    def work(self, x):\n        return self.part(board.tool(x))\n\n"
        "    def part(self, x):\n        return x\n\n    def unused(self):\n        return board.other(1)\n\n"
        "def late(x):\n    from room.shelf import other\n\n    return other(x)\n\n"
        "def through_package(x):\n    return room.tool(x)\n"
    ),
}


@pytest.fixture
def room(tmp_path, monkeypatch):
    """A package on disk, read anew after each change: room(changes) -> {name in desk: fingerprint}."""
    monkeypatch.setattr(definitions, "PACKAGE", "room")
    monkeypatch.syspath_prepend(str(tmp_path))

    def read(changes=None):
        for name, text in (SOURCES | (changes or {})).items():
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text(text)
        for name in [m for m in sys.modules if m.partition(".")[0] == "room"]:
            del sys.modules[name]
        importlib.invalidate_caches()
        definitions._file.cache_clear()
        definitions._module.cache_clear()
        desk = importlib.import_module("room.desk")
        return {name: definitions.fingerprint(getattr(desk, name)) for name in ("Desk", "late", "through_package")}

    yield read
    for name in [m for m in sys.modules if m.partition(".")[0] == "room"]:
        del sys.modules[name]
    definitions._file.cache_clear()
    definitions._module.cache_clear()


def changed(room, file: str, old: str, new: str) -> set[str]:
    """Which fingerprints a change of one file moves."""
    before = room()
    after = room({file: SOURCES[file].replace(old, new)})
    return {name for name in before if before[name] != after[name]}


def test_what_is_reached_counts_through_imports_constants_and_packages(room):
    """SIZE is read by tool, which Desk and through_package call; late reaches `other` alone."""
    assert changed(room, "room/shelf.py", "SIZE = 3", "SIZE = 4") == {"Desk", "through_package"}
    assert changed(room, "room/shelf.py", "return x\n", "return -x\n") == {"Desk", "late"}


def test_comments_docstrings_and_order_count_for_nothing(room):
    tool = "def tool(x):\n    return x * SIZE\n"
    assert not changed(room, "room/shelf.py", '"""A shelf."""', '"""Another text."""\n# a comment')
    assert not changed(room, "room/shelf.py", tool, "def tool(x):\n    '''Triple.'''\n    return (x *  SIZE)\n")


def test_a_definition_that_is_added_leaves_the_others_alone(room):
    assert not changed(room, "room/shelf.py", "SIZE = 3", "SIZE = 3\n\ndef new(x):\n    return 2 * x\n")


def test_moving_a_definition_to_another_file_changes_nothing(room):
    before = room()
    moved = {
        "room/shelf.py": "from room.drawer import SIZE, tool\n\ndef other(x):\n    return x\n",
        "room/drawer.py": "SIZE = 3\n\ndef tool(x):\n    return x * SIZE\n",
    }
    assert room(moved) == before


def test_outside_is_neither_counted_nor_followed(room):
    room()
    desk = importlib.import_module("room.desk")
    names = definitions.reachable(desk.Desk, outside=("room.shelf.tool",))
    assert sorted(names) == ["room.desk.Desk", "room.shelf.other"]


def test_an_import_of_something_else_under_the_same_name_counts(room):
    """`from math import sin as f` and `cos as f`: the code that uses f is the same text and another function."""
    shelf = SOURCES["room/shelf.py"].replace("SIZE = 3", "from math import sin as f\n\nSIZE = 3")
    shelf = shelf.replace("return x * SIZE", "return f(x) * SIZE")
    before, after = room({"room/shelf.py": shelf}), room({"room/shelf.py": shelf.replace("sin as f", "cos as f")})
    assert {name for name in before if before[name] != after[name]} == {"Desk", "through_package"}


def test_relative_imports_are_followed(room):
    """`from .shelf import other` is `from room.shelf import other`."""
    desk = SOURCES["room/desk.py"].replace("    from room.shelf import other", "    from .shelf import other")
    shelf = SOURCES["room/shelf.py"].replace("return x\n", "return -x\n")
    assert room({"room/desk.py": desk})["late"] != room({"room/desk.py": desk, "room/shelf.py": shelf})["late"]


def test_a_statement_at_the_top_belongs_to_what_it_names(room):
    """SIZE.append(...) and loops change a constant after its definition."""
    shelf = SOURCES["room/shelf.py"].replace("SIZE = 3", "SIZE = [3]\nSIZE.append(4)")
    before, after = room({"room/shelf.py": shelf}), room({"room/shelf.py": shelf.replace("append(4)", "append(5)")})
    assert before["Desk"] != after["Desk"]
    assert before["late"] == after["late"]


def test_a_star_hides_what_is_used(room):
    with pytest.raises(ValueError, match="hides what is used"):
        room({"room/desk.py": "from math import *\n" + SOURCES["room/desk.py"]})


def test_errors_guess_what_was_meant():
    from adlib.common.errors import UserError, check_names, unknown

    assert str(unknown("fruit", "aple", ["apple", "pear"])) == (
        "unknown fruit 'aple'; did you mean 'apple'? valid: apple, pear"
    )
    assert str(unknown("fruit", 7, [])) == "unknown fruit 7; valid: none"
    with pytest.raises(UserError, match="unknown fruit 'fig'; valid: apple"):
        check_names("fruit", ["apple", "fig"], ["apple"])
