"""Decoding, resizing, the memory-mapped cache and masks: against Pillow, by hand, and on every kind of bad file."""

import io
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from adlib import data, images
from adlib.common.errors import UserError
from adlib.common.paths import cache_root
from adlib.common.pictures import size_of
from adlib.images import Geometry


def noise(height, width, channels=3, seed=0):
    shape = (height, width, channels) if channels > 1 else (height, width)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def table_of(tmp_path, pictures, masks=None, **attrs):
    """A sample table of arrays written as PNG; a mask makes an image anomalous."""
    rows = []
    for i, picture in enumerate(pictures):
        Image.fromarray(picture).save(tmp_path / f"{i}.png")
        mask = masks[i] if masks else None
        if mask is not None:
            Image.fromarray(mask).save(tmp_path / f"{i}_mask.png")
        rows.append((str(tmp_path / f"{i}.png"), int(mask is not None), str(tmp_path / f"{i}_mask.png")))
    table = pd.DataFrame({"path": [r[0] for r in rows], "label": [r[1] for r in rows]})
    table["mask"] = pd.Series([mask if label else None for _, label, mask in rows], dtype=object)
    table.attrs = {"root": str(tmp_path), **attrs}
    return table


def test_grey_is_replicated_to_three_channels(tmp_path):
    grey = noise(5, 7, 1)
    Image.fromarray(grey).save(tmp_path / "a.png")
    decoded = images.decode(tmp_path / "a.png")
    assert decoded.dtype == np.uint8
    np.testing.assert_array_equal(decoded, np.stack([grey] * 3, -1))


def test_16_bit_is_scaled_by_its_maximum_possible_value(tmp_path):
    """65535 / 257 = 255; 257 -> 1, 32768 -> 127.5 -> 128, 300 -> 1.17 -> 1, whatever the highest value is."""
    Image.fromarray(np.array([[0, 257, 32768, 65535, 300]], dtype=np.uint16)).save(tmp_path / "a.png")
    np.testing.assert_array_equal(images.decode(tmp_path / "a.png")[0, :, 0], [0, 1, 128, 255, 1])


def test_16_bit_colour_is_read(tmp_path):
    """Pillow keeps the high byte: 0x1234 -> 0x12, at most one level from 0x1234 / 257."""
    raw = b"\x00" + struct.pack(">3H", 0x1234, 0xFFFF, 0)
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0)), (b"IDAT", zlib.compress(raw)), (b"IEND", b"")]
    png = b"".join(struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks)
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + png)
    np.testing.assert_allclose(images.decode(tmp_path / "a.png")[0, 0], [0x12, 255, 0], atol=1)


def test_alpha_is_dropped_not_blended(tmp_path):
    """A transparent pixel keeps its colour."""
    Image.new("RGBA", (2, 2), (10, 20, 30, 0)).save(tmp_path / "a.png")
    assert images.decode(tmp_path / "a.png")[0, 0].tolist() == [10, 20, 30]


@pytest.mark.parametrize(("mode", "name"), [("P", "a.png"), ("1", "a.png"), ("LA", "a.png"), ("CMYK", "a.jpg")])
def test_palette_bitmap_grey_alpha_and_cmyk_are_converted(tmp_path, mode, name):
    """White stays white in every mode; JPEG's rounding moves it by less than 3."""
    Image.new("RGB", (8, 8), "white").convert(mode).save(tmp_path / name)
    decoded = images.decode(tmp_path / name)
    assert decoded.shape == (8, 8, 3)
    assert decoded.min() >= 253


def truncated_jpeg():
    buffer = io.BytesIO()
    Image.fromarray(noise(64, 64)).save(buffer, "JPEG")
    return buffer.getvalue()[:-200]


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("text.png", b"this is text", "cannot read image .*text.png"),
        ("empty.png", b"", "cannot read image .*empty.png"),
        ("cut.jpg", truncated_jpeg(), "cannot read image .*cut.jpg .*truncated"),
        ("no.png", None, "no.png does not exist; expected a picture file"),
    ],
)
def test_bad_files_are_one_sentence_that_names_them(tmp_path, name, content, sentence):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=sentence):
        images.decode(tmp_path / name)


def test_a_pipe_and_a_device_are_refused_before_they_are_opened(tmp_path):
    """Opening a pipe waits without end for somebody who writes; headers alone are asked with the same care."""
    os.mkfifo(tmp_path / "pipe.png")
    for path in (tmp_path / "pipe.png", "/dev/zero"):
        for read in (images.decode, size_of):
            with pytest.raises(UserError, match="is a pipe, a socket or a device; expected a picture file"):
                read(path)


