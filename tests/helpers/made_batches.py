"""Batch files and notebooks for tests, and waiting for processes."""

import time
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_notebook

TINY = "{backbone: tf_efficientnet_lite0, image_size: 64, resize_mode: squash, resize: null, epochs: 2, eval_every: 0}"
BRICK = f"method: simplenet, dataset: textures, categories: [brick], device: cpu, config: {TINY}"


def batch_file(folder: Path, text: str) -> Path:
    """A batch file with that text."""
    path = folder / "batch.yml"
    path.write_text(text)
    return path


def notebook(path: Path, parameters: str, *cells: str) -> Path:
    """A notebook with a parameters cell (none for "") and further cells."""
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    tagged = [new_code_cell(parameters, metadata={"tags": ["parameters"]})] if parameters else []
    nbformat.write(new_notebook(cells=[*tagged, *map(new_code_cell, cells)], metadata=kernel), path)
    return path


def wait_for(happened, seconds: float = 300) -> None:
    """Return when `happened()` is true; the limit only ends a test that hangs."""
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, "gave up waiting"
        time.sleep(0.1)
