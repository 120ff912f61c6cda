"""Stopped, killed, out of space: what is left of a run, and that the next call finishes it."""

import signal
import subprocess
import sys
from pathlib import Path

import made
import pandas as pd
import pytest
import torch

import adlib
from adlib import runs
from adlib.common.errors import UserError
from adlib.runs import execution, fingerprint


def test_an_interrupted_run_leaves_nothing_that_looks_finished(here, monkeypatch, tmp_path):
    """Stopped after training, before the record: the next call measures without training again, same numbers."""
    whole = adlib.reproduce("simplenet", "folder", ["stripes"], [0], made.CONFIG).runs[0]
    monkeypatch.setenv("ADLIB_RESULTS", str(tmp_path / "r"))
    with monkeypatch.context() as patch:

        def stop(*_):
            raise KeyboardInterrupt

        patch.setattr(execution, "measure", stop)
        with pytest.raises(KeyboardInterrupt):
            adlib.reproduce("simplenet", "folder", ["stripes"], [0], made.CONFIG)
    assert not list((tmp_path / "r").rglob("run.json"))
    again = adlib.reproduce("simplenet", "folder", ["stripes"], [0], made.CONFIG).runs[0]
    pd.testing.assert_frame_equal(whole.scores, again.scores)


def test_a_full_disk_while_writing_a_run_is_one_sentence_and_leaves_no_run(here, monkeypatch, tmp_path):
    monkeypatch.setenv("ADLIB_RESULTS", str(tmp_path / "r"))

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(pd.DataFrame, "to_csv", full)
        with pytest.raises(UserError, match="No space left on device"):
            adlib.reproduce("simplenet", "folder", ["stripes"], [0], made.CONFIG | {"epochs": 1})
    assert not list((tmp_path / "r").rglob("run.json"))
    assert len(adlib.reproduce("simplenet", "folder", ["stripes"], [0], made.CONFIG | {"epochs": 1})) == 1


def test_a_full_disk_while_caching_features_leaves_no_cache(here, monkeypatch, tmp_path):
    """The cache is whole or absent."""
    from adlib import embeddings

    monkeypatch.setenv("ADLIB_CACHE", str(tmp_path / "c"))
    monkeypatch.setenv("ADLIB_RESULTS", str(tmp_path / "r"))

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(embeddings, "_append_maps", full)
    with pytest.raises(UserError, match="features cannot be written"):
        adlib.reproduce("simplenet", "folder", ["stripes"], [0], made.CONFIG)
    assert [path.suffix for path in (tmp_path / "c" / "features").iterdir()] == [".lock"]


def test_a_checkpoint_of_other_code_is_not_gone_on_with(here, monkeypatch, tmp_path, capsys):
    """Stopped, the code changed, started again: trained from the beginning."""
    monkeypatch.setenv("ADLIB_RESULTS", str(tmp_path / "r"))
    with monkeypatch.context() as patch:
        patch.setattr(fingerprint, "code_fingerprint", lambda method: "older")

        def stop(*_):
            raise KeyboardInterrupt

        patch.setattr(execution, "measure", stop)
        with pytest.raises(KeyboardInterrupt):
            adlib.reproduce("simplenet", "folder", ["stripes"], [0], made.CONFIG)
    adlib.reproduce("simplenet", "folder", ["stripes"], [0], made.CONFIG)
    assert "starts over" in capsys.readouterr().err
    assert len(list((tmp_path / "r").rglob("*.checkpoint-older-cpu.pt"))) == 1


def test_sigterm_before_training_is_unfinished_and_leaves_no_half_of_a_cache(here, monkeypatch, tmp_path):
    """A scheduler's signal while features are computed: status 75, no pieces, and the next call finishes."""
    import os

    from adlib import embeddings
    from adlib.training import Unfinished

    monkeypatch.setenv("ADLIB_CACHE", str(tmp_path / "c"))
    monkeypatch.setenv("ADLIB_RESULTS", str(tmp_path / "r"))
    call = ("simplenet", "folder", ["stripes"], [0], made.CONFIG | {"epochs": 1}, "cpu")
    (tmp_path / "c" / "features").mkdir(parents=True)
    with monkeypatch.context() as patch:
        fill = embeddings._append_maps

        def killed(*arguments):
            fill(*arguments)
            os.kill(os.getpid(), signal.SIGTERM)

        patch.setattr(embeddings, "_append_maps", killed)
        with pytest.raises(Unfinished, match="was asked to end; the same command goes on") as left:
            adlib.reproduce(*call)
    assert left.value.status == 75
    assert [path.suffix for path in (tmp_path / "c" / "features").iterdir()] == [".lock"]
    assert len(adlib.reproduce(*call)) == 1


