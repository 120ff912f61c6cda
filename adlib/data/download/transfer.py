"""One file over HTTP: resumed where it broke off, tried again, tried elsewhere, and checked as a whole.

Bytes go to `<name>.part`, which gets its name only after the check; `<name>.part.json` remembers where they came from.
"""

import hashlib
import http.client
import json
import os
import shutil
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from tqdm import tqdm

from adlib.common.errors import UserError
from adlib.data.dataset import Archive
from adlib.data.download.unpack import is_archive

TIMEOUT = 30.0  # seconds without a byte
TRIES = 5  # in a row without a new byte
BACKOFF = 1.0  # seconds before the second try, doubled from one to the next
LONGEST = 60.0  # seconds: a server may ask for patience, but not for more than this
BUSY = {408, 425, 429, 500, 502, 503, 504}  # status codes that may pass
CHUNK = 1 << 18

wait = time.sleep


class Failed(Exception):
    """An address that does not give the file, and why."""


class _Lost(Exception):
    """A try that failed and may be repeated; pointless: no server was reached at all."""

    def __init__(self, reason: str, pointless: bool = False, after: float = 0.0):
        super().__init__(" ".join(reason.split()))
        self.pointless, self.after = pointless, after


def fetch(archive: Archive, folder: Path, spare: int = 0, progress: bool = True, timeout: float = TIMEOUT) -> Path:
    """The file, whole and checked, at folder/<name>, from the first address that gives it.

    spare: bytes that must stay free on the disk besides the file. Failed: no address gives it; a broken-off part stays
    for the next call, a wrong one is removed. UserError: not enough space.
    """
    whole, reasons = folder / archive.name, []
    if whole.is_file() and _fits(whole, archive):
        return whole
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f"{archive.name}.part"
    for url in archive.urls:
        try:
            _Transfer(archive, url, part, spare, progress, timeout).run()
        except Failed as error:
            reasons.append(f"{urlsplit(url).netloc}: {error}")
            continue
        os.replace(part, whole)
        _state(part).unlink(missing_ok=True)
        return whole
    raise Failed("; ".join(dict.fromkeys(reasons)))


def check(path: Path, archive: Archive) -> None:
    """Failed where size or checksum are not the published ones, or, without a checksum, where it is no archive."""
    size = path.stat().st_size
    if archive.size is not None and size != archive.size:
        raise Failed(f"{archive.name} has {size} bytes, expected {archive.size}")
    if archive.checksum:
        kind, _, expected = archive.checksum.partition(":")
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, kind).hexdigest()
        if digest != expected:
            raise Failed(f"{kind} of {archive.name} is wrong: expected {expected}, found {digest}")
    elif not is_archive(path):
        raise Failed(f"{archive.name} is no complete zip or tar archive")


