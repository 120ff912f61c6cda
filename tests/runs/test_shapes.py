"""Elongated pictures with thin cracks, padded and in tiles, through every system: trained, measured, predicted."""

import math
from pathlib import Path

import made
import numpy as np
import pytest
import stubs
import torch
from PIL import Image

import adlib
from adlib import data, evaluation, export, figures, images, inference, models, runs
from adlib.common.errors import UserError
from adlib.embeddings import Embeddings
from adlib.models.base import Scores
from adlib.speed import speed
from adlib.views import Views

SMALL = {
    "simplenet": {k: v for k, v in made.CONFIG.items() if k != "resize_mode"} | {"epochs": 2},
    "draem": {"image_size": 64, "epochs": 1, "reconstruction_width": 4, "segmentation_width": 4},
    "mmaerec": made.MMAEREC | {"epochs": 1},
    "improved_mae": made.MAE | {"epochs": 1, "batch_size": 4},
    **made.RIVALS,
    **made.BASELINES,
} | {name: {**made.THREE_SCALES, **more} for name, more in made.FLOWS.items()}
NAMES = [*SMALL, *(stub.__name__ for stub in stubs.STUBS)]
WITHOUT_MAP = (
    "LossAndFit",
    "TwoOptimisers",
    "ManyViews",
    "differnet",
    "mahalanobis",
    "nearest_neighbour",
    "ganomaly",
    "cutpaste",
)
MODES = {"pad": {"resize_mode": "pad"}, "tiles": {"resize_mode": "tiles", "stride": 48}}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    """60 x 150 pixels: padded 26 x 64 at side 64, or 64 x 160 in tiles; the last test picture is upright."""
    root = tmp_path_factory.mktemp("elongated")
    made.folder_dataset(root, train=10, normal=3, anomalous=3, category="cracks", draw=made.elongated)
    upright = root / "folder" / "cracks" / "test" / "normal" / "002.png"
    Image.open(upright).transpose(Image.Transpose.ROTATE_90).save(upright)
    return root


@pytest.fixture(autouse=True)
def registered(pictures, monkeypatch):
    for name in NAMES[len(SMALL) :]:
        monkeypatch.setitem(models.SYSTEMS, name, f"stubs.{name}")
    monkeypatch.setenv("ADLIB_DATA", str(pictures))


def side_of(name: str) -> int:
    return SMALL.get(name, {}).get("image_size", 64)


def run_of(name: str, mode: str, **config):
    config = SMALL.get(name, {"eval_every": 0, "batch_size": 4}) | MODES[mode] | config
    if mode == "tiles":
        config["stride"] = 3 * side_of(name) // 4
    return adlib.reproduce(name, "folder", ["cracks"], [0], config, "cpu").runs[0]


def test_every_system_is_tried():
    """A new system cannot be registered without being trained on pictures of any shape."""
    assert {n for n, place in models.SYSTEMS.items() if not place.startswith("stubs.")} == set(SMALL)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", NAMES)
