"""Downloads against a real server on 127.0.0.1: whatever it sends, a data set is complete or absent."""

import hashlib
import io
import json
import shutil
import threading
from dataclasses import replace

import pytest
from made_archives import FILES, GOOD, contents, get, leftovers, refused, sha256, source, zipped
from server import Served, serving

from adlib.common.errors import UserError
from adlib.data import CATALOGUE
from adlib.data import download as downloads
from adlib.data.dataset import Archive
from adlib.data.download import transfer as fetch
from adlib.data.download import unpack


@pytest.fixture(autouse=True)
def patience(monkeypatch):
    """No waiting between tries; the list of what would have been waited. Loopback never goes through a proxy."""
    waits = []
    monkeypatch.setattr(fetch, "wait", waits.append)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return waits


@pytest.fixture
def target(tmp_path):
    return tmp_path / "data" / "mtd"


def test_a_download_ends_in_the_layout_that_load_expects_and_leaves_nothing_else(target):
    """The zip's top folder goes, as GitHub's does; of the work folder nothing remains."""
    with serving({"/a": Served(GOOD)}) as server:
        assert get(target, source(server.url("/a"))) == target
    assert contents(target) == FILES
    assert leftovers(target) == ["mtd"]


def test_a_dropped_connection_is_resumed_and_no_byte_is_sent_twice(target, patience):
    """Two drops, after 50,000 bytes and 30,000 more: three requests, together exactly the file."""
    with serving({"/a": Served(GOOD, drops=[50_000, 30_000])}) as server:
        get(target, source(server.url("/a"), checksum=sha256(GOOD)))
        assert [wanted for _, wanted in server.requests] == [None, "bytes=50000-", "bytes=80000-"]
        assert server.sent == len(GOOD)
    assert contents(target) == FILES
    assert patience == [1.0, 1.0]  # each try brought bytes, so the pause does not grow


def test_an_interrupted_program_resumes_at_its_next_call(target, monkeypatch):
    """Ctrl-C after 60,000 bytes; the next call asks for the rest only."""

    def interrupt(seconds):
        raise KeyboardInterrupt

    with serving({"/a": Served(GOOD, drops=[60_000])}) as server:
        with monkeypatch.context() as patch:
            patch.setattr(fetch, "wait", interrupt)
            with pytest.raises(KeyboardInterrupt):
                get(target, source(server.url("/a")))
        assert not target.exists()
        get(target, source(server.url("/a")))
        assert server.requests[1:] == [("/a", "bytes=60000-")]
    assert contents(target) == FILES


def test_a_file_that_changed_meanwhile_is_fetched_from_its_beginning(target, monkeypatch):
    """Another ETag: If-Range makes the server send everything, and the old bytes go, though no checksum is known."""
    other = zipped({name: content[::-1] + b"new" for name, content in FILES.items()})
    with serving({"/a": Served(GOOD, drops=[60_000])}) as server:
        found = source(server.url("/a"))
        monkeypatch.setattr(fetch, "wait", lambda _: server.things.update({"/a": Served(other, etag='"two"')}))
        get(target, found)
        assert server.requests[1] == ("/a", "bytes=60000-")
    assert contents(target)["MT_Free/Imgs/1.jpg"].endswith(b"new")


def test_a_part_of_another_file_is_replaced_once_the_checksum_shows_it(target):
    """With a checksum, a part of unknown origin is tried; it does not fit, so the file comes once more, whole."""
    work = target.with_name(".mtd.download")
    work.mkdir(parents=True)
    (work / "tiles.zip.part").write_bytes(b"x" * 1000)
    with serving({"/a": Served(GOOD)}) as server:
        get(target, source(server.url("/a"), checksum=sha256(GOOD)))
        assert [wanted for _, wanted in server.requests] == ["bytes=1000-", None]
    assert contents(target) == FILES


def test_a_server_that_ignores_ranges_starts_again(target):
    with serving({"/a": Served(GOOD, ranges=False, drops=[50_000])}) as server:
        get(target, source(server.url("/a"), checksum=sha256(GOOD)))
        assert server.sent == 50_000 + len(GOOD)
    assert contents(target) == FILES


def test_tries_without_progress_end(target, patience):
    """Always busy: five tries, pauses of 1, 2, 4 and 8 seconds."""
    with serving({"/a": Served(GOOD, statuses=[503] * 9)}) as server:
        assert "HTTP 503" in refused(target, source(server.url("/a")))
        assert len(server.requests) == 5
    assert patience == [1.0, 2.0, 4.0, 8.0]


