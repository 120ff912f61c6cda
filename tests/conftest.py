"""Shared fixtures. The companion folder (real data, weights, golden vectors) stands beside the project or at
$ADLIB_SHARED.
"""

import os
import signal
from pathlib import Path

# one thread each, before torch is imported: several tests at a time would otherwise wait for each other's threads
os.environ.setdefault("OMP_NUM_THREADS", "1")

import made
import numpy as np
import pytest

PROJECT = Path(__file__).resolve().parent.parent
SHARED = Path(os.environ.get("ADLIB_SHARED", PROJECT.parent / "shared"))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The companion folder, or a skip that names it."""
    if not (SHARED / "golden").is_dir():
        pytest.skip(f"companion folder {SHARED} with golden/, data/ and weights/ is missing (set ADLIB_SHARED)")
    return SHARED


@pytest.fixture(scope="session")
def golden(shared):
    """golden("metrics") -> the opened golden/metrics.npz."""

    def load(name: str):
        path = shared / "golden" / f"{name}.npz"
        if not path.is_file():
            pytest.skip(f"golden vectors {path} are missing")
        return np.load(path)

    return load


@pytest.fixture(autouse=True)
def own_roots(tmp_path, monkeypatch):
    """No test writes into the results or cache of the project, or asks the network for weights."""
    monkeypatch.setenv("ADLIB_OFFLINE", "1")
    monkeypatch.setenv("ADLIB_RESULTS", str(tmp_path / "results"))
    monkeypatch.setenv("ADLIB_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="session")
def finished_world(tmp_path_factory) -> Path:
    """Data and two finished runs of SimpleNet, seeds 0 and 1 (see `made.finished`); tests read them only."""
    return made.finished(tmp_path_factory.mktemp("finished"), seeds=(0, 1))


@pytest.fixture(scope="session")
def small_world(tmp_path_factory) -> Path:
    """Fewer pictures and one finished run of one epoch; tests read them only."""
    counts = {"train": 10, "normal": 2, "anomalous": 2}
    return made.finished(tmp_path_factory.mktemp("small"), config={"epochs": 1}, **counts)


@pytest.fixture
def no_hang():
    """A read that waits for a pipe fails after a minute, instead of never."""

    def late(_signal, _frame):
        raise TimeoutError("a picture was waited for")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)
