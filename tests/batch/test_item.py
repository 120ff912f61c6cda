"""An item: its name, its JSON form, and when it counts as done."""

import json

import pytest

from adlib import batch
from adlib.batch.item import Item, Outcome, shortened
from adlib.common.errors import UserError


def test_json_and_back_gives_an_equal_item():
    """Through a file's text, as the plan file does; further keys are ignored."""
    item = Item("a", "a.ipynb", {"seeds": [0], "config": {"x": 0.5}}, runs=("one", "two"))
    assert Item.from_json(json.loads(json.dumps(item.to_json())) | {"sheet": "x"}) == item


@pytest.mark.parametrize(
    "name", ["a", "03_simplenet-bottle", "simplenet-mvtec_ad-screw+mtd-ab12-s0+1", "Größe.1", "_a"]
)
def test_names_of_letters_digits_and_a_few_signs_are_valid(name):
    assert Item(name, "", {}).sheet.name == f"{name}.ipynb"


@pytest.mark.parametrize("name", ["", "-a", ".a", "a/b", "a b", "a\nb", "a\x00", "quick.plan", "x" * 151, "ü" * 76])
def test_other_names_are_refused_when_the_item_is_made(name):
    """76 times two bytes is more than 150; NAME.plan would be logged where the plan file of NAME.yml is."""
    with pytest.raises(UserError, match="valid: "):
        Item(name, "", {})


def test_a_long_name_is_cut_and_told_apart_by_a_hash():
    """150 bytes stay as they are; of longer ones 137 bytes, a dash and 12 digits, never half a letter."""
    assert shortened("x" * 150) == "x" * 150
    one, other = shortened("ü" * 100), shortened("ü" * 101)
    assert len(one.encode()) == 136 + 13  # 137 is odd and a letter has two bytes
    assert one != other
    Item(one, "", {})


def test_a_report_with_other_parameters_is_made_anew():
    """The engine sees only times: what an executed notebook was made with stands in its metadata."""
    item = batch.Item("a", "", {"dataset": "elpv", "config": {1: 2}})  # JSON makes the key a text
    item.sheet.parent.mkdir(parents=True)
    for parameters, stays in ((item.parameters, True), ({"dataset": "textures"}, False)):
        item.sheet.write_text(json.dumps({"metadata": {"papermill": {"parameters": parameters}}}))
        assert item.finished is stays
        item.clear()
        assert item.sheet.exists() is stays


def test_a_sheet_without_its_run_is_made_anew(tmp_path):
    """A run folder that was deleted is missed, although the sheet that the engine looks for is there."""
    item = batch.Item("a", "", {}, runs=(str(tmp_path / "run"),))
    item.sheet.parent.mkdir(parents=True)
    item.sheet.write_text("{}")
    item.clear()
    assert not item.sheet.exists()


def test_an_outcome_is_read_as_it_was_written_and_cleared():
    item = batch.Item("a", "", {})
    assert item.outcome is None
    item.set_outcome(Outcome("left", "unfinished, epoch 1 of 2", 1.5))
    assert item.outcome == Outcome("left", "unfinished, epoch 1 of 2", 1.5)
    item.clear()
    assert item.outcome is None


@pytest.mark.parametrize(
    ("ends", "expected"),
    [
        (["done", "done"], 0),
        (["done", "left"], 75),
        (["done", "failed"], 1),
        (["left", "failed"], 1),
        (["done", None], 1),
    ],
)
def test_the_status_tells_left_from_failed(ends, expected):
    """75 = EX_TEMPFAIL: calling the same command again is all that is needed. None: never executed."""
    items = [batch.Item(f"item{k}", "", {}) for k in range(len(ends))]
    for item, end in zip(items, ends, strict=True):
        if end == "done":
            item.sheet.parent.mkdir(parents=True, exist_ok=True)
            item.sheet.write_text('{"metadata": {"papermill": {"parameters": {}}}}')
        if end:
            item.set_outcome(Outcome(end, None, 1.0))
    assert batch.status(items) == expected
