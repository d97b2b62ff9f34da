"""moto's S3 on this machine, that fails as it is told: of the answers, a share are errors, resets or cut bodies."""

from __future__ import annotations

import contextlib
import logging
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

EXPIRED = (
    b"<?xml version='1.0'?><Error><Code>ExpiredToken</Code><Message>The provided token has expired.</Message></Error>"
)
Environ = dict[str, Any]
Start = Callable[..., Any]


@dataclass
class S3:
    """share: of the answers to GETs, that fail at random. seconds: that an answer takes.

    token: the session token that is asked for; "" for any. renewed: after so many GETs, it is another one.
    failed: the faults so far. asked: how often each path was asked for and got.
    """

    endpoint: str
    share: float = 0.0
    seconds: float = 0.0
    token: str = ""
    renewed: tuple[int, str] = (1 << 30, "")
    failed: list[str] = field(default_factory=list)
    asked: Counter[str] = field(default_factory=Counter)
    rng: random.Random = field(default_factory=lambda: random.Random(0))

    def answer(self, app: Callable, environ: Environ, start: Start) -> Iterable[bytes]:
        if self.asked.total() >= self.renewed[0]:
            self.token = self.renewed[1]
        if self.token and environ.get("HTTP_X_AMZ_SECURITY_TOKEN") != self.token:
            self.failed.append("expired")
            start("400 Bad Request", [("Content-Type", "application/xml"), ("Content-Length", str(len(EXPIRED)))])
            return [EXPIRED]
        time.sleep(self.seconds)
        fault = ""
        if environ["REQUEST_METHOD"] == "GET" and self.rng.random() < self.share:
            fault = self.rng.choice(("503 Slow Down", "500 Internal Server Error", "429 Too Many", "reset", "cut"))
            self.failed.append(fault)
        if fault == "reset":
            environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
            return []
        if fault and fault != "cut":
            start(fault, [("Content-Length", "0")])
            return [b""]
        self.asked[environ["PATH_INFO"]] += environ["REQUEST_METHOD"] == "GET" and not fault
        body = b"".join(app(environ, start))
        return _cut(body, environ["werkzeug.socket"]) if fault else [body]


def _cut(body: bytes, connection: socket.socket) -> Iterator[bytes]:
    yield body[: len(body) // 2]
    connection.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def serving_s3(monkeypatch: pytest.MonkeyPatch, bucket: str = "bucket") -> Iterator[S3]:
    """An empty bucket, in the environment's credentials."""
    import boto3
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    app = DomainDispatcherApplication(create_backend_app)
    found = S3("")
    server = make_server("127.0.0.1", 0, lambda environ, start: found.answer(app, environ, start), threaded=True)
    found.endpoint = f"http://127.0.0.1:{server.server_port}"
    for name, value in (
        ("AWS_ACCESS_KEY_ID", "key"),
        ("AWS_SECRET_ACCESS_KEY", "secret"),
        ("AWS_REGION", "us-east-1"),
        ("AWS_ENDPOINT_URL", found.endpoint),
    ):
        monkeypatch.setenv(name, value)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        client = boto3.client("s3", endpoint_url=found.endpoint, region_name="us-east-1")
        client.create_bucket(Bucket=bucket)
        yield found
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
