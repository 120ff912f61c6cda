"""Which changes of the code make a finished run stale, and which leave it and its checkpoints alone."""

import ast
from pathlib import Path

import pytest

from adlib import models
from adlib.common import definitions
from adlib.runs import fingerprint
from adlib.runs.execution import execute

METHODS = ("simplenet", "draem")


@pytest.fixture
def edited(monkeypatch):
    """edited("losses", change) -> {method: fingerprint} as if the text of adlib/losses.py had been changed."""
    original = Path.read_text

    def read(room: str = "", change=lambda text: text) -> dict[str, str]:
        def changed_text(path, *arguments, **options):
            text = original(path, *arguments, **options)
            return change(text) if room and path.as_posix().endswith(f"adlib/{room}.py") else text

        with monkeypatch.context() as patch:
            patch.setattr(Path, "read_text", changed_text)
            definitions._module.cache_clear()
            fingerprint.code_fingerprint.cache_clear()
            values = {method: fingerprint.code_fingerprint(method) for method in METHODS}
        definitions._module.cache_clear()
        fingerprint.code_fingerprint.cache_clear()
        return values

    return read


def stale(edited, room: str, old: str, new: str) -> set[str]:
    """The methods whose runs a change of one file makes stale; the old text must be there."""
    source = (Path(definitions.__file__).parents[1] / f"{room}.py").read_text()
    assert old in source
    before, after = edited(), edited(room, lambda text: text.replace(old, new, 1))
    return {method for method in METHODS if before[method] != after[method]}


@pytest.mark.parametrize("room", ["losses", "layers", "images", "synthesis/simulator", "metrics/ranking"])
def test_a_function_that_is_added_makes_no_run_stale(edited, room):
    before = edited()
    assert edited(room, lambda text: text + "\n\ndef added(x):\n    return 2 * x\n") == before


def test_a_change_reaches_the_runs_that_use_it_and_no_others(edited):
    """How the texture bank is cut and the focal loss belong to DRAEM; the blur to SimpleNet; the metrics to both."""
    assert stale(edited, "synthesis/texture_bank", "PER_CATEGORY = 20", "PER_CATEGORY = 21") == {"draem"}
    assert stale(edited, "losses", "gamma: float = 2.0", "gamma: float = 3.0") == {"draem"}
    assert stale(edited, "layers", "truncate: float = 4.0", "truncate: float = 3.0") == {"simplenet"}
    assert stale(edited, "metrics/ranking", "limit * np.asarray", "1 * limit * np.asarray") == set(METHODS)
    assert stale(edited, "training", "SAVING_SHARE = 1 / 20", "SAVING_SHARE = 1 / 30") == set(METHODS)


def test_which_pictures_are_held_back_counts_and_how_data_sets_are_listed_does_not(edited):
    assert stale(edited, "data/__init__", "len(train) // 2", "len(train) // 3") == set(METHODS)
    before = edited()
    assert edited("data/samples", lambda text: text.replace('"train"', '"fit"')) == before


@pytest.mark.parametrize("room", ["runs/record", "common/paths", "models/__init__", "common/errors"])
def test_places_and_the_record_do_not_count(edited, room):
    before = edited()

    def change(text: str) -> str:
        tree = ast.parse(text)
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                node.value += " changed"
        return ast.unparse(tree)

    assert edited(room, change) == before


def test_all_that_decides_numbers_is_reached():
    """From the pictures to the intervals; but no figure, no table, no other system."""
    detector, _ = models.get("simplenet")
    names = definitions.reachable(detector, execute, outside=fingerprint.OUTSIDE)
    rooms = {name.rpartition(".")[0] for name in names}
    assert {f"adlib.{room}" for room in ("images", "embeddings", "training", "evaluation", "backbones")} <= rooms
    assert {"adlib.metrics.ranking", "adlib.metrics.intervals", "adlib.runs.execution", "adlib.layers"} <= rooms
    assert not {room for room in rooms if room.startswith(("adlib.figures", "adlib.reports", "adlib.models.draem"))}
