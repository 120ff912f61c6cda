"""Files are whole or absent, and a lock is held by one."""

import os
import threading
from pathlib import Path

import pytest

from adlib.common.files import UNWRITABLE, locked, written_whole


def test_a_file_is_written_whole_and_its_folder_made(tmp_path):
    with written_whole(tmp_path / "new" / "file.txt") as scratch:
        scratch.write_text("text")
        assert not (tmp_path / "new" / "file.txt").exists()
    assert (tmp_path / "new" / "file.txt").read_text() == "text"
    assert len(list((tmp_path / "new").iterdir())) == 1


def test_an_error_leaves_the_former_file_and_nothing_else(tmp_path):
    target = tmp_path / "file.txt"
    target.write_text("former")

    def interrupted():
        with written_whole(target) as scratch:
            scratch.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert target.read_text() == "former"
    assert list(tmp_path.iterdir()) == [target]


def test_a_lock_is_held_by_one_and_the_other_is_told_whose_it_is(tmp_path):
    """The second waits until the first is done; it is told the holder's process id, here our own."""
    order, waiting = [], threading.Event()

    def second():
        with locked(tmp_path / "a" / "lock", lambda holder: (order.append(holder), waiting.set())):
            order.append("second")

    with locked(tmp_path / "a" / "lock"):
        thread = threading.Thread(target=second)
        thread.start()
        assert waiting.wait(10)
        order.append("first")
    thread.join(10)
    assert order == [str(os.getpid()), "first", "second"]


def test_a_place_that_takes_no_folder_is_unwritable():
    """/proc says of a new folder in it that it does not exist, which elsewhere is no matter of writing."""
    with pytest.raises(OSError, match="no folder can be made there") as caught, written_whole(Path("/proc/x/y")):
        pass
    assert caught.value.errno in UNWRITABLE