def check_space(folder: Path, needed: int) -> None:
    """UserError where the disk of a folder has fewer free bytes than needed."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise UserError(
            f"{folder} has {free / 1e9:.2f} GB free but download and unpacking need {needed / 1e9:.2f} GB; make room, "
            "or set ADLIB_DATA to a folder on another disk"
        )


def listed(url: str, timeout: float = TIMEOUT) -> tuple[Archive, ...]:
    """The zip files of a Zenodo record with addresses, sizes and md5, read from its JSON; none where that fails.

    What comes without encryption is not believed, unless the listing's own address has none.
    """
    scheme = f"{urlsplit(url).scheme}:"
    try:
        with urllib.request.urlopen(_request(url, {}), timeout=timeout) as response:
            files = json.loads(response.read(4_000_000))["files"] if response.url.startswith(scheme) else []
        return tuple(
            Archive(Path(f["key"]).name, (f["links"]["self"],), f["checksum"], int(f["size"]))
            for f in files
            if f["key"].lower().endswith(".zip")
            and f["checksum"].startswith(("md5:", "sha256:"))
            and f["links"]["self"].startswith(scheme)
        )
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return ()


@dataclass
class _Transfer:
    """From one address to one .part file."""

    archive: Archive
    url: str
    part: Path
    spare: int
    progress: bool
    timeout: float

    @property
    def have(self) -> int:
        return self.part.stat().st_size if self.part.is_file() else 0

    def run(self) -> None:
        """The whole file, checked. A resumed one that is wrong is fetched once more from its beginning, which may have
        come from another version.
        """
        resumed = self.have > 0
        self._pull()
        if not _fits(self.part, self.archive, quiet=resumed):
            self._pull()
            _fits(self.part, self.archive, quiet=False)

    def _pull(self) -> None:
        start = best = self.have
        tries = 0
        while True:
            try:
                return self._try()
            except _Lost as lost:
                tries = 0 if self.have > best else tries + 1
                best = max(best, self.have)
                if tries >= TRIES or (lost.pointless and best == start):
                    raise Failed(str(lost)) from lost
                wait(max(lost.after, BACKOFF * 2 ** max(tries - 1, 0)))

    def _try(self) -> None:
        response = self._open()
        if response is None:
            return
        with response:
            start = self._start(response)
            length = response.headers.get("Content-Length", "")
            total = start + int(length) if length.isdecimal() and len(length) < 20 else None
            if None not in (total, self.archive.size) and total != self.archive.size:
                raise Failed(f"the server announces {total} bytes, the published file has {self.archive.size}")
            check_space(self.part.parent, (total or 0) - start + self.spare)
            self._write(response, start, total)
        if total is not None and self.have != total:
            raise _Lost(f"{total} bytes announced, the connection ended after {self.have}")

    def _open(self) -> http.client.HTTPResponse | None:
        """None: the server says that nothing is missing any more."""
        try:
            response = urllib.request.urlopen(_request(self.url, self._range()), timeout=self.timeout)
        except urllib.error.HTTPError as error:
            with error:
                return self._refused(error)
        except urllib.error.URLError as error:
            raise _Lost(str(getattr(error.reason, "strerror", None) or error.reason), pointless=True) from error
        except (OSError, http.client.HTTPException) as error:
            raise _Lost(f"no answer ({error or type(error).__name__})") from error
        except ValueError as error:  # of urllib, for an address or a redirection that is none
            raise Failed(f"leads to no address ({error})") from error
        if self.url.startswith("https:") and not response.url.startswith("https:"):
            response.close()
            raise Failed(f"leads to {response.url}, which is not encrypted")
        return response

    def _refused(self, error: urllib.error.HTTPError) -> None:
        if error.code in BUSY:
            after = error.headers.get("Retry-After", "")
            raise _Lost(
                f"HTTP {error.code} {error.reason}", after=min(float(after), LONGEST) if after.isdecimal() else 0
            )
        if error.code != 416 or not self.have:
            raise Failed(" ".join(f"HTTP {error.code} {error.reason}".split()))  # some reasons have three lines
        have, announced = self.have, self._remembered().get("total")
        if error.headers.get("Content-Range", "").rpartition("/")[2] == str(have):
            # Nothing follows. What was announced before may have been more; then only a checksum can tell who is right.
            if self.archive.checksum or announced in (None, have):
                return None
            self.part.unlink()
            raise Failed(f"the server announced {announced} bytes and has {have}")
        self.part.unlink()
        raise _Lost("the part on the disk is longer than the file")

    def _range(self) -> dict[str, str]:
        """Ask for the rest only where it must be the rest of the same file, or where a checksum will tell."""
        state, rest = self._remembered(), {"Range": f"bytes={self.have}-"}
        if not self.have:
            return {}
        if state.get("url") == self.url and state.get("validator"):
            return rest | {"If-Range": state["validator"]}
        return rest if self.archive.checksum else {}

    def _start(self, response: http.client.HTTPResponse) -> int:
        """First byte of the answer: 0 where the server ignored the range, or the file has changed."""
        if response.status != 206:
            return 0
        if response.headers.get("Content-Range", "").startswith(f"bytes {self.have}-"):
            return self.have
        self.part.unlink()
        raise _Lost("the server sent other bytes than asked for")

    def _write(self, response: http.client.HTTPResponse, start: int, total: int | None) -> None:
        bar = tqdm(
            total=total,
            initial=start,
            desc=self.archive.name,
            unit="B",
            unit_scale=True,
            disable=None if self.progress else True,
        )
        with self.part.open("ab" if start else "wb") as file, bar:
            if not start:  # after the old bytes are gone, so that no crash leaves them under the new name
                self._remember(response, total)
            while chunk := _read(response):
                if total is None:  # it may never end
                    check_space(self.part.parent, len(chunk) + self.spare)
                file.write(chunk)
                bar.update(len(chunk))

    def _remember(self, response: http.client.HTTPResponse, total: int | None) -> None:
        etag = response.headers.get("ETag", "")
        validator = etag if etag and not etag.startswith("W/") else response.headers.get("Last-Modified")
        state = {"url": self.url, "validator": validator, "total": total}
        _state(self.part).write_text(json.dumps(state), encoding="utf-8")

    def _remembered(self) -> dict:
        try:
            state = json.loads(_state(self.part).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return state if isinstance(state, dict) else {}


def _fits(path: Path, archive: Archive, quiet: bool = True) -> bool:
    """Whether a fetched file is the published one; one that is not is removed, and named unless quiet."""
    try:
        check(path, archive)
    except Failed:
        path.unlink()
        _state(path).unlink(missing_ok=True)
        if not quiet:
            raise
        return False
    return True


def _read(response: http.client.HTTPResponse) -> bytes:
    try:
        return response.read(CHUNK)
    except (OSError, http.client.HTTPException) as error:
        raise _Lost(f"the connection broke ({error or type(error).__name__})") from error


def _request(url: str, headers: dict[str, str]) -> urllib.request.Request:
    return urllib.request.Request(url, headers={"User-Agent": "adlib", **headers})


def _state(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")
