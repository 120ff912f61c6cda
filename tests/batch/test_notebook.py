"""One item: its notebook, its device, its time budget, and what it leaves behind."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import nbformat
import pytest
from made_batches import notebook

from adlib import batch
from adlib.batch import engine, gpus
from adlib.batch.item import RESOURCES
from adlib.batch.notebook import SHORT, SOCKETS, budget, execute_item, work
from adlib.common.errors import UserError
from adlib.common.paths import PROJECT

UNFINISHED = "class Unfinished(ValueError):\n    pass\n\n\nraise Unfinished('unfinished, epoch 3 of 9; go on')"


def test_items_on_one_machine_never_share_a_gpu(tmp_path, monkeypatch):
    """Two devices, two items that ask for one each: 0 and 1. An item that asks for none sees what was visible."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    with gpus.reserved(1):
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "0"
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
        with gpus.reserved(1):
            assert os.environ["CUDA_VISIBLE_DEVICES"] == "1"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    with gpus.reserved(0):
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "0,1"


def test_a_run_at_its_time_budget_is_left_and_says_how_far_it_came(tmp_path, capsys, monkeypatch):
    """An exception called Unfinished: status 75, its sentence, no sheet. ADLIB_MINUTES reaches the kernel."""
    monkeypatch.setenv("ADLIB_MINUTES", "0.25")
    show = "import os\nassert os.environ['ADLIB_MINUTES'] == '0.25'"
    item = batch.Item("a", str(notebook(tmp_path / "a.ipynb", "x = 1", show, UNFINISHED)), {"x": 2})
    plan = engine.write_plan("a.yml", [], [item], cluster=True)  # what the user set wins over the job's time
    assert work(plan, "a") == 75
    assert item.outcome[:2] == ("left", "unfinished, epoch 3 of 9; go on")
    assert not item.sheet.exists()
    assert "unfinished, epoch 3 of 9" in capsys.readouterr().err


@pytest.mark.parametrize(("runtime", "expected"), [(600, 570), (100, 95), (20, 18), (4, 2), (1, 0.5)])
def test_a_job_of_a_cluster_gives_its_runs_a_little_less_than_its_time(runtime, expected):
    """5 % less, at least 2 minutes less, never less than half."""
    assert budget(batch.Item("a", "", {}, RESOURCES | {"runtime": runtime}, runs=("none",))) == pytest.approx(expected)


def test_sockets_of_killed_processes_are_removed(tmp_path):
    """The next item removes the folder of a process that has ended, keeps that of a living one, and leaves none."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    gone, living = (Path(tempfile.mkdtemp(prefix=f"{SOCKETS}{pid}-", dir=SHORT)) for pid in (ended.pid, os.getppid()))
    (gone / "k-1").touch()
    try:
        execute_item(batch.Item("a", str(notebook(tmp_path / "a.ipynb", "x = 1")), {}))
        assert not gone.exists()
        assert living.exists()
        assert list(SHORT.glob(f"{SOCKETS}{os.getpid()}-*")) == []
    finally:
        living.rmdir()


def test_a_plan_file_or_item_that_is_not_there_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match=r"plan file .* cannot be read"):
        work(tmp_path / "none.json", "a")
    plan = engine.write_plan("a.yml", [], [batch.Item("abc", "", {})], cluster=False)
    command = [sys.executable, "-m", "adlib.batch.notebook", str(plan), "abd"]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.splitlines() == [f"adlib: unknown item of {plan} 'abd'; did you mean 'abc'? valid: abc"]


def test_a_run_sheet_is_complete_and_without_warnings(tmp_path):
    """notebooks/run.ipynb on a tiny run: every cell executed, 3 figures, nothing on stderr, no local path."""
    item = batch.expand(PROJECT / "batch/smoke.yml")[0][0]
    execute_item(item)
    assert item.finished
    sheet = nbformat.read(item.sheet, 4)
    code = [c for c in sheet.cells if c.cell_type == "code"]
    assert all(c.execution_count for c in code)
    outputs = [o for c in code for o in c.outputs]
    assert sum(bool({"image/png", "image/jpeg"} & set(o.get("data", {}))) for o in outputs) == 3
    assert [o for o in outputs if o.output_type == "stream"] == []
    assert str(tmp_path) not in item.sheet.read_text()
