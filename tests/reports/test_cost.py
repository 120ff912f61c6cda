"""What systems cost: sizes of what copies without weights had stored, multiply-adds by hand, seconds, memory, speed."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from compared_runs import FAIR, GOOD, run_of
from torch import nn

from adlib import figures
from adlib.common.errors import UserError
from adlib.reports import cost
from adlib.reports.comparison import Contender

SMALL = {"image_size": 64, "resize_mode": "squash", "resize": None, "backbone": "resnet18", "pretrained": False}
MACHINE = {"peak_host_bytes": 2e9, "peak_device_bytes": None, "device_type": "cpu"}


def contender(method, *seconds, config=None, fit=40, parts=1, machine=MACHINE):
    """A system with a run without weights for each of `seconds`, on `fit` training pictures of each of `parts`."""
    facts = {"metrics": {"image_auroc": 0.9}, "counts": {"normal": 3, "anomalous": 3, "fit": fit}}
    per_category = {"bottle": facts} | {f"other{k}": facts for k in range(1, parts)}
    fields = {"files": {}, "config": config or {}, "parameters": 2e6, "trainable_parameters": 1e6, "machine": machine}
    runs = [run_of(method, FAIR, k, seconds=s, per_category=per_category, **fields) for k, s in enumerate(seconds)]
    return Contender(method, "bottle", tuple(runs))


def shapes(method, config, **fields) -> dict[str, tuple]:
    """Of what the detector of a copy without weights stores."""
    detector = cost.detector_of(contender(method, {}, config=SMALL | config, **fields))
    return {name: tuple(buffer.shape) for name, buffer in cost.stored(detector).items()}


def test_a_copy_of_patchcore_gets_a_bank_as_long_as_the_runs():
    """40 pictures of 8 x 8 places, a tenth kept: M = 256 vectors of D = 128 + 256 numbers, though 25 were embedded."""
    config = {"layers": [2, 3], "embed_by": "average", "coreset": 0.1}
    assert shapes("patchcore", config, fit=40) == {"bank": (256, 384)}
    assert shapes("patchcore", config, fit=20, parts=2) == {"bank": (256, 384)}  # a model of two categories
    assert shapes("patchcore", config, fit=3) == {"bank": (19, 384)}  # int(19.2): fewer than 25 are not scaled


def test_a_copy_of_padim_gets_a_gaussian_for_each_place():
    """P d means and P d d factors, P = 16 x 16 at 64 pixels, d = 10; not the list of drawn channels."""
    found = shapes("padim", {"layers": [1, 2, 3], "channels": 10})
    assert found == {"mean": (256, 10), "factor": (256, 10, 10)}


def test_a_copy_of_spade_gets_its_gallery_in_half_precision_and_can_score():
    """Every training picture is in the gallery; the numbers are random but finite."""
    config = SMALL | {"layers": [2, 3], "pooled": 4, "map_neighbours": 2}
    detector = cost.detector_of(contender("spade", {}, config=config, fit=30))
    assert detector.gallery0.shape == (30, 128, 8, 8)
    assert detector.gallery0.dtype == torch.float16
    assert not torch.equal(detector.gallery0[0], detector.gallery0[25])  # no picture twice: the search would be shorter
    with torch.no_grad():
        assert detector.score(detector.embed(torch.rand(2, 3, 64, 64))).image.isfinite().all()


def test_a_system_that_learns_by_steps_alone_is_built_anew_and_stores_nothing():
    detector = cost.detector_of(contender("unet_autoencoder", {}, config={"image_size": 32, "width": 4}))
    assert detector.config.width == 4
    assert cost.stored(detector) == {}


def test_what_cannot_be_made_anew_says_why(monkeypatch):
    """Tiles, whose number no record has; a run that took more memory than is free; a gallery beyond the limit."""
    spade = SMALL | {"layers": [2, 3]}
    with pytest.raises(UserError, match="how many tiles"):
        cost.detector_of(contender("spade", {}, config=spade | {"resize_mode": "tiles"}))
    with pytest.raises(UserError, match=r"SPADE needs 1000000.0 GB"):
        cost.detector_of(contender("spade", {}, config=spade, machine=MACHINE | {"peak_device_bytes": 1e15}))
    monkeypatch.setattr(cost, "LARGEST", 1e5)
    with pytest.raises(UserError, match="more than this page makes anew"):
        cost.detector_of(contender("spade", {}, config=spade, fit=30))


class Tiny(nn.Module):
    """A detector of 8 x 8 pixels whose `score` is given."""

    config = SimpleNamespace(image_size=8)

    def __init__(self, score):
        super().__init__()
        self.conv, self.scored = nn.Conv2d(2, 4, 3, padding=1, bias=False), score

    def embed(self, images):
        return images[:, :2]

    def score(self, embeddings):
        return self.scored(self, embeddings)


def test_multiply_adds_of_a_convolution_by_hand():
    """3 x 3, 2 to 4 channels, on 8 x 8 places: 9 * 2 * 4 * 64 = 4608. Gradients are as before afterwards."""
    assert cost.gmac(Tiny(lambda own, x: own.conv(x))) == pytest.approx(4608 / 1e9)
    assert torch.is_grad_enabled()


def test_multiply_adds_of_attention_by_hand():
    """32 tokens of 4 numbers: queries times keys 32 * 32 * 4, weights times values as many."""
    tokens = lambda x: x.reshape(1, 1, 32, 4)
    attend = lambda _, x: F.scaled_dot_product_attention(tokens(x), tokens(x), tokens(x))
    assert cost.gmac(Tiny(attend)) == pytest.approx(2 * 32 * 32 * 4 / 1e9)


def test_multiply_adds_of_a_score_that_takes_gradients():
    """The way back to the image costs as much as the way there: twice 4608."""

    def score(own, x):
        with torch.enable_grad():
            x = x.clone().requires_grad_()
            return torch.autograd.grad(own.conv(x).sum(), x)

    assert cost.gmac(Tiny(score)) == pytest.approx(2 * 4608 / 1e9)


def without_detectors(monkeypatch):
    def none(one, device="cpu"):
        raise UserError(f"no weights of {one.name}")

    monkeypatch.setattr(cost, "detector_of", none)


def test_seconds_and_memory_of_several_seeds(monkeypatch):
    """Features: who had to compute them, 90 s, not the mean with a hit in the cache; steps: the mean; process: the
    least polluted bound. A GPU that nobody used has no column, what cannot be counted is NaN.
    """
    without_detectors(monkeypatch)
    one = contender("padim", {"embed": 0.5, "train": 4}, {"embed": 90.0, "train": 6})
    one.runs[1].record["machine"] = MACHINE | {"peak_host_bytes": 5e9}
    row = cost.costs([one, contender("spade", {"embed": 1.0})]).set_index("system").loc["PaDiM"]
    assert (row["features [s]"], row["training [s]"], row["statistics [s]"]) == (90, 5, 0)
    assert row["process, at most [GB]"] == 2
    assert "GPU [GB]" not in row
    assert "multiply-adds [billion]" not in row  # NaN in every row


def test_systems_that_read_the_same_features_share_the_seconds_of_the_one_that_made_them(monkeypatch):
    """PaDiM found in the cache what SPADE had computed; MKD reads others."""
    keys = {"padim": {"of": "a"}, "spade": {"of": "a"}, "mkd": {"of": "b"}}
    config = SimpleNamespace(geometry="64 px", precision="float32")
    fake = lambda one: SimpleNamespace(embedding_key=keys[one.method], config=config)
    monkeypatch.setattr(cost, "detector_of", fake)
    monkeypatch.setattr(cost, "gmac", lambda detector: 1.5)
    monkeypatch.setattr(cost, "stored", lambda detector: {"bank": torch.zeros(3, 1000)})
    seconds = {"padim": 0.5, "spade": 70.0, "mkd": 3.0}
    table = cost.costs([contender(name, {"embed": value}) for name, value in seconds.items()]).set_index("system")
    assert table["features [s]"].to_dict() == {"PaDiM": 70, "SPADE": 70, "MKD": 3}
    assert (table["stored [million]"] == 0.003).all()
    assert (table["multiply-adds [billion]"] == 1.5).all()


def test_a_model_of_several_categories_is_marked(monkeypatch):
    """Its seconds are those of all of them."""
    without_detectors(monkeypatch)
    table = cost.costs([contender("improved_mae", {"train": 3310}, parts=8), contender("padim", {})])
    assert table["trained on"].tolist() == ["8 categories, one model", "this category"]
    assert "trained on" not in table.attrs["plain"]


def measured(load=0.5, **columns) -> pd.DataFrame:
    """As `speed.speed` gives it."""
    rows = [{"what": what, "batch": batch} for what in ("network", "end_to_end") for batch in (1, 16)]
    table = pd.DataFrame(rows).assign(median_ms=11.16, p10_ms=10.9, p90_ms=12.44, fps=90.0, calls=50, **columns)
    table.attrs = {"device": "x", "threads": 1, "load": load}
    return table


def test_speeds_are_measured_as_specified_and_who_is_missing_is_named(monkeypatch):
    """Three seconds each; a copy whose pretrained network is not at hand has its reason in the text and its name in the
    caption of the figure.
    """
    asked = []
    table = pd.DataFrame({"path": ["a", "b"], "split": ["train", "test"]})
    monkeypatch.setattr(cost.data, "load", lambda dataset, category: table)
    monkeypatch.setattr(cost.speed, "speed", lambda *args, seconds: asked.append((args[1], seconds)) or measured())

    def detector_of(one, device="cpu"):
        if one.method == "padim":
            raise UserError("no network")

    monkeypatch.setattr(cost, "detector_of", detector_of)
    contenders = [Contender(name, "bottle", (run_of(name, GOOD),)) for name in ("padim", "spade")]
    speeds, untimed = cost.speeds(contenders, "cpu")
    assert asked == [(["b"], 3.0)]
    assert untimed == {"PaDiM": "no network"}
    assert "Not timed: **PaDiM**, no network." in cost.conditions(speeds, untimed)
    assert "Not timed: PaDiM." in figures.speed_and_auroc(speeds, "Here.", untimed).texts[0].get_text()
    assert "Not timed" not in figures.speed_and_auroc(speeds, "Here.").texts[0].get_text()


@pytest.mark.parametrize(("load", "warned"), [(3.9, False), (4.0, True), (np.nan, False)])
def test_a_busy_machine_is_a_warning(load, warned):
    """As many processes as cores, or more, before the first measurement."""
    table = measured(load)
    table.attrs["cores"] = 4
    assert ("Warning" in cost.conditions(table, {})) == warned


def test_nothing_measured_is_no_error():
    assert cost.conditions(pd.DataFrame(), {"PaDiM": "no network"}) == "Not timed: **PaDiM**, no network."


def test_milliseconds_have_their_spread_and_the_number_of_calls():
    shown = cost.milliseconds(measured(system="PaDiM"))
    assert shown.loc["PaDiM", ("network", 16)] == "11.2 (10.9-12.4), 50 calls"
