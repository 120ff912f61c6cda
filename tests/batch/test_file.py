"""What a batch file expands to, and that all that is missing or wrong is said before any work."""

import ast
import itertools
import json
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest
import yaml
from made_batches import BRICK, TINY, batch_file, notebook

from adlib import batch, data, runs
from adlib.batch import file
from adlib.common.errors import UserError
from adlib.common.paths import PROJECT
from adlib.reports import ablation

BOMB = "".join(f"\n- &{y} [{','.join(['*' + x] * 10)}]" for x, y in itertools.pairwise("abcdefghijk"))


def defaults(path: Path) -> dict:
    """What a notebook's parameters cell assigns."""
    (cell,) = [c for c in nbformat.read(path, 4).cells if "parameters" in c.metadata.get("tags", [])]
    return {node.targets[0].id: ast.literal_eval(node.value) for node in ast.parse(cell.source).body}


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
        default = defaults(Path(report.notebook))
        method = Path(report.notebook).stem.partition("_")[2].removesuffix("_ablation")
        if "config" not in default:  # a notebook without a detector, that of the data
            continue
        together = method == "improved_mae"  # paper 01: one model for all categories
        for wanted in (default, default | report.parameters):
            chosen = (wanted["dataset"], wanted["categories"], wanted["seeds"])
            plans = [p for config in configs(wanted) for p in runs.plans(method, *chosen, config, together)]
            for rival, config in wanted.get("rivals", {}).items() if together else ():
                plans += runs.plans(rival, *chosen, config)
            missing = {str(p.folder) for p in plans} - made
            assert not missing


def test_the_ablations_of_mmaerec_are_those_of_its_notebook():
    """Its data are not here, so the settings themselves are compared: base and variants of file and notebook."""
    entries = yaml.safe_load((PROJECT / "batch/ablation_mmaerec.yml").read_text())
    *items, report = entries
    grid = defaults(PROJECT / "notebooks/02_mmaerec_ablation.ipynb")["grid"]
    asked = ablation.variants(report["parameters"]["config"], grid)
    made = [
        item["config"] | dict(zip(item.get("grid", {}), values, strict=True))
        for item in items
        for values in itertools.product(*item.get("grid", {}).values())
    ]
    key = lambda config: json.dumps(config, sort_keys=True)
    assert set(map(key, made)) == set(map(key, asked.values()))


def test_a_grid_value_may_change_several_fields(tmp_path):
    """A mapping is one step: 2 values, not 4; what it sets replaces the config's value."""
    text = f"- {{{BRICK}, grid: {{noise: [{{noise_std: 0.1, epochs: 1}}, {{noise_relative: 0.5}}]}}}}"
    changes = [w.parameters["config"] for w in batch.expand(batch_file(tmp_path, text))[0]]
    assert [(c.get("noise_std"), c.get("noise_relative"), c["epochs"]) for c in changes] == [
        (0.1, None, 1),
        (None, 0.5, 2),
    ]


def test_grid_is_crossed_and_seeds_and_categories_can_share_an_item(tmp_path):
    """2 x 2 values, 2 categories, 2 seeds: 16 runs; one item each, or 8 by category and setting, or 4 by setting."""
    text = f"- {{{BRICK}, seeds: [0, 1], grid: {{noise_std: [0.01, 0.02], loss: [l1, ce]}}"
    text = text.replace("[brick]", "[brick, gravel]")
    for ending, items in (
        ("", 16),
        (", seeds_per_item: all", 8),
        (", seeds_per_item: all, categories_per_item: all", 4),
    ):
        work, _ = batch.expand(batch_file(tmp_path, text + ending + "}"))
        assert len(work) == items == len({w.name for w in work})
        assert len({r for w in work for r in w.runs}) == 16
        assert {(w.parameters["config"]["noise_std"], w.parameters["config"]["loss"]) for w in work} == {
            (a, b) for a in (0.01, 0.02) for b in ("l1", "ce")
        }


