"""Content hashes: every change of a file is seen, and what has not changed is not read again."""

import hashlib
import os

import pytest

from adlib.common import hashes
from adlib.common.errors import UserError
from adlib.common.hashes import content_hashes
from adlib.common.paths import cache_root


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Two files of an hour ago: those of a moment ago are not remembered, and ctime cannot be set back."""
    now = hashes.time.time_ns()
    monkeypatch.setattr(hashes.time, "time_ns", lambda: now + 10**10)
    paths = [tmp_path / "files" / name for name in ("a", "b")]
    paths[0].parent.mkdir()
    for path in paths:
        path.write_text(path.name)
        os.utime(path, (1e9, 1e9))
    return paths


def expected(paths):
    return [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]


def test_a_second_call_reads_no_file_again(files, monkeypatch):
    first = content_hashes(files[0].parent, files)
    assert first == expected(files)
    monkeypatch.setattr(hashes, "_sha256", lambda path: pytest.fail(f"{path} was read again"))
    assert content_hashes(files[0].parent, files) == first


def test_a_change_of_equal_length_and_time_is_seen(files):
    """ctime tells what mtime hides."""
    content_hashes(files[0].parent, files)
    files[1].write_text("c")
    os.utime(files[1], (1e9, 1e9))
    assert content_hashes(files[0].parent, files) == expected(files)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"x": 1}', '{"x": [1, 2]}', "\x00"])
def test_a_corrupt_store_is_replaced(files, content):
    root = files[0].parent
    store = cache_root() / "hashes" / f"{hashlib.sha256(str(root).encode()).hexdigest()[:16]}.json"
    store.parent.mkdir(parents=True)
    store.write_text(content)
    assert content_hashes(root, files) == expected(files)
    assert set(hashes._read(store)) == {str(path) for path in files}


def test_a_cache_that_cannot_be_written_is_no_error(files, tmp_path, monkeypatch):
    """A file where a folder of the cache should be: mkdir fails for the root user, too."""
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "hashes").write_text("")
    monkeypatch.setenv("ADLIB_CACHE", str(tmp_path / "own"))
    assert content_hashes(files[0].parent, files) == expected(files)


def test_what_cannot_be_read_is_named(tmp_path):
    """A link to nowhere, and a pipe, which would be waited for without end."""
    (tmp_path / "link").symlink_to("/nowhere")
    os.mkfifo(tmp_path / "pipe")
    for name, sentence in (("link", "cannot read .*link: No such file"), ("pipe", "pipe is no file")):
        with pytest.raises(UserError, match=sentence):
            content_hashes(tmp_path, [tmp_path / name])
