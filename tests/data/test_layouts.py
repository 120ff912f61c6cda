"""Every layout in its real naming: what it yields, what is particular about it, and its official counts."""

import shutil
from pathlib import Path

import made_layouts
import pytest
from made_layouts import LAYOUTS, OWN, counts, load
from PIL import Image

from adlib import data
from adlib.common.errors import UserError
from adlib.data import mtd

each_layout = pytest.mark.parametrize("name", LAYOUTS)


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


@each_layout
def test_a_layout_opens_no_picture(name, tmp_path):
    """`verify` looks at every file itself; what must be opened is `checked`, and only `load` does that."""
    source, root = data.CATALOGUE[name], made_layouts.make(name, tmp_path)
    category = LAYOUTS[name][0]
    expected = source.samples(root, category)
    for path in [p for p in root.rglob("*.*") if p.suffix != ".txt"]:
        path.write_bytes(b"no picture")
    assert source.samples(root, category) == expected
    if source.checked:
        with pytest.raises(UserError, match="cannot read"):
            load(name, root)


# What is particular about one data set.


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


def test_normal_test_images_of_btad_under_another_name_are_no_defects(tmp_path):
    root = made_layouts.make("btad", tmp_path)
    shutil.copytree(root / "01/test/ok", root / "01/test/good")
    with pytest.raises(UserError, match=r"01/test/good is no kind of defect; normal images belong into ok/"):
        load("btad", root)


@pytest.mark.parametrize("lost", ["Labels.txt", "1152_label.PNG", None])
def test_dagm_drops_defective_training_images_and_says_so(lost, tmp_path):
    """Train holds 1151-1155, of which 1152 is defective: flagged, or with a label picture, or both."""
    root = made_layouts.make("dagm", tmp_path)
    if lost:
        (root / "Class8/Train/Label" / lost).unlink()
    table = load("dagm", root)
    assert counts(table) == made_layouts.COUNTS["dagm"]["Class8"]
    assert "1 defective training images left out: 1152" in table.attrs["notes"]
    assert "labels are weak" in table.attrs["notes"][-1]


def test_labels_of_dagm_without_their_first_line_lose_no_defect(tmp_path):
    """Some copies lack the single 1 at the top: the flag of the first number still counts."""
    root = made_layouts.make("dagm", tmp_path)
    labels = root / "Class8/Train/Label"
    (labels / "1152_label.PNG").unlink()
    flagged = next(line for line in (labels / "Labels.txt").read_text().splitlines() if line.startswith("1152"))
    (labels / "Labels.txt").write_text(flagged + "\n")
    assert "1 defective training images left out: 1152" in load("dagm", root).attrs["notes"]


def test_dagm_takes_lower_case_endings_and_part_of_the_classes(tmp_path):
    root = made_layouts.make("dagm", tmp_path, categories=("Class8",))
    for path in root.rglob("*.PNG"):
        path.rename(path.with_suffix(".png"))
    assert counts(load("dagm", root)) == made_layouts.COUNTS["dagm"]["Class8"]
    with pytest.raises(UserError, match=r"no image of dagm/Class1 found in"):
        data.load("dagm", "Class1", root=root)


@pytest.mark.parametrize("part", ["Train", "Test"])
def test_dagm_without_any_labels_is_refused(part, tmp_path):
    """Else defective images would be taken for normal ones in silence."""
    root = made_layouts.make("dagm", tmp_path)
    shutil.rmtree(root / "Class8" / part / "Label")
    with pytest.raises(UserError, match=rf"no Labels.txt and no label picture in .*{part}/Label"):
        load("dagm", root)


@pytest.mark.parametrize(
    ("name", "category", "file", "line"),
    [
        ("dagm", "Class8", "Class8/Train/Label/Labels.txt", "1\n1151"),
        ("dagm", "Class8", "Class8/Train/Label/Labels.txt", "1151\t2\t1151.PNG"),
        ("dagm", "Class8", "Class8/Train/Label/Labels.txt", "1151\tx\t1151.PNG\t0\t0"),
        ("elpv", "mono", "labels.csv", "images/cell0001.png 0.0"),
        ("elpv", "mono", "labels.csv", "images/cell0001.png none mono"),
    ],
)
def test_a_bad_line_of_a_list_is_named(name, category, file, line, tmp_path):
    root = made_layouts.make(name, tmp_path)
    (root / file).write_text(line)
    with pytest.raises(UserError, match=rf"line '.*{line.splitlines()[-1][:4]}.*' of .*{Path(file).name} is not `n"):
        data.load(name, category, root=root)


