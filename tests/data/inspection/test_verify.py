"""Verification of data sets: every kind of fault in every layout is found, named with its file, and nothing else is."""

import re
import shutil
from pathlib import Path

import made_layouts
import pytest
from data_faults import CASES, EXCLUDED, FAULTS, LAYOUTS, Spot

from adlib import data
from adlib.batch.evidence import with_faults
from adlib.common.errors import UserError
from adlib.data.inspection.verify import verify


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    folder = tmp_path_factory.mktemp("layouts")
    return {name: made_layouts.make(name, folder) for name in LAYOUTS}


@pytest.fixture
def small_counts(monkeypatch):
    """The made data sets count as the official ones; a user's own has no official counts."""
    made_layouts.count_as_official(monkeypatch, *(name for name in LAYOUTS if name != "folder"))


@pytest.fixture
def spot(layout, originals, small_counts, tmp_path) -> Spot:
    """A fresh copy of the layout that the test is parametrised with."""
    name = layout
    root = shutil.copytree(originals[name], tmp_path / name)
    if name == "dtd":
        files = sorted((root / "images" / "banded").iterdir())
        return Spot(name, root / "images", root / "images" / "banded", files[0], files[1])
    category = next(iter(made_layouts.COUNTS[name]))
    table = data.load(name, category, root=root)
    train = [Path(p) for p in table.path[table.split == "train"]]
    good = Path(table.path[(table.split == "test") & (table.label == 0)].iloc[0])
    defects = table[table.label == 1]
    if name != "elpv":
        # of a kind in which others have masks, too
        defects = defects[defects.groupby("defect")["mask"].transform("count") >= 2]
    defect, mask = defects.path.iloc[0], defects["mask"].iloc[0]
    place = data.CATALOGUE[name].folder(root, category)
    return Spot(name, root, place, train[0], train[1], good, Path(defect), Path(mask) if mask else None)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_clean_data_set_has_no_fault(spot):
    report = spot.check()
    assert report.faults == []
    assert report.ok


@pytest.mark.parametrize(("kind", "layout"), CASES)
def test_every_fault_is_found_and_named_and_nothing_else(kind, layout, spot):
    """The injector says which faults follow; the line of each names its file relative to the root."""
    expected = FAULTS[kind](spot)
    report = spot.check()
    assert {(fault.kind, fault.path) for fault in report.faults} == expected
    assert len(report.faults) == len(expected) == len(report.lines())
    for found, line in zip(report.faults, report.lines(), strict=True):
        name = spot.root if found.path == spot.root else found.path.relative_to(spot.root)
        assert line.startswith(f"{name}: ")
        assert "\n" not in line


def test_what_is_excluded_exists():
    """A combination without meaning is left out by name, with its reason; a misspelt name would leave out nothing."""
    assert set(EXCLUDED) <= set(FAULTS)
    assert {name for reasons in EXCLUDED.values() for name in reasons} <= set(LAYOUTS)
    assert len(CASES) > 150


@pytest.fixture
def layout() -> str:
    """For tests of one layout: mvtec_ad, unless they are parametrised."""
    return "mvtec_ad"


def test_missing_numbers_are_named(spot):
    """bottle/train/good has 000 to 003; without 001 the row has one gap, and one of 4 is missing."""
    spot.other.unlink()
    assert spot.check().lines() == ["bottle/train/good: 3 of 4 official images of train/good; not there: 001"]


def test_a_copy_within_training_is_a_note(spot):
    shutil.copy(spot.train, spot.other)
    report = spot.check()
    assert report.ok
    note = "bottle/train/good/001.png has the same pixels as bottle/train/good/000.png, both in train"
    assert note in report.notes


def test_a_copy_in_another_category_is_a_fault(spot):
    """Multi-class methods train on all categories together, so a twin in another one's training set is seen, too."""
    twin = spot.root / "screw/train/good/002.png"
    shutil.copy(spot.good, twin)
    assert {(f.kind, f.path) for f in spot.check().faults} == {("duplicate", spot.good), ("mode", twin)}


def test_absent_categories_are_notes_unless_asked_for(spot):
    shutil.rmtree(spot.root / "screw")
    assert spot.check().ok
    assert any(n.startswith("not there, so not checked: cable, ") and "screw" in n for n in spot.check().notes)
    report = verify("mvtec_ad", spot.root, ["bottle", "screw"], progress=False)
    assert report.lines() == ["screw: is not there"]


def test_the_table_holds_counts_beside_the_official_ones(spot):
    shutil.rmtree(spot.root / "bottle/test/contamination")
    table = spot.check().table
    row = table[table.defect == "contamination"].iloc[0]
    assert (row.category, row.split, row["images"], row.official) == ("bottle", "test", 0, 1)
    row = table[table.defect == "broken_large"].iloc[0]
    assert (row["images"], row.official, row["masks"], row["mode"], row["size"]) == (2, 2, 2, "RGB", "16x12")


