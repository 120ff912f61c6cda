"""The inference module: the same scores as in the run, files for people, odd pictures handled or named."""

import os
import warnings

import made
import numpy as np
import pandas as pd
import pytest
from PIL import Image

import adlib
from adlib import data, images, inference
from adlib.__main__ import main
from adlib.common.errors import UserError


@pytest.fixture
def world(finished_world, monkeypatch):
    """(a finished run, the sample table of its test pictures)."""
    made.live_in(finished_world, monkeypatch)
    run = adlib.reproduce("simplenet", "folder", ["stripes"], [0], made.CONFIG, device="cpu").runs[0]
    table = data.load("folder", "stripes")
    return run, table[table.split == "test"].reset_index(drop=True)


def test_saved_loaded_predicted_gives_the_same_scores(world):
    """scores.csv was written from cached features in batches; a loaded model on single files agrees to 5e-6."""
    run, table = world
    found = adlib.load(run.path).predict(list(table.path), device="cpu")
    scale = np.abs(run.scores.score).max()
    np.testing.assert_allclose(found.score, run.scores.score, atol=5e-6 * max(1, scale), rtol=0)
    assert found.decision.tolist() == run.scores.decision.tolist()


def test_arrays_files_and_folders_give_the_same_scores(world):
    run, table = world
    files = list(table.path[:2])
    arrays = [np.asarray(Image.open(f)) for f in files]
    assert run.predict(files).score.tolist() == run.predict(arrays).score.tolist()
    folder = str(table.path[0]).rsplit("/", 1)[0]
    assert run.predict(folder).score.iloc[0] == run.predict(files).score.iloc[0]


def test_milliseconds_add_up(world):
    """end to end = decode + transfer + network + post-processing, up to the clock between them."""
    run, table = world
    row = run.predict(table.path[0]).iloc[0]
    parts = row[["decode_ms", "transfer_ms", "network_ms", "post_ms"]].sum()
    assert 0 < row.network_ms < row.end_to_end_ms
    assert parts == pytest.approx(row.end_to_end_ms, rel=0.05, abs=0.5)


def test_predict_writes_map_overlay_and_one_csv(world, tmp_path, capsys):
    """Per picture two PNGs of the picture's own size; names of sub-folders kept."""
    run, table = world
    source = tmp_path / "in"
    (source / "sub").mkdir(parents=True)
    Image.open(table.path[0]).resize((90, 60)).save(source / "sub" / "wide.png")
    Image.open(table.path[1]).save(source / "plain.jpg")
    assert main(["predict", str(run.path), str(source), "--out", str(tmp_path / "out"), "--device", "cpu"]) == 0
    written = sorted(p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*") if p.is_file())
    assert written == [
        "plain_map.png",
        "plain_overlay.png",
        "predictions.csv",
        "sub/wide_map.png",
        "sub/wide_overlay.png",
    ]
    assert Image.open(tmp_path / "out/sub/wide_overlay.png").size == (90, 60)
    found = pd.read_csv(tmp_path / "out/predictions.csv")
    assert {"path", "score", "decision", "threshold", "network_ms", "end_to_end_ms"} <= set(found.columns)
    assert "2 pictures" in capsys.readouterr().out


def test_the_threshold_is_the_middle_of_the_colour_scale():
    """low = median of normal maps, middle = normal-only threshold of the maps, high as far above."""
    assert inference.colour_limits({"map_scale": [1.0, 5.0], "map_tau": 3.0}) == (1.0, 5.0)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "I;16", "1", "LA"])
def test_odd_modes_are_handled(world, tmp_path, mode):
    """16-bit, CMYK, palette and alpha pictures are converted, not refused."""
    run, _ = world
    grey = made.picture(3)[0][..., 0]
    if mode == "I;16":
        picture = Image.fromarray(grey.astype(np.uint16) * 257)
    else:
        picture = Image.fromarray(made.picture(3)[0]).convert(mode)
    path = tmp_path / ("x.tif" if mode == "CMYK" else "x.png")
    picture.save(path)
    assert np.isfinite(run.predict(path).score.iloc[0])


def test_sixteen_bits_score_like_eight(world, tmp_path):
    """Scaled by the maximum possible value: 257 v / 65535 = v / 255."""
    run, _ = world
    grey = made.picture(3)[0][..., 0]
    Image.fromarray(grey).save(tmp_path / "8.png")
    Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / "16.png")
    eight, sixteen = run.predict([tmp_path / "8.png", tmp_path / "16.png"]).score
    assert eight == sixteen


