"""Sample tables: layouts made by code with the real naming, the real folders where they are, and every bad input."""

import hashlib
import os
import shutil

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from adlib import data
from adlib.common import hashes
from adlib.common.errors import UserError
from adlib.common.paths import cache_root


def picture(path, size=(8, 6), value=0, mode="L"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value).save(path)
    return path


@pytest.fixture
def bottle(tmp_path):
    """mvtec_ad with one category: 3 train, 2 good, 2 broken_large with masks, 1 contamination without."""
    root = tmp_path / "mvtec_ad"
    for i in range(3):
        picture(root / f"bottle/train/good/{i:03d}.png", value=i)
    for i in range(2):
        picture(root / f"bottle/test/good/{i:03d}.png", value=10 + i)
        picture(root / f"bottle/test/broken_large/{i:03d}.png", value=20 + i)
        picture(root / f"bottle/ground_truth/broken_large/{i:03d}_mask.png", value=255)
    picture(root / "bottle/test/contamination/000.png", value=30)
    (root / "bottle/license.txt").write_text("CC BY-NC-SA 4.0")
    return root


@pytest.fixture
def tiles(tmp_path):
    """mtd: 10 free tiles, 2 cracks, one of them with a mask that never exceeds 127."""
    root = tmp_path / "mtd"
    for i in range(10):
        picture(root / f"MT_Free/Imgs/exp1_num_{i}.jpg", value=i)
        picture(root / f"MT_Free/Imgs/exp1_num_{i}.png")
    for i, grey in ((20, 200), (21, 127)):
        picture(root / f"MT_Crack/Imgs/exp2_num_{i}.jpg")
        picture(root / f"MT_Crack/Imgs/exp2_num_{i}.png", value=grey)
    (root / "train_names.txt").write_text("\n".join(f"exp1_num_{i}.jpg" for i in range(7)))
    return root


@pytest.fixture
def own(tmp_path):
    """The user's own pictures, with Chinese names, blanks and upper-case endings."""
    root = tmp_path / "我的 数据"
    for i in range(10):
        picture(root / f"normal/图 {i}.PNG", value=i)
    picture(root / "划痕/坏 1.JPG")
    picture(root / "masks/划痕/坏 1.png", value=255)
    picture(root / "dent/b.bmp")
    return root


def test_mvtec_table_has_one_row_per_image_in_a_fixed_order(bottle):
    """3 train + 2 good + 2 + 1 anomalous = 8 rows; train first, then by relative path."""
    table = data.load("mvtec_ad", "bottle", root=bottle)
    assert list(table.columns) == ["path", "split", "label", "defect", "mask"]
    assert isinstance(table.index, pd.RangeIndex)
    assert list(table.split) == ["train"] * 3 + ["test"] * 5
    assert list(table.defect[3:]) == ["broken_large"] * 2 + ["contamination"] + ["good"] * 2
    assert list(table.label[3:]) == [1, 1, 1, 0, 0]
    assert table["mask"][3] == str(bottle / "bottle/ground_truth/broken_large/000_mask.png")
    assert table["mask"][5] is None
    assert table["mask"][7] is None
    assert table.attrs["dataset"] == "mvtec_ad"
    assert table.attrs["category"] == "bottle"
    assert table.attrs["root"] == str(bottle)
    assert table.attrs["mask_threshold"] == 0


def test_missing_and_surplus_masks_are_noted(bottle):
    picture(bottle / "bottle/ground_truth/broken_large/007_mask.png")
    notes = " | ".join(data.load("mvtec_ad", "bottle", root=bottle).attrs["notes"])
    assert "1 anomalous images of contamination without mask: 000" in notes
    assert "1 masks of broken_large without image ignored: 007" in notes