def test_a_busy_server_is_given_the_time_it_asks_for_up_to_a_minute(target, patience):
    with serving(
        {"/a": Served(GOOD, statuses=[429], patience=7), "/b": Served(GOOD, statuses=[429], patience=99)}
    ) as s:
        get(target, source(s.url("/a")))
        get(target.with_name("other"), source(s.url("/b")))
    assert patience == [7.0, 60.0]


def test_an_encrypted_address_must_not_lead_to_one_that_is_not(target, monkeypatch):
    """Without a checksum, only the encryption says whose bytes these are."""
    with serving({"/a": Served(GOOD)}) as server:
        original, plain = fetch.urllib.request.urlopen, server.url("/a")
        monkeypatch.setattr(fetch.urllib.request, "urlopen", lambda _, timeout: original(plain, timeout=timeout))
        assert "not encrypted" in refused(target, source("https://official.example/a"))


def test_wrong_bytes_are_removed_and_both_checksums_named(target):
    wrong = GOOD[:-1] + b"x"
    with serving({"/a": Served(wrong)}) as server:
        message = refused(target, source(server.url("/a"), checksum=sha256(GOOD)))
    assert f"expected {sha256(GOOD)[7:]}, found {sha256(wrong)[7:]}" in message
    assert leftovers(target) == []


def test_wrong_bytes_of_one_address_are_followed_by_the_next(target):
    with serving({"/a": Served(GOOD[:-1] + b"x"), "/b": Served(GOOD)}) as server:
        get(target, source(server.url("/a"), server.url("/b"), checksum=sha256(GOOD)))
    assert contents(target) == FILES


@pytest.mark.parametrize("ranges", [True, False])
def test_a_length_announced_too_long_is_noticed(target, ranges):
    """1,000 bytes more than there are, and no checksum that could tell that nothing is missing."""
    with serving({"/a": Served(GOOD, lie=1000, ranges=ranges)}) as server:
        message = refused(target, source(server.url("/a")))
    assert f"{len(GOOD) + 1000} bytes" in message
    assert str(len(GOOD)) in message


def test_a_length_announced_too_long_does_no_harm_where_the_checksum_is_right(target):
    with serving({"/a": Served(GOOD, lie=1000)}) as server:
        get(target, source(server.url("/a"), checksum=sha256(GOOD)))
    assert contents(target) == FILES


@pytest.mark.parametrize(
    ("checksum", "says"), [(sha256(GOOD), "sha256"), (None, "no complete zip or tar")], ids=["sha256", "none"]
)
def test_a_length_announced_too_short_is_noticed(target, checksum, says):
    """The client reads as many bytes as announced, 1,000 too few: the checksum is wrong, the zip has no directory."""
    with serving({"/a": Served(GOOD, lie=-1000)}) as server:
        assert says in refused(target, source(server.url("/a"), checksum=checksum))


def test_a_published_size_is_compared_before_anything_is_read(target):
    with serving({"/a": Served(GOOD)}) as server:
        archive = Archive("tiles.zip", (server.url("/a"),), size=7)
        assert "the published file has 7" in refused(target, replace(source(), archives=(archive,)))


def test_a_missing_file_is_fetched_from_the_mirror(target):
    with serving({"/b": Served(GOOD)}) as server:
        get(target, source(server.url("/gone"), server.url("/b")))
        assert server.requests == [("/gone", None), ("/b", None)]
    assert contents(target) == FILES


def test_a_page_instead_of_the_archive_is_not_taken_for_it(target):
    """Dead shares answer with a page and status 200."""
    with serving({"/a": Served(b"<html>moved</html>"), "/b": Served(GOOD)}) as server:
        get(target, source(server.url("/a"), server.url("/b")))
    assert contents(target) == FILES


def test_where_all_addresses_are_dead_one_sentence_says_what_to_do_by_hand(target, patience):
    """Both reasons, the archive, its home page and the place; without waiting, since no server was reached."""
    with serving({}) as server:
        dead = server.url("/gone")
    message = refused(target, source(dead, dead.replace("127.0.0.1", "mirror.invalid")))
    for part in ("127.0.0.1", "mirror.invalid", "tiles.zip", "http://home.example", str(target / "MT_Free/Imgs")):
        assert part in message
    assert "\n" not in message
    assert patience == []
    assert leftovers(target) == []


def test_an_archive_fetched_by_hand_is_used_and_kept(target):
    target.parent.mkdir()
    (target.parent / "tiles.zip").write_bytes(GOOD)
    get(target, source("http://127.0.0.1:1/", checksum=sha256(GOOD)))
    assert contents(target) == FILES
    assert leftovers(target) == ["mtd", "tiles.zip"]


