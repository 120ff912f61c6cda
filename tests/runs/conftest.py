"""What the tests of runs share."""

import made
import pytest


@pytest.fixture
def here(finished_world, monkeypatch):
    """The environment of the finished runs."""
    made.live_in(finished_world, monkeypatch)
    return finished_world
