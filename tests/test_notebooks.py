"""Notebooks: sources without outputs, one parameters cell that papermill understands, short cells, and they run."""

import ast
import os
import re
from pathlib import Path

import nbformat
import pytest

from adlib.common.paths import PROJECT

SOURCES = sorted((PROJECT / "notebooks").glob("*.ipynb"))
TINY = {"backbone": "tf_efficientnet_lite0", "image_size": 64, "resize": None, "resize_mode": "squash", "epochs": 2}
TINY |= {"noise_relative": 0.5, "eval_every": 1}
SMOKE = {"dataset": "textures", "categories": ["brick"], "seeds": [0], "config": TINY, "device": "cpu"}
DRAEM = {"image_size": 64, "reconstruction_width": 4, "segmentation_width": 4, "learning_rate": 1e-3, "epochs": 2}
# smallest parameters of each notebook; a notebook that is not named here runs with SMOKE
SMALL = {
    "03_simplenet_ablation": SMOKE | {"grid": {"loss": ["ce"]}, "investigation": {"epochs": [1]}},
    "04_draem": SMOKE | {"config": DRAEM},
    "run": SMOKE | {"method": "simplenet"},
}


def read(path: Path):
    return nbformat.read(path, 4)


def code_cells(path: Path) -> list:
    return [cell for cell in read(path).cells if cell.cell_type == "code"]


def parameters_cell(path: Path):
    tagged = [cell for cell in read(path).cells if "parameters" in cell.metadata.get("tags", [])]
    assert len(tagged) == 1, f"{path.name} has {len(tagged)} cells tagged `parameters`"
    return tagged[0]


each = pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)


@each
def test_a_notebook_has_one_title(path):
    """One first-level heading, in the first cell; readers' outlines and exported pages show a tree below it."""
    cells = [cell.source for cell in read(path).cells if cell.cell_type == "markdown"]
    titles = [line for source in cells for line in source.splitlines() if line.startswith("# ")]
    assert len(titles) == 1
    assert cells[0].startswith(titles[0])


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
    tagged = parameters_cell(path).id
    for cell in code_cells(path):
        if cell.id != tagged:
            assert len(cell.source.splitlines()) <= 15, f"{path.name}, cell {cell.id}"
        assert not re.search(r"^\s*(class |[%!]|import subprocess)|sys\.path", cell.source, re.MULTILINE), cell.id


@each
def test_no_paths_in_a_source(path):
    """Data and results are found by adlib, whatever the working directory."""
    for cell in read(path).cells:
        found = re.search(r"""["'(\s](/(home|work|tmp|root|data|mnt|Users)/|[A-Z]:\\|\.\./)""", cell.source)
        assert not found, f"{path.name}, cell {cell.id}: {found.group()}"


@pytest.mark.parametrize(
    "path",
    [pytest.param(p, marks=pytest.mark.slow) if "ablation" in p.stem else p for p in SOURCES],
    ids=lambda path: path.stem,
)
def test_it_runs_from_top_to_bottom_and_stays_small(path, tmp_path, monkeypatch):
    """Every code cell was executed, nothing was written to stderr by us, and the page is below 2 MB."""
    import papermill

    monkeypatch.setenv("OMP_NUM_THREADS", os.environ.get("OMP_NUM_THREADS", "2"))
    done, known = tmp_path / "done.ipynb", papermill.inspect_notebook(str(path))
    wanted = {k: v for k, v in SMALL.get(path.stem, SMOKE).items() if k in known}
    papermill.execute_notebook(path, done, wanted, kernel_name="python3", progress_bar=False, cwd=str(tmp_path))
    cells = code_cells(done)
    assert all(cell.execution_count for cell in cells)
    text = " ".join(o.text for cell in cells for o in cell.outputs if o.output_type == "stream" and o.name == "stderr")
    assert "Traceback" not in text
    assert done.stat().st_size < 2_000_000
