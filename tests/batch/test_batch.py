"""Batches: what a file expands to, what is refused before any work, and that an interrupted batch goes on."""

import ast
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from adlib import batch, runs
from adlib.batch import engine
from adlib.batch.item import RESOURCES
from adlib.batch.notebook import _own_gpu
from adlib.common.errors import UserError
from adlib.common.files import locked
from adlib.common.paths import PROJECT
from adlib.reports import ablation

TINY = "{backbone: tf_efficientnet_lite0, image_size: 64, resize_mode: squash, resize: null, epochs: 2, eval_every: 0}"
BRICK = f"method: simplenet, dataset: textures, categories: [brick], device: cpu, config: {TINY}"


@pytest.fixture
def write(tmp_path):
    """write(text) -> the path of a batch file with that text."""

    def file(text: str) -> Path:
        path = tmp_path / "batch.yml"
        path.write_text(text)
        return path

    return file


def notebook(path: Path, parameters: str, *cells: str) -> Path:
    """A notebook with a parameters cell (none for "") and further cells."""
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    tagged = [new_code_cell(parameters, metadata={"tags": ["parameters"]})] if parameters else []
    nbformat.write(new_notebook(cells=[*tagged, *map(new_code_cell, cells)], metadata=kernel), path)
    return path


def defaults(path: Path) -> dict:
    """What a notebook's parameters cell assigns."""
    (cell,) = [c for c in nbformat.read(path, 4).cells if "parameters" in c.metadata.get("tags", [])]
    return {node.targets[0].id: ast.literal_eval(node.value) for node in ast.parse(cell.source).body}


def wait_for(happened, seconds: float = 300) -> None:
    """Return when `happened()` is true; the limit only ends a test that hangs."""
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, "gave up waiting"
        time.sleep(0.1)


def test_smoke_is_one_item_for_each_run():
    """batch/smoke.yml: 2 categories x 1 seed = 2 runs, each an item that is named after its run folder."""
    work, reports = batch.expand(PROJECT / "batch/smoke.yml")
    assert reports == []
    assert [w.parameters["categories"] for w in work] == [["brick"], ["gravel"]]
    for item in work:
        (folder,) = map(Path, item.runs)
        assert item.name == f"simplenet-textures-{folder.parent.name}-{folder.name}"
        assert not item.finished


def configs(wanted: dict) -> list[dict]:
    """The settings that a notebook asks for; those of an ablation notebook are its base and every variant."""
    grids = [wanted[g] for g in ("grid", "investigation") if g in wanted]
    return [wanted["config"]] + [c for g in grids for c in ablation.variants(wanted["config"], g).values()]


@pytest.mark.parametrize("name", ["quick", "ablation_simplenet"])
def test_after_the_batch_its_notebooks_train_nothing(name):
    """It runs what the parameters cells of its notebooks ask for by default, and what its reports ask for."""
    work, reports = batch.expand(PROJECT / f"batch/{name}.yml")
    made = {folder for item in work for folder in item.runs}
    assert reports
    for report in reports:
        default, method = defaults(Path(report.notebook)), Path(report.notebook).stem.split("_")[1]
        if "config" not in default:  # a notebook without a detector, that of the data
            continue
        for wanted in (default, default | report.parameters):
            for config in configs(wanted):
                plans = runs.plans(method, wanted["dataset"], wanted["categories"], wanted["seeds"], config)
                assert {str(p.folder) for p in plans} <= made


def test_a_grid_value_may_change_several_fields(write):
    """A mapping is one step: 2 values, not 4; what it sets replaces the config's value."""
    text = f"- {{{BRICK}, grid: {{noise: [{{noise_std: 0.1, epochs: 1}}, {{noise_relative: 0.5}}]}}}}"
    found = [w.parameters["config"] for w in batch.expand(write(text))[0]]
    assert [(c.get("noise_std"), c.get("noise_relative"), c["epochs"]) for c in found] == [
        (0.1, None, 1),
        (None, 0.5, 2),
    ]


