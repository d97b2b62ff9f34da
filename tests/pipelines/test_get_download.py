"""Files over HTTP, from a server on this machine: cut connections, wrong bytes, changed files, other people's files."""

from __future__ import annotations

import hashlib
import json
import os
import socket
from collections.abc import Iterator
from dataclasses import replace
from email.message import Message
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.request import Request

import numpy as np
import pytest
from loopback import Act, Loopback, loopback

from pipelines.get import download
from pipelines.get.download import Patience, fetch
from pipelines.get.published import PublishedFile
from shards.errors import DiskFullError, FailureError, UsageError

DATA = np.random.default_rng(0).bytes(700_001)
OTHER = np.random.default_rng(1).bytes(700_001)
QUICK = Patience(tries=4, timeout=5.0, first=0.001, longest=0.01)


@pytest.fixture
def server() -> Iterator[Loopback]:
    with loopback() as served:
        served.data = DATA
        yield served


def published(server: Loopback, size: int = len(DATA), digest: str | None = None) -> PublishedFile:
    digest = hashlib.sha256(DATA).hexdigest() if digest is None else digest
    return PublishedFile("a.bin", f"{server.url}/a.bin", size, "sha256", digest)


def names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


def asked_for(server: Loopback) -> list[str | None]:
    return [headers.get("Range") for headers in server.asked]


def test_a_file_is_fetched_once(server: Loopback, tmp_path: Path) -> None:
    said: list[str] = []
    path = fetch(published(server), tmp_path, QUICK, said.append)
    assert path.read_bytes() == DATA
    assert names(tmp_path) == ["a.bin"]
    assert said == []
    fetch(published(server), tmp_path, QUICK, said.append)
    assert said == [f"{path} is there already"]
    assert asked_for(server) == [None]
    assert server.asked[0]["Accept-Encoding"] == "identity"


def test_cut_connections_are_gone_on_from(server: Loopback, tmp_path: Path) -> None:
    server.acts = [Act(cut=300_000), Act(cut=100_000), Act(cut=1)]
    said: list[str] = []
    assert fetch(published(server), tmp_path, QUICK, said.append).read_bytes() == DATA
    assert asked_for(server) == [None, "bytes=300000-", "bytes=400000-", "bytes=400001-"]
    assert [headers.get("If-Range") for headers in server.asked] == [None, '"one"', '"one"', '"one"']
    assert "the connection was cut 400,001 bytes before the end; again in 0 s" in said[0]
    assert names(tmp_path) == ["a.bin"]