def test_a_wrong_archive_fetched_by_hand_is_named_and_kept(target):
    target.parent.mkdir()
    (target.parent / "tiles.zip").write_bytes(GOOD[:-9])
    message = refused(target, source("http://127.0.0.1:1/", checksum=sha256(GOOD)))
    assert f"{target.parent / 'tiles.zip'} is wrong" in message
    assert leftovers(target) == ["tiles.zip"]


def test_a_full_disk_is_noticed_before_anything_is_fetched(target, monkeypatch):
    """1,000,000 bytes for unpacking, 999,999 free: no request is made."""
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**7, 0, 999_999))
    with serving({"/a": Served(GOOD)}) as server:
        assert "make room" in refused(target, source(server.url("/a")))
        assert server.requests == []


def test_the_announced_length_counts_for_the_disk(target, monkeypatch):
    """Room for unpacking, but not for the archive beside it."""
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**7, 0, 1_000_000))
    with serving({"/a": Served(GOOD)}) as server:
        assert "make room" in refused(target, source(server.url("/a")))
    assert leftovers(target) == []


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_interrupted_unpacking_leaves_the_target_absent_and_the_archive_for_the_next_call(target, monkeypatch, error):
    """After three files; the second call makes no request."""

    def write(member, path, limit, count=iter(range(99)), original=unpack._write):  # noqa: B008 one count for all calls
        if next(count) == 3:
            raise error
        return original(member, path, limit)

    with serving({"/a": Served(GOOD)}) as server:
        with monkeypatch.context() as patch:
            patch.setattr(unpack, "_write", write)
            with pytest.raises((KeyboardInterrupt, UserError)):
                get(target, source(server.url("/a"), checksum=sha256(GOOD)))
        assert not target.exists()
        get(target, source(server.url("/a"), checksum=sha256(GOOD)))
        assert len(server.requests) == 1
    assert contents(target) == FILES
    assert leftovers(target) == ["mtd"]


def test_what_a_killed_call_had_unpacked_is_not_taken_over(target):
    fresh = target.with_name(".mtd.download") / "unpacked" / "MT_Free" / "Imgs"
    fresh.mkdir(parents=True)
    (fresh / "99.jpg").write_bytes(b"old")
    with serving({"/a": Served(GOOD)}) as server:
        get(target, source(server.url("/a")))
    assert contents(target) == FILES


def test_without_the_licence_nothing_happens(target):
    with serving({"/a": Served(GOOD)}) as server, pytest.raises(UserError) as error:
        downloads.download("mtd", target, source=source(server.url("/a")))
    for part in ("to be cited", "http://home.example", "--accept-licence"):
        assert part in str(error.value)
    assert server.requests == []
    assert not target.parent.exists()


def test_the_licence_is_printed_when_it_is_accepted(target, capsys):
    with serving({"/a": Served(GOOD)}) as server:
        get(target, source(server.url("/a")))
    assert "to be cited" in capsys.readouterr().err


def test_a_second_call_does_nothing_and_says_so(target, capsys):
    with serving({"/a": Served(GOOD)}) as server:
        found = source(server.url("/a"))
        get(target, found)
        times = {path: path.stat().st_mtime_ns for path in target.rglob("*")}
        assert downloads.download("mtd", target, source=found) == target  # no licence needed either
        assert len(server.requests) == 1
    assert times == {path: path.stat().st_mtime_ns for path in target.rglob("*")}
    assert "already complete" in capsys.readouterr().err


