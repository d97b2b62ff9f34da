"""Tars as webdataset's own TarWriter leaves them, and a server that hands them out over the loopback."""

from __future__ import annotations

import contextlib
import http.server
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from small_images import encoded, picture


def write_tar(path: Path, samples: Sequence[dict[str, Any]]) -> Path:
    """`samples`: "__key__" and members, which webdataset encodes by their suffix; bytes stay as they are."""
    from webdataset.writer import TarWriter

    path.parent.mkdir(parents=True, exist_ok=True)
    with TarWriter(str(path), mtime=0) as writer:
        for sample in samples:
            writer.write(sample)
    return path


def some_samples(count: int, first: int = 0, suffix: str = "png", classes: int = 3) -> list[dict[str, Any]]:
    """Like img2dataset's: the i-th shows picture(i), its class is i modulo `classes`."""
    return [
        {
            "__key__": f"{i:06d}",
            suffix: encoded(picture(i), suffix.lower()),
            "cls": i % classes,
            "json": {"caption": f"picture {i}", "width": 32, "exif": None},
            "txt": f"picture {i}",
        }
        for i in range(first, first + count)
    ]


@dataclass
class Server:
    """Files by name. `cut[name]`: the first answer ends after so many bytes. `promises`: says the length of answers."""

    files: dict[str, bytes]
    cut: dict[str, int] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    promises: bool = True
    url: str = ""


@contextlib.contextmanager
def serving(server: Server) -> Iterator[Server]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name = self.path.lstrip("/").partition("?")[0]
            server.asked.append(name)
            if name not in server.files:
                self.send_error(404)
                return
            data = server.files[name]
            self.send_response(200)
            if server.promises:
                self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data[: server.cut.pop(name, len(data))])

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as found:
        thread = threading.Thread(target=found.serve_forever)
        thread.start()
        server.url = f"http://127.0.0.1:{found.server_port}"
        try:
            yield server
        finally:
            found.shutdown()
            thread.join()