def test_a_picture_too_narrow_for_a_centre_crop_is_refused_and_a_narrow_one_keeps_its_map():
    """1 x 20000 at a shorter side of 256 would be 1.3e9 pixels; 1 x 300 has its crop within one pixel."""
    crop = images.Geometry(256, "short_crop")
    with pytest.raises(UserError, match=r"1 x 20000 pixels would become 256 x 5120000 .*resize_mode squash"):
        images.resize(np.zeros((20000, 1, 3), np.uint8), crop)
    pasted = images.paste_back(np.full((4, 4), 7.0), (1, 300), images.Geometry(8, "short_crop"))
    assert np.isfinite(pasted).sum() == 1
    assert np.nanmax(pasted) == 7


def test_dangling_link_folder_and_float_pictures_are_named(tmp_path):
    (tmp_path / "link.png").symlink_to("/nowhere.png")
    with pytest.raises(UserError, match=r"link.png is a link to /nowhere.png, which does not exist"):
        images.decode(tmp_path / "link.png")
    with pytest.raises(UserError, match="is a folder; expected a picture file"):
        images.decode(tmp_path)
    Image.fromarray(np.ones((2, 2), np.float32)).save(tmp_path / "f.tif")
    with pytest.raises(UserError, match=r"f.tif holds floating-point numbers"):
        images.decode(tmp_path / "f.tif")


@pytest.mark.parametrize(("height", "width"), [(90, 120), (120, 90), (40, 40), (1, 300)])
def test_squash_is_pillows_bilinear_resize(height, width):
    picture = noise(height, width)
    expected = np.asarray(Image.fromarray(picture).resize((32, 32), Image.Resampling.BILINEAR)).transpose(2, 0, 1)
    np.testing.assert_array_equal(images.resize(picture, Geometry(32)), expected)


@pytest.mark.parametrize(("height", "width"), [(90, 120), (121, 90), (33, 77), (5, 300)])
def test_short_crop_is_torchvisions_resize_and_centre_crop(height, width):
    """329 -> 288 in SimpleNet; here 37 -> 32. Same geometry and same resampling as torchvision on PIL images: equal."""
    transforms = pytest.importorskip("torchvision.transforms.v2")
    picture = noise(height, width)
    expected = transforms.CenterCrop(32)(transforms.Resize(37)(Image.fromarray(picture)))
    result = images.resize(picture, Geometry(32, "short_crop", 37))
    np.testing.assert_array_equal(result, np.asarray(expected).transpose(2, 0, 1))


def test_plain_resampling_is_without_antialiasing():
    """4 -> 2: each output pixel lies between 2x2 neighbours, so it is their mean; 64 -> 8 skips most pixels."""
    picture = noise(4, 4)
    expected = picture.reshape(2, 2, 2, 2, 3).mean((1, 3)).round().transpose(2, 0, 1)
    result = images.resize(picture, Geometry(2, resample="plain"))
    np.testing.assert_allclose(result, expected, atol=1)  # rounding of halves
    wide = noise(64, 64)
    plain, smooth = (images.resize(wide, Geometry(8, resample=name)).astype(float) for name in images.RESAMPLES[::-1])
    assert plain.std() > 2 * smooth.std()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((0,), "image_size 0 is not"),
        ((8, "crop"), r"unknown resize_mode 'crop'; did you mean 'short_crop'\? valid: squash, short_crop"),
        ((8, "squash", 10), "resize 10 has no meaning"),
        ((8, "short_crop", 7), "resize 7 is smaller than image_size 8"),
        ((8, "squash", None, "cubic"), "unknown resample 'cubic'; valid: antialias, plain"),
    ],
)
def test_geometry_refuses_nonsense(arguments, sentence):
    with pytest.raises(UserError, match=sentence):
        Geometry(*arguments)


def test_geometry_at_another_side_shows_the_same_part():
    """329 -> 288 at side 72 is 82.25 -> 82; squash only changes the side."""
    assert Geometry(288, "short_crop", 329).at(72) == Geometry(72, "short_crop", 82)
    assert Geometry(288).at(72) == Geometry(72)


def test_paste_back_puts_a_map_where_the_crop_was():
    """100 x 200, short side to 50 (scale 2), crop 40: rows 10..90, columns 60..140 of the picture; NaN around."""
    geometry = Geometry(40, "short_crop", 50)
    assert images.crop_box((100, 200), geometry) == (60, 10, 140, 90)
    canvas = images.paste_back(np.ones((5, 5)), (100, 200), geometry)
    assert canvas.shape == (100, 200)
    assert np.all(canvas[10:90, 60:140] == 1)
    assert np.isnan(canvas).sum() == 100 * 200 - 80 * 80


