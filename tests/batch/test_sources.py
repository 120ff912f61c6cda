"""Finished runs by a batch file, a run folder or a folder of runs."""

import shutil
from pathlib import Path

import pytest
from written_runs import write_run

from adlib.batch import expand, finished
from adlib.common.errors import UserError


def test_a_folder_with_runs_below_it_and_a_run_folder_itself(tmp_path):
    """Two seeds below; one of them alone."""
    folders = [write_run(tmp_path, seed=seed) for seed in (0, 1)]
    assert len(finished(tmp_path)) == 2
    assert [run.path for run in finished(folders[1])] == [folders[1]]


def test_a_batch_file_names_what_is_missing(tmp_path, monkeypatch):
    """Two seeds planned, one made: the other is a gap, not an error. Nothing made: one sentence that says how."""
    monkeypatch.setenv("ADLIB_RESULTS", str(tmp_path))
    batch = tmp_path / "b.yml"
    config = "{backbone: tf_efficientnet_lite0, image_size: 64, resize_mode: squash, resize: null, channels: 4}"
    batch.write_text(f"- {{method: padim, dataset: textures, categories: [brick], seeds: [0, 1], config: {config}}}\n")
    with pytest.raises(UserError, match=r"no run of .*b\.yml is finished; `python -m adlib batch"):
        finished(batch)
    folder = expand(batch)[0][0].runs[0]
    made = write_run(tmp_path / "elsewhere", method="padim", dataset="textures", category="brick")
    Path(folder).parent.mkdir(parents=True)
    shutil.copytree(made, folder)
    runs = finished(batch)
    assert len(runs) == 1
    assert [(gap.method, gap.category, gap.seed) for gap in runs.missing] == [("padim", "brick", 1)]


def test_a_relative_path_is_also_looked_for_in_the_project(tmp_path, monkeypatch):
    """A notebook runs in another folder than the batch files: the sentence is about the batch, not its place."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ADLIB_RESULTS", str(tmp_path))
    with pytest.raises(UserError, match=r"no run of .*smoke\.yml is finished"):
        finished("batch/smoke.yml")
    with pytest.raises(UserError, match="nowhere"):
        finished("nowhere")
