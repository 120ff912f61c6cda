"""Every layout in its real naming, official counts, and every kind of bad input, for each layout that can have it."""

import io
import os
import shutil
from pathlib import Path

import made_layouts
import pytest

from adlib import data
from adlib.common.errors import UserError
from adlib.data import official

# One category of each layout, with its folder of normal training images.
LAYOUTS = {
    "mvtec_ad": ("bottle", "bottle/train/good"),
    "btad": ("01", "01/train/ok"),
    "mtd": ("all", "MT_Free/Imgs"),
    "dagm": ("Class8", "Class8/Train"),
    "folder": ("螺丝 1", "螺丝 1/normal"),
}
each_layout = pytest.mark.parametrize("name", LAYOUTS)


def counts(table) -> dict[str, int]:
    sizes = table.groupby(["split", "defect"]).size()
    return {f"{split}/{defect}": int(n) for (split, defect), n in sizes.items()}


def load(name: str, root: Path, **options):
    return data.load(name, LAYOUTS[name][0], root=root, **options)


@pytest.mark.parametrize(
    ("name", "category"), [(name, category) for name, every in made_layouts.COUNTS.items() for category in every]
)
def test_every_layout_yields_what_was_made(name, category, tmp_path):
    """COUNTS of made_layouts; defective images have their mask, but for elpv and the empty one of mtd."""
    table = data.load(name, category, root=made_layouts.make(name, tmp_path))
    assert counts(table) == made_layouts.COUNTS[name][category]
    assert (table[table.split == "train"].label == 0).all()
    assert table[table.label == 0]["mask"].isna().all()
    without = table[(table.label == 1) & table["mask"].isna()]
    assert len(without) == {"elpv": 3, "mtd": 1}.get(name, 0)


def test_btad_pairs_masks_by_stem_whatever_their_ending(tmp_path):
    """Category 01: images bmp, masks png; anomalous above 127, so that a grey edge does not count."""
    table = load("btad", made_layouts.make("btad", tmp_path))
    defective = table[table.label == 1]
    assert [Path(p).name for p in defective.path] == ["0000.bmp", "0001.bmp", "0002.bmp"]
    assert [Path(p).name for p in defective["mask"]] == ["0000.png", "0001.png", "0002.png"]
    assert table.attrs["mask_threshold"] == 127


def test_btad_as_the_archive_unpacks_it_is_the_same_data_set(tmp_path):
    plain = load("btad", made_layouts.make("btad", tmp_path / "a"))
    root = tmp_path / "b/btad"
    shutil.copytree(tmp_path / "a/btad", root / "BTech_Dataset_transformed")
    nested = load("btad", root)
    assert nested.attrs["fingerprint"] == plain.attrs["fingerprint"]
    assert nested.attrs["root"] == str(root / "BTech_Dataset_transformed")


def test_dagm_drops_defective_training_images_and_says_so(tmp_path):
    """Train holds 1151-1155, of which 1152 is defective: flagged, or with a label picture, or both."""
    root = made_layouts.make("dagm", tmp_path)
    label = root / "Class8/Train/Label"
    expected = load("dagm", root)
    assert "1 defective training images left out: 1152" in expected.attrs["notes"]
    assert "labels are weak" in expected.attrs["notes"][-1]
    kept = (label / "Labels.txt").read_text()
    (label / "Labels.txt").unlink()
    assert load("dagm", root).equals(expected)
    (label / "Labels.txt").write_text(kept)
    (label / "1152_label.PNG").unlink()
    assert load("dagm", root).equals(expected)


def test_dagm_takes_lower_case_endings_and_part_of_the_classes(tmp_path):
    root = made_layouts.make("dagm", tmp_path, categories=("Class8",))
    for path in root.rglob("*.PNG"):
        path.rename(path.with_suffix(".png"))
    assert counts(load("dagm", root)) == made_layouts.COUNTS["dagm"]["Class8"]
    assert len(data.categories("dagm", root)) == 10
    with pytest.raises(UserError, match=r"no image of dagm/Class1 found in"):
        data.load("dagm", "Class1", root=root)


@pytest.mark.parametrize("part", ["Train", "Test"])
def test_dagm_without_any_labels_is_refused(part, tmp_path):
    """Else defective images would be taken for normal ones in silence."""
    root = made_layouts.make("dagm", tmp_path)
    shutil.rmtree(root / "Class8" / part / "Label")
    with pytest.raises(UserError, match=rf"no Labels.txt and no label picture in .*{part}/Label"):
        load("dagm", root)


@pytest.mark.parametrize("line", ["1151", "1151\t2\t1151.PNG", "1151\tx\t1151.PNG\t0\t0"])
def test_dagm_names_a_bad_line(line, tmp_path):
    root = made_layouts.make("dagm", tmp_path)
    (root / "Class8/Train/Label/Labels.txt").write_text(f"1\n{line}\n")
    with pytest.raises(UserError, match=r"line '1151.*' of .*Labels.txt is not `number, flag 0 or 1, image name"):
        load("dagm", root)