def test_paste_back_of_a_squashed_map_covers_the_picture():
    canvas = images.paste_back(np.array([[0.0, 1.0]]), (6, 8), Geometry(32))
    assert canvas.shape == (6, 8)
    assert canvas[:, 0].max() == 0
    assert canvas[:, -1].min() == 1


def test_to_float_is_0_to_1():
    tensor = images.to_float(np.array([0, 51, 255], dtype=np.uint8))
    assert tensor.dtype == torch.float32
    torch.testing.assert_close(tensor, torch.tensor([0.0, 0.2, 1.0]))
    torch.testing.assert_close(images.to_float(torch.tensor([255], dtype=torch.uint8)), torch.ones(1))


def test_cache_holds_every_row_in_order(tmp_path):
    table = table_of(tmp_path, [noise(20, 30, seed=i) for i in range(70)])  # more than one chunk
    cache = images.cached(table, Geometry(16))
    assert isinstance(cache, np.memmap)
    assert (cache.shape, cache.dtype) == ((70, 3, 16, 16), np.uint8)
    for i in (0, 63, 64, 69):
        np.testing.assert_array_equal(cache[i], images.resize(noise(20, 30, seed=i), Geometry(16)))


def test_second_call_decodes_nothing_and_selections_keep_their_order(tmp_path, monkeypatch):
    table = table_of(tmp_path, [noise(9, 9, seed=i) for i in range(4)], fingerprint="f")
    first = np.array(images.cached(table, Geometry(8)))
    backwards = np.array(images.cached(table[::-1], Geometry(8)))
    np.testing.assert_array_equal(backwards, first[::-1])
    monkeypatch.setattr(images, "decode", lambda path: pytest.fail("decoded again"))
    np.testing.assert_array_equal(images.cached(table, Geometry(8)), first)


def test_other_content_or_geometry_is_another_cache(tmp_path):
    table = table_of(tmp_path, [noise(9, 9)])
    first = np.array(images.cached(table, Geometry(8)))
    assert images.cached(table, Geometry(8, "short_crop", 9)).shape == first.shape
    table = table_of(tmp_path, [255 - noise(9, 9)])
    assert not np.array_equal(images.cached(table, Geometry(8)), first)


def test_writing_into_the_array_never_reaches_the_cache(tmp_path):
    table = table_of(tmp_path, [noise(9, 9)])
    with pytest.raises(ValueError, match="read-only"):
        images.cached(table, Geometry(8))[:] = 0
    assert images.cached(table, Geometry(8)).any()


def cache_files():
    return sorted((cache_root() / "images").iterdir())


@pytest.mark.parametrize("keep", [0, 60, 200])
def test_a_cut_cache_file_is_made_again(tmp_path, keep):
    table = table_of(tmp_path, [noise(9, 9)])
    first = np.array(images.cached(table, Geometry(8)))
    (path,) = cache_files()
    path.write_bytes(path.read_bytes()[:keep])
    np.testing.assert_array_equal(images.cached(table, Geometry(8)), first)


def test_a_bad_image_leaves_no_file_behind(tmp_path):
    table = table_of(tmp_path, [noise(9, 9), noise(9, 9)])
    (tmp_path / "1.png").write_text("text")
    with pytest.raises(UserError, match=r"cannot read image .*1.png"):
        images.cached(table, Geometry(8))
    assert cache_files() == []


def test_a_full_disk_is_one_sentence_and_leaves_no_file_behind(tmp_path):
    """A limit of 4 kB per file stands for the full disk: 3 x 64 x 64 = 12,288 bytes are needed."""
    pytest.importorskip("resource")
    Image.fromarray(noise(9, 9)).save(tmp_path / "0.png")
    code = (
        "import resource, pandas as pd; from adlib import images\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        f"table = pd.DataFrame({{'path': [{str(tmp_path / '0.png')!r}]}})\n"
        "table.attrs['fingerprint'] = 'f'\n"
        "images.cached(table, images.Geometry(64))"
    )
    project = Path(images.__file__).parent.parent
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=project, env=os.environ)
    last = done.stderr.strip().splitlines()[-1]
    assert "UserError: cannot write the image cache" in last
    assert str(cache_root()) in last
    assert "0.0 MB needed" in last
    assert cache_files() == []