def test_pieces_of_a_killed_write_are_not_part_of_a_run(here, monkeypatch, tmp_path):
    """kill -9 while a checkpoint is written leaves a scratch file; the finished run does not have it."""
    monkeypatch.setenv("ADLIB_RESULTS", str(tmp_path / "r"))
    call = ("simplenet", "folder", ["stripes"], [0], made.CONFIG | {"epochs": 1})
    folder = runs.plans(*call)[0].folder
    partial = folder.with_name(f"{folder.name}.partial")
    partial.mkdir(parents=True)
    (partial / ".checkpoint.pt.0123456789ab.tmp").write_bytes(b"half")
    adlib.reproduce(*call, "cpu")
    assert not [path.name for path in folder.iterdir() if path.name.startswith(".")]


def test_a_full_disk_while_the_record_is_written_leaves_no_record(here, monkeypatch, tmp_path):
    """Half of run.json would be taken for a finished run by the next start; it is written aside and renamed."""
    monkeypatch.setenv("ADLIB_RESULTS", str(tmp_path / "r"))
    call = ("simplenet", "folder", ["stripes"], [0], made.CONFIG | {"epochs": 1}, "cpu")
    write_text = Path.write_text

    def full(path, text, *arguments, **named):
        if "run.json" in path.name:
            write_text(path, text[:4096])
            raise OSError(28, "No space left on device")
        return write_text(path, text, *arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", full)
        with pytest.raises(UserError, match="No space left on device"):
            adlib.reproduce(*call)
    assert not list((tmp_path / "r").rglob("*run.json*"))
    assert len(adlib.reproduce(*call)) == 1


KILLS = {  # the call that dies, in what it writes, the how manieth; a file that is there
    "a checkpoint in the middle of training": ("torch:save", "checkpoint.pt", 5, "checkpoint.pt"),
    "the scores, among the first files": ("pandas:DataFrame:to_csv", "scores.csv", 1, "history.csv"),
    "the weights, in the middle of the last files": ("pathlib:Path:write_bytes", "model", 1, "scores.csv"),
    "the record, the last file": ("pathlib:Path:write_text", "run.json", 1, "maps.npz"),
    "the name of the folder": ("os:replace", ".partial", 1, "run.json"),
}


FAST = ("a checkpoint in the middle of training", "the record, the last file")  # the others in `make test-slow`


@pytest.mark.parametrize(
    "kill",
    [pytest.param(k, id=name, marks=() if name in FAST else pytest.mark.slow) for name, k in KILLS.items()],
)
def test_killed_at_any_write_the_next_call_gives_the_same_bytes(here, kill, monkeypatch, tmp_path):
    """kill -9 in a process of its own, after half of what was to be written; what was finished before is there."""
    *how, before = map(str, kill)
    whole = adlib.reproduce("simplenet", "folder", ["stripes"], [0], made.CONFIG).runs[0]
    monkeypatch.setenv("ADLIB_RESULTS", str(tmp_path / "r"))
    monkeypatch.setenv("THREADS", str(torch.get_num_threads()))
    command = [sys.executable, str(Path(__file__).with_name("killed.py")), *how]
    killed = subprocess.run(command, capture_output=True, text=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    (partial,) = (tmp_path / "r").rglob("*.partial")
    assert (partial / before).is_file()
    again = adlib.reproduce("simplenet", "folder", ["stripes"], [0], made.CONFIG).runs[0]
    for name in ("scores.csv", "model.safetensors", "maps.npz"):
        assert (again.path / name).read_bytes() == (whole.path / name).read_bytes(), name
    assert {path.name for path in again.path.iterdir()} == {path.name for path in whole.path.iterdir()}


@pytest.mark.parametrize("content", ["", "x" * 4096])
def test_a_record_that_a_full_disk_left_is_not_taken_for_a_run(here, content, monkeypatch, tmp_path):
    """0 or 4096 bytes of run.json beside a checkpoint: measured again from it, nothing is set aside."""
    monkeypatch.setenv("ADLIB_RESULTS", str(tmp_path / "r"))
    call = ("simplenet", "folder", ["stripes"], [0], made.CONFIG | {"epochs": 1})
    with monkeypatch.context() as patch:

        def stop(*_):
            raise KeyboardInterrupt

        patch.setattr(execution, "measure", stop)
        with pytest.raises(KeyboardInterrupt):
            adlib.reproduce(*call)
    (checkpoint,) = (tmp_path / "r").rglob("checkpoint.pt")
    (checkpoint.parent / "run.json").write_text(content)
    assert len(runs.Runs(adlib.reproduce(*call).runs).scores) == 12
    assert not list((tmp_path / "r").rglob("*.broken*"))