def test_two_downloads_at_once_fetch_once(target):
    with serving({"/a": Served(GOOD)}) as server:
        found = source(server.url("/a"))
        threads = [threading.Thread(target=get, args=(target, found)) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(server.requests) == 1
    assert contents(target) == FILES


def test_files_of_the_user_are_never_overwritten(target):
    """One picture where ten should be: said, and left alone."""
    (target / "MT_Free" / "Imgs").mkdir(parents=True)
    (target / "MT_Free" / "Imgs" / "1.jpg").write_bytes(b"mine")
    with serving({"/a": Served(GOOD)}) as server, pytest.raises(UserError, match="1 of 10 files"):
        get(target, source(server.url("/a")))
    assert contents(target) == {"MT_Free/Imgs/1.jpg": b"mine"}
    assert server.requests == []


def test_a_file_where_the_folder_should_be_is_left_alone(target):
    target.parent.mkdir()
    target.write_bytes(b"mine")
    with pytest.raises(UserError, match="left alone"):
        get(target, source("http://127.0.0.1:1/"))
    assert target.read_bytes() == b"mine"


def test_files_that_appear_while_the_download_runs_are_left_alone(target, monkeypatch):
    def appear():
        target.mkdir()
        (target / "mine.txt").write_bytes(b"mine")

    monkeypatch.setattr(downloads.os, "sync", appear)
    with serving({"/a": Served(GOOD)}) as server, pytest.raises(UserError, match="cannot write"):
        get(target, source(server.url("/a")))
    assert contents(target) == {"mine.txt": b"mine"}


def test_a_right_checksum_outweighs_another_count(target, capsys):
    """Were our count wrong, the official archive could never be had."""
    with serving({"/a": Served(GOOD)}) as server:
        get(target, source(server.url("/a"), checksum=sha256(GOOD), counts={"MT_Free/Imgs/*.jpg": 11}))
    assert contents(target) == FILES
    assert "10 of 11 files" in capsys.readouterr().err


def test_small_files_beside_the_images_come_too_and_are_no_condition(target, capsys):
    """The list of training names is there, another one is gone: a note says how to get it."""
    with serving({"/a": Served(GOOD), "/names": Served(b"1.jpg\n")}) as server:
        names = Archive("train_names.txt", (server.url("/names"),), sha256(b"1.jpg\n"))
        gone = Archive("gone.txt", (server.url("/gone"),), sha256(b""))
        get(target, source(server.url("/a"), extras=(names, gone)))
    assert contents(target) == FILES | {"train_names.txt": b"1.jpg\n"}
    assert "gone.txt cannot be fetched" in capsys.readouterr().err


def test_a_listing_gives_addresses_and_checksums(target):
    """Zenodo's record as its interface describes it: here with a wrong md5, which the fetched bytes do not have."""
    with serving({"/files/tiles.zip": Served(GOOD)}) as server:
        md5 = hashlib.md5(GOOD).hexdigest()
        entry = {"key": "tiles.zip", "size": len(GOOD), "links": {"self": server.url("/files/tiles.zip")}}
        record = lambda checksum: Served(json.dumps({"files": [entry | {"checksum": checksum}]}).encode())
        server.things |= {"/wrong": record(f"md5:{'0' * 32}"), "/right": record(f"md5:{md5}")}
        found = source(server.url("/gone"))
        assert md5 in refused(target, replace(found, listing=server.url("/wrong")))
        get(target, replace(found, listing=server.url("/right")))
    assert contents(target) == FILES


def test_without_its_listing_the_known_addresses_are_used(target):
    with serving({"/a": Served(GOOD), "/listing": Served(b'{"files": "none"}')}) as server:
        get(target, source(server.url("/a"), listing=server.url("/listing")))
    assert contents(target) == FILES


@pytest.mark.parametrize(("name", "says"), [("elpv", "no download"), ("textures", "no download"), ("mvtek", "unknown")])
def test_names_without_a_download_are_explained(name, says):
    with pytest.raises(UserError, match=says) as error:
        downloads.download(name)
    assert "mtd" in str(error.value)


MEMBERS = {
    "mvtec_ad": ("bottle/train/good/000.png", "bottle/train/good/000.png"),
    "btad": ("BTech_Dataset_transformed/01/train/ok/0000.bmp", "01/train/ok/0000.bmp"),
    "mtd": ("Magnetic-tile-defect-datasets.-master/MT_Free/Imgs/exp1_num_1.jpg", "MT_Free/Imgs/exp1_num_1.jpg"),
    "dagm": ("Class1/Train/Label/0576_label.PNG", "Class1/Train/Label/0576_label.PNG"),
    "dtd": ("dtd/images/banded/banded_0002.jpg", "images/banded/banded_0002.jpg"),
}


@pytest.mark.parametrize("name", [name for name, known in CATALOGUE.items() if known.source])
def test_the_sources_map_their_archives_to_the_layout(name):
    """Member names as ../shared/datasets.md gives them; only encrypted addresses; checksums are well formed."""
    found = CATALOGUE[name].source
    member, place = MEMBERS[name]
    found_member = unpack._Member(member, True, False, io.BytesIO)
    assert unpack._place(found_member, unpack.re.compile(found.keep)) == place
    for archive in (*found.archives, *found.extras):
        assert all(url.startswith("https://") for url in archive.urls)
        kind, _, value = (archive.checksum or f"md5:{'0' * 32}").partition(":")
        assert len(value) == 2 * hashlib.new(kind).digest_size


def test_the_counts_of_a_complete_copy_are_those_of_the_delivered_tiles(shared):
    """The companion's MTD is complete, so nothing differs."""
    assert downloads._differences(shared / "data" / "mtd", CATALOGUE["mtd"].source) == []
