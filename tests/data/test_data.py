"""The sample table, spelling of names, provenance, and what is held back for the threshold."""

import hashlib
import shutil

import made_layouts
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from adlib import data
from adlib.common.errors import UserError


@pytest.fixture
def root(tmp_path, monkeypatch):
    """$ADLIB_DATA with mvtec_ad: bottle with 4 training images, 2 good, 2 broken_large, 1 contamination; and screw."""
    monkeypatch.setenv("ADLIB_DATA", str(tmp_path))
    return made_layouts.make("mvtec_ad", tmp_path)


def fingerprint(root, **options) -> str:
    return data.load("mvtec_ad", "bottle", root=root, **options).attrs["fingerprint"]


def test_a_table_has_one_row_per_image_in_a_fixed_order(root):
    """Training images first, then by relative path; normal images have no mask."""
    table = data.load("mvtec_ad", "bottle")
    assert list(table.columns) == ["path", "split", "label", "defect", "mask"]
    assert isinstance(table.index, pd.RangeIndex)
    assert list(table.split) == ["train"] * 4 + ["test"] * 5
    assert list(table.defect[4:]) == ["broken_large"] * 2 + ["contamination"] + ["good"] * 2
    assert list(table.label[4:]) == [1, 1, 1, 0, 0]
    assert table["mask"][4] == str(root / "bottle/ground_truth/broken_large/000_mask.png")
    assert table["mask"][8] is None
    expected = {"dataset": "mvtec_ad", "category": "bottle", "root": str(root), "mask_threshold": 0, "reserved": []}
    assert expected.items() <= table.attrs.items()


def test_missing_and_surplus_masks_are_noted(root):
    masks = root / "bottle/ground_truth"
    (masks / "contamination/000_mask.png").unlink()
    made_layouts.mask(masks / "broken_large/007_mask.png")
    notes = data.load("mvtec_ad", "bottle").attrs["notes"]
    assert notes == [
        "1 masks of broken_large without image ignored: 007",
        "1 anomalous images of contamination without mask: 000",
    ]


def test_rubbish_beside_the_images_changes_nothing_but_other_formats_are_noted(root):
    before, train = data.load("mvtec_ad", "bottle"), root / "bottle/train/good"
    for name in (".DS_Store", "._000.png", "readme.txt", "Thumbs.db", "license", "003.heic"):
        (train / name).write_text("x")
    for place in (train, root / "bottle/test"):
        made_layouts.picture(place / ".ipynb_checkpoints/000-checkpoint.png")
    after = data.load("mvtec_ad", "bottle")
    pd.testing.assert_frame_equal(before, after)
    assert after.attrs["fingerprint"] == before.attrs["fingerprint"]
    assert after.attrs["notes"] == ["1 files of good/ ignored, no image ending: 003.heic"]


def test_a_fingerprint_follows_content_and_split_and_not_the_place(root, tmp_path):
    """A changed byte of an image, or of a mask, makes another one; so does another split of the same files."""
    first = fingerprint(root)
    assert len(first) == 64
    assert fingerprint(shutil.copytree(root, tmp_path / "elsewhere/mvtec_ad")) == first
    for name in ("test/good/000.png", "ground_truth/broken_large/001_mask.png"):
        content = bytearray((root / "bottle" / name).read_bytes())
        content[-20] ^= 1
        (root / "bottle" / name).write_bytes(bytes(content))
        first, previous = fingerprint(root), first
        assert first != previous
    made_layouts.make("mtd", tmp_path)
    splits = [data.load(name).attrs["fingerprint"] for name in ("mtd", "mtd?split=seeded", "mtd?split=published")]
    assert splits[0] == splits[2] != splits[1]


