"""An epoch from a store that fails now and then: every sample once, with the right bits, in not much more time."""

from __future__ import annotations

import contextlib
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import cli
from seqjepa import open_sequences
from shards.sample import ViewSample, encode_raw
from shards.schema import THREE_DIEBENCH_PARAMS, ViewSpec
from shards.stats import PixelStats
from shards.stores import cache
from shards.writer import SetBuilder

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "shards"))
from folder_server import serving
from s3_server import serving_s3

SHARDS, PER_SHARD, SIDE, SHARE = 128, 2, 16, 0.05


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Many small tars, so that one in twenty is some."""
    out, rng = tmp_path_factory.mktemp("faults") / "set", np.random.default_rng(0)
    spec = ViewSpec(2, SIDE, SIDE, "raw", THREE_DIEBENCH_PARAMS)
    with SetBuilder(out, name="noise", spec=spec, classes=("a",), fingerprint={"seed": 0}) as builder:
        for number in range(SHARDS):
            with builder.open_shard("train", number) as shard:
                for sample in range(PER_SHARD):
                    pixels = rng.integers(0, 255, (2, SIDE, SIDE, 3)).astype(np.uint8)
                    params = rng.uniform(0, 1, (2, 7)).astype(np.float32)
                    key = f"{number:03d}-{sample}"
                    shard.add(
                        ViewSample(key, [encode_raw(v) for v in pixels], range(2), params, 0), PixelStats.of(pixels)
                    )
        builder.finish({"command": "test"})
    return out


@contextlib.contextmanager
def serving_by(kind: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, Any]]:
    """The set's address, and the server that can be told to fail."""
    if kind == "http":
        with serving(folder) as server:
            yield server.url, server
        return
    with serving_s3(monkeypatch) as server:
        pushed = CliRunner().invoke(cli.seqjepa_data_app, ["push", str(folder), "s3://bucket/set"])
        assert pushed.exit_code == 0, pushed.output
        yield "s3://bucket/set", server


def epoch_of(place: str | Path) -> tuple[dict[str, bytes], float]:
    """Pixels by key, and seconds from opening the set on. Every sample comes once."""
    cache._mirror.cache_clear()
    began, found = time.perf_counter(), {}
    with contextlib.closing(open_sequences(place, context=1, batch_size=8, workers=0)) as sequences:
        for batch in sequences:
            for key, views in zip(batch.keys, batch.views, strict=True):
                assert key not in found
                found[key] = views.numpy().tobytes()
    assert len(found) == SHARDS * PER_SHARD
    return found, time.perf_counter() - began


@pytest.mark.tools
def test_credentials_that_expire_in_the_middle(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line that says so; with others, the same command fetches what is missing."""
    monkeypatch.setenv(cache.FOLDER, str(tmp_path / "cache"))
    monkeypatch.setenv("AWS_SESSION_TOKEN", "first")
    with serving_by("s3", folder, monkeypatch) as (address, server):
        server.asked.clear()
        server.token, server.renewed = "first", (SHARDS // 2, "second")
        stopped = CliRunner().invoke(cli.seqjepa_data_app, ["verify", address])
        assert stopped.exit_code == 2
        said = "may not be read: the credentials have expired; renew them, and the same command goes on"
        assert said in " ".join(stopped.output.split())
        cache._mirror.cache_clear()
        monkeypatch.setenv("AWS_SESSION_TOKEN", "second")
        assert epoch_of(address)[0] == epoch_of(folder)[0]
        assert max(count for path, count in server.asked.items() if path.endswith(".tar")) == 1


@pytest.mark.tools
def test_a_role_has_new_credentials(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine's role gives others when it is asked again, before the time that it named."""
    monkeypatch.setenv(cache.FOLDER, str(tmp_path / "cache"))
    with serving_by("s3", folder, monkeypatch) as (address, server), serving_role(lambda: server.token) as role:
        server.asked.clear()
        server.token, server.renewed = "first", (SHARDS // 2, "second")
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.delenv(name)
        (tmp_path / "token").write_text("of the container")
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", role)
        monkeypatch.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", str(tmp_path / "token"))
        assert epoch_of(address)[0] == epoch_of(folder)[0]
        assert "expired" in server.failed


@contextlib.contextmanager
def serving_role(token: Callable[[], str]) -> Iterator[str]:
    """Where a container asks for its role's credentials, good for an hour."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            ends = datetime.now(UTC) + timedelta(hours=1)
            keys = {"AccessKeyId": "key", "SecretAccessKey": "secret", "Token": token()}
            body = json.dumps({**keys, "Expiration": ends.strftime("%Y-%m-%dT%H:%M:%SZ")}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/role"
        server.shutdown()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["http", pytest.param("s3", marks=pytest.mark.tools)])
def test_one_answer_in_twenty_fails(kind: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each answer takes a quarter of a second, as one of a store far away."""
    expected, _ = epoch_of(folder)
    with serving_by(kind, folder, monkeypatch) as (address, server):
        server.seconds, took = 0.25, {}
        for share in (0.0, SHARE):
            server.share = share
            monkeypatch.setenv(cache.FOLDER, str(tmp_path / f"cache-{share}"))
            found, took[share] = epoch_of(address)
            assert found == expected
        assert len(server.failed) >= 3
        assert took[SHARE] < 1.5 * took[0.0]