def test_a_system_trains_and_predicts_its_own_scores(name, mode):
    """scores.csv comes from batches of cached views; predict cuts, scores and stitches picture by picture."""
    run = run_of(name, mode)
    root = Path(data.load("folder", "cracks").attrs["root"])
    again = runs.load(run.path).predict([root / path for path in run.scores.path], device="cpu", maps=True)
    np.testing.assert_allclose(again.score, run.scores.score, atol=1e-3 * run.scores.score.abs().max())
    assert len(run.scores) == 6
    assert (run.maps is None) == (name in WITHOUT_MAP)
    side, height = side_of(name), {32: 13, 64: 26, 128: 51}[side_of(name)]
    assert run.record["protocol"]["metric_size"] == {"pad": side, "tiles": 5 * side // 2}[mode]
    if run.maps is not None:
        wide = {"pad": (height, side), "tiles": (side, 5 * side // 2)}[mode]
        shapes = [wide, wide[::-1]]
        assert [again["map"][i].shape for i in (0, 2)] == shapes
        assert np.isnan(run.maps[0, :19]).all()
        assert np.isnan(run.maps[2, :, :19]).all()
        assert np.isfinite(run.maps[0, 20:44]).all()
        assert all(np.isfinite(run.record["metrics"][m]) for m in ("pixel_auroc", "pixel_ap", "aupro@0.3"))
        pixels = run.record["per_category"]["cracks"]["pixel"]["n_pixels"]
        assert pixels == 6 * math.prod(wide)


@pytest.mark.parametrize("name", NAMES)
def test_pooling_the_cells_is_the_image_score(name):
    """Else the score of a padded picture would be another measure than that of a squashed one."""
    detector_class, config_class = models.get(name)
    torch.manual_seed(0)
    detector = detector_class(config_class.from_dict(SMALL.get(name, {}) | {"resize_mode": "squash"})).eval()
    if name == "MemoryBank":
        detector.bank = torch.randn(5, detector.backbone.channels[0])
    with torch.inference_mode():
        out = detector.score(detector.embed(torch.rand(2, 3, side_of(name), side_of(name))))
    cells = out.map if out.cells is None else out.cells
    if cells is not None:
        torch.testing.assert_close(detector.pool(cells), out.image)
        torch.testing.assert_close(detector.pool(cells, torch.ones_like(cells, dtype=torch.bool)), out.image)


class Bright(stubs.Stub):
    """The map is the picture's red channel, so that what is where can be told from the numbers."""

    def embed(self, images: torch.Tensor) -> torch.Tensor:
        return images

    embedding_key = None

    def fit(self, embeddings, generator) -> None:
        pass

    def score(self, images: torch.Tensor) -> Scores:
        return Scores(images[:, 0].flatten(1).amax(1), images[:, 0])


@pytest.fixture
def bright(monkeypatch):
    monkeypatch.setattr(stubs, "Bright", Bright, raising=False)
    monkeypatch.setitem(models.SYSTEMS, "Bright", "stubs.Bright")


@pytest.mark.parametrize("mode", MODES)
def test_a_stitched_or_padded_map_is_the_resized_picture(mode, bright):
    """Of a system whose map is its input, the run's numbers are those of the resized picture itself."""
    run = run_of("Bright", mode)
    root, geometry = Path(data.load("folder", "cracks").attrs["root"]), stubs.Config(**MODES[mode]).geometry
    for path, score in zip(run.scores.path, run.scores.score, strict=True):
        picture = images._scaled(images.decode(root / path), geometry, "antialias")[..., 0] / 255
        assert score == pytest.approx(picture.max(), abs=1e-6)
        found = run.predict(root / path, device="cpu", maps=True)["map"][0]
        np.testing.assert_allclose(found, picture, atol=1e-6)


class Loud(Bright):
    """Says the most of the padding above and below a picture of 60 x 150."""

    def score(self, images: torch.Tensor) -> Scores:
        level = torch.full_like(images[:, 0], 9.0)
        inside = (slice(None), *self.config.geometry.inside(60, 150))
        level[inside] = images[:, 0][inside]
        return Scores(level.flatten(1).amax(1), level)


def test_padding_decides_nothing():
    """Whatever a system says of the padding: scores, thresholds, maxima, drawing scale and small maps stay the same."""
    table, config = data.load("folder", "cracks"), stubs.Config(resize_mode="pad")
    table = table[table.split == "train"]
    stored = Embeddings([[images.cached(table, config.geometry)]], single=True)
    quiet, loud = (
        evaluation.score_all(kind(config), stored, 48, views=Views.of(table, config.geometry))
        for kind in (Bright, Loud)
    )
    assert loud.scores.max() < 1
    for name in ("scores", "maps", "small", "peaks"):
        np.testing.assert_array_equal(getattr(loud, name), getattr(quiet, name))
    assert evaluation.thresholds(loud, "") == evaluation.thresholds(quiet, "")


@pytest.mark.parametrize("mode", MODES)
def test_streaming_gives_the_same_numbers_within_its_bounds(mode, bright, monkeypatch, tmp_path):
    exact = run_of("Bright", mode)
    monkeypatch.setattr(evaluation, "IN_MEMORY", 1)
    monkeypatch.setenv("ADLIB_RESULTS", str(tmp_path / "streamed"))
    streamed = run_of("Bright", mode)
    assert streamed.record["protocol"]["aupro"] == "streaming, 8-connected"
    assert streamed.scores.equals(exact.scores)
    for name in ("pixel_auroc", "pixel_ap", "aupro@0.3"):
        assert streamed.record["metrics"][name] == pytest.approx(exact.record["metrics"][name], abs=1e-4)


@pytest.mark.parametrize("mode", MODES)
def test_heat_maps_and_figures_have_the_shape_of_the_picture(mode, bright, tmp_path):
    run = run_of("Bright", mode)
    root = Path(data.load("folder", "cracks").attrs["root"])
    inference.predict_to_folder(run.predictor("cpu"), root / run.scores.path[0], tmp_path / "out")
    for kind in ("map", "overlay"):
        assert Image.open(next((tmp_path / "out").glob(f"*_{kind}.png"))).size == (150, 60)
    drawn = figures.anomaly_maps(run, [0, 2, 3])
    cells = [ax.images[0].get_array() for ax in drawn.axes if ax.images]
    # of tiles the grid of the pixel metrics, where masks stay whole
    short, long = (26, 64) if mode == "pad" else (64, 160)
    assert {cell.shape[:2] for cell in cells} == {(short, long), (long, short)}
    assert all(np.isfinite(np.asarray(cell, float)).all() for cell in cells)


def test_the_protocol_says_what_became_of_the_pictures(bright):
    padded, tiled = run_of("Bright", "pad").record["protocol"], run_of("Bright", "tiles").record["protocol"]
    assert padded["padding"] == "mirrored, left out"
    assert (tiled["stride"], tiled["views"]) == (48, "highest score, maps stitched")
    without = run_of("ManyViews", "pad").record["protocol"]
    assert without["padding"] == "mirrored, in the score of a system without maps"


def test_an_exported_file_says_how_tiles_become_a_score_and_refuses_padding(bright, monkeypatch):
    pytest.importorskip("onnxscript")
    facts = export.metadata(run_of("Bright", "tiles"), stubs.Config(**MODES["tiles"]).geometry)
    assert "every 48 pixels" in facts["tiles"]
    with pytest.raises(UserError, match="leaves the padding of each picture out of its score"):
        export.to_onnx(run_of("Bright", "pad"), "model.onnx")


def test_speed_counts_all_tiles_of_a_picture(bright, monkeypatch):
    """Network only, too: a picture is done when all of its tiles are."""
    detector, config = Bright(stubs.Config(**MODES["tiles"])), stubs.Config(**MODES["tiles"])
    files = list(data.load("folder", "cracks").path)
    tiles = sum(len(config.geometry.windows(*size)) for size in images.sizes(files[:2]).tolist())
    calls, score = [], Bright.score
    monkeypatch.setattr(Bright, "score", lambda self, x: calls.append(len(x)) or score(self, x))
    assert (speed(detector, files, "cpu", batches=(2,), seconds=0.01).median_ms > 0).all()
    assert set(calls) == {tiles}
    assert tiles > 2
