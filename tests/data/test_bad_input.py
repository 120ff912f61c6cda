"""Every kind of bad input, for each layout that can have it: one sentence that names the place."""

import io
import os
import shutil
from pathlib import Path

import made_layouts
import pytest
from made_layouts import LAYOUTS, OWN, counts, load

from adlib import data
from adlib.common.errors import UserError
from adlib.data.inspection.verify import verify

each_layout = pytest.mark.parametrize("name", LAYOUTS)


def _replaced(path: Path) -> Path:
    """A text file in the place of a folder."""
    shutil.rmtree(path)
    path.write_text("an archive, perhaps")
    return path


def _dangling(path: Path) -> Path:
    if path.is_dir():
        shutil.rmtree(path)
    path.symlink_to("/nowhere")
    return path


def _emptied(path: Path) -> Path:
    for file in path.iterdir():
        if file.is_file():
            file.unlink()
    return path


BROKEN = {
    "a file for the data set": lambda name, root: (_replaced(root), "{} is a file; expected a folder$"),
    "a file for training": lambda name, root: (_replaced(root / LAYOUTS[name][1]), "{} is a file; expected a folder$"),
    # mtd is its own category, so there it is a kind of defect
    "a file for a category": lambda name, root: (
        _replaced(root / ("MT_Blowhole" if name == "mtd" else LAYOUTS[name][0])),
        "^{} is a file; expected a folder$",
    ),
    # else a kind would be missing from every figure in silence
    "a link for a kind": lambda name, root: (_dangling(root / LAYOUTS[name][2]), "link {} leads nowhere"),
    "a link for an image": lambda name, root: (_dangling(root / LAYOUTS[name][1] / "l.jpg"), "cannot read {}: No such"),
    "a link for the data set": lambda name, root: (_dangling(root), "link {} leads nowhere"),
    "no training image": lambda name, root: (_emptied(root / LAYOUTS[name][1]), f"no normal training image of {name}/"),
}


@each_layout
@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_layout_is_named(kind, name, tmp_path, monkeypatch):
    monkeypatch.setenv("ADLIB_DATA", str(tmp_path))
    path, sentence = BROKEN[kind](name, made_layouts.make(name, tmp_path))
    for root in (tmp_path / name, None):
        with pytest.raises(UserError, match=sentence.format(path)):
            load(name, root)
    assert isinstance(data.where(name), str)


@pytest.mark.parametrize("place", ["normal/p.png", "划痕/p.png", "masks/p.png"])
def test_a_pipe_among_own_pictures_is_named_and_not_waited_for(place, tmp_path, no_hang):
    """As a normal picture, as a defect with a mask, as a mask; `verify` calls it a fault like others."""
    root = made_layouts.make("folder", tmp_path)
    pipe = root / OWN / place
    pipe.parent.mkdir(exist_ok=True)
    os.mkfifo(pipe)
    for twin in (root / OWN / "划痕" / "p.png", root / OWN / "masks" / "p.png"):
        if not twin.exists() and not place.startswith("normal"):
            twin.parent.mkdir(exist_ok=True)
            shutil.copy(next((root / OWN / "normal").glob("*.*")), twin)
    with pytest.raises(UserError, match=r"p\.png is (no file|a pipe, a socket or a device)"):
        load("folder", root)
    assert any(line.startswith(f"{OWN}/{place}: ") for line in verify("folder", root, progress=False).lines())


@each_layout
def test_an_empty_category_is_named(name, tmp_path):
    root = made_layouts.make(name, tmp_path)
    for path in root.rglob("*.*"):
        path.unlink()
    # of mtd, train_names.txt went, too: none of the 952 tiles is there
    sentence = "the 0 tiles in .*MT_Free are not the 952" if name == "mtd" else f"no image of {name}/.* found in {root}"
    with pytest.raises(UserError, match=sentence):
        load(name, root)


@each_layout
@pytest.mark.parametrize("place", ["folder", "image", "data set"])
def test_what_may_not_be_read_is_named(place, name, tmp_path, monkeypatch):
    """Permissions do not bind the root user, so listing, opening and stat are made to fail as they would for others."""
    root = made_layouts.make(name, tmp_path)
    train = root / LAYOUTS[name][1]
    victim = {"folder": train, "image": sorted(train.iterdir())[0], "data set": root}[place]
    owner, function = {"folder": (Path, "iterdir"), "image": (io, "open"), "data set": (Path, "stat")}[place]
    original = getattr(owner, function)

    def refuse(path, *arguments, **options):
        if Path(path) == victim or (place == "data set" and Path(path).is_relative_to(victim)):
            raise PermissionError(13, "Permission denied", str(path))
        return original(path, *arguments, **options)

    monkeypatch.setenv("ADLIB_DATA", str(tmp_path))
    monkeypatch.setattr(owner, function, refuse)
    with pytest.raises(UserError, match=rf"cannot read {victim}.*Permission denied"):
        load(name, root)
    assert place != "data set" or "Permission denied" in data.where(name)


# Names and files that would silently mean something else than their owner thinks: refused by load, named by verify.


def refused(root: Path, sentence: str) -> list[str]:
    with pytest.raises(UserError, match=sentence):
        load("folder", root)
    report = verify("folder", root, progress=False)
    assert not report.ok
    return report.lines()


