"""Pictures of any shape: pad and tiles by hand, masks and padding on their grids, maps stitched from views."""

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from adlib import images
from adlib.common.errors import UserError
from adlib.images import MASK_RULES, Geometry
from adlib.models.config import Config
from adlib.views import Stitcher, Views, window

PAD, TILES = Geometry(256, "pad"), Geometry(256, "tiles")


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def saved(folder, shapes) -> pd.DataFrame:
    """A sample table of normal pictures of these (height, width)."""
    for i, shape in enumerate(shapes):
        Image.fromarray(noise(*shape)).save(folder / f"{i}.png")
    paths = [str(folder / f"{i}.png") for i in range(len(shapes))]
    return pd.DataFrame({"path": paths, "split": "train", "label": 0, "defect": "good", "mask": None})


def test_pad_by_hand():
    """500 x 1250 at S = 256: 256 / 1250 of 500 is 102.4 -> 102 rows, with (256 - 102) / 2 = 77 above: rows 77-178."""
    assert PAD.resized(500, 1250) == (102, 256)
    assert PAD.inside(500, 1250) == (slice(77, 179), slice(0, 256))
    assert PAD.inside(1250, 500) == (slice(0, 256), slice(77, 179))
    assert PAD.at(128).inside(500, 1250) == (slice(38, 89), slice(0, 128))  # 51.2 -> 51 rows; 38.5 rounds to even
    assert PAD.inside(1, 5000) == (slice(128, 129), slice(0, 256))  # never thinner than a pixel; 127.5 rounds to even


@pytest.mark.xfail(
    strict=True, reason="round(-0.5) is 0: one missing row is not padded, and the cache cannot be opened"
)
def test_a_picture_that_lacks_one_row_is_padded_too():
    """95 x 96 pixels at side 96: one row is missing. Mending it changes the code of every run; do it with new runs."""
    picture = np.zeros((95, 96, 3), np.uint8)
    assert images.resize(picture, Geometry(96, "pad")).shape == (3, 96, 96)


def test_a_padded_picture_lies_undistorted_in_the_middle_and_goes_on_mirrored():
    picture = noise(40, 100)
    padded = images.resize(picture, Geometry(50, "pad"))
    inside = np.asarray(Image.fromarray(picture).resize((50, 20), Image.Resampling.BILINEAR)).transpose(2, 0, 1)
    np.testing.assert_array_equal(padded[:, 15:35], inside)
    np.testing.assert_array_equal(padded[:, :15], inside[:, 14::-1])
    np.testing.assert_array_equal(padded[:, 35:], inside[:, :4:-1])


def test_tiles_by_hand():
    """500 x 1250 at S = 256: 256 x 640, windows every 128 pixels up to 640 - 256 = 384; the last one flush."""
    assert TILES.resized(500, 1250) == (256, 640)
    assert TILES.windows(500, 1250) == [(0, 0), (0, 128), (0, 256), (0, 384)]
    assert Geometry(256, "tiles", stride=200).windows(500, 1250) == [(0, 0), (0, 200), (0, 384)]
    assert Geometry(256, "tiles", 300, stride=256).windows(300, 300) == [(0, 0), (0, 44), (44, 0), (44, 44)]
    assert TILES.windows(90, 90) == [(0, 0)]


@pytest.mark.parametrize("resample", images.RESAMPLES)
def test_tiles_are_windows_of_the_resized_picture(resample):
    picture, geometry = noise(60, 150), Geometry(32, "tiles", 48, resample, 20)
    whole = images._scaled(picture, geometry, resample)
    tiles = images.cut(picture, geometry)
    assert whole.shape == (48, 120, 3)
    assert tiles.shape == (2 * 6, 3, 32, 32)
    for tile, (top, left) in zip(tiles, geometry.windows(60, 150), strict=True):
        np.testing.assert_array_equal(tile.transpose(1, 2, 0), whole[top : top + 32, left : left + 32])


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"resize_mode": "pad", "resize": 300}, "resize 300 has no meaning with resize_mode 'pad'"),
        ({"resize_mode": "pad", "stride": 64}, "stride 64 has no meaning with resize_mode 'pad'"),
        ({"stride": 64}, "stride 64 has no meaning with resize_mode 'squash'"),
        ({"resize_mode": "tiles", "stride": 257}, "stride 257 is not in 1 to image_size 256"),
        ({"resize_mode": "tiles", "resize": 200}, "resize 200 is smaller than image_size 256"),
        ({"resize_mode": "tiles", "stride": 4}, "'stride' is 4; it must be at least 8"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings, sentence):
    with pytest.raises(UserError, match=sentence):
        Config(**settings)