def test_rubbish_beside_the_images_changes_nothing_but_other_formats_are_noted(bottle):
    before = data.load("mvtec_ad", "bottle", root=bottle)
    for name in (".DS_Store", "._000.png", "readme.txt", "Thumbs.db", "license"):
        (bottle / "bottle/train/good" / name).write_text("x")
    picture(bottle / "bottle/train/good/.ipynb_checkpoints/000-checkpoint.png")
    picture(bottle / "bottle/test/.ipynb_checkpoints/000-checkpoint.png")
    (bottle / "bottle/train/good/003.heic").write_text("x")
    after = data.load("mvtec_ad", "bottle", root=bottle)
    pd.testing.assert_frame_equal(before, after)
    assert after.attrs["fingerprint"] == before.attrs["fingerprint"]
    assert any("003.heic" in note for note in after.attrs["notes"])


def test_root_comes_from_the_environment(bottle, monkeypatch):
    monkeypatch.setenv("ADLIB_DATA", str(bottle.parent))
    assert len(data.load("mvtec_ad", "bottle")) == 8


def test_fingerprint_follows_the_content_and_not_the_place(bottle, tmp_path):
    first = data.load("mvtec_ad", "bottle", root=bottle).attrs["fingerprint"]
    copy = shutil.copytree(bottle, tmp_path / "elsewhere/mvtec_ad")
    assert data.load("mvtec_ad", "bottle", root=copy).attrs["fingerprint"] == first
    assert len(first) == 64


@pytest.mark.parametrize("name", ["test/good/000.png", "ground_truth/broken_large/001_mask.png"])
def test_fingerprint_sees_one_changed_image_or_mask_of_equal_size(bottle, name):
    """Same path and byte length; a remembered hash must not hide the change."""
    first = data.load("mvtec_ad", "bottle", root=bottle).attrs["fingerprint"]
    path = bottle / "bottle" / name
    content = bytearray(path.read_bytes())
    content[-20] ^= 1
    path.write_bytes(bytes(content))
    assert data.load("mvtec_ad", "bottle", root=bottle).attrs["fingerprint"] != first


def test_fingerprint_sees_the_split(tiles):
    published = data.load("mtd", root=tiles)
    seeded = data.load("mtd", root=tiles, split="seeded")
    assert published.attrs["fingerprint"] != seeded.attrs["fingerprint"]


def age(root):
    """Files that were written a moment ago are not remembered; set them back by an hour."""
    for path in root.rglob("*.*"):
        os.utime(path, (1e9, 1e9))


def test_second_load_reads_no_file_again(bottle, monkeypatch):
    age(bottle)
    now = hashes.time.time_ns()
    monkeypatch.setattr(hashes.time, "time_ns", lambda: now + 10**10)  # ctime cannot be set back
    first = data.load("mvtec_ad", "bottle", root=bottle)
    monkeypatch.setattr(hashes, "_sha256", lambda path: pytest.fail(f"{path} was read again"))
    assert data.load("mvtec_ad", "bottle", root=bottle).attrs == first.attrs


@pytest.mark.parametrize("content", ["", "{", "[]", '{"x": 1}', '{"x": [1, 2]}', "\x00"])
def test_a_corrupt_hash_store_is_replaced(bottle, content):
    first = data.load("mvtec_ad", "bottle", root=bottle).attrs["fingerprint"]
    folder = cache_root() / "hashes"
    folder.mkdir(parents=True, exist_ok=True)
    store = folder / f"{hashlib.sha256(str(bottle).encode()).hexdigest()[:16]}.json"
    store.write_text(content)
    assert data.load("mvtec_ad", "bottle", root=bottle).attrs["fingerprint"] == first


def test_a_cache_that_cannot_be_written_is_no_error(bottle, tmp_path, monkeypatch):
    """A file where the cache folder should be: mkdir fails for root, too."""
    age(bottle)
    monkeypatch.setattr(hashes.time, "time_ns", lambda: 2**62)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ADLIB_CACHE", str(tmp_path / "file"))
    assert len(data.load("mvtec_ad", "bottle", root=bottle)) == 8