@pytest.mark.parametrize(
    ("arguments", "options", "sentence"),
    [
        (("mvtec",), {}, r"unknown data set 'mvtec'; did you mean 'mvtec_ad'\? valid: btad, "),
        (("mvtec_ad", "botle"), {}, r"unknown mvtec_ad category 'botle'; did you mean 'bottle'\? valid: bottle, cable"),
        (("mvtec_ad",), {}, r"has 15 categories; name one of bottle"),
        (("mvtec_ad", "cable"), {}, r"no image of mvtec_ad/cable found in .*`python -m adlib data download mvtec_ad"),
        (("mvtec_ad", "bottle"), {"split": "x"}, r"unknown mvtec_ad option 'split'; valid: none"),
        (("mtd",), {}, r"mtd not found at .*mtd; fetch it with `.*download mtd --accept-licence`, .*ADLIB_DATA"),
        (("dtd", "banded"), {}, r"dtd is a source of textures, no data set to detect anomalies in; valid: btad, "),
        (("mtd",), {"root": "~nobody-here/mtd"}, r"root '~nobody-here/mtd' names the home of nobody"),
    ],
)
def test_bad_input_is_one_sentence(root, arguments, options, sentence):
    with pytest.raises(UserError, match=sentence):
        data.load(*arguments, **options)


@pytest.mark.parametrize(
    ("dataset", "name", "official"),
    [
        ("dagm", "Class8", "Class8"),
        ("dagm", "class8", "Class8"),
        ("dagm", "CLASS_10", "Class10"),
        ("mvtec_ad", "Metal-Nut", "metal_nut"),
        ("mvtec_ad:screw,metal_nut", "mvtec_ad:MetalNut", "mvtec_ad:metal_nut"),
        ("mvtec_ad: Screw + dagm:class 8", "dagm:Class8", "dagm:Class8"),
    ],
)
def test_a_category_has_one_official_spelling(dataset, name, official):
    assert data.spelled(dataset, name) == official


def test_a_table_bears_the_official_spelling(root):
    """Else runs of Bottle and bottle would be two."""
    assert data.load("mvtec_ad", "BOTTLE").attrs == data.load("mvtec_ad", "bottle").attrs
    assert data.load("mvtec_ad:Bottle").attrs["category"] == "mvtec_ad:bottle"


def test_a_spelling_that_fits_two_categories_is_refused(tmp_path):
    """The user's own folders may differ in nothing else; each is itself, a third is neither."""
    for name in ("a b", "a_b"):
        made_layouts.picture(tmp_path / name / "normal" / "1.png")
    assert [data.spelled("folder", name, tmp_path) for name in ("a b", "a_b")] == ["a b", "a_b"]
    with pytest.raises(UserError, match=r"unknown folder category 'AB'; .*valid: a b, a_b"):
        data.spelled("folder", "AB", tmp_path)


def test_pictures_of_another_size_say_so_themselves(root):
    """16x12 as made, officially 900x900; it is no part of the fingerprint, and 900x900 says nothing."""
    table = data.load("mvtec_ad", "bottle")
    assert table.attrs["provenance"] == "rescaled or cropped copy: 16x12 instead of the official 900x900"
    for path in root.glob("bottle/train/good/*.png"):
        Image.new("RGB", (900, 900)).save(path)
    assert data.load("mvtec_ad", "bottle").attrs["provenance"] is None


def test_a_provenance_file_is_read_from_the_category_or_the_data_set(root):
    """Its first line; that of the category wins, and nothing of it enters the fingerprint."""
    before = data.load("mvtec_ad", "bottle")
    (root / "PROVENANCE.txt").write_text("\n  From a mirror.  \n\nDetails.\n")
    (root / "screw/PROVENANCE.txt").write_text("Scaled with LANCZOS.")
    bottle, screw = (data.load("mvtec_ad", name) for name in ("bottle", "screw"))
    assert bottle.attrs["provenance"] == before.attrs["provenance"] + "; From a mirror."
    assert screw.attrs["provenance"].endswith("official 1024x1024; Scaled with LANCZOS.")
    assert bottle.attrs["fingerprint"] == before.attrs["fingerprint"]


