"""The contract carries every coming system: each stub is trained, loaded, interrupted and resumed."""

from pathlib import Path

import made
import numpy as np
import pytest
import stubs
import torch

import adlib
from adlib import data, models, runs
from adlib.models.base import Detector
from adlib.training import Unfinished

NAMES = [stub.__name__ for stub in stubs.STUBS]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    """Stripes with a bright square, in two categories."""
    root = tmp_path_factory.mktemp("pictures")
    base = made.folder_dataset(root, train=20, normal=5, anomalous=5)
    (base.parent / "lines").symlink_to(base)
    return root


@pytest.fixture(autouse=True)
def registered(pictures, monkeypatch):
    """The stubs under their class names, as a user would register a system of their own."""
    for name in NAMES:
        monkeypatch.setitem(models.SYSTEMS, name, f"stubs.{name}")
    monkeypatch.setenv("ADLIB_DATA", str(pictures))


def reproduce(name: str, config: dict | None = None, categories=("stripes",), **options):
    return adlib.reproduce(name, "folder", list(categories), [0], config, "cpu", **options)


def weights(run) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(run.path / "model.safetensors")


@pytest.mark.parametrize("name", NAMES)
def test_a_stub_is_trained_saved_loaded_and_predicts_its_own_scores(name):
    """scores.csv was written from cached embeddings in batches; a loaded detector agrees picture by picture."""
    run = reproduce(name).runs[0]
    root = Path(data.load("folder", "stripes").attrs["root"])
    again = runs.load(run.path).predict([root / path for path in run.scores.path], device="cpu")
    # a memory bank's distances lose digits where they are small: 1e-3 of the largest score
    np.testing.assert_allclose(again.score, run.scores.score, atol=1e-3 * run.scores.score.abs().max())
    assert run.scores.score.nunique() > 1
    assert (run.maps is None) == (name in ("LossAndFit", "TwoOptimisers", "ManyViews"))


@pytest.mark.parametrize("name", NAMES)
def test_a_stub_left_after_every_step_and_resumed_equals_an_uninterrupted_one(name, tmp_path, monkeypatch):
    """A time budget that is always over: each call takes one step and leaves; the last gives the same bytes."""
    whole = reproduce(name).runs[0]
    monkeypatch.setenv("ADLIB_RESULTS", str(tmp_path / "pieces"))
    monkeypatch.setenv("ADLIB_MINUTES", "1e-9")
    # 20 images less 5 held back: 2 batches of 8 (or one whole one), two epochs, no leaving after the last
    for _ in range({"MemoryBank": 0, "TwoOptimisers": 1}.get(name, 3)):
        with pytest.raises(Unfinished, match="of 2; the same command goes on"):
            reproduce(name)
    pieces = reproduce(name).runs[0]
    a, b = weights(whole), weights(pieces)
    assert a.keys() == b.keys()
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert whole.scores.equals(pieces.scores)
    assert whole.history.drop(columns="seconds").equals(pieces.history.drop(columns="seconds"))


def test_what_loss_and_fit_have_learnt_is_both_there():
    """Today's loop took such a system for one that only collects statistics and never trained it."""
    run = reproduce("LossAndFit", {"epochs": 3}).runs[0]
    untrained = reproduce("LossAndFit", {"epochs": 0}).runs[0]
    assert len(run.history) == 3
    assert len(untrained.history) == 0
    assert not torch.equal(weights(run)["head.weight"], weights(untrained)["head.weight"])
    assert not torch.equal(weights(run)["mean"], torch.zeros(24))
    assert not torch.equal(weights(run)["mean"], weights(untrained)["mean"])


def test_looking_at_the_test_set_changes_nothing():
    """`fit` runs before every look, with a stream of its own: the numbers are those without a look."""
    for name in ("MemoryBank", "LossAndFit"):
        looked, blind = (reproduce(name, {"eval_every": every}).runs[0] for every in (1, 0))
        assert looked.scores.score.equals(blind.scores.score)