def test_grid_is_crossed_and_seeds_and_categories_can_share_an_item(write):
    """2 x 2 values, 2 categories, 2 seeds: 16 runs; one item each, or 8 by category and setting, or 4 by setting."""
    text = f"- {{{BRICK}, seeds: [0, 1], grid: {{noise_std: [0.01, 0.02], loss: [l1, ce]}}"
    text = text.replace("[brick]", "[brick, gravel]")
    for ending, items in (
        ("", 16),
        (", seeds_per_item: all", 8),
        (", seeds_per_item: all, categories_per_item: all", 4),
    ):
        work, _ = batch.expand(write(text + ending + "}"))
        assert len(work) == items == len({w.name for w in work})
        assert len({r for w in work for r in w.runs}) == 16
        assert {(w.parameters["config"]["noise_std"], w.parameters["config"]["loss"]) for w in work} == {
            (a, b) for a in (0.01, 0.02) for b in ("l1", "ce")
        }


def test_the_same_run_twice_in_a_file_is_one_item(write):
    work, _ = batch.expand(write(f"- {{{BRICK}}}\n- {{{BRICK}, seeds: [0, 1]}}"))
    assert [w.parameters["seeds"] for w in work] == [[0], [1]]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("method: simplenet", "must be a list of entries"),
        ("- [1", "is no YAML"),
        ("- {dataset: textures}", "entry 1: `method` is missing"),
        ("- {method: simplenet, dataset: textures, categores: [brick]}", "did you mean 'categories'"),
        ("- {method: simplnet, dataset: textures}", "unknown method 'simplnet'; did you mean 'simplenet'"),
        ("- {method: simplenet, dataset: texture}", "unknown data set 'texture'"),
        (f"- {{{BRICK.replace('[brick]', '[brik]')}}}", "unknown textures category 'brik'"),
        (f"- {{{BRICK}}}\n- {{{BRICK.replace('epochs', 'epoch')}}}", "entry 2: unknown config field 'epoch'"),
        (f"- {{{BRICK}, seeds: [a]}}", "seeds ['a'] must be a list of integers"),
        (f"- {{{BRICK}, seeds: two}}", "seeds is 'two', but must be a list"),
        (f"- {{{BRICK}, grid: {{noise_std: 0.1}}}}", "must be a list of the values to cross"),
        (f"- {{{BRICK}, resources: {{gpus: 1}}}}", "unknown resource 'gpus'; did you mean 'gpu'"),
        (f"- {{{BRICK}, resources: {{mem_mb: 2GB}}}}", "resource mem_mb is '2GB'"),
        (f"- {{{BRICK}, seeds_per_item: 2}}", "must be 1 or all"),
        ("- {notebook: rnu}", "did you mean 'run'"),
        ("- {notebook: run, parameters: {epochs: 3}}", "unknown parameter of run 'epochs'; valid: method, dataset"),
        ("- {notebook: run, parameters: {seeds: [.nan]}}", "must be numbers, texts"),
        ("- {notebook: run}\n- {notebook: run, parameters: {seeds: [1]}}", "two reports are called 'run'"),
        ("- {notebook: bare.ipynb}", "has no parameters; tag the cell"),
        ("- {notebook: broken.ipynb}", "cannot be read"),
    ],
)
def test_bad_batch_files_are_refused_in_one_sentence(write, tmp_path, text, sentence):
    """Each is found before any work starts; papermill accepts a misspelt parameter and a notebook without any."""
    notebook(tmp_path / "bare.ipynb", "", "x = 1")
    (tmp_path / "broken.ipynb").write_text("{")
    with pytest.raises(UserError) as caught:
        batch.expand(write(text))
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_command_line_exits_with_2_for_a_bad_batch_file(write):
    command = [sys.executable, "-m", "adlib", "batch", str(write("- {method: simplenet, dataset: [}"))]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True)
    assert done.returncode == 2
    assert "is no YAML" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_an_unknown_profile_is_refused():
    with pytest.raises(UserError, match="valid: kubernetes, local, slurm"):
        engine.profile_options("slum", None, [])


def test_a_report_waits_for_the_runs_of_its_own_method():
    """03_simplenet waits for simplenet's items only, so that another paper's failure does not stop it; 06 for all."""
    work = [batch.Item(m, "", {"method": m}, runs=("x",)) for m in ("simplenet", "draem")]
    assert [w.name for w in batch.needs(batch.Item("a", "notebooks/03_simplenet.ipynb", {}), work)] == ["simplenet"]
    assert len(batch.needs(batch.Item("b", "notebooks/06_comparison.ipynb", {}), work)) == 2


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


