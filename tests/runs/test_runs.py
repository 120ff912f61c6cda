"""Runs: identity, whole or absent, loaded not repeated, tables, and what the record promises."""

import json
import shutil

import made
import numpy as np
import pytest

import adlib
from adlib import metrics, models, runs
from adlib.common.errors import UserError
from adlib.runs import fingerprint


@pytest.fixture
def found(here):
    return adlib.reproduce("simplenet", "folder", ["stripes"], [0, 1], made.CONFIG, train=False)


def test_a_finished_run_is_never_trained_again(here, monkeypatch):
    """Same identity and seed: loaded. Training again would call execute."""
    monkeypatch.setattr(runs, "execute", None)
    assert len(adlib.reproduce("simplenet", "folder", ["stripes"], [0, 1], made.CONFIG)) == 2


def test_what_is_missing_is_named_not_trained(here):
    found = adlib.reproduce("simplenet", "folder", ["stripes"], [0, 7], made.CONFIG, train=False)
    assert (len(found), [p.seed for p in found.missing]) == (1, [7])
    assert "missing: simplenet folder stripes seed 7" in repr(found)


def test_the_run_folder_holds_the_promised_files_and_nothing_unfinished(found):
    names = {p.name for p in found.runs[0].path.iterdir()}
    assert names == {"run.json", "scores.csv", "history.csv", "model.safetensors", "maps.npz", "replicates.npz"}
    assert not list(found.runs[0].path.parent.glob("*.partial"))


def test_identity_changes_with_everything_that_decides_the_numbers(here, monkeypatch):
    """Config, data content and frozen weights are in the hash; the seed stands beside it."""

    def hash_of(**changes):
        return runs.plans("simplenet", "folder", ["stripes"], [0], made.CONFIG | changes)[0].hash

    base = hash_of()
    assert base == hash_of()
    assert base != hash_of(epochs=5)
    assert base != hash_of(pretrained=False)
    first, second = runs.plans("simplenet", "folder", ["stripes"], [0, 1], made.CONFIG)
    assert first.hash == second.hash
    assert first.folder != second.folder


def test_identity_changes_when_an_image_changes(tmp_path, monkeypatch):
    """The same names with other bytes are other data."""
    base = made.folder_dataset(tmp_path / "data")
    monkeypatch.setenv("ADLIB_DATA", str(tmp_path / "data"))
    before = runs.plans("simplenet", "folder", ["stripes"], [0], made.CONFIG)[0].hash
    shutil.copy(base / "normal" / "001.png", base / "normal" / "000.png")
    assert runs.plans("simplenet", "folder", ["stripes"], [0], made.CONFIG)[0].hash != before


def test_metrics_are_those_of_the_written_scores(found):
    """run.json's numbers follow from scores.csv by the public metric functions."""
    for run in found:
        table, record = run.scores, run.record["per_category"]["stripes"]
        assert record["metrics"]["image_auroc"] == pytest.approx(metrics.image_auroc(table.label, table.score))
        tau = record["threshold"]["tau"]
        assert table.decision.tolist() == (table.score > tau).astype(int).tolist()
        assert record["metrics"]["recall@threshold"] == pytest.approx(table.decision[table.label == 1].mean())


def test_the_table_of_runs_has_mean_sd_and_a_joint_interval(found):
    """Mean and sd (n - 1) of two seeds; the interval resamples images jointly for both."""
    row = found.metrics.set_index("metric").loc["image_auroc"]
    single = [r.record["metrics"]["image_auroc"] for r in found]
    assert row["mean"] == pytest.approx(np.mean(single))
    assert row["sd"] == pytest.approx(np.std(single, ddof=1))
    assert (row["n_seeds"], row["n_images"]) == (2, 12)
    assert row["low"] <= row["mean"] <= row["high"]
    pixel = found.metrics.set_index("metric").loc["pixel_auroc"]
    assert pixel["low"] <= pixel["mean"] <= pixel["high"]


def test_nothing_but_normal_images_decides_the_threshold(found):
    """24 normal images, a tenth but at least 5 held back: 19 to fit, 5 for tau, level 1/6 (specs/common 4.7)."""
    record = found.runs[0].record["per_category"]["stripes"]
    assert (record["counts"]["fit"], record["counts"]["held"]) == (19, 5)
    assert record["threshold"]["level"] == pytest.approx(1 / 6)
    assert record["threshold"]["source"] == "holdback"


