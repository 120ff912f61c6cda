"""Shared fixtures. The companion folder (real data, weights, golden vectors) stands beside the project or at
$ADLIB_SHARED.
"""

import os
from pathlib import Path

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
    """No test writes into the project's results or cache."""
    monkeypatch.setenv("ADLIB_RESULTS", str(tmp_path / "results"))
    monkeypatch.setenv("ADLIB_CACHE", str(tmp_path / "cache"))
