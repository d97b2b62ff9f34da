"""A server on this machine that serves a folder, with ranges, and fails as it is told."""

from __future__ import annotations

import contextlib
import random
import re
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

LONG = 20.0
"""Seconds of a stall."""


@dataclass
class FolderServer:
    """url of `folder`. down: 503 for all. forbidden: 403 for all.

    faults: a status as "503", "reset", "cut" (half of a body) or "stall" (half, and then nothing for long), which the
    first requests of each file get in this order. share: of all answers, that get a fault at random.

    seconds: that each answer takes. failed: faults so far.
    ranges: False for a server that knows none. flips: names whose next answers have one byte changed.
    asked: paths of all requests.
    """

    url: str
    folder: Path
    faults: tuple[str, ...] = ()
    share: float = 0.0
    seconds: float = 0.0
    failed: list[str] = field(default_factory=list)
    down: bool = False
    forbidden: bool = False
    ranges: bool = True
    flips: dict[str, int] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    rng: random.Random = field(default_factory=lambda: random.Random(0))

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        self.asked.append(handler.path)
        time.sleep(self.seconds)
        path = self.folder / handler.path.removeprefix("/set/")
        before = self.asked.count(handler.path) - 1
        fault = "503" if self.down else self.faults[before] if before < len(self.faults) else ""
        if self.rng.random() < self.share:
            fault = self.rng.choice(("503", "reset", "cut"))
        self.failed += [fault] if fault else []
        if self.forbidden or fault.isdigit() or not path.is_file():
            handler.send_response(403 if self.forbidden else int(fault or 404))
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return
        if fault == "reset":
            handler.connection.shutdown(socket.SHUT_RDWR)
            handler.close_connection = True
            return
        self._send(handler, bytearray(path.read_bytes()), path.name, fault)

    def _send(self, handler: BaseHTTPRequestHandler, data: bytearray, name: str, fault: str) -> None:
        if self.flips.get(name, 0) > 0:
            self.flips[name] -= 1
            data[len(data) // 2] ^= 1
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", handler.headers.get("Range", "")) if self.ranges else None
        first = int(asked[1]) if asked else 0
        body = bytes(data[first:])
        handler.send_response(206 if asked else 200)
        if asked:
            handler.send_header("Content-Range", f"bytes {first}-{len(data) - 1}/{len(data)}")
        handler.send_header("Content-Length", str(len(body)))
        handler.send_header("Last-Modified", "Sun, 29 Nov 2026 00:00:00 GMT")
        handler.end_headers()
        with contextlib.suppress(OSError):
            handler.wfile.write(body[: len(body) // 2] if fault else body)
        if fault == "stall":
            handler.wfile.flush()
            time.sleep(LONG)
        if fault:
            handler.close_connection = True


@contextlib.contextmanager
def serving(folder: Path, **how: object) -> Iterator[FolderServer]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            found.answer(self)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        found = FolderServer(f"http://127.0.0.1:{server.server_port}/set", folder, **how)  # type: ignore[arg-type]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield found
        finally:
            server.shutdown()
