"""A loopback server that answers as the Hugging Face hub does: enough for huggingface_hub to read and to push.

Repositories hold commits of real bytes. Large files go the way of Git LFS: batch, PUT, then named in a commit.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REPO = "me/robots"
USER, TOKEN, READ_TOKEN = "me", "hf_write", "hf_read"
LARGE = (".tar", ".parquet", ".safetensors", ".pt", ".npz")
Files = dict[str, bytes]
KINDS = {"models": "model", "datasets": "dataset"}


@dataclass
class Act:
    """How the next request of `method` whose path holds `path` is answered instead.

    cut: with only so many bytes of what it should be. skip: so many such requests are answered well before. hang: not
    before the server ends.
    """

    method: str
    path: str
    status: int = 0
    cut: int | None = None
    skip: int = 0
    hang: bool = False
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Repo:
    """commits: files by name, by commit, in order; the last is "main". folder: files that are read when asked for."""

    private: bool = False
    commits: dict[str, Files] = field(default_factory=dict)
    folder: Path | None = None

    @property
    def head(self) -> str:
        return next(reversed(self.commits))

    def files(self, revision: str = "main") -> Files:
        if self.folder:
            names = [p for p in sorted(self.folder.rglob("*")) if p.is_file()]
            return {str(p.relative_to(self.folder)): p.read_bytes() for p in names}
        return self.commits[self.head if revision == "main" else revision]

    def add(self, files: Files) -> str:
        commit = hashlib.sha1(repr((len(self.commits), sorted(files))).encode()).hexdigest()
        self.commits[commit] = files
        return commit


@dataclass
class Hub:
    """Repositories by (kind, name), what was asked and loaded, what goes wrong next.

    missing: files that it lists and lost. ignored: those that a .gitignore names. objects: large files that were sent,
    by sha256. sent: bytes of each PUT.
    """

    repos: dict[tuple[str, str], Repo] = field(default_factory=dict)
    address: str = ""
    missing: set[str] = field(default_factory=set)
    ignored: set[str] = field(default_factory=set)
    loaded: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    acts: list[Act] = field(default_factory=list)
    objects: dict[str, bytes] = field(default_factory=dict)
    sent: list[int] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)

    def names(self) -> list[str]:
        return sorted(self.repos["dataset", REPO].files())

    def files(self, kind: str, repo: str) -> Files:
        return self.repos[kind, repo].files()


@contextlib.contextmanager
def serving(folder: Path | None = None) -> Iterator[Hub]:
    """`folder`: as the data set REPO, in one revision, "main"."""
    hub = Hub()
    if folder:
        hub.repos["dataset", REPO] = Repo(commits={COMMIT: {}}, folder=folder)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, hub))
    thread = threading.Thread(target=partial(server.serve_forever, 0.02), daemon=True)
    thread.start()
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield hub
    finally:
        hub.ended.set()
        server.shutdown()
        server.server_close()
        thread.join()


def use_hub(server: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its address and a token in the environment, caches in the test's folder."""
    monkeypatch.setenv("HF_ENDPOINT", server.address)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hf" / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_ASSETS_CACHE", str(tmp_path / "hf" / "assets"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr(
        "huggingface_hub.constants.HF_HUB_DISABLE_XET", True, raising=False
    )  # the server speaks Git LFS
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)  # between its attempts


