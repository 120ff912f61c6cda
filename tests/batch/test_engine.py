"""Snakemake around the items: what it is told, and that a batch that was stopped anywhere goes on."""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from made_batches import BRICK, batch_file, notebook, wait_for

from adlib import batch
from adlib.batch import engine
from adlib.batch.notebook import execute_item
from adlib.common.errors import UserError
from adlib.common.files import locked
from adlib.common.paths import PROJECT


def test_an_unknown_profile_is_refused():
    with pytest.raises(UserError, match="valid: kubernetes, local, slurm"):
        engine.options("slum", None, [])


@pytest.mark.parametrize(("name", "cluster"), [("local", False), ("slurm", True), ("kubernetes", True)])
def test_a_profile_says_whether_it_is_a_cluster(name, cluster):
    assert engine.is_cluster(name) is cluster


def test_a_profile_of_your_own_may_run_here_too(tmp_path):
    """The executor decides, not the folder's name: cores and memory of this machine are the limits."""
    (tmp_path / "config.yaml").write_text("latency-wait: 9\n")
    assert "--cores" in engine.options(f"{tmp_path}/", None, [])
    (tmp_path / "config.yaml").write_text("executor: lsf\n")
    assert engine.options(f"{tmp_path}/", 3, []) == ["--profile", str(tmp_path), "--jobs", "3"]
    (tmp_path / "config.yaml").write_text("- a\n")
    with pytest.raises(UserError, match="is no mapping"):
        engine.is_cluster(f"{tmp_path}/")


def test_a_report_waits_for_the_runs_of_its_own_method():
    """03_simplenet waits for simplenet's items only, so that another paper's failure does not stop it; 06 for all."""
    work = [batch.Item(m, "", {"method": m}, runs=("x",)) for m in ("simplenet", "draem")]
    assert [w.name for w in engine.needs(batch.Item("a", "notebooks/03_simplenet.ipynb", {}), work)] == ["simplenet"]
    assert len(engine.needs(batch.Item("b", "notebooks/06_comparison.ipynb", {}), work)) == 2


def test_a_report_waits_for_the_rivals_that_it_names():
    """A notebook that shows other systems beside its own finds their runs finished, whatever the order of the file."""
    work = [batch.Item(m, "", {"method": m}, runs=("x",)) for m in ("validflow", "csflow", "draem")]
    report = batch.Item("a", "notebooks/05_validflow.ipynb", {"rivals": {"csflow": {}}})
    assert [w.name for w in engine.needs(report, work)] == ["validflow", "csflow"]


def test_a_lock_makes_the_second_wait_and_names_the_first(tmp_path):
    """The holder's process id is told once; the second goes on when the first lets go."""
    path, told = tmp_path / "lock", threading.Event()
    holders = []

    def second():
        with locked(path, lambda pid: (holders.append(pid), told.set())):
            holders.append("in")

    thread = threading.Thread(target=second)
    with locked(path):
        thread.start()
        assert told.wait(60)
        assert holders == [str(os.getpid())]
    thread.join(60)
    assert holders[1:] == ["in"]


def test_a_killed_batch_goes_on_and_repeats_nothing(tmp_path):
    """kill -9 of all its processes while `slow` is at work; the same command finishes `slow`, and `quick` ran once.

    `broken` fails both times: exit status 1, its error, log and how to repeat it are named, the others are not held up.
    `late` reaches its time budget: left, with its sentence.
    """
    count = "with open(folder + '/' + name, 'a') as file:\n    file.write('x')"
    gate = "import os, time\nwhile name == 'slow' and not os.path.exists(folder + '/gate'):\n    time.sleep(0.1)"
    late = "class Unfinished(ValueError):\n    pass\n\n\nif name == 'late':\n    raise Unfinished('epoch 1 of 2')"
    notebook(
        tmp_path / "tiny.ipynb", 'name = "a"\nfolder = "."', count, gate, "assert name != 'broken', 'on purpose'", late
    )
    entry = "- {{notebook: tiny.ipynb, name: {0}, parameters: {{name: {0}, folder: '{1}'}}}}\n"
    file = batch_file(tmp_path, "".join(entry.format(name, tmp_path) for name in ("quick", "slow", "broken", "late")))
    command = [sys.executable, "-m", "adlib", "batch", str(file), "--cores", "3"]
    done = tmp_path / "results/executed"

    first = subprocess.Popen(command, cwd=PROJECT, start_new_session=True, stdout=subprocess.DEVNULL)
    begun = (done / "quick.ipynb", done / "logs/broken.json", tmp_path / "slow")
    wait_for(lambda: all(p.exists() for p in begun))
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    assert not (done / "slow.ipynb").exists()

    (tmp_path / "gate").touch()
    second = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True)
    assert second.returncode == 1, second.stdout + second.stderr
    assert (tmp_path / "quick").read_text() == "x"
    assert (done / "slow.ipynb").exists()
    assert not (done / "broken.ipynb").exists()
    assert "AssertionError: on purpose" in second.stdout
    assert str(done / "logs/broken.ipynb") in second.stdout
    assert "left    late: epoch 1 of 2" in second.stdout
    assert "2 done, 1 failed, 1 left of 4" in second.stdout

    (repeat,) = [line.split("repeat", 1)[1] for line in second.stdout.splitlines() if line.startswith("  repeat")]
    alone = subprocess.run(repeat, shell=True, capture_output=True, text=True, cwd=PROJECT)
    assert alone.returncode == 1
    assert "on purpose" in alone.stderr


