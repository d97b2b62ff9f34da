"""As much of S3, Google Cloud Storage and Azure blobs as obstore asks for, on this machine; in memory, unsigned.

Objects are created once (412 where there is one already), replaced, read in ranges, listed and deleted.
"""

from __future__ import annotations

import contextlib
import json
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from email.utils import formatdate
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Literal
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape, unescape

import pytest

from shards import writer
from shards.building import store_build
from shards.stores import cache

Dialect = Literal["s3", "gs", "az"]
BUCKET, ACCOUNT = "bucket", "account"


@dataclass
class Bucket:
    """objects: by key. log: (method, key) of every request that changed something, in order.

    fail_puts: so many of the next PUTs are answered with 503. lost: of these the object is stored all the same.
    """

    dialect: Dialect
    objects: dict[str, bytes] = field(default_factory=dict)
    writes: dict[str, int] = field(default_factory=dict)
    log: list[tuple[str, str]] = field(default_factory=list)
    fail_puts: int = 0
    lost: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def address(self) -> str:
        return f"{self.dialect}://{BUCKET}"

    def put(self, key: str, data: bytes, create: bool) -> int:
        with self.lock:
            failing, self.fail_puts = self.fail_puts > 0, max(0, self.fail_puts - 1)
            if failing and not self.lost:
                return 503
            if create and key in self.objects:
                return 409 if self.dialect == "az" else 412
            self.objects[key] = data
            self.writes[key] = self.writes.get(key, 0) + 1
            self.log.append(("PUT", key))
            return 503 if failing else 201

    def delete(self, key: str) -> int:
        with self.lock:
            self.log.append(("DELETE", key))
            return 204 if self.objects.pop(key, None) is not None else 404

    def tag(self, key: str) -> str:
        return f'"{sha256(self.objects[key]).hexdigest()[:16]}-{self.writes.get(key, 1)}"'


def _handler(bucket: Bucket) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # or each answer waits 40 ms for the body to follow its head

        def _key(self) -> str:
            path = unquote(urlsplit(self.path).path).lstrip("/")
            return path.removeprefix(f"{ACCOUNT}/").removeprefix(BUCKET).lstrip("/")

        def _answer(self, code: int, body: bytes = b"", **headers: str) -> None:
            self.send_response(code)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def _about(self, key: str) -> dict[str, str]:
            return {
                "ETag": bucket.tag(key),
                "Last_Modified": formatdate(1_700_000_000 + bucket.writes.get(key, 1), usegmt=True),
                "x_goog_generation": str(bucket.writes.get(key, 1)),
            }

        def do_PUT(self) -> None:
            data = self.rfile.read(int(self.headers["Content-Length"]))
            create = self.headers.get("If-None-Match") == "*" or self.headers.get("x-goog-if-generation-match") == "0"
            code = bucket.put(self._key(), data, create)
            about = self._about(self._key()) if code == 201 else {}
            self._answer(200 if code == 201 and bucket.dialect != "az" else code, b"", **about)

        def do_GET(self) -> None:
            key, asked = self._key(), parse_qs(urlsplit(self.path).query)
            if not key:
                return self._answer(200, _listing(bucket, asked.get("prefix", [""])[0]), Content_Type="application/xml")
            if key not in bucket.objects:
                return self._answer(404)
            data, about = bucket.objects[key], self._about(key)
            if wanted := self.headers.get("Range") or self.headers.get("x-ms-range"):
                first, _, last = wanted.removeprefix("bytes=").partition("-")
                start, stop = int(first), int(last) + 1 if last else len(data)
                about["Content_Range"] = f"bytes {start}-{min(stop, len(data)) - 1}/{len(data)}"
                return self._answer(206, data[start:stop], **about)
            return self._answer(200, data, **about)

        def do_HEAD(self) -> None:
            key = self._key()
            if key not in bucket.objects:
                return self._answer(404)
            return self._answer(200, bucket.objects[key], **self._about(key))

        def do_DELETE(self) -> None:
            code = bucket.delete(self._key())
            self._answer(202 if code == 204 and bucket.dialect == "az" else code)

        def do_POST(self) -> None:
            """S3's deletion of several objects at once; Azure's is a batch of requests."""
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            if bucket.dialect == "az":
                return self._batch(body)
            keys = [unescape(key) for key in re.findall("<Key>(.*?)</Key>", body)]
            for key in keys:
                bucket.delete(key)
            gone = "".join(f"<Deleted><Key>{escape(key)}</Key></Deleted>" for key in keys)
            return self._answer(200, f"<DeleteResult>{gone}</DeleteResult>".encode(), Content_Type="application/xml")

        def _batch(self, body: str) -> None:
            answers = []
            for number, path in enumerate(re.findall(r"DELETE (\S+) HTTP", body)):
                key = unquote(urlsplit(path).path).lstrip("/").removeprefix(f"{ACCOUNT}/").removeprefix(f"{BUCKET}/")
                code = {204: "202 Accepted", 404: "404 The specified blob does not exist."}[bucket.delete(key)]
                head = f"--end\r\nContent-Type: application/http\r\nContent-ID: {number}\r\n\r\n"
                answers.append(f"{head}HTTP/1.1 {code}\r\nx-ms-request-id: 1\r\n\r\n")
            answer = ("".join(answers) + "--end--").encode()
            self._answer(202, answer, Content_Type="multipart/mixed; boundary=end")

        def log_message(self, format: str, *args: object) -> None:
            pass

    return Handler


