"""Names and files that would silently mean something else than their owner thinks: each is refused or named."""

import os
import shutil

import made_layouts
import pytest

from adlib import data
from adlib.common.errors import UserError
from adlib.data.inspection.verify import verify


@pytest.fixture
def own(tmp_path):
    return made_layouts.make("folder", tmp_path) / next(iter(made_layouts.COUNTS["folder"]))


def kind_of(own):
    """A kind of defect whose images have masks, and the first of them."""
    masks = sorted(f for f in (own / "masks").iterdir() if f.is_dir())[0]
    return masks.name, sorted(masks.iterdir())[0].stem


def refused(own, sentence):
    with pytest.raises(UserError, match=sentence):
        data.load("folder", own.name, root=own.parent)
    report = verify("folder", own.parent, progress=False)
    assert not report.ok
    return report.lines()


@pytest.mark.parametrize("name", ["good", "Normal", "MASKS", "Test"])
def test_a_kind_of_defect_named_like_something_else_is_refused(own, name):
    """Else normal pictures would count as defects, those of good/ even beside the normal ones."""
    made_layouts.picture(own / name / "1.png")
    refused(own, rf"folder .*{name} would be a kind of defect, but its name says something else")


@pytest.mark.parametrize("place", ["test/{kind}/{stem}.png", "{kind}/{stem}.tiff"])
def test_one_mask_never_serves_two_images(own, place):
    """The same name in test/, or with another ending."""
    kind, stem = kind_of(own)
    image = own / place.format(kind=kind, stem=stem)
    made_layouts.picture(image)
    refused(own, rf"mask .*{stem}.* fits several images")


def test_normal_test_images_of_btad_under_another_name_are_no_defects(tmp_path):
    root = made_layouts.make("btad", tmp_path)
    shutil.copytree(root / "01/test/ok", root / "01/test/good")
    with pytest.raises(UserError, match=r"01/test/good is no kind of defect; normal images belong into ok/"):
        data.load("btad", "01", root=root)


def test_labels_of_dagm_without_their_first_line_lose_no_defect(tmp_path):
    """The flag of the first number counts, although no label picture repeats it."""
    root = made_layouts.make("dagm", tmp_path)
    listed = root / "Class8/Train/Label/Labels.txt"
    flagged = next(line for line in listed.read_text().splitlines()[1:] if line.split()[1] == "1")
    number = flagged.split()[0]
    next(listed.parent.glob(f"{number}_label.*")).unlink()
    listed.write_text(flagged + "\n")
    assert f"1 defective training images left out: {number}" in data.load("dagm", "Class8", root=root).attrs["notes"]


def test_a_name_in_another_encoding_is_one_sentence(own):
    """Bytes of Latin-1, as old archives leave them: they can be neither hashed nor printed."""
    picture = sorted((own / "normal").iterdir())[0]
    os.rename(picture, os.fsencode(own / "normal") + b"/\xfc.png")
    lines = refused(own, r"name '.udcfc.png' in .*normal is no UTF-8; rename it")
    assert all(line.isprintable() for line in lines)


def test_a_pipe_is_not_waited_for(own):
    os.mkfifo(own / "normal" / "pipe.png")
    refused(own, r"pipe.png is no file")


def test_a_line_end_in_a_name_still_gives_one_line(own):
    kind, stem = kind_of(own)
    mask = next(path for path in (own / "masks" / kind).iterdir() if path.stem == stem)
    mask.rename(mask.with_stem("two\nlines"))
    lines = verify("folder", own.parent, progress=False).lines()
    assert any("two\\nlines" in line for line in lines)
    assert all("\n" not in line for line in lines)


@pytest.mark.parametrize("name", ["mvtec_ad", "btad", "dagm", "folder"])
def test_pictures_beside_the_categories_are_named(name, tmp_path):
    """A misspelt category and a lost picture; papers and archives beside them are nobody's fault."""
    root = made_layouts.make(name, tmp_path)
    before = set(verify(name, root, progress=False).lines())
    made_layouts.picture(root / "Clas8" / "deep" / "0001.png")
    made_layouts.picture(root / "lost.png")
    for file in ("archive.zip", "readme.md"):
        (root / file).write_text("x")
    (root / "papers").mkdir()
    new = set(verify(name, root, progress=False).lines()) - before
    assert new == {"lost.png: belongs to no image", "Clas8: is no category, so its pictures are not used"}


def test_the_list_names_what_is_there_of_how_many(tmp_path, monkeypatch):
    monkeypatch.setenv("ADLIB_DATA", str(tmp_path))
    made_layouts.make("mvtec_ad", tmp_path)
    assert data.where("mvtec_ad") == f"{tmp_path / 'mvtec_ad'}: bottle, screw (2 of 15)"