def test_a_cache_that_cannot_be_made_is_one_sentence(tmp_path, monkeypatch):
    table = table_of(tmp_path, [noise(9, 9)], fingerprint="f")
    (tmp_path / "cache" / "images").parent.mkdir(exist_ok=True)
    (tmp_path / "cache" / "images").write_text("")
    monkeypatch.setenv("ADLIB_CACHE", str(tmp_path / "cache"))
    with pytest.raises(UserError, match=r"cannot write the image cache .*set ADLIB_CACHE"):
        images.cached(table, Geometry(8))


def spots(*points, side=64, size=1):
    mask = np.zeros((side, side), dtype=np.uint8)
    for y, x in points:
        mask[y : y + size, x : x + size] = 255
    return mask


def test_masks_by_hand(tmp_path):
    """64 -> 16 takes the pixel at 4i + 2: a spot at (2, 2) stays, one at (1, 1) is lost; normal images are False."""
    blank = noise(64, 64)
    table = table_of(tmp_path, [blank] * 4, [None, spots((2, 2), (1, 40)), spots((1, 1)), spots()])
    masks, info = images.masks(table, 16)
    assert masks.dtype == bool
    assert [m.sum() for m in masks] == [0, 1, 0, 0]
    assert masks[1, 0, 0]
    assert info == {"regions_lost": 2, "no_mask": [3], "emptied": [2]}


def test_regions_are_8_connected(tmp_path):
    """Two pixels that touch at a corner are one region, and one of them is enough to keep it."""
    table = table_of(tmp_path, [noise(64, 64)], [spots((1, 1), (2, 2))])
    assert images.masks(table, 16)[1]["regions_lost"] == 0


def test_anomalous_images_without_mask_are_listed(tmp_path):
    table = table_of(tmp_path, [noise(8, 8)] * 2)
    table["label"] = [0, 1]
    assert images.masks(table, 4)[1]["no_mask"] == [1]
    table["mask"] = np.nan  # as a table has it that went through CSV
    assert images.masks(table, 4)[1]["no_mask"] == [1]


def test_mask_threshold_comes_from_the_table(tmp_path):
    """127 is not anomalous under > 127 (mtd) but is under > 0."""
    grey = np.full((8, 8), 127, np.uint8)
    grey[0, 0] = 128
    table = table_of(tmp_path, [noise(8, 8)], [grey])
    assert images.masks(table, 8)[0].sum() == 64
    table.attrs["mask_threshold"] = 127
    assert images.masks(table, 8)[0].sum() == 1


@pytest.mark.parametrize("mode", ["1", "P", "L", "RGB"])
def test_masks_of_any_mode_are_read(tmp_path, mode):
    table = table_of(tmp_path, [noise(64, 64)], [spots((2, 2))])
    Image.fromarray(spots((2, 2))).convert(mode).save(table["mask"][0])
    assert images.masks(table, 64)[0].sum() == 1


def test_masks_follow_the_crop(tmp_path):
    """100 x 200 -> 50 x 100 -> crop 40: the box rows 10..90, columns 60..140 fills the grid, the rest is cut away."""
    mask = np.zeros((100, 200), np.uint8)
    mask[10:90, 60:140] = 1
    table = table_of(tmp_path, [noise(100, 200)], [mask])
    assert images.masks(table, Geometry(40, "short_crop", 50))[0].all()
    mask[:] = 0
    mask[:, :50] = 255
    table = table_of(tmp_path, [noise(100, 200)], [mask])
    assert images.masks(table, Geometry(40, "short_crop", 50))[1] == {"regions_lost": 1, "no_mask": [], "emptied": [0]}


def test_mask_of_another_size_names_both_sizes_and_the_file(tmp_path):
    table = table_of(tmp_path, [noise(8, 9)], [spots(side=4)])
    with pytest.raises(UserError, match=r"0_mask.png is 4x4 but its image .*0.png is 9x8"):
        images.masks(table, 4)


def test_unknown_rule_lists_the_valid_ones(tmp_path):
    with pytest.raises(UserError, match="unknown mask_rule 'max'; valid: nearest, half, any, exact_one"):
        images.masks(table_of(tmp_path, [noise(8, 8)]), 4, "max")


def ellipses(seed, side=1024, count=4):
    """Defects with semi-axes of 8 to 60 pixels."""
    rng, (y, x) = np.random.default_rng(seed), np.mgrid[:side, :side]
    mask = np.zeros((side, side), bool)
    for _ in range(count):
        (cy, cx), (a, b) = rng.uniform(0, side, 2), rng.uniform(8, 60, 2)
        mask |= ((y - cy) / a) ** 2 + ((x - cx) / b) ** 2 < 1
    return mask.astype(np.uint8) * 255


