"""The made data set: exact masks, parts that share no pixel, and not solvable by looking at pixels alone."""

import hashlib
import itertools
import threading
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
from adlib.data.textures import SIDE


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """All categories, made once for this file; the cache of a single test would be thrown away after it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ADLIB_CACHE", str(tmp_path_factory.mktemp("textures")))
        yield {category: data.load("textures", category) for category in data.categories("textures")}


@pytest.fixture(params=textures.CATEGORIES)
def table(tables, request):
    return tables[request.param]


def pixels(path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def corners(table) -> dict[str, tuple[int, int]]:
    """(row, column) in the photograph, its right half turned where brick's is, by path: found by pixels alone.

    Of a defective picture those outside of its mask are compared, 60 of them.
    """
    windows = np.lib.stride_tricks.sliding_window_view(textures._photograph(table.attrs["category"]), (SIDE, SIDE))
    places = {}
    for row in table.itertuples():
        untouched = pixels(row.mask) == 0 if row.mask else np.ones((SIDE, SIDE), bool)
        y, x = np.nonzero(untouched)
        keep = np.random.default_rng(0).choice(len(y), 60, replace=False)
        values = pixels(row.path)[y[keep], x[keep]]
        candidates = np.argwhere(windows[:, :, y[keep[0]], x[keep[0]]] == values[0])
        for k, value in zip(keep[1:], values[1:], strict=True):
            candidates = candidates[windows[candidates[:, 0], candidates[:, 1], y[k], x[k]] == value]
        assert len(candidates) == 1
        places[row.path] = tuple(candidates[0].tolist())
    return places


def test_counts_are_80_train_40_normal_and_12_of_each_of_five_kinds(table):
    counts = table.groupby(["split", "defect"]).size().to_dict()
    kinds = {("test", kind): 12 for kind in ("contamination", "scratch", "stain", "swirl", "thread")}
    assert counts == {("train", "good"): 80, ("test", "good"): 40, **kinds}
    assert table[table.label == 1]["mask"].notna().all()


def test_no_crop_comes_twice_and_fitted_held_and_test_crops_share_no_pixel(table):
    """Each of the 180 crops is looked for in the photograph: its place, and which pixels it covers.

    A held-back crop that overlaps a fitted one scores as if it had been fitted, so a threshold from it is too low.
    """
    places = corners(table)
    assert len(set(places.values())) == 180
    fit, held = data.holdback(table)
    assert (len(fit), len(held)) == (72, 8)
    cover = {}
    for part, rows in (("fit", fit), ("held", held), ("test", table[table.split == "test"])):
        cover[part] = np.zeros((512, 512), bool)
        for y, x in (places[path] for path in rows.path):
            cover[part][y : y + SIDE, x : x + SIDE] = True
    for one, other in itertools.combinations(cover.values(), 2):
        assert not (one & other).any()


def test_a_mask_holds_exactly_the_pixels_that_differ(table):
    """Every True pixel differs from the photograph, every False one is equal; the change is visible and balanced.

    Visible: at least 10 grey levels on the mean over the mask. Balanced: mean change below 5 (clipping at 0 and 255).
    """
    places, photograph = corners(table[table.label == 1]), textures._photograph(table.attrs["category"])
    for row in table[table.label == 1].itertuples():
        y, x = places[row.path]
        image, normal = pixels(row.path), photograph[y : y + SIDE, x : x + SIDE]
        mask = image != normal
        np.testing.assert_array_equal(pixels(row.mask), 255 * mask.astype(np.uint8))
        change = (image.astype(float) - normal)[mask]
        assert np.abs(change).mean() >= 10
        assert abs(change.mean()) < 5


def test_the_right_half_of_brick_is_mirrored_and_nothing_else_is_changed():
    """The halves are the photograph's own pixels: left as they are, right in the mirror for brick only."""
    for category in textures.CATEGORIES:
        whole = pixels(Path(skimage.__file__).parent / f"data/{category}.png")
        right = whole[:, 256:]
        if category == "brick":
            right = right[:, ::-1]
        np.testing.assert_array_equal(textures._photograph(category), np.hstack([whole[:, :256], right]))


def nearest(rows, train):
    """Euclidean distance of every row to the nearest training row: [N]."""
    rows = rows.reshape(len(rows), -1).astype(np.float64)
    square = (rows**2).sum(1)
    return np.sqrt(np.maximum(square[:, None] + square[train] - 2 * rows @ rows[train].T, 0).min(1))


def test_trivial_scores_do_not_solve_it(table):
    """Image AUROC below 0.75, in either direction, for mean grey; for the nearest neighbour at 32x32 and in full."""
    test, train = (table.split == "test").to_numpy(), (table.split == "train").to_numpy()
    labels = table.label[test]
    full = np.stack([pixels(path) for path in table.path])
    grey = roc_auc_score(labels, full[test].mean((1, 2)))
    small = np.stack([np.asarray(Image.fromarray(p).resize((32, 32), Image.Resampling.BILINEAR)) for p in full])
    distances = [roc_auc_score(labels, nearest(p, train)[test]) for p in (full, small)]
    assert max(grey, 1 - grey, *distances) < 0.75


def test_pictures_are_those_of_version_2(tables):
    """A change of any pixel must raise VERSION, or caches and results of two kinds of pictures would be mixed."""
    digest = hashlib.sha256()
    for table in tables.values():
        for path in [*table.path, *table["mask"].dropna()]:
            digest.update(pixels(path).tobytes())
    assert (textures.VERSION, digest.hexdigest()[:16]) == (2, "828bf3c8b74147a1")


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
    assert [path.name for path in (cache_root() / "textures/v2").iterdir()] == [".grass.lock"]


def test_several_at_once_make_them_once(monkeypatch):
    """The others wait for the lock and take what the first has made."""
    calls = []

    def draw(folder, category, original=textures._draw):
        calls.append(category)
        original(folder, category)

    monkeypatch.setattr(textures, "_draw", draw)
    threads = [
        threading.Thread(target=textures._make, args=(cache_root() / "textures/v2/grass", "grass")) for _ in "ab"
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert calls == ["grass"]
    assert len(data.load("textures", "grass")) == 180


def test_a_cache_that_cannot_be_written_is_one_sentence(tmp_path, monkeypatch):
    (tmp_path / "textures").write_text("")
    monkeypatch.setenv("ADLIB_CACHE", str(tmp_path))
    with pytest.raises(UserError, match=r"cannot make the pictures of textures in .*textures.*set ADLIB_CACHE"):
        data.load("textures", "grass")


def test_masks_survive_the_usual_grid(table):
    """Native side 128: nothing is lost, and 2 to 10 % of an anomalous image's pixels are anomalous."""
    masks, info = images.masks(table[table.label == 1], SIDE)
    assert info == {"regions_lost": 0, "no_mask": [], "emptied": []}
    assert 0.02 < masks.mean() < 0.10