def test_a_provenance_file_that_is_no_text_is_named(root):
    (root / "PROVENANCE.txt").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(UserError, match=r"cannot read .*PROVENANCE.txt .*expected a text file"):
        data.load("mvtec_ad", "bottle")


def table_of(n, tmp_path, reserved=()):
    table = pd.DataFrame({"path": [str(tmp_path / f"{i}.png") for i in range(n)], "split": "train", "label": 0})
    table.attrs |= {"root": str(tmp_path), "reserved": [str(tmp_path / f"{i}.png") for i in reserved]}
    return table


@pytest.mark.parametrize(
    ("n", "share", "held"),
    [(209, 0.1, 21), (190, 0.1, 19), (20, 0.1, 5), (7, 0.1, 3), (100, 0.5, 50), (100, 0, 0), (1, 0.1, 0)],
)
def test_holdback_counts(n, share, held, tmp_path):
    """ceil(20.9) = 21; ceil(19.000000000000004) = 19; at least 5; at most half of 7 is 3."""
    fit, back = data.holdback(table_of(n, tmp_path), share)
    assert (len(fit), len(back)) == (n - held, held)
    assert sorted([*fit.index, *back.index]) == list(range(n))


def test_holdback_takes_the_first_hashes_of_relative_paths(tmp_path):
    _, back = data.holdback(table_of(50, tmp_path))
    names = sorted((f"{i}.png" for i in range(50)), key=lambda name: hashlib.sha256(name.encode()).hexdigest())
    assert set(back.path) == {str(tmp_path / name) for name in names[:5]}


@pytest.mark.parametrize(("share", "held"), [(0.1, [3, 7]), (0.5, [3, 7]), (0, [])])
def test_holdback_takes_exactly_what_a_data_set_reserves(share, held, tmp_path):
    """A third one would share pixels, or an object, with fitted images; share 0 fits all."""
    fit, back = data.holdback(table_of(20, tmp_path, reserved=(3, 7)), share)
    assert list(back.index) == held
    assert len(fit) == 20 - len(held)


@pytest.mark.parametrize("share", [-0.1, 0.6, float("nan")])
def test_holdback_refuses_other_shares(share, tmp_path):
    with pytest.raises(UserError, match=r"not in 0\.\.0\.5"):
        data.holdback(table_of(10, tmp_path), share)


def test_a_new_data_set_is_one_file(tmp_path, monkeypatch):
    """A module that appears in the folder and holds a DATASET is registered by being there."""
    (tmp_path / "mine.py").write_text(
        "from adlib.data.dataset import DataSet\nDATASET = DataSet('mine', lambda root, c: ([], []), list, 'make it')\n"
    )
    monkeypatch.setattr(data, "__path__", [str(tmp_path), *data.__path__])
    registered = data._registered()
    assert set(registered) == {*data.CATALOGUE, "mine"}
    assert registered["mine"].advice == "make it"


def test_what_is_here_is_named_of_how_many(root, tmp_path):
    assert data.where("mvtec_ad") == f"{root}: bottle, screw (2 of 15)"
    made_layouts.make("dtd", tmp_path)
    assert data.where("dtd") == f"{tmp_path / 'dtd/images'}: banded, cracked (2 of 47)"


@pytest.mark.parametrize(
    ("dataset", "category", "train", "normal", "anomalous"),
    [("mvtec_ad", "bottle", 209, 20, 63), ("mvtec_ad", "screw", 320, 41, 119), ("mtd", "all", 761, 191, 392)],
)
def test_real_data_have_the_published_counts(shared, dataset, category, train, normal, anomalous):
    """Counts: the data sets' own documentation; four MT_Uneven tiles have an empty mask."""
    table = data.load(dataset, category, root=shared / "data" / dataset)
    counts = table.groupby(["split", "label"]).size().to_dict()
    assert counts == {("test", 0): normal, ("test", 1): anomalous, ("train", 0): train}
    assert ((table.label == 1) & table["mask"].isna()).sum() == (4 if dataset == "mtd" else 0)
    assert np.all(table[table.split == "train"].label == 0)