def test_mask_rules_keep_grow_and_shrink_the_area(tmp_path):
    """Section 2 of the protocol, 1024 -> 329 -> 288: nearest and half 1.00, any 1.19, SimpleNet's code 0.82 of the
    area, which are the numbers of PIL's low-pass. Its ellipses are not ours, hence 0.03.

    Without a low-pass a border pixel reaches half as far as one of the full mask, not of the grid: 0.97 and 1.03.
    """
    full = [ellipses(seed) for seed in range(6)]
    table = table_of(tmp_path, [np.zeros((1024, 1024), np.uint8)] * 6, full)
    true = np.mean([mask[64:960, 64:960] > 0 for mask in full])  # the crop: 288 / 329 of the side

    def area(rule, resample="antialias"):
        return images.masks(table, Geometry(288, "short_crop", 329, resample), rule)[0].mean() / true

    assert area("nearest") == pytest.approx(1, abs=0.02)
    assert area("half") == pytest.approx(1, abs=0.02)
    assert area("any") == pytest.approx(1.19, abs=0.03)
    assert area("exact_one_antialias") == pytest.approx(0.82, abs=0.03)
    assert area("any", "plain") == pytest.approx(1.03, abs=0.02)
    assert area("half", "plain") == pytest.approx(1, abs=0.02)
    assert area("exact_one") == area("exact_one", "plain") == pytest.approx(0.97, abs=0.02)


@pytest.mark.parametrize("resample", images.RESAMPLES)
def test_exact_one_is_the_rule_of_draems_code(tmp_path, golden, resample):
    """OpenCV resizes 80 x 100 to 32 x 32 without a low-pass and keeps what is full: 167 pixels, the same ones."""
    g = golden("draem")
    table = table_of(tmp_path, [noise(80, 100)], [g["resize_mask_in"].squeeze()])
    grid = images.masks(table, Geometry(32, resample=resample), "exact_one")[0][0]
    assert grid.sum() == 167
    np.testing.assert_array_equal(grid, g["resize_mask_out"].squeeze() > 0)


def test_half_and_any_are_resampled_as_the_pictures_are(tmp_path, golden):
    """The mask by F.interpolate without a low-pass: 190 pixels reach a half (specs/draem.md, 8), 203 exceed 0."""
    full = golden("draem")["resize_mask_in"].squeeze()
    table = table_of(tmp_path, [noise(80, 100)], [full])
    share = torch.nn.functional.interpolate(torch.from_numpy(full / 255)[None, None], (32, 32), mode="bilinear")[0, 0]
    for rule, expected, count in (("half", share >= 0.5, 190), ("any", share > 0, 203)):
        grid = images.masks(table, Geometry(32, resample="plain"), rule)[0][0]
        np.testing.assert_array_equal(grid, expected.numpy())
        assert grid.sum() == count
        assert not np.array_equal(grid, images.masks(table, Geometry(32), rule)[0][0])


@pytest.mark.parametrize("rule", ["half", "exact_one", "exact_one_antialias"])
def test_bilinear_rules_lose_a_single_pixel_and_any_keeps_it(tmp_path, rule):
    """One pixel of 64 x 64 covers a sixteenth of a cell of the 16 x 16 grid: neither half nor all of it."""
    table = table_of(tmp_path, [noise(64, 64)], [spots((2, 2), (20, 20), (40, 40))])
    assert images.masks(table, 16, rule)[1] == {"regions_lost": 3, "no_mask": [], "emptied": [0]}
    assert images.masks(table, 16, "any")[1]["regions_lost"] == 0


def test_real_masks_keep_their_area(shared):
    """bottle: 63 masks, 256 -> 128 by nearest: area 1.00 of the true one, no region lost."""
    table = data.load("mvtec_ad", "bottle", root=shared / "data/mvtec_ad")
    anomalous = table[table.label == 1]
    true = np.mean([np.asarray(Image.open(path)) > 0 for path in anomalous["mask"]])
    masks, info = images.masks(anomalous, 128)
    assert masks.mean() / true == pytest.approx(1, abs=0.005)
    assert info["no_mask"] == []


def test_real_tiles_without_a_mask_are_the_four_known_ones(shared):
    table = data.load("mtd", root=shared / "data/mtd")
    test = table[table.split == "test"]
    masks, info = images.masks(test, 64)
    stems = {Path(test.path.iloc[i]).stem for i in info["no_mask"]}
    assert stems == {"exp3_num_45042", "exp4_num_124690", "exp4_num_352527", "exp4_num_45057"}
    assert not masks[(test.label == 0).to_numpy()].any()
