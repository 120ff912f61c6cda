"""Hostile and damaged archives from a real server on 127.0.0.1: none leaves anything behind."""

import tarfile

import pytest
from made_archives import FILES, GOOD, contents, get, info, leftovers, linked_zip, refused, source, tarred, zipped
from server import Served, serving

from adlib.data.download import unpack


@pytest.fixture
def target(tmp_path, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return tmp_path / "data" / "mtd"


INSIDE = "MT_Free/Imgs/a.jpg"
HOSTILE = {
    "tar-parent": (tarred((info("MT_Free/Imgs/../../../../evil.jpg"), b"x")), "outside"),
    "tar-absolute": (tarred((info("/tmp/MT_Free/Imgs/evil.jpg"), b"x")), "outside"),
    "tar-symlink": (tarred(info(INSIDE, tarfile.SYMTYPE, "/etc/passwd")), "link"),
    "tar-symlinked-folder": (tarred(info("MT_Free", tarfile.SYMTYPE, "/tmp"), (info(INSIDE), b"x")), "link"),
    "tar-hard-link": (tarred(info(INSIDE, tarfile.LNKTYPE, "/etc/passwd")), "link"),
    "tar-device": (tarred(info(INSIDE, tarfile.CHRTYPE)), "device"),
    "tar-pipe": (tarred(info(INSIDE, tarfile.FIFOTYPE)), "device"),
    "tar-twice": (tarred((info(INSIDE), b"x"), (info(INSIDE), b"y")), "twice"),
    "tar-bomb": (tarred((info(INSIDE), bytes(2_000_001)), mode="w:xz"), "far more bytes"),
    "zip-parent": (zipped({"MT_Free/Imgs/a.jpg": b"x"}, top="../"), "outside"),
    "zip-windows-parent": (zipped({"MT_Free/Imgs/a.jpg": b"x"}, top="..\\"), "outside"),
    "zip-absolute": (zipped({"MT_Free/Imgs/a.jpg": b"x"}, top="/tmp/"), "outside"),
    "zip-drive": (zipped({"MT_Free/Imgs/a.jpg": b"x"}, top="C:/"), "outside"),
    "zip-symlink": (linked_zip(), "link"),
    "zip-bomb": (zipped({"MT_Free/Imgs/a.jpg": bytes(2_000_001)}), "far more bytes"),
    "tar-cut": (tarred((info(INSIDE), bytes(range(256)) * 4000), mode="w:gz")[:2000], "damaged"),
    "zip-wrong-crc": (GOOD.replace(b"\x05" * 20_000, b"\x06" * 20_000), "damaged"),
    "zip-name-too-long": (zipped({f"MT_Free/Imgs/{'a' * 300}.jpg": b"x"}), "damaged"),
    "zip-name-no-utf8": (zipped({"MT_Free/Imgs/\u00e9.jpg": b"x"}).replace("\u00e9".encode(), b"\xff\xfe"), "damaged"),
    "tar-cut-in-its-first-block": (tarred((info(INSIDE), bytes(range(256)) * 4000))[:60], "no complete zip or tar"),
    "unrelated": (zipped({"readme.txt": b"moved"}), "0 of 10 files"),
    "incomplete": (zipped(dict(list(FILES.items())[:9])), "9 of 10 files"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_or_damaged_archive_leaves_nothing(target, kind):
    """Each would write outside, hold a link or a device, fill the disk (limit 2 x 1,000,000 bytes), or is not whole."""
    body, says = HOSTILE[kind]
    with serving({"/a": Served(body)}) as server:
        assert says in refused(target, source(server.url("/a")))
    assert leftovers(target) == []
    assert not list(target.parent.parent.glob("evil*"))


def test_too_many_members_are_refused(target, monkeypatch):
    monkeypatch.setattr(unpack, "MEMBERS", 9)
    with serving({"/a": Served(GOOD)}) as server:
        assert "more than 9 members" in refused(target, source(server.url("/a")))


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz"])
def test_tar_archives_are_unpacked(target, mode):
    body = tarred(info("./", tarfile.DIRTYPE), *((info(f"./{n}"), c) for n, c in FILES.items()), mode=mode)
    with serving({"/a": Served(body)}) as server:
        get(target, source(server.url("/a")))
    assert contents(target) == FILES


def test_rubbish_and_what_no_layout_needs_is_left_out(target):
    """DTD's archive holds images/waffled/.directory, zips of a Mac __MACOSX/."""
    extra = {"MT_Free/Imgs/.directory": b"", "__MACOSX/MT_Free/Imgs/1.jpg": b"", "README.md": b""}
    with serving({"/a": Served(zipped(FILES | extra))}) as server:
        get(target, source(server.url("/a")))
    assert contents(target) == FILES