@pytest.mark.parametrize(
    ("name", "category", "file"),
    [
        ("mtd", "all", "train_names.txt"),
        ("dagm", "Class8", "Class8/Test/Label/Labels.txt"),
        ("elpv", "mono", "labels.csv"),
    ],
)
def test_a_list_that_is_no_text_is_named(name, category, file, tmp_path):
    root = made_layouts.make(name, tmp_path)
    (root / file).write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(UserError, match=rf"cannot read .*{Path(file).name} .*expected a text file"):
        data.load(name, category, root=root)


def test_mtd_of_other_tiles_and_without_the_list_is_refused_and_names_the_seeded_split(tmp_path):
    """Which of these 8 tiles would train is unknown; 80 % of 8 = 6 do by hash, others for another split_seed."""
    root = made_layouts.make("mtd", tmp_path)
    (root / "train_names.txt").unlink()
    with pytest.raises(UserError, match=r'the 8 tiles in .*MT_Free are not the 952 official.*split="seeded"'):
        load("mtd", root)
    with pytest.raises(UserError, match=r"unknown mtd split 'seedd'; did you mean 'seeded'"):
        load("mtd", root, split="seedd")
    table = load("mtd", root, split="seeded")
    assert (table.split == "train").sum() == 6
    assert "by hash with split_seed=0" in table.attrs["notes"][-1]
    assert not table.equals(load("mtd", root, split="seeded", split_seed=2))


def test_a_mask_of_mtd_without_a_bright_pixel_is_none(tmp_path):
    """A mask that reaches 127 is empty under > 127; one that reaches 128 is not."""
    root = made_layouts.make("mtd", tmp_path)
    for stem, grey in (("exp1_num_4727", 127), ("exp4_num_9", 128)):
        path = root / f"MT_Blowhole/Imgs/{stem}.png"
        with Image.open(path) as mask:
            mask.point(lambda value, grey=grey: min(value, grey)).save(path)
    table = load("mtd", root)
    without = table[(table.label == 1) & table["mask"].isna()].path
    assert [Path(p).stem for p in without] == ["exp1_num_4727", made_layouts.EMPTY_MASK]
    assert table.attrs["notes"][0].startswith("2 anomalous images have an empty mask")


def test_mtd_knows_the_published_split_without_the_list(shared, tmp_path):
    """The same table, but for the note, whether train_names.txt lies there or not: 761 of 952 train."""
    assert (len(mtd.train_bits()), sum(mtd.train_bits())) == (952, 761)
    root = tmp_path / "mtd"
    root.mkdir()
    for folder in (shared / "data/mtd").glob("MT_*"):
        (root / folder.name).symlink_to(folder)
    known, listed = load("mtd", root), load("mtd", shared / "data/mtd")
    assert known.attrs["fingerprint"] == listed.attrs["fingerprint"]
    assert list(known.split) == list(listed.split)
    assert known.attrs["notes"][-1] == "no official split: the 761 names of DifferNet's list train"


def test_folder_with_test_normal_trains_on_all_of_normal(tmp_path):
    root = made_layouts.make("folder", tmp_path)
    made_layouts.picture(root / OWN / "test/normal/a.png")
    made_layouts.picture(root / OWN / "test/划痕/坏 3.png")
    assert counts(load("folder", root)) == {"train/good": 10, "test/good": 1, "test/划痕": 3, "test/dent": 1}


def test_folder_is_one_category_or_several(tmp_path):
    """Folders with normal/ are categories; a root that holds normal/ itself is one, of its own name."""
    root = made_layouts.make("folder", tmp_path)
    assert data.categories("folder", root) == [OWN]
    assert data.load("folder", root=root / OWN).attrs["category"] == OWN
    with pytest.raises(UserError, match=rf"unknown folder category 'bolt'; valid: {OWN}"):
        data.load("folder", "bolt", root=root)


