"""Notebooks: sources without outputs, one parameters cell that papermill understands, short cells, and they run.

What a reader then sees can be published: see helpers/page_checks.
"""

import ast
import json
import os
import re
import shutil
from pathlib import Path

import made
import nbformat
import page_checks
import pytest

import adlib
from adlib.common.paths import PROJECT
from adlib.runs import proof

SOURCES = sorted((PROJECT / "notebooks").glob("*.ipynb"))
TINY = {"backbone": "tf_efficientnet_lite0", "image_size": 64, "resize": None, "resize_mode": "squash", "epochs": 2}
TINY |= {"noise_relative": 0.5, "eval_every": 1}
MMAEREC = made.MMAEREC | {"epochs": 1, "width": 4}
SMOKE = {"dataset": "textures", "categories": ["brick"], "seeds": [0], "config": TINY, "device": "cpu"}
DRAEM = {"image_size": 64, "reconstruction_width": 4, "segmentation_width": 4, "learning_rate": 1e-3, "epochs": 2}
FLOW_STEPS = {"hidden": 8, "epochs": 2, "batch_size": 8, "learning_rate": 1e-3}
FLOW = {"backbone": "tf_efficientnet_lite0", "image_size": 128, "blocks": 1} | FLOW_STEPS
MAE = {"image_size": 64, "width": 16, "heads": 2, "decoder_width": 16, "decoder_heads": 2, "lpips": "off", "epochs": 2}
MAE |= {"warmup_epochs": 0.0, "batch_size": 8, "learning_rate": 1e-3, "lr_rule": "absolute"}
UNET = {"image_size": 32, "width": 4, "batch_size": 8, "steps": 4}
BASELINES = made.BASELINES | made.RIVALS
BASELINES |= {name: made.THREE_SCALES | made.FLOWS[name] for name in made.FLOWS if name != "validflow"}
# smallest parameters of each notebook; a notebook that is not named here runs with SMOKE
SMALL = {
    "01_improved_mae": SMOKE | {"config": MAE, "rivals": {"unet_autoencoder": UNET}},
    "01_improved_mae_ablation": SMOKE
    | {
        "config": MAE,
        "grid": {
            "cell": [{"mask_ratio": 0.5}, {"encoder_depth": 12, "decoder_depth": 8}],
            "loss": [{"l1_weight": 0.0}],
        },
        "investigation": {"deep": [{"learning_rate": 1e-4}]},
    },
    "02_mmaerec": SMOKE | {"config": MMAEREC},
    "02_mmaerec_ablation": SMOKE
    | {
        "config": MMAEREC,
        "grid": {"branches": ["edge"], "ssim_weight": [0.5], "open": [{"shrink": 3.0, "dead": "zero"}]},
    },
    "03_simplenet_ablation": SMOKE | {"grid": {"loss": ["ce"]}, "investigation": {"epochs": [1]}},
    "04_draem": SMOKE | {"config": DRAEM},
    "05_validflow": SMOKE | {"config": FLOW, "rivals": {"csflow": FLOW_STEPS, "mahalanobis": {}}},
    "05_validflow_ablation": SMOKE
    | {"config": FLOW, "grid": {"blocks": [2]}, "investigation": {"layer": ["blocks.4"]}},
    "06_comparison": {"source": "made for this test", "places": {"textures": ["brick"]}, "device": "cpu"},
    "07_baselines": SMOKE | {"systems": BASELINES, "variants": {"re-weighted": {"reweight": 3}}},
    "run": SMOKE | {"method": "simplenet"},
}
SHAPED = ("02_mmaerec", "03_simplenet", "04_draem")  # executed with these, too
SHAPES = {"pad": {"resize_mode": "pad"}, "tiles": {"resize_mode": "tiles", "resize": 128}}  # four tiles of a texture
EVIDENCE = sorted((PROJECT / "results" / "reference" / "notebooks").glob("*.ipynb"))


COMPARED = {name: made.BASELINES[name] for name in ("padim", "ganomaly", "patchcore")} | {"unet_autoencoder": UNET}


def read(path: Path):
    return nbformat.read(path, 4)


def code_cells(path: Path) -> list:
    return [cell for cell in read(path).cells if cell.cell_type == "code"]


def parameters_cell(path: Path):
    tagged = [cell for cell in read(path).cells if "parameters" in cell.metadata.get("tags", [])]
    assert len(tagged) == 1, f"{path.name} has {len(tagged)} cells tagged `parameters`"
    return tagged[0]


def assert_sound(faults: list[str]) -> None:
    assert not faults, "\n" + "\n".join(faults)  # a line for each, all of them


each = pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)


@each
def test_a_notebook_begins_with_its_title(path):
    """One first-level heading, in the first cell; readers' outlines and exported pages show a tree below it."""
    assert page_checks.headings(read(path)) == []
    assert read(path).cells[0].source.startswith("# ")


