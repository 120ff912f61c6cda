"""What a data set and its settings do to each other, said before training: duplicates, aspect, thin defects."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from adlib import data
from adlib.data import cautions
from adlib.data.inspection import describe
from adlib.images import Geometry


def geometry(mode: str, image_size: int = 64, resize: int | None = None):
    """As Geometry, of modes that it may not know yet, too."""
    return SimpleNamespace(resize_mode=mode, image_size=image_size, resize=resize)


def tall(root, thickness: int, width: int = 80, height: int = 200):
    """The table of a folder of pictures with a horizontal crack, 60 pixels long, in each defective one."""
    rng = np.random.default_rng(0)
    for folder, count in (("normal", 10), ("crack", 4), ("masks/crack", 4)):
        (root / folder).mkdir(parents=True)
        for k in range(count):
            pixels = rng.integers(0, 255, (height, width), dtype=np.uint8)
            if folder == "masks/crack":
                pixels = np.zeros((height, width), np.uint8)
                pixels[100 : 100 + thickness, 10:70] = 255
            Image.fromarray(pixels).save(root / folder / f"{k}.png")
    return data.load("folder", root=root)


def test_thickness_is_that_of_the_widest_place_in_pixels_of_the_grid():
    """A line of 3 x 30 is 3 thick, half of that at half the size; squashed 2:1 it is 1.5 where it lies flat. A diagonal
    of single pixels is 1 thick; a line at the border is as thick as one inside.
    """
    mask = np.zeros((40, 40), bool)
    mask[10:13, 5:35] = True
    flat = cautions._of_mask(mask, Geometry(20))
    assert [(r.here, r.native, r.short, r.long) for r in flat] == [pytest.approx((1.5, 3, 40, 40))]
    squashed = np.pad(mask, ((0, 40), (0, 0)))  # 80 rows to 40: only the vertical is halved
    assert cautions._of_mask(squashed, Geometry(40))[0].here == pytest.approx(1.5)
    assert cautions._of_mask(squashed.T, Geometry(40))[0].here == pytest.approx(1.5)
    assert cautions._of_mask(np.eye(40, dtype=bool), Geometry(40))[0].native == pytest.approx(1)
    assert cautions._of_mask(np.eye(40, dtype=bool)[:4] | (np.arange(4) < 2)[:, None], Geometry(40))[0].native >= 2


def test_scales_of_every_mode_by_hand():
    """500 x 1250 (width x height): squash 256/1250 and 256/500; pad 256/1250; the shorter side to 320, or to 256."""
    size = (500, 1250)
    assert cautions.scales(size, geometry("squash", 256)) == (256 / 1250, 256 / 500)
    assert cautions.scales(size, geometry("pad", 256)) == (256 / 1250, 256 / 1250)
    assert cautions.scales(size, geometry("tiles", 256)) == (256 / 500, 256 / 500)
    assert cautions.scales(size, geometry("short_crop", 256, 320)) == (320 / 500, 320 / 500)


def test_squash_says_how_much_it_distorts_and_what_to_set(tmp_path):
    """80 x 200: aspect 2.5. A crack of 8 pixels is 64/200 x 8 = 2.56 thick when padded: pad is enough."""
    assert cautions.cautions(tall(tmp_path, 8), Geometry(64)) == [
        "pictures of 80 x 200 (width x height, median; aspect 2.5) are squashed to 64 x 64, distorted 2.5 times; set"
        " resize_mode pad, resize none, or resize_mode tiles"
    ]


def test_the_centre_crop_says_what_it_leaves_out(tmp_path):
    """Shorter side 80 to 64: 64 x 160; the middle 64 x 64 is 40 % of it. Paper: 72 before the crop: 64²/(72 x 180)."""
    table = tall(tmp_path, 8)
    (sentence,) = cautions.cautions(table, Geometry(64, "short_crop"))
    assert (
        "lose 60 % of their area to the centre crop of 64 x 64; set resize_mode pad, resize none, or resize_mode tiles"
        in sentence
    )
    (sentence,) = cautions.cautions(table, Geometry(64, "short_crop", 72))
    assert "lose 68 % of their area" in sentence
    assert sentence.endswith("set resize_mode pad, resize none, or resize_mode tiles")


def test_thin_defects_are_counted_and_every_advice_is_enough(tmp_path):
    """A crack of 2 pixels: 0.64 squashed, 1.6 in tiles with a shorter side of 64; at 96 it is 2.4."""
    table = tall(tmp_path, 2)
    (sentence,) = cautions.cautions(table, Geometry(64))
    assert sentence.endswith(
        "; 4 of 4 defect regions are nowhere 2 pixels thick on the grid; set resize_mode tiles and resize 96, or"
        " resize_mode pad, resize none and image_size 224"
    )
    assert cautions.cautions(table, geometry("tiles", 64, 96)) == []
    assert cautions.cautions(table, geometry("pad", 224)) == []
    assert cautions.cautions(table, geometry("tiles", 64)) == [
        "4 of 4 defect regions are nowhere 2 pixels thick in tiles with a shorter side of 64; set resize 96"
    ]
    (padded,) = cautions.cautions(table, geometry("pad", 64))
    assert padded.endswith("set resize_mode tiles and resize 96, or image_size 224")


def test_a_larger_side_is_the_advice_for_thin_defects_of_square_pictures(tmp_path):
    """180 x 180, 2 pixels thick: 1.07 at 96, and 2.13 at 192, the next multiple of 32 from 180 on."""
    table = tall(tmp_path, 2, width=180, height=180)
    (sentence,) = cautions.cautions(table, Geometry(96))
    assert sentence.endswith(
        "with resize_mode squash at 96 x 96; set resize_mode tiles and resize 192, or image_size 192"
    )
    assert cautions.cautions(table, Geometry(192)) == []


def test_nothing_is_said_where_nothing_is_wrong(tmp_path):
    """Square enough, thick enough; without a mask only the shape can be judged."""
    table = tall(tmp_path, 8, width=150)
    assert cautions.cautions(table, Geometry(64)) == []
    table["mask"] = None
    assert cautions.cautions(table, Geometry(16)) == []


def test_the_work_is_bounded(tmp_path, monkeypatch):
    """Of 14 pictures and 4 masks, 5 headers and 2 masks."""
    table = tall(tmp_path, 8)
    monkeypatch.setattr(cautions, "PICTURES", 5)
    monkeypatch.setattr(cautions, "MASKS", 2)
    read = {"size_of": 0, "read_mask": 0}
    for module, name in ((cautions.pictures, "size_of"), (cautions.images, "read_mask")):
        real = getattr(module, name)

        def counted(*args, real=real, name=name):
            read[name] += 1
            return real(*args)

        monkeypatch.setattr(module, name, counted)
    cautions.cautions(table, Geometry(64))
    assert read == {"size_of": 5, "read_mask": 2}


def test_pictures_in_train_and_test_are_one_sentence_with_a_pair(tmp_path):
    """Two of four cracks are copies of normal pictures, byte for byte."""
    table = tall(tmp_path, 8)
    assert table.attrs["duplicates"] is None
    trained = [path for path, split in zip(table.path, table.split, strict=True) if split == "train"]
    for k in (1, 3):
        (tmp_path / "crack" / f"{k}.png").write_bytes(Path(trained[0]).read_bytes())
    table = data.load("folder", root=tmp_path)
    name = trained[0].removeprefix(f"{tmp_path}/")
    sentence = (
        f"2 test images are in the training images, too (2 of them called anomalous), e.g. crack/1.png = {name};"
        " remove one of each pair"
    )
    assert table.attrs["duplicates"] == sentence
    assert cautions.cautions(table, Geometry(64))[0] == sentence


def test_describe_names_duplicates_and_says_which_settings_it_assumes(tmp_path, monkeypatch):
    """It knows no settings, so it takes 256 pixels, squashed."""
    monkeypatch.setenv("ADLIB_DATA", str(tmp_path))
    root = tmp_path / "folder" / "tiles"
    table = tall(root, 2)
    (root / "crack" / "0.png").write_bytes(Path(table.path[0]).read_bytes())
    notes = describe.describe("folder").attrs["notes"]
    assert any(note.startswith("tiles: 1 test image is in the training images, too (1 of them") for note in notes)
    assert any(
        note.startswith("tiles: at image_size 256, resize_mode squash: pictures of 80 x 200 (width x height, median;")
        for note in notes
    )