def test_a_killed_run_is_gone_on_from(server: Loopback, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also without a published checksum, for the server tells its versions apart."""

    def killed(seconds: float) -> None:
        raise KeyboardInterrupt

    file = published(server, size=0, digest="")
    server.acts = [Act(cut=300_000)]
    with monkeypatch.context() as patched:
        patched.setattr(download.time, "sleep", killed)
        with pytest.raises(KeyboardInterrupt):
            fetch(file, tmp_path, QUICK)
    assert names(tmp_path) == ["a.bin.part", "a.bin.part.json"]
    assert json.loads((tmp_path / "a.bin.part.json").read_text()) == {
        "url": file.url,
        "validator": '"one"',
        "total": len(DATA),
    }
    assert fetch(file, tmp_path, QUICK).read_bytes() == DATA
    assert asked_for(server) == [None, "bytes=300000-"]


@pytest.mark.parametrize("if_range", [True, False], ids=["a good server", "one that does not know If-Range"])
def test_a_file_that_has_changed_is_not_glued_together(server: Loopback, tmp_path: Path, if_range: bool) -> None:
    server.acts = [Act(cut=300_000), Act(if_range=if_range)]
    changed: list[str] = []

    def change(line: str) -> None:
        server.data, server.etag = OTHER, '"two"'
        changed.append(line)

    path = fetch(published(server, digest=hashlib.sha256(OTHER).hexdigest()), tmp_path, QUICK, change)
    assert path.read_bytes() == OTHER
    assert "300,000 bytes are given up" in changed[1]


@pytest.mark.parametrize("digest", [None, ""], ids=["checksum", "none"])
def test_another_address_loses_nothing_and_goes_on_where_a_checksum_decides(
    server: Loopback, tmp_path: Path, digest: str | None
) -> None:
    server.acts = [Act(cut=300_000), Act(status=404)]
    file = published(server, digest=digest)
    mirror = replace(file, url=file.url.replace("a.bin", "mirror/a.bin"))
    with pytest.raises(FailureError, match="300,000 bytes are kept"):
        fetch(file, tmp_path, replace(QUICK, tries=1))
    with pytest.raises(FailureError, match="the server says 404"):  # a typing error, say
        fetch(mirror, tmp_path, QUICK)
    assert (tmp_path / "a.bin.part").stat().st_size == 300_000
    assert fetch(mirror, tmp_path, QUICK).read_bytes() == DATA
    assert asked_for(server)[-1] == (None if digest == "" else "bytes=300000-")
    assert server.asked[-1].get("If-Range") is None
    assert names(tmp_path) == ["a.bin"]


def test_a_file_that_has_shrunk(server: Loopback, tmp_path: Path) -> None:
    server.acts = [Act(cut=300_000)]
    shorter = OTHER[:1000]

    def change(line: str) -> None:
        server.data, server.etag = shorter, '"one"'

    assert fetch(published(server, 0, ""), tmp_path, QUICK, change).read_bytes() == shorter


def test_a_server_without_ranges_begins_again(server: Loopback, tmp_path: Path) -> None:
    server.acts = [Act(cut=300_000), Act(ranges=False, cut=200_000), Act(ranges=False)]
    assert fetch(published(server), tmp_path, QUICK).read_bytes() == DATA
    assert asked_for(server) == [None, "bytes=300000-", "bytes=200000-"]


def test_without_any_validator_only_a_checksum_lets_it_go_on(server: Loopback, tmp_path: Path) -> None:
    server.etag = None
    server.acts = [Act(cut=300_000)]
    assert fetch(published(server, 0, ""), tmp_path / ".", QUICK).read_bytes() == DATA
    assert asked_for(server) == [None, None]
    server.asked.clear()
    server.acts = [Act(cut=300_000)]
    (tmp_path / "two").mkdir()
    assert fetch(published(server), tmp_path / "two", QUICK).read_bytes() == DATA
    assert asked_for(server) == [None, "bytes=300000-"]


def test_weak_etags_are_not_relied_on(server: Loopback, tmp_path: Path) -> None:
    server.etag = 'W/"one"'
    date = "Wed, 01 Jan 2020 00:00:00 GMT"
    server.acts = [Act(cut=300_000, headers={"Last-Modified": date}), Act(headers={"Last-Modified": date})]
    fetch(published(server, 0, ""), tmp_path, QUICK)
    assert server.asked[1]["If-Range"] == date


def test_another_part_than_asked_for_is_not_taken(server: Loopback, tmp_path: Path) -> None:
    server.acts = [Act(cut=300_000), Act(shift=5)]
    assert fetch(published(server, 0, ""), tmp_path, QUICK).read_bytes() == DATA
    assert asked_for(server) == [None, "bytes=300000-", None]


def test_wrong_bytes_are_not_kept(server: Loopback, tmp_path: Path) -> None:
    server.data = OTHER
    with pytest.raises(FailureError, match=r"served 700,001 bytes with sha256 \w{64} instead of \w{64}; nothing") as e:
        fetch(published(server), tmp_path, QUICK)
    assert "\n" not in str(e.value)
    assert names(tmp_path) == []
    server.data = DATA
    assert fetch(published(server), tmp_path, QUICK).read_bytes() == DATA


def test_another_size_is_refused_before_anything_is_fetched(server: Loopback, tmp_path: Path) -> None:
    server.data = DATA + b"!"
    with pytest.raises(FailureError, match="offers 700,002 bytes instead of 700,001"):
        fetch(published(server), tmp_path, QUICK)
    assert names(tmp_path) == []


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_what_is_not_to_be_had_is_said_at_once(server: Loopback, tmp_path: Path, status: int) -> None:
    server.acts = [Act(status=status)]
    with pytest.raises(FailureError, match=f"the server says {status}"):
        fetch(published(server), tmp_path, QUICK)
    assert len(server.asked) == 1


def test_busy_servers_are_asked_again(server: Loopback, tmp_path: Path) -> None:
    server.acts = [Act(status=503), Act(status=429, headers={"Retry-After": "0"}), Act(status=500)]
    assert fetch(published(server), tmp_path, QUICK).read_bytes() == DATA
    server.acts = [Act(status=502)] * 4
    (tmp_path / "x").mkdir()
    with pytest.raises(FailureError, match=r"the server says 502 Bad Gateway\); 0 bytes are kept"):
        fetch(published(server), tmp_path / "x", QUICK)
    assert len(server.asked) == 8


def test_pauses_double_and_heed_the_server() -> None:
    patience = Patience(first=1.0, longest=60.0)
    for failed, doubled in [(1, 1), (2, 2), (3, 4), (4, 8)]:
        assert 0.75 * doubled <= patience.pause(failed, None) <= 1.25 * doubled
    assert patience.pause(1, 30.0) == 30.0
    assert patience.pause(20, None) == patience.pause(1, 1e9) == 60.0


def test_a_server_that_falls_silent_is_asked_again(server: Loopback, tmp_path: Path) -> None:
    server.acts = [Act(cut=300_000, stall=10.0)]
    said: list[str] = []
    fetch(published(server), tmp_path, Patience(tries=3, timeout=0.2, first=0.001), said.append)
    assert (tmp_path / "a.bin").read_bytes() == DATA
    assert "timed out" in said[0]
    assert asked_for(server) == [None, "bytes=300000-"]  # what came before it fell silent is not lost


def test_nobody_answers(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/a.bin"
    with pytest.raises(FailureError, match="Connection refused"):
        fetch(PublishedFile("a.bin", url), tmp_path, QUICK)


@pytest.mark.parametrize("target", ["/b.bin", "file:///etc/passwd", "ftp://127.0.0.1/a"])
def test_redirects_lead_to_http_only(server: Loopback, tmp_path: Path, target: str) -> None:
    server.acts = [Act(status=302, headers={"Location": server.url + target if target[0] == "/" else target})]
    if target[0] == "/":
        assert fetch(published(server), tmp_path, QUICK).read_bytes() == DATA
        assert [headers["path"] for headers in server.asked] == ["/a.bin", "/b.bin"]
    else:
        with pytest.raises(FailureError, match=r"which is not followed|is not allowed"):
            fetch(published(server), tmp_path, QUICK)


def test_a_redirect_that_is_refused_leaves_no_connection_open() -> None:
    page = BytesIO()
    with pytest.raises(FailureError, match="which is not followed"):
        download._Redirects().redirect_request(Request("https://a/"), page, 302, "", Message(), "http://a/")
    assert page.closed


def test_a_circle_of_redirects_ends(server: Loopback, tmp_path: Path) -> None:
    server.acts = [Act(status=302, headers={"Location": f"{server.url}/a.bin"}) for _ in range(20)]
    with pytest.raises(FailureError, match="the server says 302"):
        fetch(published(server), tmp_path, QUICK)


@pytest.mark.parametrize("headers", [{"Content-Length": None}, {"Content-Encoding": "gzip"}], ids=["length", "form"])
def test_answers_that_cannot_be_checked(server: Loopback, tmp_path: Path, headers: dict[str, str | None]) -> None:
    server.acts = [Act(headers=headers)]
    with pytest.raises(FailureError, match=r"does not say how large|in a form that was not asked for"):
        fetch(published(server, 0, ""), tmp_path, QUICK)
    assert names(tmp_path) == []


def test_a_published_size_does_where_the_server_states_none(server: Loopback, tmp_path: Path) -> None:
    server.acts = [Act(headers={"Content-Length": None}, cut=300_000), Act(headers={"Content-Length": None})]
    assert fetch(published(server), tmp_path, QUICK).read_bytes() == DATA
    assert asked_for(server) == [None, "bytes=300000-"]


@pytest.mark.parametrize("name", ["a.bin", "a.bin.part"])
def test_other_peoples_files_are_left_alone(server: Loopback, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"mine")
    with pytest.raises(UsageError, match="move it away"):
        fetch(published(server), tmp_path, QUICK)
    assert names(tmp_path) == [name]
    assert (tmp_path / name).read_bytes() == b"mine"
    (tmp_path / name).unlink()
    (tmp_path / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match="move it away"):
        fetch(published(server), tmp_path, QUICK)
    assert not (tmp_path / "elsewhere").exists()


def test_what_appears_meanwhile_is_not_replaced(server: Loopback, tmp_path: Path) -> None:
    server.acts = [Act(cut=300_000)]
    with pytest.raises(UsageError, match="has appeared meanwhile"):
        fetch(published(server), tmp_path, QUICK, lambda line: (tmp_path / "a.bin").write_bytes(b"mine") and None)
    assert (tmp_path / "a.bin").read_bytes() == b"mine"


def test_a_file_without_checksum_is_told_by_the_servers_size(server: Loopback, tmp_path: Path) -> None:
    file = published(server, 0, "")
    (tmp_path / "a.bin").write_bytes(DATA[:-1])
    with pytest.raises(UsageError, match="is not the published file"):
        fetch(file, tmp_path, QUICK)
    (tmp_path / "a.bin").write_bytes(DATA)
    assert fetch(file, tmp_path, QUICK).read_bytes() == DATA


def test_a_web_page_is_no_file_without_checksum(server: Loopback, tmp_path: Path) -> None:
    """What came before it stays: a network's page gave up all of it, and was taken for the archive."""
    file, page = published(server, 0, ""), Act(ranges=False, headers={"Content-Type": "text/html; charset=utf-8"})
    server.acts = [Act(cut=300_000), page]
    with pytest.raises(FailureError, match="answers with a web page"):
        fetch(file, tmp_path, QUICK)
    assert (tmp_path / "a.bin.part").stat().st_size == 300_000
    assert fetch(file, tmp_path, QUICK).read_bytes() == DATA
    assert asked_for(server) == [None, "bytes=300000-", "bytes=300000-"]


def test_two_do_not_fetch_one_file(server: Loopback, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shards.machine.lock.GRACE_SECONDS", 0.1)
    refused: list[str] = []

    def second(line: str) -> None:
        with pytest.raises(UsageError, match="being fetched by another process") as caught:
            fetch(published(server), tmp_path, QUICK)
        refused.append(str(caught.value))

    server.acts = [Act(cut=300_000)]
    fetch(published(server), tmp_path, QUICK, second)
    assert len(refused) == 1


def test_a_full_disk_is_said(server: Loopback, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(number: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(download.os, "fsync", full)
        with pytest.raises(DiskFullError, match="free some and run the same command again"):
            fetch(published(server), tmp_path, QUICK)
    assert fetch(published(server), tmp_path, QUICK).read_bytes() == DATA


@pytest.mark.parametrize("said", ["²", "9" * 5000])
def test_numbers_of_a_server_that_are_none(said: str) -> None:
    headers = Message()
    headers["Retry-After"] = headers["Content-Length"] = said
    answer: Any = SimpleNamespace(status=200, headers=headers, url="http://here/a.bin")
    assert download._retry_after(answer) is None
    with pytest.raises(FailureError, match="does not say how large"):
        download.total_of(answer)