def test_an_unreadable_picture_does_not_stop_the_others(world, tmp_path):
    """It is named, the others' results are there."""
    run, table = world
    (tmp_path / "in").mkdir()
    Image.open(table.path[0]).save(tmp_path / "in" / "b.png")
    (tmp_path / "in" / "a.png").write_text("no picture")
    with pytest.raises(UserError, match=r"1 of 2 pictures could not be read.*a\.png"):
        inference.predict_to_folder(run.predictor("cpu"), tmp_path / "in", tmp_path / "out")
    found = pd.read_csv(tmp_path / "out" / "predictions.csv")
    assert found.score.notna().tolist() == [False, True]


def test_whatever_lies_in_a_folder_is_a_row_with_its_reason_and_the_pictures_are_scored(
    world, tmp_path, no_hang, capsys
):
    """Circles of links, a pipe, a device, a link to nowhere, a folder called x.png, a name that is no UTF-8."""
    run, table = world
    source = tmp_path / "in"
    (source / "x.png").mkdir(parents=True)
    (source / ".hidden").mkdir()
    for name in ("a.png", "x.png/b.png", ".hidden/c.png", "odd\udcff.png"):
        Image.open(table.path[0]).save(source / name)
    for name, target in (
        ("here", "."),
        ("up", ".."),
        ("self.png", "self.png"),
        ("gone.png", "none"),
        ("z.png", "/dev/zero"),
    ):
        (source / name).symlink_to(target)
    os.mkfifo(source / "pipe.png")
    assert main(["predict", str(run.path), str(source), "--out", str(tmp_path / "out"), "--device", "cpu"]) == 2
    sentences = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("note: ")]
    assert len(sentences) == 1
    assert "7 of 10 pictures could not be read, the others are in" in sentences[0]
    found = pd.read_csv(tmp_path / "out" / "predictions.csv").set_index("path")
    assert sorted(found.index[found.score.notna()]) == ["a.png", "odd\\udcff.png", "x.png/b.png"]
    assert set(found.decision.dropna()) <= {0, 1}
    reasons = found.error.dropna().str.replace(str(source), "")
    assert reasons.to_dict() == {
        "gone.png": "image /gone.png is a link to none, which does not exist; expected a picture file",
        "here": "image /here is a link to a folder (), which is not followed; expected a picture file",
        "pipe.png": "image /pipe.png is a pipe, a socket or a device; expected a picture file",
        "self.png": "image /self.png is a link that leads to itself; expected a picture file",
        "up": f"image /up is a link to a folder ({tmp_path}), which is not followed; expected a picture file",
        "x.png": "image /x.png is a folder; expected a picture file",
        "z.png": "image /z.png is a pipe, a socket or a device; expected a picture file",
    }


def test_a_picture_that_vanishes_while_it_is_scored_is_a_row(world, tmp_path):
    """After its score, before its heat map is drawn over it."""
    run, table = world
    (tmp_path / "in").mkdir()
    for name in ("a.png", "b.png"):
        Image.open(table.path[0]).save(tmp_path / "in" / name)
    real = run.predictor("cpu")

    class Vanishing:
        threshold, geometry = real.threshold, real.geometry

        def __call__(self, path):
            result = real(path)
            if path.name == "a.png":
                path.unlink()
            return result

    with pytest.raises(UserError, match=r"1 of 2 pictures could not be read.*a\.png does not exist"):
        inference.predict_to_folder(Vanishing(), tmp_path / "in", tmp_path / "out")
    assert (tmp_path / "out" / "b_map.png").is_file()
    assert pd.read_csv(tmp_path / "out" / "predictions.csv").score.notna().tolist() == [False, True]


def test_places_that_cannot_be_are_refused_in_one_sentence(world, tmp_path, no_hang):
    """Before any picture is scored: results among the pictures, a file for a folder, nothing at all, a pipe."""
    run, table = world
    (tmp_path / "in").mkdir()
    Image.open(table.path[0]).save(tmp_path / "in" / "a.png")
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "link").symlink_to(tmp_path / "in")
    predictor = run.predictor("cpu")
    for source, out, sentence in (
        ("in", "in", "is the folder of the pictures itself"),
        ("in", "link", "is the folder of the pictures itself"),
        ("in", "in/a.png", "which is no folder"),
        ("pipe.png", "out", r"image .*pipe.png is a pipe, a socket or a device"),
    ):
        with pytest.raises(UserError, match=sentence):
            inference.predict_to_folder(predictor, tmp_path / source, tmp_path / out)
    for source, out in (("", tmp_path / "out"), (tmp_path / "in", "")):
        with pytest.raises(UserError, match="is empty; give"):
            inference.predict_to_folder(predictor, source, out)
    assert sorted(p.name for p in (tmp_path / "in").iterdir()) == ["a.png"]