def test_what_lies_beside_every_data_set_is_no_stray(spot):
    for name in (".DS_Store", "Thumbs.db", "README.md", "LICENSE", ".ipynb_checkpoints/000.png", "__MACOSX/._000.png"):
        (spot.place / name).parent.mkdir(exist_ok=True)
        (spot.place / name).write_text("x")
    assert spot.check().ok


def test_several_faults_are_all_found_at_once(spot):
    spot.good.write_bytes(b"")
    spot.mask.unlink()
    (spot.place / "notes.xlsx").write_text("x")
    shutil.copy(spot.defect, spot.train)
    kinds = sorted(f.kind for f in spot.check().faults)
    assert kinds == ["duplicate", "mask missing", "stray", "unreadable"]


def test_the_four_empty_masks_of_mtd_are_a_note(originals, small_counts):
    report = verify("mtd", originals["mtd"], progress=False)
    assert report.ok
    assert f"all: 1 masks are empty as published: {made_layouts.EMPTY_MASK}" in report.notes


def test_the_inner_folder_of_the_archive_is_found(originals, small_counts, tmp_path):
    shutil.copytree(originals["btad"], tmp_path / "btad" / "BTech_Dataset_transformed")
    assert verify("btad", tmp_path / "btad", progress=False).ok


@pytest.mark.parametrize(
    ("dataset", "categories", "sentence"),
    [
        ("mvtec", None, r"unknown data set 'mvtec'; did you mean 'mvtec_ad'\?"),
        ("mvtec_ad", "botle", r"unknown mvtec_ad category 'botle'; did you mean 'bottle'"),
        ("mvtec_ad", "cable", r"no category of mvtec_ad \(cable\) found in"),
        ("btad", None, r"data set btad not found at .*btad; fetch it with"),
        ("dagm", None, r"dagm is a file; expected a folder"),
        ("dtd", None, r"no category of dtd .*found in"),
        ("mvtec_ad + mtd", None, r"is a mixture; verify its data sets one by one"),
    ],
)
def test_bad_input_is_one_sentence(dataset, categories, sentence, originals, tmp_path, monkeypatch):
    monkeypatch.setenv("ADLIB_DATA", str(tmp_path))
    (tmp_path / "mvtec_ad").symlink_to(originals["mvtec_ad"])
    (tmp_path / "dagm").write_text("")
    (tmp_path / "dtd").mkdir()
    with pytest.raises(UserError, match=sentence):
        verify(dataset, categories=categories)


@pytest.mark.parametrize(("category", "sides"), [("bottle", (256, 900)), ("screw", (384, 1024))])
def test_real_mvtec_is_clean_and_says_that_it_is_a_rescaled_copy(shared, category, sides):
    """No fault means that counts and pairing are right; the pixels are not those of the original."""
    report = verify("mvtec_ad", shared / "data" / "mvtec_ad", category.upper(), progress=False)
    assert report.faults == []
    size, official = (f"{side}x{side}" for side in sides)
    assert f"note: {category}: rescaled or cropped copy: {size} instead of the official {official}" in str(report)
    last = f"rescaled or cropped copies ({category}): counts and pairing are verified, not the original pixels"
    assert str(report).endswith(last)


def test_a_subset_of_dagm_says_how_many_of_how_many(shared):
    """Class 8: 100 + 10 of 1000 + 150 training crops, 60 + 50 of 1000 + 150 test crops (datasets.md section 1)."""
    lines = verify("dagm", shared / "data" / "dagm", progress=False).lines()
    assert lines == [
        "Class8: 10 of 150 official defective training images",
        "Class8/Test: 50 of 150 official images of test/defective",
        "Class8/Test: 60 of 1000 official images of test/good",
        "Class8/Train: 100 of 1000 official images of train/good",
    ]


def test_faults_in_a_copy_of_mtd_are_found_and_named(shared, tmp_path):
    """A renamed mask, a truncated JPEG, a test tile copied to train with its mask: 1344 + 1344 files, 4 lines."""
    renamed, cut, copied = (re.findall(r"\w+\.(?:jpg|png)", line) for line in with_faults(
        shared / "data" / "mtd", tmp_path / "mtd"))  # fmt: skip
    lines = verify("mtd", tmp_path / "mtd", progress=False).lines()
    assert [re.search(r"\w+\.(?:jpg|png)", line)[0] for line in lines[:3]] == [
        renamed[0].replace(".png", ".jpg"),
        cut[0],
        "renamed.png",
    ]
    assert lines[0].endswith("has no mask")
    assert "cannot be decoded (image file is truncated" in lines[1]
    assert lines[2].endswith("belongs to no image")
    test, train = copied
    twin = f"MT_Free/Imgs/{test}: (test, normal) has the same pixels as MT_Free/Imgs/{train} (train, normal)"
    assert lines[3:] == [twin]
