"""A server on this machine that serves one file, and misbehaves as it is told."""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Act:
    """How one request is answered; the default is as a good server does.

    status   another answer than the file
    cut      only so many bytes of what was announced
    stall    seconds before it is cut
    ranges   False: the whole file, whatever was asked for
    shift    where what is sent begins, beside what was asked for
    headers  sent besides; of the value None: left out
    """

    status: int = 0
    cut: int | None = None
    stall: float = 0.0
    ranges: bool = True
    if_range: bool = True
    shift: int = 0
    headers: dict[str, str | None] = field(default_factory=dict)


@dataclass
class Loopback:
    """`data` and `etag`: of the file as it is now; `acts`: for the next requests, then good ones; `asked`: headers of
    all requests so far."""

    url: str
    data: bytes = b""
    etag: str | None = '"one"'
    acts: list[Act] = field(default_factory=list)
    asked: list[dict[str, str]] = field(default_factory=list)
    done: threading.Event = field(default_factory=threading.Event)

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        self.asked.append({"path": handler.path, **dict(handler.headers.items())})
        act = self.acts.pop(0) if self.acts else Act()
        headers: dict[str, str | None] = {"ETag": self.etag, **act.headers}
        if act.status:
            handler.send_response(act.status)
            return _finish(handler, {"Content-Length": "0", **headers}, b"")
        first = self._first(handler, act)
        total = len(self.data)
        if first is not None and first >= total:
            handler.send_response(416)
            return _finish(handler, {"Content-Length": "0", "Content-Range": f"bytes */{total}"}, b"")
        body = self.data if first is None else self.data[first + act.shift :]
        if first is not None:
            headers = {"Content-Range": f"bytes {first + act.shift}-{total - 1}/{total}", **headers}
        handler.send_response(200 if first is None else 206)
        _finish(handler, {"Content-Length": str(len(body)), **headers}, body[: act.cut])
        if act.stall:
            self.done.wait(act.stall)
        return None

    def _first(self, handler: BaseHTTPRequestHandler, act: Act) -> int | None:
        """The first byte that is asked for; None: all of it."""
        match = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range", ""))
        known = handler.headers.get("If-Range", self.etag)
        return int(match[1]) if match and act.ranges and (known == self.etag or not act.if_range) else None


def _finish(handler: BaseHTTPRequestHandler, headers: dict[str, str | None], body: bytes) -> None:
    for name, value in headers.items():
        if value is not None:
            handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(body)
    handler.wfile.flush()


@contextlib.contextmanager
def loopback() -> Iterator[Loopback]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                served.answer(self)

        def log_message(self, format: str, *args: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = False
    served = Loopback(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield served
    finally:
        served.done.set()
        server.shutdown()
        thread.join()
        server.server_close()