def test_without_holdback_the_threshold_is_flagged_optimistic(here):
    config = made.CONFIG | {"holdback": 0.0, "epochs": 1, "eval_every": 0}
    record = adlib.reproduce("simplenet", "folder", ["stripes"], [0], config).runs[0].record
    assert record["per_category"]["stripes"]["threshold"]["source"] == "train (optimistic)"


def test_the_oracle_row_never_replaces_the_last_epoch(found):
    """best epoch >= last epoch on its own criterion, both recorded, the headline is the last."""
    for run in found:
        values = run.record["metrics"]
        assert values["image_auroc (oracle best epoch)"] >= values["image_auroc"] - 1e-12
        looked = run.history["image_auroc (oracle)"].dropna()
        assert values["image_auroc (oracle best epoch)"] == pytest.approx(looked.max())
        assert run.record["protocol"]["select"] == "last"


def test_the_written_weights_are_the_last_epochs(here, monkeypatch, tmp_path):
    """The oracle's best epoch (here forced to be the first looked at) leaves no trace in the weights or scores."""
    from pathlib import Path

    from adlib import data
    from adlib.training import Training

    keep = Training.keep_best
    monkeypatch.setattr(Training, "keep_best", lambda self, epoch, value: keep(self, epoch, -epoch))
    monkeypatch.setenv("ADLIB_RESULTS", str(tmp_path / "r"))
    run = adlib.reproduce("simplenet", "folder", ["stripes"], [0], made.CONFIG | {"eval_every": 1}).runs[0]
    assert run.record["oracle_epoch"] == 1
    root = Path(data.load("folder", "stripes").attrs["root"])
    np.testing.assert_allclose(run.predict([root / p for p in run.scores.path]).score, run.scores.score, rtol=1e-5)


def test_one_layer_alone_is_still_a_tuple_of_maps(here):
    """The ablation's layers [2] or [3]: one cached map per image, not a bare tensor."""
    config = made.CONFIG | {"layers": [3], "epochs": 1, "eval_every": 0}
    assert len(adlib.reproduce("simplenet", "folder", ["stripes"], [0], config)) == 1


def test_the_same_run_again_gives_the_same_bytes(here, monkeypatch, tmp_path):
    """Another results folder, equal threads: scores, weights and metrics are identical."""
    first = adlib.reproduce("simplenet", "folder", ["stripes"], [0], made.CONFIG).runs[0]
    monkeypatch.setenv("ADLIB_RESULTS", str(tmp_path / "again"))
    second = adlib.reproduce("simplenet", "folder", ["stripes"], [0], made.CONFIG).runs[0]
    for name in ("scores.csv", "model.safetensors"):
        assert (first.path / name).read_bytes() == (second.path / name).read_bytes()
    assert first.record["per_category"] == second.record["per_category"]


def test_together_trains_one_model_on_all_categories(tmp_path, monkeypatch):
    """One folder, metrics per category, the mean unweighted."""
    made.folder_dataset(tmp_path / "data", train=12)
    shutil.copytree(tmp_path / "data" / "folder" / "stripes", tmp_path / "data" / "folder" / "stripes2")
    monkeypatch.setenv("ADLIB_DATA", str(tmp_path / "data"))
    found = adlib.reproduce("simplenet", "folder", None, [0], made.CONFIG | {"epochs": 1}, together=True)
    assert len(found) == 1
    record = found.runs[0].record
    assert list(record["per_category"]) == ["stripes", "stripes2"]
    mean = np.mean([c["metrics"]["image_auroc"] for c in record["per_category"].values()])
    assert record["metrics"]["image_auroc"] == pytest.approx(mean)
    assert record["protocol"]["training"] == "together"


def test_a_large_test_set_is_measured_in_bounded_memory(here, monkeypatch, tmp_path):
    """Streaming values lie within their own bounds of the exact ones."""
    from adlib import evaluation

    exact = adlib.reproduce("simplenet", "folder", ["stripes"], [0], made.CONFIG).runs[0].record["metrics"]
    monkeypatch.setattr(evaluation, "IN_MEMORY", 0)
    monkeypatch.setenv("ADLIB_RESULTS", str(tmp_path / "r"))
    streamed = adlib.reproduce("simplenet", "folder", ["stripes"], [0], made.CONFIG).runs[0].record
    for name in ("pixel_auroc", "aupro@0.3", "pixel_ap"):
        bound = streamed["per_category"]["stripes"]["pixel"][f"{name}_bound"]
        assert abs(streamed["metrics"][name] - exact[name]) <= bound + 1e-12