def test_the_same_run_twice_in_a_file_is_one_item(tmp_path):
    text = f"- {{{BRICK}}}\n- {{{BRICK}, seeds: [0, 1]}}"
    work, _ = batch.expand(batch_file(tmp_path, text))
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
        (f"- {{{BRICK}, seeds: [true]}}", "seeds [True] must be a list of integers"),
        (f"- {{{BRICK}, seeds: true}}", "seeds is True, but must be a list"),
        (f"- {{{BRICK}, seeds: [-1]}}", "seeds [-1] must be a list of integers >= 0"),
        (f"- {{{BRICK}, seeds: [1, 1]}}", "names one of them twice"),
        (f"- {{{BRICK}, together: 1}}", "together is 1, but must be true or false"),
        (
            f"- {{{BRICK.replace('device: cpu', 'device: gpu')}}}",
            "unknown device 'gpu'; valid: auto, cpu, cuda, cuda:0",
        ),
        (f"- {{{BRICK.replace('device: cpu', 'device: cuda:x')}}}", "unknown device 'cuda:x'"),
        (f"- {{{BRICK}, resources: {{gpu: 2}}}}", "a run uses one GPU; valid: 0 or 1"),
        (f"- {{{BRICK}, grid: {{noise_std: 0.1}}}}", "must be a list of the values to cross"),
        (f"- {{{BRICK}, resources: {{gpus: 1}}}}", "unknown resource 'gpus'; did you mean 'gpu'"),
        (f"- {{{BRICK}, resources: {{mem_mb: 2GB}}}}", "resource mem_mb is '2GB'"),
        (f"- {{{BRICK}, seeds_per_item: 2}}", "must be 1 or all"),
        ("- {notebook: rnu}", "did you mean 'run'"),
        ("- {notebook: run, parameters: {epochs: 3}}", "unknown parameter of run 'epochs'; valid: method, dataset"),
        ("- {notebook: run, parameters: {seeds: [.nan]}}", "must be numbers, texts"),
        ("- {notebook: run}\n- {notebook: run, parameters: {seeds: [1]}}", "two items are called 'run'"),
        ("- {notebook: missing.ipynb}", "missing.ipynb does not exist"),
        ("- {notebook: run, name: a/b}", "name 'a/b' is no file name that works everywhere"),
        ("- {notebook: run, name: quick.plan}", "valid: any other ending than .plan"),
        ("- {notebook: run, name: a}\n- {notebook: run, name: A}", "two items are called 'a' and 'A'"),
        ("- {notebook: run, name: Quick.PLAN}", "valid: any other ending than .plan"),
        *(
            (f"- {{notebook: run, name: '{name}'}}", "valid: ")
            for name in ("..", "-rf", "a*b?[c]", "$(x) {y}", "x" * 300)
        ),
        ('- {notebook: run, name: "a\\0b"}', "holds a control character in 'a\\x00b'"),
        ("- {notebook: [run], name: {a: b}}", "notebook is ['run'], but must be the name of a file"),
        ("- {method: [simplenet], dataset: {a: 1}}", "method is ['simplenet'], but must be the name of a system"),
        (f"- {{{BRICK.replace('[brick]', '[[brick]]')}}}", "category ['brick'] is no text"),
        ("- {[method]: simplenet}", "unhashable key"),
        ("- &a [*a]", "names 'a', which is not there or within itself"),
        ("- &a [1,1,1,1,1,1,1,1,1,1]" + BOMB, "stands for more than 100,000 values"),
        ("- {config: &a [1,1,1,1,1,1,1,1,1,1]}" + BOMB, "stands for more than 100,000 values"),
        ("- " + "[" * 100_000, "more than 20 deep"),
        ("- {a: &a [[[[[[[[[[[1]]]]]]]]]]], b: [[[[[[[[[*a]]]]]]]]]}", "more than 20 deep"),
        (f"- {{{BRICK}, seeds: {'9' * 5000}}}", "a text or number may have 1,000 letters"),
        (f"- {{{BRICK}, seeds: {'9' * 900}}}", "must be a list of integers >= 0 and <= 4294967295"),
        ("- a: 2001-13-99", "is no YAML: month must be in 1..12"),
        ("#" * 1_000_001, "has more than 1,000,000 bytes"),
        (f"- {{{BRICK}, grid: {{margin: {list(range(2000))}, dim: {list(range(2000))}}}}}", "asks for 4,000,000 runs"),
        (f"- {{{BRICK}, seeds: {list(range(101))}, grid: {{margin: {list(range(100))}}}}}", "asks for 10,100 runs"),
        (f"- {{{BRICK}, seeds: {list(range(6000))}}}\n" * 2, "asks for 12,000 runs and reports"),
        (f"- {{{BRICK}, resources: {{mem_mb: 1000000000000}}}}", "resource mem_mb is 1000000000000; valid: 1 to "),
        ("- {notebook: bare.ipynb}", "has no parameters; tag the cell"),
        ("- {notebook: broken.ipynb}", "cannot be read"),
    ],
)
def test_bad_batch_files_are_refused_in_one_sentence(tmp_path, text, sentence):
    """Each is found before any work starts; papermill accepts a misspelt parameter and a notebook without any."""
    notebook(tmp_path / "bare.ipynb", "", "x = 1")
    (tmp_path / "broken.ipynb").write_text("{")
    with pytest.raises(UserError) as caught:
        batch.expand(batch_file(tmp_path, text))
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_all_that_is_missing_or_wrong_is_listed_a_line_for_each_entry(tmp_path, monkeypatch):
    """Five entries at fault, some in several ways, and one that is fine: five lines, each with all of its faults."""
    monkeypatch.setenv("ADLIB_DATA", str(tmp_path / "nowhere"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    lines = [
        "- {method: simplenet, dataset: mtd, config: {backbone: resnet18.tv_in1k, layers: [1, 2]}}",
        f"- {{{BRICK}}}",
        "- {method: simplenett, dataset: textures, categories: [brik, gravle], seeds: [x]}",
        "- {method: simplenet, dataset: textures, config: {epochs: -1, image_size: big}}",
        "- {notebook: 03_simplnet}",
        "- {notebook: run, parameters: {datset: a, sedes: b}}",
    ]
    with pytest.raises(UserError) as caught:
        file.expand(batch_file(tmp_path, "\n".join(lines)), download=False)
    said = str(caught.value).splitlines()
    assert [int(re.search(r"entry (\d+): ", line)[1]) for line in said] == [1, 3, 4, 5, 6]
    expected = (
        ("data set mtd not found", "weights of backbone 'resnet18.tv_in1k'"),
        (
            "unknown method 'simplenett'",
            "unknown textures category 'brik'",
            "unknown textures category 'gravle'",
            "seeds ['x']",
        ),
        ("config field 'epochs' is -1", "config field 'image_size' is 'big'"),
        ("unknown notebook '03_simplnet'; did you mean '03_simplenet'",),
        ("unknown parameter of run 'datset'; did you mean 'dataset'", "unknown parameter of run 'sedes'"),
    )
    for line, parts in zip(said, expected, strict=True):
        for part in parts:
            assert line.count(part) == 1, (part, line)


def test_what_is_missing_of_many_categories_is_said_once(tmp_path, monkeypatch):
    """An empty folder of MVTec AD: 15 categories without a picture are one sentence with 15 names."""
    monkeypatch.setenv("ADLIB_DATA", str(tmp_path))
    (tmp_path / "mvtec_ad").mkdir()
    text = f"- {{method: simplenet, dataset: mvtec_ad, config: {TINY}}}"
    with pytest.raises(UserError) as caught:
        file.expand(batch_file(tmp_path, text), download=False)
    assert str(caught.value).count("no image of") == 1
    assert all(category in str(caught.value) for category in data.categories("mvtec_ad"))


def test_a_check_asks_no_network(tmp_path, monkeypatch):
    """Weights that are on no disk: without `download` no address is looked up, with it one is."""
    monkeypatch.delenv("ADLIB_WEIGHTS", raising=False)
    monkeypatch.delenv("ADLIB_OFFLINE")
    asked = []

    def refuse(host, *rest, **named):
        asked.append(host)
        raise OSError("no network in tests")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # between the hub's repeated attempts
    text = "- {method: simplenet, dataset: textures, categories: [brick], config: {backbone: resnet14t.c3_in1k}}"
    with pytest.raises(UserError, match="weights of backbone"):
        file.expand(batch_file(tmp_path, text), download=False)
    assert asked == []
    with pytest.raises(UserError, match="weights of backbone"):
        file.expand(batch_file(tmp_path, text))
    assert asked


def test_a_network_without_weights_is_looked_for_once(tmp_path, monkeypatch):
    """A grid of 30 values on a backbone whose weights are missing: one attempt, one sentence."""
    attempts = []

    def plans(*_, config, **__):
        attempts.append(config)
        raise UserError(f"weights of backbone {config.backbone!r} are missing")

    monkeypatch.setattr(runs, "plans", plans)
    grid = [round(0.01 * k, 2) for k in range(1, 31)]
    text = f"- {{method: simplenet, dataset: textures, categories: [brick], grid: {{noise_std: {grid}}}}}"
    with pytest.raises(UserError, match=r"entry 1: weights of backbone '[\w.]+' are missing$"):
        batch.expand(batch_file(tmp_path, text))
    assert len(attempts) == 1


def test_each_category_is_loaded_once(tmp_path, monkeypatch):
    """Two entries with two settings each on the same two categories: 2 loads, not 8."""
    calls, load = [], data.load
    monkeypatch.setattr(data, "load", lambda *a, **k: calls.append(a) or load(*a, **k))
    entry = f"- {{{BRICK.replace('[brick]', '[brick, gravel]')}, grid: {{noise_std: [0.1, 0.2]}}, seeds: [{{0}}]}}\n"
    work, _ = batch.expand(batch_file(tmp_path, entry.replace("{0}", "0") + entry.replace("{0}", "1")))
    assert len(work) == 8
    assert sorted(calls) == [("textures", "brick"), ("textures", "gravel")]


def test_a_gpu_that_this_machine_lacks_is_missed_before_the_start(tmp_path, monkeypatch):
    """Only where the runs are to be made here: a cluster's machine that submits jobs may have none."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    path = batch_file(tmp_path, f"- {{{BRICK.replace('device: cpu', 'device: cuda')}}}")
    with pytest.raises(UserError, match="this machine shows no NVIDIA GPU"):
        file.expand(path, local=True)
    assert len(file.expand(path)[0]) == 1


@pytest.mark.parametrize(
    ("device", "gpu"), [("auto", 1), ("cuda", 1), ("cpu", 0), ("cuda:1", 0)], ids=lambda value: str(value)
)
def test_a_device_that_is_named_by_number_is_not_chosen_again(tmp_path, monkeypatch, device, gpu):
    """Inside a reservation only the reserved device is visible, as cuda:0."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    (item,), _ = batch.expand(batch_file(tmp_path, f"- {{{BRICK.replace('device: cpu', f'device: {device!r}')}}}"))
    assert item.resources["gpu"] == gpu


def test_an_item_of_very_many_seeds_has_a_name_that_fits(tmp_path):
    """100 seeds in one item: the plain name would have more than 300 bytes; another seed list gives another name."""
    names = []
    for last in (99, 100):
        text = f"- {{{BRICK}, seeds: {[*range(99), last]}, seeds_per_item: all}}"
        (item,), _ = batch.expand(batch_file(tmp_path, text))
        names.append(item.name)
    assert max(map(len, names)) == 150
    assert names[0] != names[1]


@pytest.mark.parametrize("path", sorted((PROJECT / "batch").glob("*.yml")), ids=lambda path: path.stem)
def test_the_batch_files_of_the_project_are_valid(path, shared, monkeypatch):
    """With the companion folder's data and weights. The papers' settings lack some networks, some of mvtec_ad, btad."""
    monkeypatch.setenv("ADLIB_DATA", str(shared / "data"))
    monkeypatch.setenv("ADLIB_WEIGHTS", str(shared / "weights"))
    missing = {"mvtec_ad", "mtd", "dagm", "dtd"} - {folder.name for folder in (shared / "data").iterdir()}
    if missing:
        pytest.skip(f"{', '.join(sorted(missing))} missing in {shared / 'data'}")
    try:
        work, reports = file.expand(path, download=False)
        assert len(work) + len(reports) >= len(yaml.safe_load(path.read_text()))
    except UserError as error:
        assert path.stem in ("paper", "ablation_mmaerec")
        for line in str(error).splitlines():
            for sentence in line.split(": ", 1)[1].split("; also: "):
                assert re.match(
                    r"no image of mvtec_ad/|data set btad not found|LPIPS needs the ImageNet weights of alexnet|"
                    r"weights of backbone '(wide_resnet50_2|tf_efficientnet_b5|vgg16|alexnet)",
                    sentence,
                )


def test_dry_run_lists_what_is_done_and_left(tmp_path, capsys):
    """A report that was made with these parameters is done, one with others is left; nothing is written."""
    text = "- {notebook: run, name: a, parameters: {seeds: [1]}}\n- {notebook: run, name: b, parameters: {seeds: [1]}}"
    path = batch_file(tmp_path, text)
    for item, seeds in zip(batch.expand(path)[1], ([1], [2]), strict=True):
        item.sheet.parent.mkdir(parents=True, exist_ok=True)
        item.sheet.write_text(f'{{"metadata": {{"papermill": {{"parameters": {{"seeds": {seeds}}}}}}}}}')
    before = sorted(tmp_path.rglob("*"))
    assert batch.main(path, dry_run=True) == 0
    assert capsys.readouterr().out.splitlines() == ["done  a", "left  b", "1 done, 1 left of 2"]
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("minutes", ["soon", "-1", "nan", "inf"])
def test_a_time_budget_that_is_no_number_is_refused(tmp_path, monkeypatch, minutes):
    monkeypatch.setenv("ADLIB_MINUTES", minutes)
    with pytest.raises(UserError, match=r"ADLIB_MINUTES is '.*'; it must be a number of minutes"):
        batch.main(batch_file(tmp_path, "- {notebook: run}"), dry_run=True)


def test_the_command_line_exits_with_2_for_a_bad_batch_file(tmp_path):
    path = batch_file(tmp_path, "- {method: simplenet, dataset: [}")
    command = [sys.executable, "-m", "adlib", "batch", str(path), "--dry-run"]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True)
    assert done.returncode == 2
    assert "is no YAML" in done.stderr
    assert len(done.stderr.splitlines()) == 1
