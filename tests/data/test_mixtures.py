"""Mixtures: their grammar, their tables, and one sentence for each way to write one wrongly."""

import re

import made_layouts
import pandas as pd
import pytest

from adlib import data
from adlib.common.errors import UserError
from adlib.data import mixtures

SCREW_AND_TILES = "mvtec_ad:screw + mtd"


@pytest.fixture
def root(tmp_path, monkeypatch):
    for name in ("mvtec_ad", "mtd", "folder", "btad"):
        made_layouts.make(name, tmp_path)
    monkeypatch.setenv("ADLIB_DATA", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (SCREW_AND_TILES, ["mvtec_ad:screw", "mtd:all"]),
        ("mtd:all+btad", ["mtd:all", "btad:01", "btad:02", "btad:03"]),
        (" mvtec_ad : screw , bottle + folder ", ["mvtec_ad:screw", "mvtec_ad:bottle", "folder:螺丝 1"]),
        ("mvtec_ad:screw + mtd + mvtec_ad:bottle", ["mvtec_ad:screw", "mvtec_ad:bottle", "mtd:all"]),
        ("mvtec_ad:screw", ["mvtec_ad:screw"]),
        ("mvtec_ad:Screw, BOTTLE", ["mvtec_ad:screw", "mvtec_ad:bottle"]),
    ],
)
def test_categories_come_in_the_order_of_the_parts_those_of_a_data_set_together(root, text, expected):
    assert data.categories(text) == expected


def test_a_part_is_the_table_of_its_data_set_under_the_mixtures_name(root):
    """Only dataset and category change: fingerprint, root, notes and the threshold of masks stay the part's own."""
    alone, part = data.load("mtd"), data.load(SCREW_AND_TILES, "mtd:all")
    pd.testing.assert_frame_equal(alone, part)
    names = {"dataset": "mvtec_ad:screw + mtd:all", "category": "mtd:all"}
    assert part.attrs == alone.attrs | names
    assert part.attrs["mask_threshold"] == 127
    assert data.load(SCREW_AND_TILES, "mvtec_ad:screw").attrs["mask_threshold"] == 0


def test_the_canonical_name_is_a_mixture_with_the_same_parts(root):
    name = data.load("mvtec_ad:screw+mtd+mvtec_ad:bottle", "mtd:all").attrs["dataset"]
    assert name == "mvtec_ad:screw,bottle + mtd:all"
    assert data.load(name, "mtd:all").attrs["dataset"] == name
    assert data.categories(name) == data.categories("mvtec_ad:screw+mtd+mvtec_ad:bottle")


def test_a_mixture_of_one_category_needs_no_category(root):
    assert data.load("mvtec_ad:screw").attrs["category"] == "mvtec_ad:screw"


def test_options_go_to_the_part(root):
    """80 % of 8 free tiles = 6; mvtec_ad has no such option."""
    table = data.load(SCREW_AND_TILES, "mtd:all", split="seeded")
    assert (table.split == "train").sum() == 6
    with pytest.raises(UserError, match="unknown mvtec_ad option 'split'"):
        data.load(SCREW_AND_TILES, "mvtec_ad:screw", split="seeded")


def test_the_users_own_pictures_without_categories_are_one(tmp_path, monkeypatch):
    made = made_layouts.make("folder", tmp_path / "made")
    (tmp_path / "folder").symlink_to(made / "螺丝 1")
    monkeypatch.setenv("ADLIB_DATA", str(tmp_path))
    assert data.categories("folder + textures:brick") == ["folder:folder", "textures:brick"]
    assert len(data.load("folder + textures:brick", "folder:folder")) == 13


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("mvtec + mtd", "unknown data set 'mvtec'; did you mean 'mvtec_ad'?"),
        ("mvtec_ad:screws + mtd", "unknown mvtec_ad category 'screws'; did you mean 'screw'? valid: bottle"),
        ("mvtec_ad:screw:x", "unknown mvtec_ad category 'screw:x'"),
        ("mtd + mtd:all", "names mtd:all twice; a category counts once"),
        ("mvtec_ad:screw,screw", "names mvtec_ad:screw twice"),
        ("mtd +", "part '' of mixture 'mtd +' names nothing; a valid mixture is"),
        ("+", "part '' of mixture '+' names nothing"),
        ("mvtec_ad: + mtd", "part 'mvtec_ad:' of mixture"),
        ("mvtec_ad:screw,, + mtd", "names nothing"),
        (":screw + mtd", "names nothing"),
    ],
)
@pytest.mark.parametrize("ask", [data.categories, data.load, data.where])
def test_a_wrong_mixture_is_one_sentence(root, text, sentence, ask):
    with pytest.raises(UserError, match=re.escape(sentence)):
        ask(text)


@pytest.mark.parametrize(
    ("category", "sentence"),
    [
        (
            "screw",
            "unknown mvtec_ad:screw + mtd:all category 'screw'; valid: mvtec_ad:screw, mtd:all",
        ),
        (None, "has 2 categories; name one of mvtec_ad:screw, mtd:all"),
    ],
)
def test_a_wrong_category_of_a_mixture_is_one_sentence(root, category, sentence):
    with pytest.raises(UserError, match=re.escape(sentence)):
        data.load(SCREW_AND_TILES, category)


def test_a_mixture_has_no_folder_of_its_own(root):
    for ask in (data.load, data.categories):
        with pytest.raises(UserError, match=r"has no folder of its own; set ADLIB_DATA"):
            ask(SCREW_AND_TILES, root=root)


def test_where_says_it_of_each_part(root, tmp_path):
    found = data.where("mvtec_ad:screw + mtd + dagm")
    assert f"mtd: {tmp_path / 'mtd'}: all" in found
    assert f"dagm: missing at {tmp_path / 'dagm'}; fetch it with" in found


@pytest.mark.parametrize("dataset", [None, 3, ["mvtec_ad"], ""])
def test_a_name_that_is_none_is_one_sentence(dataset):
    with pytest.raises(UserError, match="unknown data set"):
        data.load(dataset)


@pytest.mark.parametrize(
    ("text", "slug"),
    [
        ("mvtec_ad", "mvtec_ad"),
        ("mvtec_ad:screw + mtd:all", "mvtec_ad-screw+mtd-all"),
        ("mvtec_ad:screw,bottle+mtd:all", "mvtec_ad-screw-bottle+mtd-all"),
        ("folder:螺丝 1", "folder-螺丝-1"),
        ("../x", "x"),
        (" ", "unnamed"),
    ],
)
def test_slug_names_a_file(text, slug):
    assert mixtures.slug(text) == slug


def test_slug_keeps_long_names_short_and_apart():
    """A file name holds 255 bytes; two long mixtures that begin alike differ in their hash."""
    a, b = (mixtures.slug("mvtec_ad:" + ",".join(["螺丝"] * n)) for n in (80, 81))
    assert a != b
    assert max(len(a.encode()), len(b.encode())) <= 100


@pytest.mark.parametrize(
    ("dataset", "sentence"),
    [
        ("mtd?split=seeded&split=published", "option split of .* comes twice"),
        ("mtd?split=seeded&split_seed=-1", "split_seed '-1' of .* is no whole number"),
        ("mtd?split=seeded + mtd", "names mtd.split=seeded and mtd; a data set has one split in a mixture"),
    ],
)
def test_options_that_contradict_are_refused(root, dataset, sentence):
    """Two splits of one data set in a mixture would train on pictures that it tests."""
    with pytest.raises(UserError, match=sentence):
        data.load(dataset, "mtd:all" if "+" in dataset else None)