def test_one_grid_for_tiles_must_be_asked_for(tmp_path):
    """Row i of a cache of tiles is not picture i: who does not say that he knows is refused."""
    for call in (
        lambda: images.resize(noise(20, 50), Geometry(16, "tiles")),
        lambda: images.cached(saved(tmp_path, [(20, 50)]), Geometry(16, "tiles")),
    ):
        with pytest.raises(UserError, match="'tiles' makes several inputs of a picture"):
            call()
    assert Geometry(16, "tiles", 20, stride=8).at(48) == Geometry(48, "pad")


def test_the_cache_of_tiles_holds_those_of_each_picture_in_turn(tmp_path):
    """Shapes from headers: 1 + 4 + 4 tiles; another stride is another cache."""
    table, geometry = saved(tmp_path, [(40, 40), (40, 100), (100, 40)]), Geometry(16, "tiles")
    views, cache = Views.of(table, geometry), images.cached(table, geometry, views=True)
    assert np.diff(views.starts).tolist() == [1, 4, 4]
    assert cache.shape == (9, 3, 16, 16)
    for i, path in enumerate(table.path):
        np.testing.assert_array_equal(cache[views.rows([i])], images.cut(images.decode(path), geometry))
    assert len(images.cached(table, Geometry(16, "tiles", stride=16), views=True)) == 1 + 3 + 3


