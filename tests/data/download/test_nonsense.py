"""Servers and places that make no sense, for downloads: one sentence each, never a traceback, nothing half-done."""

import hashlib
import json
import shutil

import pytest
from made_archives import FILES, GOOD, contents, get, refused, source, zipped
from server import Served, serving

from adlib.common.errors import UserError
from adlib.data import download as downloads
from adlib.data.download import transfer as fetch


@pytest.fixture(autouse=True)
def impatience(monkeypatch):
    monkeypatch.setattr(fetch, "wait", lambda seconds: None)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def target(tmp_path):
    return tmp_path / "data" / "mtd"


@pytest.mark.parametrize(
    ("status", "headers", "says"),
    [
        (302, {"Location": "http://[no/address"}, "leads to no address"),
        (302, {"Location": "/a"}, "infinite loop"),
        (302, {"Location": "file:///etc/passwd"}, "is not allowed"),
        (503, {"Retry-After": "\u00b2"}, "HTTP 503"),
    ],
)
def test_a_server_that_answers_nonsense_is_named_in_one_sentence(target, status, headers, says):
    """What urllib says of some takes three lines; a superscript two is a digit for Python, but no number."""
    with serving({"/a": Served(GOOD, statuses=[status] * 99, headers=headers)}) as server:
        message = refused(target, source(server.url("/a")))
    assert says in message
    assert "\n" not in message


@pytest.mark.parametrize("length", ["\u00b2", "9" * 5000, None])
def test_a_length_that_is_no_number_is_as_good_as_none(target, length):
    with serving({"/a": Served(GOOD, headers={"Content-Length": length})}) as server:
        get(target, source(server.url("/a")))
    assert contents(target) == FILES


def test_an_answer_of_unknown_length_ends_before_the_disk_is_full(target, monkeypatch):
    """No length is announced, so what is free is asked again while it comes: here nothing more after the start."""
    free = iter([10**9, 10**9])
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 0, next(free, 0)))
    with serving({"/a": Served(GOOD, headers={"Content-Length": None})}) as server:
        assert "make room" in refused(target, source(server.url("/a")))


@pytest.mark.parametrize("listing", [b"[" * 100_000, b'{"files": [{"key": "tiles.zip", "size": 7}]}'])
def test_a_hostile_listing_is_not_believed(target, listing):
    """One too deep for the reader of JSON, and one without an address."""
    with serving({"/a": Served(GOOD), "/listing": Served(listing)}) as server:
        get(target, source(server.url("/a"), listing=server.url("/listing")))
    assert contents(target) == FILES


def test_a_listing_cannot_lead_to_another_kind_of_address(target, tmp_path):
    """A file of this machine is no download."""
    (tmp_path / "tiles.zip").write_bytes(zipped(FILES | {"MT_Free/Imgs/1.jpg": b"other"}))
    body = (tmp_path / "tiles.zip").read_bytes()
    entry = {"key": "tiles.zip", "size": len(body), "links": {"self": (tmp_path / "tiles.zip").as_uri()}}
    entry["checksum"] = f"md5:{hashlib.md5(body).hexdigest()}"
    with serving({"/a": Served(GOOD), "/listing": Served(json.dumps({"files": [entry]}).encode())}) as server:
        get(target, source(server.url("/a"), listing=server.url("/listing")))
    assert contents(target) == FILES


@pytest.mark.parametrize("root", ["~no-such-user/mtd", "/proc/no-such-folder", "a" * 300])
def test_a_place_that_cannot_be_is_named_in_one_sentence(root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"leads nowhere|cannot write"):
        downloads.download("mtd", root, accept_licence=True, source=source("http://127.0.0.1:1/"))