def test_a_bank_has_as_many_rows_as_fit_gave_it():
    """15 images, 8 x 8 places, a tenth of them: 96 rows; 20 of 100 with another share."""
    sizes = {}
    for share in (0.1, 0.05):
        run = reproduce("MemoryBank", {"share": share}).runs[0]
        detector = runs.load(run.path).detector()
        places = detector.bank.shape[0] / share
        sizes[share] = len(detector.bank)
        assert places == pytest.approx(15 * (64 // detector.backbone.strides[0]) ** 2, abs=1 / share)
    assert sizes[0.1] == 2 * sizes[0.05]


def test_frozen_networks_are_named_and_not_stored():
    """Whatever attribute holds them: the second frozen network of a loss, a teacher; neither run nor checkpoint."""
    for name, prefix in (("SecondFrozen", "perceptual."), ("TeacherStudent", "backbone."), ("MemoryBank", "backbone.")):
        run = reproduce(name).runs[0]
        assert [network["name"] for network in run.record["weights"]] == ["test_resnet"]
        assert not [key for key in weights(run) if key.startswith(prefix)]


def test_started_weights_are_part_of_the_identity_and_are_stored():
    run = reproduce("LossAndFit").runs[0]
    assert [network["name"] for network in run.record["weights"]] == ["tf_efficientnet_lite0"]
    assert [key for key in weights(run) if key.startswith("network_.")]


def test_one_model_for_all_categories_scores_each():
    run = reproduce("SecondFrozen", categories=("stripes", "lines"), together=True).runs[0]
    assert list(run.record["per_category"]) == ["stripes", "lines"]
    assert run.record["per_category"]["stripes"]["counts"]["fit"] == 15


def test_embeddings_in_half_precision_are_half_the_bytes(tmp_path):
    run = reproduce("ThreeScales").runs[0]
    stored = [np.load(path, mmap_mode="r") for path in (tmp_path / "cache").rglob("map*.npy")]
    assert {array.dtype for array in stored} == {np.dtype(np.float16)}
    assert len(stored) == 2
    assert len({array.shape[-1] for array in stored}) == 2
    assert run.scores.score.notna().all()


class Chosen(stubs.MemoryBank):
    """As PaDiM: embeds some channels, drawn from the seed, as many as a setting says. Declares nothing."""

    def __init__(self, config):
        super().__init__(config)
        count = max(1, int(10 * config.share))
        self.register_buffer("channels", torch.randperm(self.backbone.channels[0])[:count])

    def embed(self, images):
        return tuple(x[:, self.channels] for x in self.backbone(images))


def test_an_embedding_that_declares_nothing_depends_on_every_setting_and_tensor(monkeypatch):
    """Seeds and settings of such a system never read each other's maps: each predicts the scores that it wrote."""
    monkeypatch.setattr(stubs, "Chosen", Chosen, raising=False)
    monkeypatch.setitem(models.SYSTEMS, "Chosen", "stubs.Chosen")
    root = Path(data.load("folder", "stripes").attrs["root"])
    for share in (0.2, 0.4):
        found = adlib.reproduce("Chosen", "folder", ["stripes"], [0, 1], {"share": share, "eval_every": 0}, "cpu")
        for run in found:
            again = run.predict([root / path for path in run.scores.path], device="cpu")
            np.testing.assert_allclose(again.score, run.scores.score, atol=1e-3 * run.scores.score.max())


def test_a_declared_embedding_is_shared_by_seeds_and_settings():
    """Three scales depend on `scales` alone: another share or learnt state has the same key, other scales have not."""
    first, second = stubs.ThreeScales(stubs.Config()), stubs.ThreeScales(stubs.Config(share=0.3))
    with torch.no_grad():
        second.shift.add_(1)
    assert first.embedding_key == second.embedding_key
    assert first.embedding_key != stubs.ThreeScales(stubs.Config(scales=(64, 16))).embedding_key


def test_the_key_of_embeddings_knows_the_code_of_embed():
    """Two systems with one backbone and other embeddings do not share a cache; a learnt backbone embeds nothing."""

    class Learnt(stubs.DerivedImage):
        def __init__(self, config):
            super().__init__(config)
            self.backbone = self.encoder

    keys = [cls(stubs.Config()).embedding_key for cls in (stubs.ThreeScales, stubs.MemoryBank, Chosen)]
    assert len({key["code"] for key in keys}) == 3
    assert stubs.ManyViews(stubs.Config()).embedding_key is None
    learnt = Learnt(stubs.Config())
    images = torch.rand(1, 3, 64, 64)
    assert learnt.embedding_key is None
    assert learnt.embed(images) is images


def test_fit_may_not_change_what_is_learnt(monkeypatch):
    """Looking at the test set would change training; it is said by name."""

    def fit(self, embeddings, generator):
        self.head.weight.mul_(0.5)

    monkeypatch.setattr(stubs.LossAndFit, "fit", fit)
    with pytest.raises(TypeError, match=r"LossAndFit\.fit changed parameters"):
        reproduce("LossAndFit")


def test_a_budget_that_is_over_begins_no_further_run(monkeypatch):
    """A bank has no steps to stop at: the first of two seeds is made, the second is not begun; then it is."""
    monkeypatch.setenv("ADLIB_MINUTES", "1e-9")
    with pytest.raises(Unfinished, match="MemoryBank folder/stripes seed 1 not begun"):
        adlib.reproduce("MemoryBank", "folder", ["stripes"], [0, 1], device="cpu")
    assert len(adlib.reproduce("MemoryBank", "folder", ["stripes"], [0, 1], device="cpu")) == 2


@pytest.mark.parametrize("name", [*NAMES, "simplenet", "draem"])
def test_planning_computes_nothing_and_finds_the_same_weights(name):
    """On the meta device a detector has the networks of the real one, and no storage."""
    detector_class, config_class = models.get(name)
    config = config_class.from_dict(
        {"backbone": "tf_efficientnet_lite0"} if name == "simplenet" else {"image_size": 64}
    )
    with torch.device("meta"):
        planned = detector_class(config)
    assert {p.device.type for p in planned.parameters()} <= {"meta"}
    if name != "draem":  # 97 million parameters, and no network but its own
        assert planned.networks == detector_class(config).networks


def test_steps_take_the_place_of_epochs():
    """3 steps of two batches an epoch: the second epoch ends after its first batch."""
    run = reproduce("DerivedImage", {"steps": 3}).runs[0]
    assert (run.record["config"]["epochs"], run.record["config"]["steps"]) == (None, 3)
    assert run.history.epoch.tolist() == [1, 2]
    other = reproduce("DerivedImage", {"epochs": 2}).runs[0]
    assert run.history.total.iloc[0] == other.history.total.iloc[0]
    assert run.history.total.iloc[1] != other.history.total.iloc[1]


def test_the_last_incomplete_batch_is_dropped_where_a_system_wants_it(monkeypatch):
    run = reproduce("TwoOptimisers", {"epochs": 1}).runs[0]
    whole = reproduce("TwoOptimisers", {"epochs": 1, "batch_size": 15}).runs[0]
    assert run.history.total.iloc[0] != whole.history.total.iloc[0]
    with pytest.raises(ValueError, match="batch_size 16 leaves no whole batch of 15 training images"):
        reproduce("TwoOptimisers", {"batch_size": 16})


def test_gradients_are_clipped_to_the_norm_of_the_system():
    """A gradient of norm 5 (3, 4) with clip_norm 1 becomes (0.6, 0.8)."""
    detector = Detector(stubs.Config())
    detector.weight = torch.nn.Parameter(torch.zeros(2))
    detector.weight.grad = torch.tensor([3.0, 4.0])
    detector.clip()
    assert detector.weight.grad.tolist() == [3.0, 4.0]
    detector.clip_norm = 1.0
    detector.clip()
    torch.testing.assert_close(detector.weight.grad, torch.tensor([0.6, 0.8]), atol=1e-5, rtol=0)