@pytest.mark.parametrize("name", ["good", "Normal", "MASKS", "Test"])
def test_a_kind_of_defect_named_like_something_else_is_refused(name, tmp_path):
    """Else normal pictures would count as defects, those of good/ even beside the normal ones."""
    root = made_layouts.make("folder", tmp_path)
    made_layouts.picture(root / OWN / name / "1.png")
    refused(root, rf"folder .*{name} would be a kind of defect, but its name says something else")


@pytest.mark.parametrize("place", ["test/划痕/坏 1.png", "划痕/坏 1.tiff"])
def test_one_mask_never_serves_two_images(place, tmp_path):
    """The same name in test/, or with another ending."""
    root = made_layouts.make("folder", tmp_path)
    made_layouts.picture(root / OWN / place)
    refused(root, r"mask .*坏 1.* fits several images")


def test_a_mask_that_names_no_kind_must_fit_one_image(tmp_path):
    root = made_layouts.make("folder", tmp_path)
    made_layouts.picture(root / OWN / "dent/坏 1.png")
    shutil.move(root / OWN / "masks/划痕/坏 1.png", root / OWN / "masks/坏 1.png")
    refused(root, r"fits 2 images; move it to")


def test_a_mask_of_another_size_names_both(tmp_path):
    root = made_layouts.make("folder", tmp_path)
    made_layouts.mask(root / OWN / "masks/划痕/坏 1.png", (4, 4))
    lines = refused(root, r"坏 1.png is 4x4 but its image .*坏 1.JPG is 16x12")
    assert lines == [f"{OWN}/masks/划痕/坏 1.png: is 4x4, but its image 坏 1.JPG is 16x12"]


def test_a_name_in_another_encoding_is_one_sentence(tmp_path):
    """Bytes of Latin-1, as old archives leave them: they can be neither hashed nor printed."""
    root = made_layouts.make("folder", tmp_path)
    os.rename(root / OWN / "normal/图 0.PNG", os.fsencode(root / OWN / "normal") + b"/\xfc.png")
    lines = refused(root, r"name '.udcfc.png' in .*normal is no UTF-8 or holds a control character; rename it")
    assert all(line.isprintable() for line in lines)


def test_a_pipe_is_not_waited_for(tmp_path):
    root = made_layouts.make("folder", tmp_path)
    os.mkfifo(root / OWN / "normal" / "pipe.png")
    refused(root, r"pipe.png is no file")


@pytest.mark.parametrize("name", ["mvtec_ad", "btad", "dagm", "folder"])
def test_pictures_beside_the_categories_are_named(name, tmp_path):
    """A misspelt category and a lost picture; papers and archives beside them are nobody's fault."""
    root = made_layouts.make(name, tmp_path)
    before = set(verify(name, root, progress=False).lines())
    made_layouts.picture(root / "Clas8" / "deep" / "0001.png")
    made_layouts.picture(root / "lost.png")
    for file in ("archive.zip", "readme.md", "PROVENANCE.txt"):
        (root / file).write_text("x")
    (root / "papers").mkdir()
    new = set(verify(name, root, progress=False).lines()) - before
    assert new == {"lost.png: belongs to no image", "Clas8: is no category, so its pictures are not used"}


# Names and places that must work.


@pytest.mark.parametrize("name", ["mvtec_ad", "btad", "mtd", "dagm"])
def test_chinese_names_and_blanks_in_the_path_and_upper_case_endings_work(name, tmp_path):
    root = made_layouts.make(name, tmp_path / "我的 数据")
    expected = load(name, root)
    for path in [p for p in root.rglob("*.*") if p.suffix != ".txt"]:
        path.rename(path.with_suffix(path.suffix.upper()))
    table = load(name, root)
    assert counts(table) == counts(expected)
    assert table["mask"].notna().sum() == expected["mask"].notna().sum()


@pytest.mark.parametrize("name", ["mvtec_ad", "btad", "folder"])
def test_a_kind_of_defect_may_have_any_name(name, tmp_path):
    root = made_layouts.make(name, tmp_path)
    kind = root / LAYOUTS[name][2]
    masks = root / LAYOUTS[name][0] / ("masks" if name == "folder" else "ground_truth") / kind.name
    for folder in (kind, masks):
        folder.rename(folder.with_name("崩 边 v1.0"))
    table = load(name, root)
    assert (table.defect == "崩 边 v1.0").sum() >= 2
    assert table[table.defect == "崩 边 v1.0"]["mask"].notna().all()


@each_layout
def test_a_read_only_data_set_works_because_nothing_is_written_into_it(name, tmp_path):
    """Neither files nor folders change; write permission is taken away, too, which binds all but the root user."""
    root = made_layouts.make(name, tmp_path)
    places = [root, *root.rglob("*")]
    for path in places:
        path.chmod(0o555 if path.is_dir() else 0o444)
    before = {path: path.stat().st_mtime_ns for path in places}
    try:
        assert len(load(name, root))
        assert {path: path.stat().st_mtime_ns for path in [root, *root.rglob("*")]} == before
    finally:
        for path in places:
            os.chmod(path, 0o755)