def test_pictures_of_absurd_size_work_or_are_named(world, tmp_path, monkeypatch):
    """One pixel, one row, 1 x 20000: squashed; what PIL takes for a bomb: a row of its own. No warning of PIL's."""
    run, _ = world
    (tmp_path / "in").mkdir()
    for width, height in ((1, 1), (300, 1), (1, 20000), (210, 210)):
        Image.new("L", (width, height), 90).save(tmp_path / "in" / f"{width}x{height}.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 210 * 105 - 1)
    monkeypatch.setattr(warnings, "showwarning", lambda message, *_: pytest.fail(str(message)))
    predictor = run.predictor("cpu")
    with pytest.raises(UserError, match=r"1 of 4 .*210x210.png has more than \d+ pixels"):
        inference.predict_to_folder(predictor, tmp_path / "in", tmp_path / "out")
    for size in ((1, 1), (300, 1), (1, 20000)):
        assert Image.open(tmp_path / "out" / "{}x{}_overlay.png".format(*size)).size == size


def test_colours_of_a_tall_picture_are_those_of_its_parts(world, tmp_path):
    """Drawn in strips, a picture of 3 x 900 has the colours that the whole has."""
    run, _ = world
    predictor = run.predictor("cpu")
    picture = np.random.default_rng(0).integers(0, 255, (900, 3, 3), dtype=np.uint8)
    Image.fromarray(picture).save(tmp_path / "a.png")
    inference.predict_to_folder(predictor, tmp_path / "a.png", tmp_path / "out")
    low, high = inference.colour_limits(predictor.threshold)
    value = images.paste_back(predictor(picture)["map"], (900, 3), predictor.geometry)
    whole = inference.overlay(picture, np.clip((value - low) / (high - low), 0, 1))
    drawn = np.asarray(Image.open(tmp_path / "out" / "a_overlay.png"))
    assert np.abs(drawn - 255 * whole).max() <= 0.5 + 1e-6


def test_heat_maps_of_an_earlier_call_are_not_scored(world, tmp_path):
    """--out inside the folder of pictures: the second call finds the same one picture."""
    run, table = world
    Image.open(table.path[0]).save(tmp_path / "a.png")
    for _ in range(2):
        assert len(inference.predict_to_folder(run.predictor("cpu"), tmp_path, tmp_path / "out")) == 1


def test_a_tensor_of_images_scores_like_its_files(world):
    """float [B,3,H,W] in 0..1, the project's own meaning of images."""
    import torch

    run, table = world
    files = list(table.path[:2])
    images = torch.stack([torch.from_numpy(np.asarray(Image.open(f)).copy()).permute(2, 0, 1) / 255 for f in files])
    assert run.predict(images).score.tolist() == run.predict(files).score.tolist()
    with pytest.raises(UserError, match=r"must be float \[B,3,H,W\]"):
        run.predict(torch.zeros(2, 4, 8, 8))


def test_a_score_that_is_not_finite_is_no_decision(world, monkeypatch):
    """NaN > threshold is False: it would pass as normal."""
    from adlib.models.simplenet import SimpleNet

    run, table = world
    real = SimpleNet.score

    def broken(self, embeddings):
        found = real(self, embeddings)
        return found._replace(image=found.image * float("nan"))

    monkeypatch.setattr(SimpleNet, "score", broken)
    with pytest.raises(UserError, match="not finite"):
        run.predict(table.path[0])


def test_speed_reports_both_ways_of_counting(world):
    """network only and end to end, batch 1 and 2, with medians between the deciles."""
    from adlib import speed as timing

    run, table = world
    found = timing.speed(run.detector(), list(table.path), "cpu", batches=(1, 2), seconds=0.2)
    assert found.what.tolist() == ["network", "end_to_end"] * 2
    assert (found.p10_ms <= found.median_ms).all()
    assert (found.median_ms <= found.p90_ms).all()
    assert found.attrs["threads"] >= 1
    assert found.calls.between(5, 50).all()
    np.testing.assert_allclose(found.fps, 1e3 * found.batch / found.median_ms)