@pytest.mark.parametrize(("name", "file"), [("mtd", "train_names.txt"), ("dagm", "Class8/Test/Label/Labels.txt")])
def test_a_list_that_is_no_text_is_named(name, file, tmp_path):
    root = made_layouts.make(name, tmp_path)
    (root / file).write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(UserError, match=rf"cannot read .*{Path(file).name} .*expected a text file"):
        load(name, root)


def test_mtd_knows_the_published_split_without_the_list(shared, tmp_path):
    """The same table, but for the note, whether train_names.txt lies there or not: 761 train, 191 + 392 test."""
    root = tmp_path / "mtd"
    root.mkdir()
    for folder in (shared / "data/mtd").glob("MT_*"):
        (root / folder.name).symlink_to(folder)
    found, listed = data.load("mtd", root=root), data.load("mtd", root=shared / "data/mtd")
    assert found.attrs["fingerprint"] == listed.attrs["fingerprint"]
    assert list(found.split) == list(listed.split)
    assert found.attrs["notes"][-1] == "no official split: the 761 names of DifferNet's list train"


def test_mtd_bitmap_has_761_of_952():
    bits = official.mtd_train_bits()
    assert (len(bits), sum(bits)) == (952, 761)


@pytest.mark.parametrize(
    ("name", "categories", "train", "normal", "defective"),
    [
        ("mvtec_ad", 15, 3629, 467, 1258),
        ("btad", 3, 1799, 451, 290),
        ("mtd", 1, 761, 191, 392),
        ("dagm", 10, 16100 - 2100 - 6996, 6996, 2100 - 1046),
        ("elpv", 2, 1206, 302, 715),
        ("textures", 3, 240, 120, 180),
    ],
)
def test_official_counts_add_up_to_the_published_totals(name, categories, train, normal, defective):
    """DAGM: 16100 images, 2100 defective, of which 1046 are in Train; elpv: 1508 normal cells, 80 % train."""
    every = official.COUNTS[name].values()
    assert len(every) == categories
    assert set(official.COUNTS[name]) == set(data.categories(name)) & set(official.COUNTS[name])
    assert sum(c["train/good"] for c in every) == train
    assert sum(c["test/good"] for c in every) == normal
    assert sum(sum(c.values()) for c in every) == train + normal + defective
    if name == "dagm":
        assert sum(official.DAGM_DEFECTIVE_TRAIN.values()) == 1046


@pytest.mark.parametrize(
    ("name", "category"),
    [
        *(("mvtec_ad", "bottle"), ("mvtec_ad", "screw"), ("mtd", "all")),
        *(("elpv", "mono"), ("elpv", "poly"), ("textures", "brick")),
    ],
)
def test_real_data_have_the_official_counts(shared, monkeypatch, name, category):
    monkeypatch.setenv("ADLIB_DATA", str(shared / "data"))
    table = data.load(name, category)
    assert counts(table) == official.COUNTS[name][category]
    root = Path(table.attrs["root"])
    empty = table[(table.label == 1) & table["mask"].isna()].path if name == "mtd" else []
    stems = tuple(Path(p).relative_to(root).as_posix().replace("/Imgs", "").removesuffix(".jpg") for p in empty)
    assert stems == official.EMPTY_MASKS.get(name, ())


def test_the_real_subset_of_dagm_drops_its_ten_defective_training_images(shared):
    """Class8, first 100 and 10 of Train, 60 and 50 of Test (datasets.md section 1)."""
    table = data.load("dagm", "Class8", root=shared / "data/dagm")
    assert counts(table) == {"train/good": 100, "test/good": 60, "test/defective": 50}
    assert table.attrs["notes"][0].startswith("10 defective training images left out: 1152")


# Bad input: one sentence each, naming the place.


@each_layout
@pytest.mark.parametrize("explicit", [True, False])
def test_a_file_for_a_data_set_is_named(name, explicit, tmp_path, monkeypatch):
    monkeypatch.setenv("ADLIB_DATA", str(tmp_path))
    (tmp_path / name).write_text("an archive, perhaps")
    with pytest.raises(UserError, match=rf"^{tmp_path / name} is a file; expected a folder$"):
        data.load(name, LAYOUTS[name][0], root=tmp_path / name if explicit else None)
    assert isinstance(data.where(name), str)


def test_the_home_of_nobody_is_one_sentence():
    with pytest.raises(UserError, match=r"root '~nobody-here/mtd' names the home of nobody"):
        data.load("mtd", root="~nobody-here/mtd")


@each_layout
def test_a_file_for_the_folder_of_training_images_is_named(name, tmp_path):
    root = made_layouts.make(name, tmp_path)
    folder = root / LAYOUTS[name][1]
    shutil.rmtree(folder)
    folder.write_text("")
    with pytest.raises(UserError, match=rf"{folder} is a file; expected a folder$"):
        load(name, root)