def test_mtd_uses_the_published_names_and_drops_masks_without_a_bright_pixel(tiles):
    """7 listed names train, 3 free + 2 cracks test; a mask that reaches only 127 is empty under > 127."""
    table = data.load("mtd", root=tiles)
    assert table.groupby(["split", "label"]).size().to_dict() == {("test", 0): 3, ("test", 1): 2, ("train", 0): 7}
    assert table.attrs["category"] == "all"
    assert table.attrs["mask_threshold"] == 127
    assert list(table[table.label == 1]["mask"]) == [str(tiles / "MT_Crack/Imgs/exp2_num_20.png"), None]
    assert "exp2_num_21" in table.attrs["notes"][0]


def test_mtd_of_other_tiles_and_without_the_list_is_refused_and_names_the_seeded_split(tiles):
    """Which of these 10 tiles would train is unknown; 80 % of 10 = 8 do by hash, others for another split_seed."""
    (tiles / "train_names.txt").unlink()
    with pytest.raises(UserError, match=r'the 10 tiles in .*MT_Free are not the 952 official.*split="seeded"'):
        data.load("mtd", root=tiles)
    table = data.load("mtd", root=tiles, split="seeded")
    assert (table.split == "train").sum() == 8
    assert "by hash with split_seed=0" in table.attrs["notes"][-1]
    assert not table.equals(data.load("mtd", root=tiles, split="seeded", split_seed=2))


def test_folder_takes_chinese_names_blanks_and_upper_case_endings(own):
    """80 % of 10 normal images train: 8; 2 normal + 2 anomalous test, one with mask."""
    table = data.load("folder", root=own)
    assert table.groupby(["split", "label"]).size().to_dict() == {("test", 0): 2, ("test", 1): 2, ("train", 0): 8}
    assert set(table.defect) == {"good", "划痕", "dent"}
    assert table.set_index("defect")["mask"]["划痕"] == str(own / "masks/划痕/坏 1.png")
    assert table.attrs["category"] == own.name
    assert any("dent/b.bmp" in note for note in table.attrs["notes"])


def test_folder_with_test_normal_trains_on_all_of_normal(own):
    picture(own / "test/normal/a.png", value=99)
    picture(own / "test/划痕/坏 2.png")
    table = data.load("folder", root=own)
    assert table.groupby(["split", "label"]).size().to_dict() == {("test", 0): 1, ("test", 1): 3, ("train", 0): 10}


def test_folder_categories_are_the_folders_with_normal(own, monkeypatch):
    parent = own.parent / "data/folder"
    shutil.copytree(own, parent / "螺丝")
    monkeypatch.setenv("ADLIB_DATA", str(own.parent / "data"))
    assert data.categories("folder") == ["螺丝"]
    assert data.load("folder", "螺丝").attrs["category"] == "螺丝"
    with pytest.raises(UserError, match=r"unknown category 'bolt' of folder; valid are 螺丝"):
        data.load("folder", "bolt")


def test_folder_mask_of_another_size_names_both(own):
    picture(own / "masks/划痕/坏 1.png", size=(4, 4))
    with pytest.raises(UserError, match=r"坏 1.png is 4x4 but its image .*坏 1.JPG is 8x6"):
        data.load("folder", root=own)


def test_folder_mask_that_fits_two_images_is_refused(own):
    picture(own / "dent/坏 1.png")
    shutil.move(own / "masks/划痕/坏 1.png", own / "masks/坏 1.png")
    with pytest.raises(UserError, match=r"fits 2 images"):
        data.load("folder", root=own)


@pytest.mark.parametrize(
    ("category", "train", "normal", "defective", "doubt"),
    [("mono", 470, 118, 313, "117 cells with defect probability 1/3 and 56"), ("poly", 736, 184, 402, "178 cells")],
)
def test_elpv_leaves_the_doubtful_cells_out(category, train, normal, defective, doubt):
    """mono: 588 normal cells, 80 % = 470; poly: 920 and 736 (counts of labels.csv)."""
    table = data.load("elpv", category)
    counts = table.groupby(["split", "label"]).size().to_dict()
    assert counts == {("test", 0): normal, ("test", 1): defective, ("train", 0): train}
    assert doubt in table.attrs["notes"][0]
    assert table["mask"].isna().all()


