"""Whether the download addresses still answer; nothing is fetched."""

import http.client
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping

from adlib.data import CATALOGUE
from adlib.data.dataset import Source

TIMEOUT = 30.0  # seconds without a byte


def sources() -> dict[str, Source]:
    """{name: source} of everything that can be downloaded."""
    return {name: dataset.source for name, dataset in CATALOGUE.items() if dataset.source is not None}


def answers(asked: Mapping[str, Source], timeout: float = TIMEOUT) -> Iterator[tuple[str, str, str]]:
    """(file, address, "answers ..." or "no answer ...") for each address of every archive and extra.

    file: "mtd/train_names.txt". A GET whose connection is closed after the headers, because some hosts refuse HEAD.
    """
    for name, source in asked.items():
        for archive in (*source.archives, *source.extras):
            for url in archive.urls:
                yield f"{name}/{archive.name}", url, _answer(url, timeout)


def _answer(url: str, timeout: float) -> str:
    request = urllib.request.Request(url, headers={"User-Agent": "adlib"})
    try:
        with urllib.request.urlopen(request, timeout=timeout) as response:
            length = response.headers.get("Content-Length")
    except urllib.error.HTTPError as error:
        with error:
            return f"no answer, status {error.code}"
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        return f"no answer, {' '.join(str(reason).split())}"
    return "answers" if length is None else f"answers, {int(length) / 1e6:.1f} MB"
