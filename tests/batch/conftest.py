"""What the tests of batches share."""

import pytest


@pytest.fixture(scope="session")
def batch_cache(tmp_path_factory):
    """A cache for all tests of this folder: the pictures of `textures` are made once, not in each test."""
    return tmp_path_factory.mktemp("batch_cache")


@pytest.fixture(autouse=True)
def one_cache(own_roots, batch_cache, monkeypatch):
    """After `own_roots`, which gives each test an empty one."""
    monkeypatch.setenv("ADLIB_CACHE", str(batch_cache))