def test_elpv_split_follows_its_seed():
    first, other = (data.load("elpv", "mono", split_seed=seed) for seed in (0, 1))
    assert first.equals(data.load("elpv", "mono"))
    assert first.attrs["fingerprint"] != other.attrs["fingerprint"]


def table_of(n, tmp_path):
    table = pd.DataFrame({"path": [str(tmp_path / f"{i}.png") for i in range(n)], "split": "train", "label": 0})
    table.attrs["root"] = str(tmp_path)
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


@pytest.mark.parametrize("share", [-0.1, 0.6, float("nan")])
def test_holdback_refuses_other_shares(share, tmp_path):
    with pytest.raises(UserError, match=r"not in 0\.\.0\.5"):
        data.holdback(table_of(10, tmp_path), share)


@pytest.mark.parametrize(
    ("arguments", "options", "sentence"),
    [
        (("mvtec",), {}, r"unknown data set 'mvtec' \(did you mean 'mvtec_ad'\?\); valid are btad, "),
        (("mvtec_ad", "botle"), {}, r"unknown category 'botle' .*did you mean 'bottle'.*valid are bottle, cable"),
        (("mvtec_ad",), {}, r"has 15 categories; name one of bottle"),
        (
            ("mvtec_ad", "cable"),
            {},
            r"no image of mvtec_ad/cable found in .*`python -m adlib data download mvtec_ad --acc",
        ),
        (("mvtec_ad", "bottle"), {"split": "x"}, r"unknown option 'split' of data set mvtec_ad; valid are none"),
        (
            ("mtd",),
            {},
            r"data set mtd not found at .*mtd; fetch it with `.* data download mtd --accept-licence`, .*ADLIB_DATA",
        ),
    ],
)
def test_bad_input_is_one_sentence(bottle, monkeypatch, arguments, options, sentence):
    monkeypatch.setenv("ADLIB_DATA", str(bottle.parent))
    with pytest.raises(UserError, match=sentence):
        data.load(*arguments, **options)


def test_a_dangling_link_is_named(bottle):
    (bottle / "bottle/test/good/link.png").symlink_to("/nowhere.png")
    with pytest.raises(UserError, match=r"cannot read .*link.png: No such file"):
        data.load("mvtec_ad", "bottle", root=bottle)


def test_a_category_without_training_images_is_refused(bottle):
    shutil.rmtree(bottle / "bottle/train")
    with pytest.raises(UserError, match=r"no normal training image of mvtec_ad/bottle"):
        data.load("mvtec_ad", "bottle", root=bottle)


@pytest.mark.parametrize(
    ("dataset", "category", "train", "normal", "anomalous"),
    [("mvtec_ad", "bottle", 209, 20, 63), ("mvtec_ad", "screw", 320, 41, 119), ("mtd", "all", 761, 191, 392)],
)
def test_real_data_have_the_published_counts(shared, dataset, category, train, normal, anomalous):
    """Counts: the data sets' own documentation; four MT_Uneven tiles have an empty mask."""
    table = data.load(dataset, category, root=shared / "data" / dataset)
    counts = table.groupby(["split", "label"]).size().to_dict()
    assert counts == {("test", 0): normal, ("test", 1): anomalous, ("train", 0): train}
    empty = ["exp3_num_45042", "exp4_num_124690", "exp4_num_352527", "exp4_num_45057"] if dataset == "mtd" else []
    without = table[(table.label == 1) & table["mask"].isna()].path
    assert [os.path.splitext(os.path.basename(path))[0] for path in without] == empty
    assert all(stem in table.attrs["notes"][0] for stem in empty)
    assert np.all(table[table.split == "train"].label == 0)
