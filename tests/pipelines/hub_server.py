"""A loopback server that answers as the Hugging Face hub does for one data set: enough for huggingface_hub."""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REPO = "me/robots"


@dataclass
class Hub:
    """`folder` as the data set REPO, in one revision, "main"; what was asked of it. `missing`: files that it lost."""

    folder: Path
    address: str = ""
    missing: set[str] = field(default_factory=set)
    loaded: list[str] = field(default_factory=list)

    def names(self) -> list[str]:
        return sorted(str(p.relative_to(self.folder)) for p in self.folder.rglob("*") if p.is_file())


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[Hub]:
    hub = Hub(folder)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, hub))
    thread = threading.Thread(target=partial(server.serve_forever, 0.02), daemon=True)
    thread.start()
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, hub: Hub, *args) -> None:
        self.hub = hub
        super().__init__(*args)

    def log_message(self, format: str, *args) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path).strip("/")
        api, files = f"api/datasets/{REPO}", f"datasets/{REPO}/resolve/"
        if path.startswith(files):
            revision, _, name = path[len(files) :].partition("/")
            return self._file(name) if revision in ("main", COMMIT) else self._refuse("RevisionNotFound")
        if path in (api, f"{api}/revision/main", f"{api}/revision/{COMMIT}"):
            siblings = [{"rfilename": name} for name in self.hub.names()]
            return self._json({"id": REPO, "sha": COMMIT, "siblings": siblings, "private": False, "tags": []})
        if path == f"{api}/tree/{COMMIT}":
            sizes = {name: (self.hub.folder / name).stat().st_size for name in self.hub.names()}
            tree = [{"type": "file", "oid": "0" * 40, "path": name, "size": size} for name, size in sizes.items()]
            return self._json(tree)
        return self._refuse("RevisionNotFound" if path.startswith(f"{api}/") else "RepoNotFound")

    def _file(self, name: str) -> None:
        if name not in self.hub.names() or name in self.hub.missing:
            return self._refuse("EntryNotFound")
        data = (self.hub.folder / name).read_bytes()
        if self.command == "GET":
            self.hub.loaded.append(name)
        return self._answer(data, {"ETag": f'"{hashlib.sha256(data).hexdigest()}"'})

    def _json(self, value: object) -> None:
        self._answer(json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _refuse(self, code: str) -> None:
        self._answer(b"{}", {"X-Error-Code": code, "X-Error-Message": "no"}, 404)

    def _answer(self, data: bytes, headers: dict[str, str], status: int = 200) -> None:
        self.send_response(status)
        for name, value in {**headers, "X-Repo-Commit": COMMIT, "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)
