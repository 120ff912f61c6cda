"""Texture sources: what is taken, what never is, and that bad folders are one sentence."""

import numpy as np
import pytest
import torch
from made_layouts import make
from PIL import Image

from adlib import data, images
from adlib.common.errors import UserError
from adlib.synthesis import texture_bank as textures_source
from adlib.synthesis.texture_bank import CROPS, PHOTOGRAPHS, TRAINING_HALF, texture_source


@pytest.fixture
def roots(tmp_path, monkeypatch):
    """An empty $ADLIB_DATA."""
    folder = tmp_path / "data"
    folder.mkdir()
    monkeypatch.setenv("ADLIB_DATA", str(folder))
    return folder


def test_auto_takes_dtd_where_it_is_and_photographs_else(roots):
    before = texture_source()
    assert before.name == "photographs"
    assert "DTD is not present" in before.note
    make("dtd", roots)
    after = texture_source()
    assert after.name == "dtd"
    assert len(after) == 6  # two classes of three
    assert "6 of DTD's 5640" in after.note
    assert "2 of 47 classes" in after.note


def test_the_photographs_are_all_there():
    """A name that scikit-image no longer ships would silently shrink the source."""
    source = texture_source("photographs")
    assert len(source) == len(PHOTOGRAPHS) * len(CROPS) == 90
    assert {f.name for f in source.files} == set(PHOTOGRAPHS)


def test_a_bank_is_the_resized_pictures(roots):
    """Made pictures of 32 x 24 are smaller than 48 and are scaled up; a whole file goes the way of every image."""
    make("dtd", roots)
    source = texture_source("dtd")
    bank = source.bank(48)
    assert bank.shape == (6, 3, 48, 48)
    assert bank.dtype == torch.uint8
    expected = images.resize(images.decode(source.files[4]), images.Geometry(48))
    np.testing.assert_array_equal(bank[4], expected)


def test_a_plain_bank_has_no_low_pass(roots):
    """Whole files and crops alike: what images.resize gives with resample="plain", and not what it gives without."""
    make("dtd", roots)
    plain = images.Geometry(8, resample="plain")
    source = texture_source("dtd")
    np.testing.assert_array_equal(source.bank(8, "plain")[4], images.resize(images.decode(source.files[4]), plain))
    assert not torch.equal(source.bank(8, "plain"), source.bank(8))
    crops = texture_source("photographs", limit=90)
    quarter = np.ascontiguousarray(images.decode(crops.files[3])[256:, :256])
    np.testing.assert_array_equal(crops.bank(8, "plain")[3], images.resize(quarter, plain))
    with pytest.raises(UserError, match="unknown resample 'cubic'"):
        source.bank(8, "cubic")


def test_crops_are_parts_of_their_photograph():
    """The fourth crop of the first photograph: left 0, top 1/2 of 512 x 512."""
    source = texture_source("photographs", limit=90)
    bank = source.bank(32)
    with Image.open(source.files[3]) as photograph:
        part = photograph.convert("RGB").crop((0, 256, 256, 512)).resize((32, 32), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(bank[3].permute(1, 2, 0), np.asarray(part))
    assert len(torch.unique(bank.flatten(1), dim=0)) == len(source)


def test_the_photograph_of_the_category_is_left_out():
    """And of the other two only what their training crops come from, the left half: boxes end at 0.5."""
    source = texture_source("photographs", "textures", ["brick"])
    boxes = {
        name: [b for f, b in zip(source.files, source.boxes, strict=True) if f.stem == name]
        for name in ("brick", "grass", "gravel", "coffee")
    }
    assert boxes["brick"] == []
    assert boxes["grass"] == boxes["gravel"] == list(TRAINING_HALF)
    assert max(right for _, _, right, _ in TRAINING_HALF) == 0.5
    assert len(boxes["coffee"]) == len(CROPS)


def test_one_model_for_all_textures_sees_none_of_their_photographs():
    source = texture_source("photographs", "textures", ["brick", "grass", "gravel"])
    assert not {"brick", "grass", "gravel"} & {f.stem for f in source.files}


def test_a_mixture_leaves_out_the_photograph_of_each_of_its_textures():
    """Under a mixture's names, too, the half of a photograph that is tested on is no texture."""
    source = texture_source("photographs", "textures:brick + elpv:mono", ["textures:brick", "elpv:mono"], limit=200)
    boxes = {name: {b for f, b in zip(source.files, source.boxes, strict=True) if f.name == name} for name in
             ("brick.png", "grass.png", "coins.png")}  # fmt: skip
    assert boxes == {"brick.png": set(), "grass.png": set(TRAINING_HALF), "coins.png": set(CROPS)}


def test_other_categories_give_normal_training_images_only(roots):
    make("mvtec_ad", roots)
    category, *others = data.categories("mvtec_ad")
    others = [c for c in others if (roots / "mvtec_ad" / c).is_dir()]
    source = texture_source("photographs", "mvtec_ad", [category])
    taken = [f for f in source.files if roots in f.parents]
    assert {f.relative_to(roots / "mvtec_ad").parts[0] for f in taken} == set(others)
    assert all(f.parent.parts[-2:] == ("train", "good") for f in taken)
    assert "other categories of mvtec_ad" in source.note


def test_the_fingerprint_follows_contents_and_not_the_place(roots, monkeypatch, tmp_path):
    make("dtd", roots)
    here = texture_source("dtd")
    there = tmp_path / "elsewhere"
    there.mkdir()
    (roots / "dtd").rename(there / "dtd")
    monkeypatch.setenv("ADLIB_DATA", str(there))
    moved = texture_source("dtd")
    assert moved.fingerprint == here.fingerprint
    Image.new("RGB", (40, 40), "red").save(moved.files[0])
    assert texture_source("dtd").fingerprint != here.fingerprint
    assert texture_source("dtd", limit=2).fingerprint != texture_source("dtd").fingerprint


def test_a_limit_spreads_evenly(roots):
    """3 of 6: every second, so both classes are there."""
    make("dtd", roots)
    every, some = texture_source("dtd"), texture_source("dtd", limit=3)
    assert some.files == every.files[::2]


def test_an_unreadable_picture_is_named(roots):
    make("dtd", roots)
    source = texture_source("dtd")
    source.files[2].write_bytes(b"no picture")
    with pytest.raises(UserError, match=source.files[2].name):
        texture_source("dtd").bank(32)


def test_a_missing_or_empty_folder_is_one_sentence(roots):
    with pytest.raises(UserError, match=r"dtd not found at .*data download dtd"):
        texture_source("dtd")
    (roots / "dtd" / "images" / "banded").mkdir(parents=True)
    for name in ("dtd", "auto"):
        with pytest.raises(UserError, match="holds no"):
            texture_source(name)


def test_unknown_names_and_limits_are_one_sentence():
    with pytest.raises(UserError, match="unknown texture source 'imagenet'; valid: auto, dtd, photographs"):
        texture_source("imagenet")
    with pytest.raises(UserError, match="leaves no texture"):
        texture_source("photographs", limit=0)


def test_no_photographs_at_all_is_one_sentence(monkeypatch, tmp_path):
    monkeypatch.setattr(textures_source, "_skimage", lambda: tmp_path)
    with pytest.raises(UserError, match="reinstall scikit-image"):
        texture_source("photographs")