def test_items_on_one_machine_never_share_a_gpu(tmp_path, monkeypatch):
    """Two devices, two items that ask for one each: 0 and 1. An item that asks for none sees what was visible."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    item = batch.Item("a", "", {}, RESOURCES | {"gpu": 1})
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    with _own_gpu(item):
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "0"
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
        with _own_gpu(item):
            assert os.environ["CUDA_VISIBLE_DEVICES"] == "1"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    with _own_gpu(batch.Item("b", "", {})):
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "0,1"


def test_a_killed_batch_goes_on_and_repeats_nothing(write, tmp_path):
    """kill -9 of all its processes while `slow` is at work; the same command finishes `slow`, and `quick` ran once.

    `broken` fails both times: exit status 1, its error, log and how to repeat it are named, the others are not held up.
    """
    count = "with open(folder + '/' + name, 'a') as file:\n    file.write('x')"
    gate = "import os, time\nwhile name == 'slow' and not os.path.exists(folder + '/gate'):\n    time.sleep(0.1)"
    notebook(tmp_path / "tiny.ipynb", 'name = "a"\nfolder = "."', count, gate, "assert name != 'broken', 'on purpose'")
    entry = "- {{notebook: tiny.ipynb, name: {0}, parameters: {{name: {0}, folder: '{1}'}}}}\n"
    file = write("".join(entry.format(name, tmp_path) for name in ("quick", "slow", "broken")))
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
    assert "2 done, 1 failed, 0 left of 3" in second.stdout

    (repeat,) = [line.split("repeat", 1)[1] for line in second.stdout.splitlines() if line.startswith("  repeat")]
    alone = subprocess.run(repeat, shell=True, capture_output=True, text=True, cwd=PROJECT)
    assert alone.returncode == 1
    assert "on purpose" in alone.stderr


def test_a_report_with_other_parameters_is_made_anew():
    """The engine sees only times: what an executed notebook was made with stands in its metadata."""
    item = batch.Item("a", "", {"dataset": "elpv"})
    item.sheet.parent.mkdir(parents=True)
    for parameters, stays in (({"dataset": "elpv"}, True), ({"dataset": "textures"}, False)):
        item.sheet.write_text(json.dumps({"metadata": {"papermill": {"parameters": parameters}}}))
        batch._settle(item)
        assert item.sheet.exists() is stays


def test_a_sheet_without_its_run_is_made_anew(tmp_path):
    """A run folder that was deleted is missed, although the sheet that the engine looks for is there."""
    item = batch.Item("a", "", {}, runs=(str(tmp_path / "run"),))
    item.sheet.parent.mkdir(parents=True)
    item.sheet.write_text("{}")
    batch._settle(item)
    assert not item.sheet.exists()


def test_a_run_sheet_is_complete_and_without_warnings(tmp_path):
    """notebooks/run.ipynb on a tiny run: every cell executed, 3 figures, nothing on stderr, no local path."""
    item = batch.expand(PROJECT / "batch/smoke.yml")[0][0]
    batch.execute_item(item)
    assert item.finished
    sheet = nbformat.read(item.sheet, 4)
    code = [c for c in sheet.cells if c.cell_type == "code"]
    assert all(c.execution_count for c in code)
    outputs = [o for c in code for o in c.outputs]
    assert sum("image/png" in o.get("data", {}) for o in outputs) == 3
    assert [o for o in outputs if o.output_type == "stream"] == []
    assert str(tmp_path) not in item.sheet.read_text()


@pytest.mark.slow
def test_killed_while_training_gives_the_numbers_of_an_uninterrupted_batch(write, tmp_path, monkeypatch):
    """Two runs, one at a time; kill -9 while the second trains. Resumed: the first's files untouched, equal metrics."""
    other = BRICK.replace("[brick]", "[gravel]").replace("epochs: 2", "epochs: 60")
    file = write(f"- {{{BRICK}}}\n- {{{other}}}")
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
        batch.execute_item(item)
        (run,) = map(Path, item.runs)
        assert json.loads((run / "run.json").read_text())["metrics"] == resumed[run.name]
