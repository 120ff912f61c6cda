"""Archives, good and hostile, and what the tests of downloads do with them."""

import hashlib
import io
import stat
import tarfile
import zipfile

import pytest

from adlib.common.errors import UserError
from adlib.data import download as downloads
from adlib.data.dataset import Archive, Source

FILES = {f"MT_Free/Imgs/{number}.jpg": bytes([number]) * 20_000 for number in range(10)}
COUNTS = {"MT_Free/Imgs/*.jpg": 10}


def zipped(files: dict[str, bytes], top: str = "repository-master/") -> bytes:
    """A stored zip, so that its size is known: a little more than its files."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(
                zipfile.ZipInfo(top + name), content
            )  # of a fixed date, not the hour: the same bytes each time
    return buffer.getvalue()


def sha256(body: bytes) -> str:
    return f"sha256:{hashlib.sha256(body).hexdigest()}"


GOOD = zipped(FILES)


def source(*urls: str, checksum: str | None = None, **changes) -> Source:
    facts = dict(licence="to be cited", homepage="http://home.example", unpacked=1_000_000, counts=COUNTS)
    facts |= dict(keep=r"^(?:.*/)?(MT_[^/]+/Imgs/[^/]+)$", unpacks_to="MT_Free/Imgs")
    return Source((Archive("tiles.zip", urls, checksum),), **(facts | changes))


def get(target, found: Source):
    return downloads.download("mtd", target, accept_licence=True, source=found, progress=False)


def refused(target, found: Source) -> str:
    with pytest.raises(UserError) as error:
        get(target, found)
    assert not target.exists()
    return str(error.value)


def contents(target) -> dict[str, bytes]:
    return {p.relative_to(target).as_posix(): p.read_bytes() for p in target.rglob("*") if p.is_file()}


def leftovers(target) -> list[str]:
    return sorted(p.name for p in target.parent.iterdir() if not p.name.endswith(".lock"))


def tarred(*members: tarfile.TarInfo | tuple[tarfile.TarInfo, bytes], mode: str = "w:gz") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        for member in members:
            info, body = member if isinstance(member, tuple) else (member, b"")
            info.size = len(body)
            archive.addfile(info, io.BytesIO(body))
    return buffer.getvalue()


def info(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, link
    return member


def linked_zip() -> bytes:
    """A symbolic link as Unix zips hold it: the kind of file in the upper half of external_attr."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        member = zipfile.ZipInfo("MT_Free/Imgs/a.jpg")
        member.create_system, member.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
        archive.writestr(member, "/etc/passwd")
    return buffer.getvalue()