def test_a_file_that_is_no_picture_is_named_before_anything_is_cut(tmp_path):
    table = saved(tmp_path, [(40, 40)])
    (tmp_path / "0.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"cannot read image .*0\.png"):
        Views.of(table, PAD)


def test_rows_of_a_selection_and_its_own_count():
    views = Views.of_sizes([(40, 40), (40, 100), (100, 40)], Geometry(16, "tiles"))
    assert views.rows([2, 0]).tolist() == [5, 6, 7, 8, 0]
    assert views.subset([2, 0]).starts.tolist() == [0, 4, 5]
    assert views.rows(np.array([], int)).tolist() == []
    plain = Views.of_sizes([(40, 40), (40, 100)], Geometry(16))
    assert plain.rows([1, 0]).tolist() == [1, 0]
    assert plain.valid(16) is None


@pytest.mark.parametrize("geometry", [PAD, TILES])
@pytest.mark.parametrize("rule", MASK_RULES)
def test_masks_lie_where_their_picture_does_for_every_rule(geometry, rule, tmp_path):
    """An anomalous picture that is anomalous everywhere: exactly the valid rectangle of the evaluation grid."""
    table = saved(tmp_path, [(50, 125)])
    Image.fromarray(np.full((50, 125), 255, np.uint8)).save(tmp_path / "mask.png")
    table = table.assign(label=1, mask=str(tmp_path / "mask.png"))
    grid, valid = images.masks(table, geometry, rule)[0], Views.of(table, geometry).valid(256)
    np.testing.assert_array_equal(grid, valid)
    assert valid[0, 77:179].all()
    assert valid.sum() == 102 * 256


@pytest.mark.parametrize("rule", ["nearest", "any"])
def test_a_defect_of_2_by_60_pixels_survives(rule, tmp_path):
    """500 x 1250 on the grid of tiles (640, 0.512 of the original) has at least one row of it, on every line."""
    table = saved(tmp_path, [(500, 1250)])
    for top in range(100, 110):
        mask = np.zeros((500, 1250), np.uint8)
        mask[top : top + 2, 300:360] = 255
        Image.fromarray(mask).save(tmp_path / "mask.png")
        grid, info = images.masks(table.assign(label=1, mask=str(tmp_path / "mask.png")), TILES.at(640), rule)
        assert info["regions_lost"] == 0
        assert grid.any(1).sum() >= 30


def test_a_cell_counts_where_its_middle_lies_in_the_picture():
    """16 cells of 16 pixels; rows 77 to 178 hold the middles 88, 104, ..., 168: cells 5 to 10. A line has one cell."""
    views = Views.of_sizes([(500, 1250), (1, 1250), (1250, 500)], PAD)
    cells = views.cells(0, (3, 16, 16))
    assert np.flatnonzero(cells[0].all(1)).tolist() == [5, 6, 7, 8, 9, 10]
    assert np.flatnonzero(cells[1].all(1)).tolist() == [8]
    assert np.flatnonzero(cells[2].all(0)).tolist() == [5, 6, 7, 8, 9, 10]
    assert views.cells(2, (1, 16, 16)).tolist() == cells[2:].tolist()


def stitch(views: Views, maps: torch.Tensor, scores: torch.Tensor, batch: int) -> list:
    stitcher, finished = Stitcher(views), []
    for start in range(0, len(maps), batch):
        finished += stitcher.add(scores[start : start + batch], maps[start : start + batch])
    return finished


@pytest.mark.parametrize("batch", [1, 3, 100])
@pytest.mark.parametrize("stride", [None, 5, 16])
def test_tiles_that_agree_give_the_map_they_were_cut_from(batch, stride):
    """Constants and a ramp over two pictures, whatever the batches: each place has the value that all its tiles say."""
    sizes, geometry = [(40, 100), (100, 40), (16, 16)], Geometry(16, "tiles", 24, stride=stride)
    views = Views.of_sizes(sizes, geometry)
    for slope in (0.0, 1.0):
        wholes, maps = [], []
        for size in sizes:
            height, width = geometry.resized(*size)
            wholes.append(7 + slope * torch.arange(height)[:, None] - 2 * slope * torch.arange(width))
            maps += [wholes[-1][y : y + 16, x : x + 16] for y, x in geometry.windows(*size)]
        scores = torch.arange(len(maps)).float()
        finished = stitch(views, torch.stack(maps), scores, batch)
        assert [score.item() for score, _ in finished] == (views.starts[1:] - 1).tolist()  # the highest is the last
        for (_, stitched), whole in zip(finished, wholes, strict=True):
            torch.testing.assert_close(stitched, whole.float())


def test_a_tile_weighs_most_in_its_middle_and_nowhere_nothing():
    """Side 4: 1, 2, 2, 1 halves in each direction."""
    line = torch.tensor([0.5, 1.0, 1.0, 0.5])
    torch.testing.assert_close(window(4), line[:, None] * line)


def test_a_map_on_the_grid_is_empty_in_the_padding():
    """A picture of 20 x 50 on 10 x 10: rows 3 to 6, bilinear; NaN elsewhere."""
    views = Views.of_sizes([(20, 50)], Geometry(25, "tiles", stride=20))
    grid = views.on_grid(0, torch.ones(10, 25), 10)
    assert torch.equal(grid[3:7], torch.ones(4, 10))
    assert grid[:3].isnan().all()
    assert grid[7:].isnan().all()


def test_brightness_leaves_padding_out():
    """A picture with a dark upper half, padded: its mean is its own, not that of the mirrored pad (5 rows of each)."""
    picture = np.zeros((6, 18, 3), np.uint8)
    picture[0] = 240
    views = Views.of_sizes([(6, 18)], Geometry(18, "pad"))
    assert views.levels(images.cut(picture, Geometry(18, "pad")), [0]) == pytest.approx([40])


def test_brightness_counts_each_pixel_of_a_tiled_picture_once():
    """A bright middle lies in more tiles than the dark ends; the level is that of the picture all the same."""
    picture = np.zeros((8, 24, 3), np.uint8)
    picture[:, 8:16] = 240
    geometry = Geometry(8, "tiles", stride=2)
    views = Views.of_sizes([(8, 24)], geometry)
    assert views.levels(images.cut(picture, geometry), [0]) == pytest.approx([80])