def test_a_large_test_set_without_masks_is_measured_too(tmp_path, monkeypatch):
    """No masks, and more pixels than are kept in memory: image metrics only, no error after the training."""
    from adlib import evaluation

    base = made.folder_dataset(tmp_path / "data", train=10)
    shutil.rmtree(base / "masks")
    monkeypatch.setenv("ADLIB_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(evaluation, "IN_MEMORY", 0)
    record = adlib.reproduce("simplenet", "folder", ["stripes"], [0], made.CONFIG | {"epochs": 1}).runs[0].record
    assert "image_auroc" in record["metrics"]
    assert "pixel_auroc" not in record["metrics"]


def test_copies_of_a_run_count_once(found, tmp_path):
    """results/ holds runs/ and reference/runs/: the same hash and seed is one run."""
    for name in ("a", "b"):
        shutil.copytree(found.runs[0].path, tmp_path / name / found.runs[0].path.name)
    assert len(runs.find(tmp_path)) == 1


def test_a_run_whose_code_changed_is_stale(found, monkeypatch):
    assert not found.runs[0].stale
    monkeypatch.setattr(fingerprint, "code_fingerprint", lambda method: "other")
    assert found.runs[0].stale


def test_a_mixture_is_one_run_whatever_its_spelling(here, monkeypatch, tmp_path):
    """Two data sets together: one model, a folder without blanks or colons, and scores of each part."""
    monkeypatch.setenv("ADLIB_RESULTS", str(tmp_path / "r"))
    config = made.CONFIG | {"epochs": 1}
    names = ("folder:stripes+textures:grass", " folder : stripes +  textures:grass ")
    found = [adlib.reproduce("simplenet", name, None, [0], config, together=True) for name in names]
    assert found[0].runs[0].path == found[1].runs[0].path
    assert not set(": ") & set(str(found[0].runs[0].path.relative_to(tmp_path)))
    record = found[0].runs[0].record
    assert record["dataset"] == "folder:stripes + textures:grass"
    assert list(record["per_category"]) == ["folder:stripes", "textures:grass"]
    assert set(found[0].scores.category) == {"folder:stripes", "textures:grass"}


def test_one_draem_for_many_categories_is_warned_of(here, capsys):
    """Measured by others at 54.5 image AUROC: whoever asks for it is told, and gets it."""
    adlib.reproduce("draem", "textures", ["brick", "grass"], config={"image_size": 64}, together=True, train=False)
    assert "one category at a time" in capsys.readouterr().err
    adlib.reproduce("draem", "textures", ["brick"], config={"image_size": 64}, train=False)
    assert capsys.readouterr().err == ""


def test_options_of_a_data_set_reach_a_run_in_its_name(here, monkeypatch, tmp_path):
    """Another split is other data: another hash, another folder, and its name says so."""
    monkeypatch.setenv("ADLIB_RESULTS", str(tmp_path / "r"))
    call = lambda name: runs.plans("simplenet", name, "mono", [0], made.CONFIG)[0]
    first, other = call("elpv"), call("elpv?split_seed=1")
    assert first.hash != other.hash
    assert other.folder.parts[-3:-1] == ("elpv-split_seed-1", "mono")
    assert other.dataset == "elpv?split_seed=1"
    for wrong in ("elpv?split_seed", "elpv?seed=1"):
        with pytest.raises(UserError, match="option"):
            call(wrong)


def test_own_pictures_without_a_level_of_categories_are_one_category(tmp_path, monkeypatch):
    base = made.folder_dataset(tmp_path / "data")
    base.rename(tmp_path / "own")
    shutil.rmtree(tmp_path / "data" / "folder")
    (tmp_path / "own").rename(tmp_path / "data" / "folder")
    monkeypatch.setenv("ADLIB_DATA", str(tmp_path / "data"))
    assert [p.category for p in runs.plans("simplenet", "folder", config=made.CONFIG)] == ["folder"]


class Pictures:
    """What a texture source looks like to a run."""

    name, note = "spots", "three spots"

    def __init__(self, fingerprint: str):
        self.fingerprint = fingerprint

    def __len__(self) -> int:
        return 3


def test_pictures_that_training_draws_on_are_part_of_the_identity(here, monkeypatch, tmp_path):
    """Another texture source is another run; its name, size and note stand in the record; it reaches the detector."""
    monkeypatch.setenv("ADLIB_RESULTS", str(tmp_path / "r"))
    detector, equipped = models.get("simplenet")[0], []
    monkeypatch.setattr(detector, "equip", lambda self, texture_bank, device: equipped.append(texture_bank.fingerprint))
    call = ("simplenet", "folder", ["stripes"], [0], made.CONFIG | {"epochs": 1})
    without = runs.plans(*call)[0].hash
    hashes = []
    for name in ("a", "b"):
        monkeypatch.setattr(detector, "texture_bank", classmethod(lambda *_, n=name: Pictures(n)))
        hashes.append(runs.plans(*call)[0].hash)
    assert len({without, *hashes}) == 3
    found = adlib.reproduce(*call).runs[0].record
    assert found["texture_bank"] == {"name": "spots", "count": 3, "note": "three spots", "fingerprint": "b"}
    assert equipped == ["b"]


def test_masks_as_the_authors_make_them_are_measured_beside_ours(here, monkeypatch, tmp_path):
    """The plain metric keeps the run's rule; the other rule's numbers carry its name."""
    monkeypatch.setenv("ADLIB_RESULTS", str(tmp_path / "r"))
    monkeypatch.setattr(models.get("simplenet")[0], "published_mask_rule", "exact_one")
    found = adlib.reproduce("simplenet", "folder", ["stripes"], [0], made.CONFIG | {"epochs": 1}).runs[0].record
    assert {"pixel_auroc", "pixel_auroc (exact_one masks)", "pixel_ap (exact_one masks)"} <= set(found["metrics"])
    assert found["metrics"]["pixel_auroc"] != found["metrics"]["pixel_auroc (exact_one masks)"]


def test_the_record_says_where_and_how_it_was_made(found):
    record = found.runs[0].record
    assert {"device", "threads", "versions", "peak_host_bytes"} <= set(record["machine"])
    assert {"decode", "embed", "train", "measure"} <= set(record["seconds"])
    assert [network["file"] for network in record["weights"]] == ["efficientnet-lite0-57934424.pth"]
    strict = json.loads((found.runs[0].path / "run.json").read_text(), parse_constant=pytest.fail)
    assert strict["hash"] == record["hash"]


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"method": "simplnet"}, "did you mean 'simplenet'"),
        ({"dataset": "foldr"}, "unknown data set"),
        ({"categories": ["strips"]}, "did you mean 'stripes'"),
        ({"seeds": [0.5]}, "list of integers"),
        ({"seeds": []}, "list of integers"),
        ({"config": {"epoch": 3}}, "did you mean 'epochs'"),
        ({"device": "gpu"}, "valid: auto, cpu, cuda"),
    ],
)
def test_wrong_names_stop_before_any_work(here, change, part):
    call = {"method": "simplenet", "dataset": "folder", "categories": ["stripes"], "config": made.CONFIG} | change
    with pytest.raises(UserError, match=part):
        adlib.reproduce(**call)


def test_the_metrics_of_runs_are_bootstrapped_once(found, monkeypatch):
    """4 to 5 seconds for 42 runs: every table and figure asks for them again."""
    calls, interval = [], metrics.bootstrap_interval
    monkeypatch.setattr(metrics, "bootstrap_interval", lambda *a, **k: calls.append(1) or interval(*a, **k))
    fresh = runs.Runs(found.runs)
    first = fresh.metrics
    count = len(calls)
    assert count > 0
    assert fresh.metrics is first
    assert len(calls) == count


def test_the_level_from_which_a_mask_counts_is_part_of_the_identity(here, monkeypatch):
    from adlib import data

    call = ("simplenet", "folder", ["stripes"], [0], made.CONFIG)
    before = runs.plans(*call)[0].hash

    def load(*arguments):
        table = data.load(*arguments)
        table.attrs["mask_threshold"] = 99
        return table

    assert runs.plans(*call, load=load)[0].hash != before