def _listing(bucket: Bucket, prefix: str) -> bytes:
    with bucket.lock:
        found = {key: (len(data), bucket.tag(key)) for key, data in bucket.objects.items() if key.startswith(prefix)}
    when = "2023-11-14T22:13:20.000Z"
    if bucket.dialect == "az":
        blobs = "".join(
            f"<Blob><Name>{escape(key)}</Name><Properties><Last-Modified>{formatdate(1_700_000_000, usegmt=True)}"
            f"</Last-Modified><Etag>{escape(tag)}</Etag><Content-Length>{size}</Content-Length>"
            "<Content-Type>x</Content-Type></Properties></Blob>"
            for key, (size, tag) in sorted(found.items())
        )
        return f"<EnumerationResults><Blobs>{blobs}</Blobs><NextMarker /></EnumerationResults>".encode()
    contents = "".join(
        f"<Contents><Key>{escape(key)}</Key><LastModified>{when}</LastModified><ETag>{escape(tag)}</ETag>"
        f"<Size>{size}</Size></Contents>"
        for key, (size, tag) in sorted(found.items())
    )
    return f"<ListBucketResult><IsTruncated>false</IsTruncated>{contents}</ListBucketResult>".encode()


@contextlib.contextmanager
def serving_bucket(monkeypatch: pytest.MonkeyPatch, dialect: Dialect = "s3") -> Iterator[Bucket]:
    """An empty bucket at bucket.address, by what obstore reads of the environment."""
    bucket = Bucket(dialect)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(bucket))
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    for name, value in _environment(dialect, f"http://127.0.0.1:{server.server_port}").items():
        monkeypatch.setenv(name, value)
    try:
        yield bucket
    finally:
        server.shutdown()
        server.server_close()


def _environment(dialect: Dialect, endpoint: str) -> dict[str, str]:
    if dialect == "s3":
        names = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": "us-east-1"}
        return {**names, "AWS_ENDPOINT_URL": endpoint}
    if dialect == "gs":
        account = {"gcs_base_url": endpoint, "disable_oauth": True, "client_email": "", "private_key": "",
                   "private_key_id": ""}  # fmt: skip
        return {"GOOGLE_SERVICE_ACCOUNT_KEY": json.dumps(account)}
    return {"AZURE_STORAGE_ACCOUNT_NAME": ACCOUNT, "AZURE_SKIP_SIGNATURE": "true", "AZURE_ENDPOINT": f"{endpoint}"}


def on_machine(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each machine has a cache of its own, where shards are made."""
    monkeypatch.setenv(cache.FOLDER, str(tmp_path / name / "shards"))
    cache._mirror.cache_clear()
    for module, seconds in ((store_build, "LOOK_SECONDS"), (writer, "WAIT_SECONDS")):
        monkeypatch.setattr(module, seconds, 0.0)


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Bucket]:
    """As machine "one" sees it. Imported where it is asked for."""
    with serving_bucket(monkeypatch) as bucket:
        on_machine("one", tmp_path, monkeypatch)
        yield bucket


def files_of(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def objects_of(bucket: Bucket, address: str) -> dict[str, bytes]:
    prefix = address.removeprefix(f"{bucket.address}/") + "/"
    return {key.removeprefix(prefix): data for key, data in sorted(bucket.objects.items()) if key.startswith(prefix)}