@pytest.mark.parametrize(
    ("category", "doubt"), [("mono", "117 cells with defect probability 1/3 and 56"), ("poly", "178 cells")]
)
def test_elpv_leaves_the_doubtful_cells_out_and_its_split_follows_the_seed(category, doubt):
    """Counts of labels.csv in the package."""
    table, other = data.load("elpv", category), data.load("elpv", category, split_seed=1)
    assert doubt in table.attrs["notes"][0]
    assert table.equals(data.load("elpv", category, split_seed=0))
    assert table.attrs["fingerprint"] != other.attrs["fingerprint"]


def test_a_sample_of_elpv_has_so_many_cells_and_keeps_their_parts():
    """200 of 901 mono cells: training ones train, no doubtful one comes in, and the data's fingerprint is another."""
    table, sample = data.load("elpv", "mono"), data.load("elpv?images=200", "mono")
    assert len(sample) == 200
    part_of = table.set_index("path")[["split", "label"]]
    assert (part_of.loc[sample.path].to_numpy() == sample[["split", "label"]].to_numpy()).all()
    assert set(zip(sample.split, sample.label, strict=True)) == {("train", 0), ("test", 0), ("test", 1)}
    assert sample.attrs["fingerprint"] != table.attrs["fingerprint"]
    assert "200 cells" in sample.attrs["notes"][-1]
    assert len(data.load("elpv", "mono", images=2000)) == len(table)


@pytest.mark.parametrize("images", ["many", "19", "-5", "1.5"])
def test_a_sample_of_elpv_that_is_no_number_or_too_small_is_refused(images):
    with pytest.raises(UserError, match=f"elpv images .*{images}.* is no whole number from 20; 200 is"):
        data.load(f"elpv?images={images}", "mono")


# Official counts.


@pytest.mark.parametrize(
    ("name", "categories", "train", "normal", "defective"),
    [
        ("mvtec_ad", 15, 3629, 467, 1258),
        ("btad", 3, 1799, 451, 290),
        ("mtd", 1, 761, 191, 392),
        ("dagm", 10, 16100 - 2100 - 6996, 6996, 2100 - 1046),
        ("elpv", 2, 1206, 302, 715),
        ("textures", 3, 240, 120, 180),
        ("dtd", 47, 5640, 0, 0),
    ],
)
def test_official_counts_add_up_to_the_published_totals(name, categories, train, normal, defective):
    """DAGM: 16100 images, 2100 defective, of which 1046 are in Train; elpv: 1508 normal cells, 80 % train."""
    official = data.official(name)
    assert len(official) == categories
    assert set(official) == set(data.categories(name)) & set(official)
    assert sum(c["train/good"] for c in official.values()) == train
    assert sum(c.get("test/good", 0) for c in official.values()) == normal
    assert sum(sum(c.values()) for c in official.values()) == train + normal + defective
    dropped = data.CATALOGUE[name].rules.dropped
    assert sum(dropped.values()) == (1046 if name == "dagm" else 0)


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
    assert counts(table) == data.official(name)[category]
    empty = table[(table.label == 1) & table["mask"].isna()].path if name == "mtd" else []
    root = table.attrs["root"]
    stems = tuple(Path(p).relative_to(root).as_posix().replace("/Imgs", "").removesuffix(".jpg") for p in empty)
    assert stems == tuple(data.CATALOGUE[name].rules.empty_masks)


def test_the_real_subset_of_dagm_drops_its_ten_defective_training_images(shared):
    """Class8, first 100 and 10 of Train, 60 and 50 of Test (datasets.md section 1); crops of 256x256."""
    table = load("dagm", shared / "data/dagm")
    assert counts(table) == {"train/good": 100, "test/good": 60, "test/defective": 50}
    assert table.attrs["notes"][0].startswith("10 defective training images left out: 1152")
    assert "256x256 instead of the official 512x512" in table.attrs["provenance"]
