"""A real HTTP server on 127.0.0.1 that misbehaves as told: drops, ignores ranges, lies, is busy."""

import contextlib
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Served:
    """What stands at one path, and how it is served."""

    body: bytes
    etag: str | None = '"one"'
    ranges: bool = True
    drops: list[int] = field(default_factory=list)  # of the next answers: end after so many bytes of the body
    lie: int = 0  # added to the Content-Length of whole answers
    statuses: list[int] = field(default_factory=list)  # of the next answers: no body but this status
    patience: int = 0  # Retry-After of those, in seconds
    headers: dict[str, str | None] = field(default_factory=dict)  # instead of the right ones; None: left out


class Server:
    """url(path) is the address of `things[path]`; requests holds (path, Range or None), sent counts body bytes."""

    def __init__(self, things: dict[str, Served]):
        self.things, self.requests, self.sent = things, [], 0
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.http.server_address[1]}{path}"


@contextlib.contextmanager
def serving(things: dict[str, Served]):
    """Serve while the block runs."""
    server = Server(things)
    thread = threading.Thread(target=server.http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.http.shutdown()
        server.http.server_close()
        thread.join()


def _handler(server: Server):
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            wanted = self.headers.get("Range")
            server.requests.append((self.path, wanted))
            thing = server.things.get(self.path)
            if thing is None or thing.statuses:
                return self.refuse(thing.statuses.pop(0) if thing else 404, thing or Served(b""))
            fresh = self.headers.get("If-Range") in (None, thing.etag)
            if wanted and thing.ranges and fresh:
                return self.rest(thing, int(wanted.removeprefix("bytes=").removesuffix("-")))
            return self.answer(200, thing, thing.body, thing.lie)

        def refuse(self, status: int, thing: Served):
            self.send_response(status)
            self.send_headers({"Retry-After": str(thing.patience)} | thing.headers)

        def rest(self, thing: Served, start: int):
            size = len(thing.body)
            if start >= size:
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{size}")
                return self.end_headers()
            return self.answer(206, thing, thing.body[start:], 0, f"bytes {start}-{size - 1}/{size}")

        def answer(self, status: int, thing: Served, body: bytes, lie: int, content_range: str | None = None):
            self.send_response(status)
            own = {"Content-Length": str(len(body) + lie), "ETag": thing.etag, "Content-Range": content_range}
            self.send_headers(own | thing.headers)
            body = body[: thing.drops.pop(0)] if thing.drops else body
            server.sent += len(body)
            self.wfile.write(body)  # HTTP/1.0: the connection ends with the answer

        def send_headers(self, headers: dict[str, str | None]):
            for name, value in headers.items():
                if value:
                    self.send_header(name, value)
            self.end_headers()

        def log_message(self, *args):
            pass

    return Handler