def environment(server: Hub, home: Path) -> dict[str, str]:
    """The same for a process of its own."""
    asked = {"HF_ENDPOINT": server.address, "HF_TOKEN": TOKEN, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1"}
    return {**os.environ, **asked}


def is_large(name: str, size: int) -> bool:
    return size > 0 and (name.endswith(LARGE) or size > 10_000_000)


def git_blob(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


class _RefusedError(Exception):
    def __init__(self, status: int, code: str = "", message: str = "no") -> None:
        self.status, self.headers = status, {"X-Error-Message": message, **({"X-Error-Code": code} if code else {})}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, hub: Hub, *args) -> None:
        self.hub = hub
        super().__init__(*args)

    def log_message(self, format: str, *args) -> None:
        pass

    def do_HEAD(self) -> None:
        self._route()

    def do_GET(self) -> None:
        self._route()

    def do_POST(self) -> None:
        self._route()

    def do_PUT(self) -> None:
        self._route()

    def _route(self) -> None:
        self.path_asked = unquote(urlsplit(self.path).path).strip("/")
        self.body = self._read_body()
        self.hub.asked.append(f"{self.command} {self.path_asked}")
        act = next((a for a in self.hub.acts if a.method == self.command and a.path in self.path_asked), None)
        self.cut = None
        if act and act.skip:
            act.skip -= 1
        elif act:
            self.hub.acts.remove(act)
            self.cut = act.cut
            if act.hang:
                self.hub.ended.wait(60)
            if act.status:
                return self._answer(b"{}", act.headers, act.status)
        try:
            for pattern, answer in ROUTES:
                method, _, path = pattern.partition(" ")
                if self.command in method.split("|") and (found := re.fullmatch(path, self.path_asked)):
                    return answer(self, **found.groupdict())
            raise _RefusedError(404, "RepoNotFound")
        except _RefusedError as refusal:
            return self._answer(b"{}", refusal.headers, refusal.status)

    def _read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "") == "chunked":
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _token(self, write: bool = False) -> None:
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if token not in (TOKEN, READ_TOKEN):
            raise _RefusedError(401, "", "Invalid credentials in Authorization header")
        if write and token != TOKEN:
            raise _RefusedError(403, "", "Forbidden: you must use a write token")

    def _repo(self, kind: str | None, repo: str, write: bool = False) -> Repo:
        found = self.hub.repos.get((KINDS.get(kind or "models", "model"), repo))
        if found is None or (found.private and not self.headers.get("Authorization")):
            raise _RefusedError(404 if self.headers.get("Authorization") else 401, "RepoNotFound")
        if write:
            self._token(write=True)
            if not repo.startswith(f"{USER}/"):
                raise _RefusedError(403, "", "Forbidden")
        return found

    def _commit_of(self, repo: Repo, revision: str | None) -> str:
        if revision in (None, "main"):
            return repo.head
        if revision not in repo.commits:
            raise _RefusedError(404, "RevisionNotFound")
        return revision

    def create(self) -> None:
        self._token(write=True)
        asked = json.loads(self.body)
        kind, repo = asked.get("type") or "model", f"{asked['organization']}/{asked['name']}"
        if asked["organization"] != USER:
            raise _RefusedError(403, "", "You don't have the rights to create a model under this namespace")
        url = {"url": f"{self.hub.address}/{'datasets/' if kind == 'dataset' else ''}{repo}"}
        if (kind, repo) in self.hub.repos:
            return self._json(url, 409)
        made = Repo(private=asked.get("private", asked.get("visibility") == "private"))
        made.add({".gitattributes": b"*.tar filter=lfs\n"})
        self.hub.repos[kind, repo] = made
        return self._json(url)

    def validate(self) -> None:
        yaml = json.loads(self.body)["content"]
        bad = not yaml.startswith("---\n") or "\nlicense: nonsense" in yaml
        self._json({"errors": [{"message": "metadata"}], "warnings": []} if bad else {"warnings": []}, 400 * bad or 200)

    def info(self, kind: str, repo: str, revision: str | None = None) -> None:
        found = self._repo(kind, repo)
        commit = self._commit_of(found, revision)
        siblings = [self._entry(name, data, "rfilename") for name, data in found.files(commit).items()]
        self._json({"id": repo, "sha": commit, "siblings": siblings, "private": found.private, "tags": []})

    def tree(self, kind: str, repo: str, revision: str) -> None:
        found = self._repo(kind, repo)
        files = found.files(self._commit_of(found, revision))
        self._json([{"type": "file", **self._entry(name, data, "path")} for name, data in files.items()])

    @staticmethod
    def _entry(name: str, data: bytes, key: str) -> dict[str, Any]:
        entry = {key: name, "size": len(data), "oid": git_blob(data), "blobId": git_blob(data)}
        if is_large(name, len(data)):
            digest = hashlib.sha256(data).hexdigest()
            entry["lfs"] = {"sha256": digest, "oid": digest, "size": len(data), "pointerSize": 130}
        return entry

    def preupload(self, kind: str, repo: str, revision: str) -> None:
        found = self._repo(kind, repo, write=True)
        there = found.files(self._commit_of(found, revision))
        answer = []
        for file in json.loads(self.body)["files"]:
            name, large = file["path"], is_large(file["path"], file["size"])
            oid = None
            if name in there:
                oid = hashlib.sha256(there[name]).hexdigest() if large else git_blob(there[name])
            mode = "lfs" if large else "regular"
            answer.append({"path": name, "uploadMode": mode, "shouldIgnore": name in self.hub.ignored, "oid": oid})
        self._json({"files": answer})

    def batch(self, repo: str, kind: str | None = None) -> None:
        self._repo(kind, repo, write=True)
        answer = []
        for asked in json.loads(self.body)["objects"]:
            there = asked["oid"] in self.hub.objects
            upload = {"actions": {"upload": {"href": f"{self.hub.address}/lfs/{asked['oid']}"}}}
            answer.append({**asked, **({} if there else upload)})
        self._json({"transfer": "basic", "objects": answer})

    def put(self, oid: str) -> None:
        if hashlib.sha256(self.body).hexdigest() != oid:
            raise _RefusedError(400, "", "other bytes than announced")
        self.hub.sent.append(len(self.body))
        self.hub.objects[oid] = self.body
        self._answer(b"")

    def commit(self, kind: str, repo: str, revision: str) -> None:
        found = self._repo(kind, repo, write=True)
        files = dict(found.files())
        for line in self.body.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "header":
                if value.get("parentCommit") not in (None, found.head):
                    raise _RefusedError(412, "", "A commit has happened since")
                self.hub.messages.append(value["summary"])
            elif entry["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                files[value["path"]] = self.hub.objects[value["oid"]]
            else:
                del files[value["path"]]
        commit = found.add(files)
        self._json({"commitUrl": f"{self.hub.address}/{repo}/commit/{commit}", "commitOid": commit, "success": True})

    def resolve(self, repo: str, revision: str, name: str, kind: str | None = None) -> None:
        found = self._repo(kind, repo)
        commit = self._commit_of(found, revision)
        files = found.files(commit)
        if name not in files or name in self.hub.missing:
            raise _RefusedError(404, "EntryNotFound")
        data = files[name]
        if self.command == "GET":
            self.hub.loaded.append(name)
        tag = hashlib.sha256(data).hexdigest() if is_large(name, len(data)) else git_blob(data)
        headers = {"ETag": f'"{tag}"', "X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
        if first := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "")):
            start = int(first[1])
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
            return self._answer(data[start:], headers, 206)
        return self._answer(data, headers)

    def _json(self, value: object, status: int = 200) -> None:
        self._answer(json.dumps(value).encode(), {"Content-Type": "application/json"}, status)

    def _answer(self, data: bytes, headers: dict[str, str] | None = None, status: int = 200) -> None:
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data[: self.cut])
            self.close_connection = self.cut is not None


_API = r"api/(?P<kind>models|datasets)/(?P<repo>[\w.-]+/[\w.-]+)"
ROUTES = (
    ("POST api/repos/create", _Handler.create),
    ("POST api/validate-yaml", _Handler.validate),
    (f"GET {_API}(/revision/(?P<revision>.+))?", _Handler.info),
    (f"GET {_API}/tree/(?P<revision>[^/]+)", _Handler.tree),
    (f"POST {_API}/preupload/(?P<revision>[^/]+)", _Handler.preupload),
    (f"POST {_API}/commit/(?P<revision>[^/]+)", _Handler.commit),
    (r"POST ((?P<kind>datasets)/)?(?P<repo>[\w.-]+/[\w.-]+)\.git/info/lfs/objects/batch", _Handler.batch),
    (r"PUT lfs/(?P<oid>\w+)", _Handler.put),
    (
        r"GET|HEAD ((?P<kind>datasets)/)?(?P<repo>[\w.-]+/[\w.-]+)/resolve/(?P<revision>[^/]+)/(?P<name>.+)",
        _Handler.resolve,
    ),
)
