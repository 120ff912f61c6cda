"""The made data set: exact masks, disjoint halves, and not solvable by looking at pixels alone."""

import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest
import skimage
from PIL import Image
from sklearn.metrics import roc_auc_score

from adlib import data, images
from adlib.common.errors import UserError
from adlib.common.paths import cache_root
from adlib.data import textures


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """All categories, made once for this file; the cache of a single test would be thrown away after it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ADLIB_CACHE", str(tmp_path_factory.mktemp("textures")))
        yield {category: data.load("textures", category) for category in data.categories("textures")}


@pytest.fixture(params=textures.CATEGORIES)
def table(tables, request):
    return tables[request.param]


def test_counts_are_80_train_40_normal_and_12_of_each_of_five_kinds(table):
    counts = table.groupby(["split", "defect"]).size().to_dict()
    kinds = {("test", kind): 12 for kind in ("contamination", "scratch", "stain", "swirl", "thread")}
    assert counts == {("train", "good"): 80, ("test", "good"): 40, **kinds}
    assert table[table.label == 1]["mask"].notna().all()


def test_a_mask_holds_exactly_the_pixels_that_differ(table):
    """The undamaged crop is found by its untouched pixels; every True pixel differs, every False one is equal."""
    half = textures._half(table.attrs["category"], "test")
    windows = np.lib.stride_tricks.sliding_window_view(half, (textures.SIDE, textures.SIDE))
    for row in table[table.label == 1].iloc[::6].itertuples():
        image, mask = np.asarray(Image.open(row.path)), np.asarray(Image.open(row.mask))
        y, x = np.nonzero(mask == 0)
        keep = np.random.default_rng(0).choice(len(y), 60, replace=False)
        equal = (windows[:, :, y[keep], x[keep]] == image[y[keep], x[keep]]).all(-1)
        top, left = np.argwhere(equal)[0]
        np.testing.assert_array_equal(mask, 255 * (windows[top, left] != image).astype(np.uint8))


@pytest.mark.parametrize("kind", textures.KINDS)
def test_defects_are_visible_and_balanced(kind):
    """Mean absolute change over the mask at least 10 grey levels; mean change below 5 (clipping at 0 and 255)."""
    for category in textures.CATEGORIES:
        image, mask = textures.anomalous(category, kind, 0)
        rng = textures._rng(category, kind, 0)
        half = textures._half(category, "test")
        for _ in range(100):  # the generator draws again until the change is visible
            crop = textures._crop(half, rng)
            if np.array_equal(crop != image, mask):
                break
            textures.KINDS[kind](crop.astype(float), rng)
        else:
            pytest.fail(f"no crop of {category} fits its {kind}")
        change = (image.astype(float) - crop)[mask]
        assert np.abs(change).mean() >= 10
        assert abs(change.mean()) < 5


def test_train_and_test_come_from_disjoint_halves():
    """Left and right 256 columns of the photograph; brick's right half is mirrored."""
    for category in textures.CATEGORIES:
        left, right = textures._half(category, "train"), textures._half(category, "test")
        assert left.shape == right.shape == (512, 256)
        assert not np.array_equal(left, right)
    whole = np.asarray(Image.open(Path(skimage.__file__).parent / "data/brick.png"))
    np.testing.assert_array_equal(
        np.hstack([textures._half("brick", "train"), textures._half("brick", "test")[:, ::-1]]), whole
    )


def nearest(pixels, train):
    """Euclidean distance of every row to the nearest training row: [N]."""
    pixels = pixels.reshape(len(pixels), -1).astype(np.float64)
    square = (pixels**2).sum(1)
    return np.sqrt(np.maximum(square[:, None] + square[train] - 2 * pixels @ pixels[train].T, 0).min(1))


def test_trivial_scores_do_not_solve_it(table):
    """Image AUROC below 0.75, in either direction, for mean grey; for the nearest neighbour at 32x32 and in full."""
    test, train = (table.split == "test").to_numpy(), (table.split == "train").to_numpy()
    labels = table.label[test]
    pixels = np.stack([np.asarray(Image.open(path)) for path in table.path])
    grey = roc_auc_score(labels, pixels[test].mean((1, 2)))
    small = np.stack([np.asarray(Image.fromarray(p).resize((32, 32), Image.Resampling.BILINEAR)) for p in pixels])
    distances = [nearest(p, train)[test] for p in (pixels, small)]
    full, reduced = (roc_auc_score(labels, distance) for distance in distances)
    assert max(grey, 1 - grey, full, reduced) < 0.75


def test_pictures_are_those_of_version_1(tables):
    """A change of any pixel must raise VERSION, or caches and results of two kinds of pictures would be mixed."""
    digest = hashlib.sha256()
    for table in tables.values():
        for path in [*table.path, *table["mask"].dropna()]:
            digest.update(np.asarray(Image.open(path)).tobytes())
    assert (textures.VERSION, digest.hexdigest()[:16]) == (1, "3dfb2624636cadb2")


def test_making_them_again_gives_the_same_fingerprint(tables, tmp_path, monkeypatch):
    monkeypatch.setenv("ADLIB_CACHE", str(tmp_path / "another"))
    assert data.load("textures", "grass").attrs["fingerprint"] == tables["grass"].attrs["fingerprint"]


def test_an_interrupted_making_leaves_nothing_that_looks_finished(monkeypatch):
    def stop(folder, category):
        textures._save(folder / "train/good/000.png", np.zeros((4, 4), np.uint8))
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(textures, "_draw", stop)
        with pytest.raises(KeyboardInterrupt):
            data.load("textures", "grass")
    assert not list((cache_root() / "textures/v1").iterdir())


def test_losing_a_race_takes_the_winners_pictures(monkeypatch, tables):
    """Another process finishes while we draw: the rename fails on a folder that is there and whole."""

    def draw(folder, category):
        shutil.copytree(Path(tables[category].attrs["root"]) / category, folder.parent / category)
        textures._save(folder / "x.png", np.zeros((4, 4), np.uint8))

    monkeypatch.setattr(textures, "_draw", draw)
    assert len(data.load("textures", "grass")) == 180


def test_a_cache_that_cannot_be_written_is_one_sentence(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ADLIB_CACHE", str(tmp_path / "file"))
    with pytest.raises(UserError, match=r"cannot make the pictures of textures in .*file.*set ADLIB_CACHE"):
        data.load("textures", "grass")


def test_masks_survive_the_usual_grid(table):
    """Native side 128: nothing is lost, and 2 to 10 % of an anomalous image's pixels are anomalous."""
    anomalous = table[table.label == 1]
    masks, info = images.masks(anomalous, textures.SIDE)
    assert info == {"regions_lost": 0, "no_mask": [], "emptied": []}
    assert 0.02 < masks.mean() < 0.10
