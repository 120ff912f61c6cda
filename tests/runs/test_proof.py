"""A finished run is proven: every file is as it was written, or the run counts as damaged, is named and made again."""

import json
import os
import shutil

import made
import numpy as np
import pytest

import adlib
from adlib import batch, runs
from adlib.__main__ import main
from adlib.common.errors import UserError
from adlib.runs import proof

FILES = ("run.json", "scores.csv", "history.csv", "maps.npz", "replicates.npz", "model.safetensors")
CALL = ("simplenet", "folder", ["stripes"], [0, 1], made.CONFIG)


@pytest.fixture
def own(here, tmp_path, monkeypatch):
    """A private copy of the two runs, to be broken: the folder of seed 0's. Other tests may have added runs."""
    shutil.copytree(here / "results", tmp_path / "own")
    monkeypatch.setenv("ADLIB_RESULTS", str(tmp_path / "own"))
    both = [plan.folder for plan in runs.plans(*CALL)]
    for folder in {record.parent for record in (tmp_path / "own").rglob("run.json")} - set(both):
        shutil.rmtree(folder)
    return both[0]


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 3 // 5])


def changed(path):
    """Another byte near the middle, the same size; of a name, for the last digit of a float may mean nothing."""
    content = bytearray(path.read_bytes())
    content[content.find(b'"', len(content) // 2) + 1 or len(content) // 2] ^= 1
    path.write_bytes(content)


def emptied(path):
    path.write_bytes(b"")


def removed(path):
    path.unlink()


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", [cut, changed, emptied, removed])
def test_whatever_happens_to_a_file_the_run_is_not_whole(own, damage, name):
    """Sizes of all files, contents of all; the weights' content where they are asked for."""
    proof.check(own, weights=True)
    damage(own / name)
    assert not proof.finished(own, weights=True)
    assert proof.finished(own) == (name == proof.WEIGHTS and damage is changed)


def test_half_of_the_scores_give_no_interval(own):
    """60 of 100 rows would give the same AUROC with another interval, and nobody would see it."""
    lines = (own / "scores.csv").read_text().splitlines(keepends=True)
    run = runs.load(own)
    (own / "scores.csv").write_text("".join(lines[: len(lines) * 3 // 5]))
    with pytest.raises(proof.Damaged, match=r"scores.csv has \d+ bytes instead of \d+"):
        _ = runs.Runs([run]).metrics


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("history.csv", lambda run: run.history),
        ("maps.npz", lambda run: run.maps),
        ("replicates.npz", lambda run: run.replicates),
        ("model.safetensors", lambda run: run.detector()),
    ],
)
def test_what_is_read_is_checked_first(own, name, read):
    changed(own / name)
    with pytest.raises(proof.Damaged, match=f"{name} has another content"):
        read(runs.load(own))


def test_a_damaged_run_is_set_aside_named_and_made_again(own, capsys):
    """With the same numbers; the other run is not touched, and a second damage finds another name."""
    before, other = runs.load(own).scores, own.with_name(own.name.replace("-s0", "-s1"))
    time = (other / "run.json").stat().st_mtime_ns
    for name in (f"{own.name}.broken", f"{own.name}.broken2"):
        changed(own / "model.safetensors")
        assert len(adlib.reproduce(*CALL)) == 2
        assert f"kept as {name} and made again" in capsys.readouterr().err
        assert (own.parent / name / "scores.csv").is_file()
    assert runs.load(own).scores.equals(before)
    assert (other / "run.json").stat().st_mtime_ns == time


def test_one_bad_run_does_not_block_the_others(own, capsys):
    """`list` shows the good run and names the bad one; `reproduce` that may not train calls it missing."""
    cut(own / "scores.csv")
    assert main(["list"]) == 0
    said = capsys.readouterr()
    assert said.err.startswith(f"left out: run {own} is damaged: scores.csv has ")
    assert "-s1" in said.out
    assert "-s0" not in said.out
    assert [plan.seed for plan in adlib.reproduce(*CALL, train=False).missing] == [0]


def test_a_set_aside_run_is_no_run(own):
    proof.set_aside(own, proof.Damaged(own, "cut"))
    assert [run.path.name[-3:] for run in runs.find(own.parent)] == ["-s1"]


@pytest.mark.parametrize("damage", [cut, emptied, removed])
def test_a_batch_counts_a_damaged_run_as_left(own, damage, capsys, tmp_path):
    """Its sheet is there, its weights are cut: --dry-run names the run, the item is not done."""
    entry = f"- {{method: simplenet, dataset: folder, categories: [stripes], config: {json.dumps(made.CONFIG)}}}"
    (tmp_path / "batch.yml").write_text(entry)
    (item,) = batch.expand(tmp_path / "batch.yml")[0]
    item.sheet.parent.mkdir(parents=True)
    item.sheet.write_text("{}")
    assert item.finished
    damage(own / "model.safetensors")
    assert batch.main(tmp_path / "batch.yml", dry_run=True) == 0
    said = capsys.readouterr()
    assert "0 done, 1 left of 1" in said.out
    assert "model.safetensors" in said.err


WRONG = {
    "no JSON": "{",
    "brackets": "[" * 100_000,
    "a list": "[]",
    "a long number": '{"seed": ' + "9" * 5000 + "}",
}


@pytest.mark.parametrize("text", WRONG.values(), ids=WRONG)
def test_a_record_that_is_none_is_one_sentence(own, text):
    (own / "run.json").write_text(text)
    with pytest.raises(proof.Damaged, match=r"run.json is no run record"):
        _ = runs.load(own).record


@pytest.mark.parametrize(
    "change",
    [{"method": None}, {"config": []}, {"per_category": {}}, {"per_category": {"stripes": 1}}, {"seed": True}],
    ids=str,
)
def test_a_record_with_wrong_types_is_one_sentence(own, change):
    """Sealed, so only the fields themselves can tell; None takes the field away."""
    facts = {name: value for name, value in (proof.read(own) | change).items() if value is not None}
    proof.write(own, facts)
    with pytest.raises(proof.Damaged, match=r"run.json is no run record"):
        proof.read(own)


def test_a_record_changed_by_hand_is_no_record(own):
    """A better number in run.json: the seal is that of the former content."""
    text = (own / "run.json").read_text()
    facts = json.loads(text)
    facts["metrics"]["image_auroc"] = 1.5
    (own / "run.json").write_text(json.dumps(facts))
    with pytest.raises(proof.Damaged, match="changed after it was written"):
        proof.read(own)
    (own / "run.json").write_text(json.dumps(json.loads(text)))  # another layout is the same record
    proof.read(own)


@pytest.mark.parametrize("name", ["run.json", "scores.csv"])
@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_what_is_no_regular_file_is_not_waited_for(own, name, kind):
    (own / name).unlink()
    os.mkfifo(own / name) if kind == "pipe" else (own / name).symlink_to("/dev/zero")
    with pytest.raises(UserError, match="no regular file"):
        proof.check(own)


@pytest.mark.parametrize(
    "change",
    [{"metrics": {"image_auroc": "1"}}, {"threshold": {}}, {"counts": {}}, {"threshold": {"tau": None}}],
    ids=str,
)
def test_a_sealed_record_without_usable_numbers_is_one_sentence(own, change):
    record = proof.read(own)
    record["per_category"]["stripes"] |= change
    proof.write(own, record)
    with pytest.raises(proof.Damaged, match="is no run record"):
        proof.read(own)


def test_a_file_outside_the_folder_is_not_looked_at(own):
    record = proof.read(own)
    proof.write(own, record)
    facts = json.loads((own / "run.json").read_text())
    facts["files"]["../scores.csv"] = facts["files"]["scores.csv"]
    del facts["seal"]
    (own / "run.json").write_text(json.dumps(facts | {"seal": proof._seal(facts)}))
    with pytest.raises(proof.Damaged, match="no file of a run"):
        proof.check(own)


@pytest.mark.parametrize(
    ("name", "array"),
    [("maps.npz", np.array([{}], dtype=object)), ("maps.npz", np.zeros(3)), ("scores.csv", np.zeros(3))],
    ids=["objects", "another name", "no columns"],
)
def test_files_that_are_proven_and_still_no_run_are_one_sentence(own, name, array):
    """A stranger's folder may be sealed and hold anything: nothing is unpickled."""
    record = proof.read(own)
    with (own / name).open("wb") as file:
        np.savez(file, other=array)
    proof.write(own, record)
    run = runs.load(own)
    with pytest.raises(proof.Damaged, match=f"{name} cannot be used"):
        _ = run.maps if name == "maps.npz" else run.scores


def test_a_copy_without_weights_is_whole_by_its_own_record(own, tmp_path):
    """As in results/reference: its record lists what was copied, and says so where weights are asked for."""
    (tmp_path / "copy").mkdir()
    for name in ("scores.csv", "history.csv"):
        shutil.copy(own / name, tmp_path / "copy")
    proof.write(tmp_path / "copy", proof.read(own))
    copy = runs.load(tmp_path / "copy")
    proof.check(copy.path, weights=True)
    assert copy.scores.equals(runs.load(own).scores)
    assert copy.maps is None
    with pytest.raises(UserError, match="is a copy without"):
        copy.detector()
