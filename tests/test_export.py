"""ONNX files: the same numbers as the run for any batch size, with all that is needed to use them."""

import json
import sys

import made
import numpy as np
import pytest
import torch

import adlib
from adlib import evaluation, export, models
from adlib.__main__ import main
from adlib.models import base

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

DRAEM = {"image_size": 64, "reconstruction_width": 4, "segmentation_width": 4, "epochs": 0}


class MadeRun:
    """What the export reads of a run: an untrained detector and its record."""

    def __init__(self, method: str, config: dict, tmp_path):
        detector, config_class = models.get(method)
        torch.manual_seed(0)
        self.path, self.made = tmp_path / "run", detector(config_class.from_dict(config)).eval()
        facts = {"threshold": {"tau": 0.25}}
        self.record = {"method": method, "dataset": "folder", "categories": ["stripes"], "category": "stripes"}
        self.record |= {"seed": 3, "hash": "abc", "per_category": {"stripes": facts}}

    def detector(self, device: str):
        return self.made


class WithoutMap(base.Detector):
    """Mean grey as the score; localises nothing."""

    def score(self, embeddings):
        return base.Scores(embeddings.mean((1, 2, 3)), None)


@pytest.mark.parametrize(
    ("method", "config"),
    [("simplenet", made.CONFIG), ("draem", DRAEM), ("validflow", {**made.THREE_SCALES, **made.FLOWS["validflow"]})],
    ids=["simplenet", "draem", "validflow"],
)
def test_the_file_gives_the_run_s_scores_and_maps_for_any_batch_size(method, config, tmp_path):
    """Batches of 1, 3 and 5 of new pictures, none of them the 2 that were traced: float32 sums, 1e-4 of the largest."""
    run = MadeRun(method, config, tmp_path)
    written = export.to_onnx(run, tmp_path / "model.onnx")
    assert written.outputs == ("score", "map")
    assert written.difference <= 1e-4
    session = onnxruntime.InferenceSession(str(written.file))
    side = run.made.config.image_size
    for batch in (1, 3, 5):
        images = torch.rand(batch, 3, side, side)
        with torch.inference_mode():
            ours = run.made.score(run.made.embed(images))
        score, amap = session.run(None, {"image": images.numpy()})
        assert (score.shape, amap.shape) == ((batch,), (batch, side, side))
        np.testing.assert_allclose(score, ours.image, rtol=0, atol=1e-4 * max(1, ours.image.abs().max().item()))
        ours_map = evaluation.to_grid(ours.map, side)  # a coarse map is enlarged
        np.testing.assert_allclose(amap, ours_map, rtol=0, atol=1e-4 * max(1, ours_map.abs().max().item()))


def test_threshold_geometry_and_run_stand_in_the_file_and_beside_it(tmp_path):
    run = MadeRun("draem", DRAEM, tmp_path)
    run.made = WithoutMap(run.made.config).eval()  # small, so traced at once
    written = export.to_onnx(run, tmp_path / "model.onnx")
    beside = json.loads((tmp_path / "model.onnx.json").read_text())
    assert beside["thresholds"] == {"stripes": 0.25}
    assert beside["geometry"] == {
        "image_size": 64,
        "resize_mode": "squash",
        "resize": None,
        "resample": "antialias",
        "stride": None,
    }
    assert (beside["method"], beside["run"], beside["seed"]) == ("draem", "abc", 3)
    assert beside["adlib"] == adlib.__version__
    inside = {p.key: p.value for p in onnx.load(written.file).metadata_props}
    assert json.loads(inside["thresholds"]) == beside["thresholds"]
    assert json.loads(inside["geometry"]) == beside["geometry"]
    assert (inside["method"], inside["run"]) == ("draem", "abc")


def test_a_system_without_maps_has_one_output(tmp_path):
    run = MadeRun("draem", DRAEM, tmp_path)
    run.made = WithoutMap(run.made.config).eval()
    assert export.to_onnx(run, tmp_path / "model.onnx").outputs == ("score",)


@pytest.mark.parametrize("difference", [1e-3, float("nan")])
def test_a_graph_that_computes_something_else_is_not_written(difference, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "_difference", lambda *_: difference)
    run = MadeRun("draem", DRAEM, tmp_path)
    run.made = WithoutMap(run.made.config).eval()
    with pytest.raises(export.Disagrees) as error:
        export.to_onnx(run, tmp_path / "model.onnx")
    assert error.value.status == 1
    assert list(tmp_path.iterdir()) == []


def test_a_missing_extra_is_one_sentence(small_world, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "onnxscript", None)  # so that its import raises ImportError
    assert main(["export", str(small_world / "results"), "--onnx", str(tmp_path / "model.onnx")]) == 2
    assert "pip install 'adlib[export]'" in capsys.readouterr().err