@each
def test_the_words_of_a_source_are_plain_and_its_numbers_are_not_typed(path):
    """Known at once, without executing; the same is asked of the executed page, where outputs speak, too."""
    assert_sound(page_checks.wording(read(path)) + page_checks.typed_numbers(read(path)))


@each
def test_a_source_has_no_outputs_and_the_standard_kernel(path):
    """Executed evidence lies in results/; another kernel name fails on another machine (NoSuchKernel)."""
    notebook = read(path)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    assert "papermill" not in notebook.metadata
    for cell in code_cells(path):
        assert not cell.outputs, f"{path.name} carries outputs; run nbstripout"
        assert cell.execution_count is None


@each
def test_every_parameter_is_one_assignment_with_help_that_papermill_reads(path):
    """papermill takes an unreadable line for no parameter at all and then accepts any misspelling of it."""
    import papermill

    body = ast.parse(parameters_cell(path).source).body
    names = [node.targets[0].id for node in body if isinstance(node, ast.Assign) and len(node.targets) == 1]
    assert len(names) == len(body) == len({node.lineno for node in body})
    assert all(ast.literal_eval(node.value) is not Ellipsis for node in body)  # plain values
    assert list(papermill.inspect_notebook(str(path))) == names


@each
def test_cells_are_short(path):
    """At most 15 lines of code, without classes, installs, magics or sys.path; the parameters cell may list more."""
    assert page_checks.cell_lengths(read(path)) == []
    for cell in code_cells(path):
        assert not re.search(r"^\s*(class |[%!]|import subprocess)|sys\.path", cell.source, re.MULTILINE), cell.id


@each
def test_no_paths_in_a_source(path):
    """Data and results are found by adlib, whatever the working directory."""
    for cell in read(path).cells:
        found = re.search(r"""["'(\s](/(home|work|tmp|root|data|mnt|Users)/|[A-Z]:\\|\.\./)""", cell.source)
        assert not found, f"{path.name}, cell {cell.id}: {found.group()}"


def cases() -> list:
    """Notebook and parameters of each execution: the smallest, and (slow) the other ways to shape a picture."""
    every = []
    for path in SOURCES:
        small = SMALL.get(path.stem, SMOKE)
        every.append(pytest.param(path, small, marks=[pytest.mark.slow] * ("ablation" in path.stem), id=path.stem))
        if path.stem in SHAPED:
            for mode, change in SHAPES.items():
                shaped = small | {"config": small["config"] | change}
                every.append(pytest.param(path, shaped, marks=pytest.mark.slow, id=f"{path.stem}-{mode}"))
    return every


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    """Executes a notebook with parameters, each once: (path, parameters) -> the path of the executed page."""
    import papermill

    pages: dict[tuple, Path] = {}

    def execute(path: Path, parameters: dict) -> Path:
        key = (path, json.dumps(parameters))
        if key not in pages:
            folder = tmp_path_factory.mktemp(path.stem)
            wanted = {k: v for k, v in parameters.items() if k in papermill.inspect_notebook(str(path))}
            if path.stem == "06_comparison":
                wanted["source"] = runs_to_compare(folder / "runs")
            page = folder / "done.ipynb"
            papermill.execute_notebook(path, page, wanted, kernel_name="python3", progress_bar=False, cwd=str(folder))
            pages[key] = page
        return pages[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", os.environ.get("OMP_NUM_THREADS", "2"))
        yield execute


def runs_to_compare(folder: Path) -> str:
    """Finished runs of three systems with maps and one without, of which one is a copy without weights and maps."""
    for method, config in COMPARED.items():
        run = adlib.reproduce(method, "textures", ["brick"], [0], config, "cpu").runs[0]
        target = folder / method / "textures" / "brick" / run.path.name
        shutil.copytree(run.path, target)
        if method == "patchcore":
            for name in ("model.safetensors", "maps.npz"):
                (target / name).unlink()
            proof.write(target, proof.read(run.path))
    return str(folder)


each_case = pytest.mark.parametrize(("path", "parameters"), cases())


@each_case
def test_it_runs_from_top_to_bottom_and_stays_small(path, parameters, executed):
    """Every code cell was executed, nothing was written to stderr by us, and the page is below 2 MB."""
    page = executed(path, parameters)
    cells = code_cells(page)
    assert all(cell.execution_count for cell in cells)
    text = " ".join(o.text for cell in cells for o in cell.outputs if o.output_type == "stream" and o.name == "stderr")
    assert "Traceback" not in text
    assert page.stat().st_size < 2_000_000


@each_case
def test_the_executed_page_can_be_published(path, parameters, executed):
    """Headings, alternative texts, lengths, terms, wording and numbers: see page_checks, a sentence for each fault."""
    assert_sound(page_checks.faults(read(executed(path, parameters))))


@pytest.mark.parametrize("path", EVIDENCE, ids=lambda path: path.stem)
def test_a_committed_page_can_be_published(path):
    """What readers open first are the pages in results/reference/notebooks."""
    assert_sound(page_checks.faults(read(path)))