@each_layout
def test_a_file_for_a_whole_category_is_named(name, tmp_path):
    """mtd is its own category, so there it is a kind of defect."""
    root = made_layouts.make(name, tmp_path)
    folder = root / ("MT_Blowhole" if name == "mtd" else LAYOUTS[name][0])
    shutil.rmtree(folder)
    folder.write_text("")
    with pytest.raises(UserError, match=rf"^{folder} is a file; expected a folder$"):
        load(name, root)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("mvtec_ad", "bottle/test/broken_large"),
        ("btad", "01/test/ko"),
        ("mtd", "MT_Uneven"),
        ("dagm", "Class8/Test"),
        ("folder", "螺丝 1/划痕"),
    ],
)
def test_a_dangling_link_for_a_kind_of_defect_is_named(name, kind, tmp_path):
    """Else a kind would be missing from every figure in silence."""
    root = made_layouts.make(name, tmp_path)
    shutil.rmtree(root / kind)
    (root / kind).symlink_to("/nowhere")
    with pytest.raises(UserError, match=rf"link {root / kind} leads nowhere"):
        load(name, root)


@each_layout
def test_a_dangling_link_for_an_image_is_named(name, tmp_path):
    root = made_layouts.make(name, tmp_path)
    (root / LAYOUTS[name][1] / "link.jpg").symlink_to("/nowhere.jpg")
    with pytest.raises(UserError, match=r"cannot read .*link.jpg: No such file"):
        load(name, root)


@each_layout
def test_a_dangling_link_for_a_data_set_is_named(name, tmp_path):
    (tmp_path / name).symlink_to("/nowhere")
    with pytest.raises(UserError, match=rf"link {tmp_path / name} leads nowhere"):
        load(name, tmp_path / name)


@each_layout
def test_an_unreadable_folder_is_named(name, tmp_path, monkeypatch):
    """Permissions do not bind the root user, so the listing itself is made to fail as it would for others."""
    root = made_layouts.make(name, tmp_path)
    folder, iterdir = root / LAYOUTS[name][1], Path.iterdir

    def refuse(path):
        if path == folder:
            raise PermissionError(13, "Permission denied", str(path))
        return iterdir(path)

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(UserError, match=rf"cannot read {folder}: Permission denied; every folder must be readable"):
        load(name, root)


@each_layout
def test_an_unreachable_data_set_is_named(name, tmp_path, monkeypatch):
    """As where a parent folder lacks the right to enter: stat itself fails."""
    root = made_layouts.make(name, tmp_path)
    stat = Path.stat

    def refuse(path, **options):
        if path.is_relative_to(root):
            raise PermissionError(13, "Permission denied", str(path))
        return stat(path, **options)

    monkeypatch.setenv("ADLIB_DATA", str(tmp_path))
    monkeypatch.setattr(Path, "stat", refuse)
    with pytest.raises(UserError, match=rf"cannot read {root}.*: Permission denied"):
        load(name, root)
    assert "Permission denied" in data.where(name)


@each_layout
def test_an_unreadable_image_is_named(name, tmp_path, monkeypatch):
    root = made_layouts.make(name, tmp_path)
    victim = sorted((root / LAYOUTS[name][1]).iterdir())[0]
    opened = io.open

    def refuse(file, *arguments, **options):
        if Path(file) == victim:
            raise PermissionError(13, "Permission denied", str(file))
        return opened(file, *arguments, **options)

    monkeypatch.setattr(io, "open", refuse)
    with pytest.raises(UserError, match=rf"cannot read {victim}"):
        load(name, root)


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
def test_a_category_without_training_images_is_named(name, tmp_path):
    root = made_layouts.make(name, tmp_path)
    for path in (root / LAYOUTS[name][1]).iterdir():
        if path.is_file():
            path.unlink()
    with pytest.raises(UserError, match=rf"no normal training image of {name}/"):
        load(name, root)


@pytest.mark.parametrize("name", ["mvtec_ad", "btad", "mtd", "dagm"])
def test_chinese_names_and_blanks_in_the_path_and_upper_case_endings_work(name, tmp_path):
    root = made_layouts.make(name, tmp_path / "我的 数据")
    expected = counts(load(name, root))
    for path in [p for p in root.rglob("*.*") if p.suffix != ".txt"]:
        path.rename(path.with_suffix(path.suffix.upper()))
    table = load(name, root)
    assert counts(table) == expected
    assert table[table.label == 1]["mask"].notna().sum() == {"mtd": 3}.get(name, sum(table.label == 1))


@pytest.mark.parametrize("name", ["mvtec_ad", "btad", "folder"])
def test_a_kind_of_defect_may_have_any_name(name, tmp_path):
    root = made_layouts.make(name, tmp_path)
    base = root / LAYOUTS[name][0]
    kinds = {"mvtec_ad": ("test/broken_large", "ground_truth/broken_large"), "btad": ("test/ko", "ground_truth/ko")}
    for kind in kinds.get(name, ("划痕", "masks/划痕")):
        (base / kind).rename((base / kind).with_name("崩 边 v1.0"))
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