def test_sigterm_lets_runs_save_and_counts_them_as_left(tmp_path):
    """`saves` answers SIGTERM as a run does: it saves and raises Unfinished. `plain` is just ended. Neither failed."""
    handler = (
        "import signal, time\n\n\nclass Unfinished(ValueError):\n    pass\n\n\n"
        "def save(*_):\n    open(folder + '/saved', 'w').close()\n"
        "    raise Unfinished('unfinished, epoch 3 of 9')\n\n\n"
        "if name == 'saves':\n    signal.signal(signal.SIGTERM, save)"
    )
    wait = "open(folder + '/' + name, 'w').close()\nwhile True:\n    time.sleep(0.1)"
    notebook(tmp_path / "tiny.ipynb", 'name = "a"\nfolder = "."', handler, wait)
    entry = "- {{notebook: tiny.ipynb, name: {0}, parameters: {{name: {0}, folder: '{1}'}}}}\n"
    path = batch_file(tmp_path, "".join(entry.format(name, tmp_path) for name in ("saves", "plain")))
    command = [sys.executable, "-m", "adlib", "batch", str(path), "--cores", "2"]
    process = subprocess.Popen(command, cwd=PROJECT, start_new_session=True, stdout=subprocess.PIPE, text=True)
    wait_for(lambda: all((tmp_path / name).exists() for name in ("saves", "plain")))
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=engine.SAVING)
    assert process.returncode == 130
    assert (tmp_path / "saved").exists()
    assert "left    saves: unfinished, epoch 3 of 9" in said
    assert "left    plain: stopped by a signal" in said
    assert "0 done, 0 failed, 2 left of 2" in said


@pytest.mark.slow
def test_killed_while_training_gives_the_numbers_of_an_uninterrupted_batch(tmp_path, monkeypatch):
    """Two runs, one at a time; kill -9 while the second trains. Resumed: the first's files untouched, equal metrics."""
    other = BRICK.replace("[brick]", "[gravel]").replace("epochs: 2", "epochs: 60")
    file = batch_file(tmp_path, f"- {{{BRICK}}}\n- {{{other}}}")
    command = [sys.executable, "-m", "adlib", "batch", str(file), "--cores", "1"]
    folder = tmp_path / "results/runs/simplenet/textures"

    def finished():
        return {p: p.stat().st_mtime_ns for p in folder.glob("*/*/run.json")}

    process = subprocess.Popen(command, cwd=PROJECT, start_new_session=True)
    wait_for(lambda: len(finished()) == 1 and len(list(folder.glob("*/*.partial"))) == 1)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    first = finished()
    assert len(first) == 1
    assert subprocess.run(command, cwd=PROJECT).returncode == 0
    assert {p: finished()[p] for p in first} == first

    resumed = {p.parent.name: json.loads(p.read_text())["metrics"] for p in finished()}
    monkeypatch.setenv("ADLIB_RESULTS", str(tmp_path / "uninterrupted"))
    for item in batch.expand(file)[0]:
        execute_item(item)
        (run,) = map(Path, item.runs)
        assert json.loads((run / "run.json").read_text())["metrics"] == resumed[run.name]
