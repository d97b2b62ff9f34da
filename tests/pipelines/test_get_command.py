"""`seqjepa-data get`: what it says, what it asks, where it puts files, what it unpacks; the table and the docs."""

from __future__ import annotations

import hashlib
import io
import json
import re
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from loopback import Act, Loopback, loopback
from typer.testing import CliRunner, Result

import cli
from pipelines.get import fetch_set, published
from pipelines.get.published import published_sets
from pipelines.sources.stl10 import Stl10Source

ROOT = Path(__file__).resolve().parents[2]
RNG = np.random.default_rng(0)
PIXELS = {f"stl10_binary/{split}_X.bin": RNG.bytes(2 * 27648) for split in ("train", "test", "unlabeled")}
LABELS = {f"stl10_binary/{split}_y.bin": bytes([1, 2]) for split in ("train", "test")}
FILES = PIXELS | LABELS


def archive(files: dict[str, bytes], *odd: tarfile.TarInfo) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for info in odd:
            tar.addfile(info)
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def table(data: bytes, files: dict[str, bytes] = FILES) -> str:
    """published.toml with small sets of the same names and layout."""
    md5 = hashlib.md5(data).hexdigest()
    members = "\n".join(
        f'"{name}" = {{ bytes = {len(content)}, md5 = "{hashlib.md5(content).hexdigest()}" }}'
        for name, content in files.items()
    )
    return f"""
[stl10]
title = "STL-10"
licence = "a licence"
page = "http://page/"
about = {len(data)}
shard = "seqjepa-data shard stl10 --source {{to}}/stl10_binary --out shards/stl10"
unpack = "tar -xzf {{to}}/stl10_binary.tar.gz -C {{to}}"

[[stl10.files]]
name = "stl10_binary.tar.gz"
url = "http://127.0.0.1:9/stl10_binary.tar.gz"
bytes = {len(data)}
md5 = "{md5}"

[stl10.members]
{members}

[3diebench]
title = "3DIEBench"
licence = "another"
page = "http://page/"
about = 1000
shard = "seqjepa-data shard 3diebench --source {{to}}/3DIEBench.tar.gz --split-lists {{to}}/lists --out shards/3die"

[[3diebench.files]]
name = "lists/val_images.npy"
url = "http://127.0.0.1:9/data/val_images.npy"
bytes = {len(data)}
md5 = "{md5}"

[[3diebench.files]]
name = "3DIEBench.tar.gz"
url = "http://127.0.0.1:9/3DIEBench.tar.gz"
bytes = 0
"""


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Loopback]:
    with loopback() as served:
        use(served, archive(FILES), tmp_path, monkeypatch)
        yield served


def use(served: Loopback, data: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: Any = FILES) -> None:
    served.data = data
    (tmp_path / "published.toml").write_text(table(data, files))
    monkeypatch.setattr(published, "TABLE", tmp_path / "published.toml")


def get(server: Loopback, *words: object, answer: str | None = None) -> Result:
    return CliRunner().invoke(
        cli.seqjepa_data_app, ["get", *map(str, words), "--from", server.url], input=answer, catch_exceptions=False
    )


def test_it_says_what_it_will_do_and_what_comes_next(server: Loopback, tmp_path: Path) -> None:
    to = tmp_path / "my data"
    done = get(server, "stl10", "--to", to, "--yes")
    assert done.exit_code == 0, done.output
    size, md5 = f"{len(server.data) / 1000:.1f} kB", hashlib.md5(server.data).hexdigest()
    assert "STL-10 (http://page/); licence: a licence\n" in done.stderr
    assert f"{server.url}/stl10_binary.tar.gz → {to / 'stl10_binary.tar.gz'}: {size}, md5 {md5}" in done.stderr
    assert re.search(rf"about {re.escape(size)} to write; [\d.]+ [GT]B free in {re.escape(str(to))}", done.stderr)
    assert done.stdout.splitlines() == [
        "next:",
        f"  tar -xzf '{to}'/stl10_binary.tar.gz -C '{to}'",
        f"  seqjepa-data shard stl10 --source '{to}'/stl10_binary --out shards/stl10",
    ]
    assert [path.name for path in to.iterdir()] == ["stl10_binary.tar.gz"]


def test_nothing_is_downloaded_unasked(server: Loopback, tmp_path: Path) -> None:
    to = tmp_path / "to"
    refused = get(server, "stl10", "--to", to)
    assert refused.exit_code == 2
    assert refused.stderr.splitlines()[-1] == (
        "error: nothing is downloaded unasked, and this is no terminal to ask at; add --yes"
    )
    assert not to.exists()
    assert server.asked == []


@pytest.mark.parametrize(("answer", "code"), [("y", 0), ("n", 1), ("", 1)])
def test_at_a_terminal_it_asks(
    server: Loopback, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str, code: int
) -> None:
    import pipelines.commands.get as command

    asked: list[str] = []
    monkeypatch.setattr(command, "_at_a_terminal", lambda: True)
    monkeypatch.setattr(command.typer, "confirm", lambda text, **_: asked.append(text) or answer == "y")
    done = get(server, "stl10", "--to", tmp_path / "to")
    assert (done.exit_code, asked) == (code, ["Download?"])
    assert (tmp_path / "to").exists() == (code == 0)
    assert ("nothing was downloaded" in done.stderr) == (code == 1)
    if code == 0:
        assert get(server, "stl10", "--to", tmp_path / "to").exit_code == 0
        assert len(asked) == 1  # all is there: there is nothing to ask


def test_unpacked_it_is_what_shards_are_made_of(server: Loopback, tmp_path: Path) -> None:
    done = get(server, "stl10", "--to", tmp_path / "to", "--yes", "--unpack", "--json")
    assert done.exit_code == 0, done.output
    folder = tmp_path / "to/stl10_binary"
    assert json.loads(done.stdout) == {
        "set": "stl10",
        "files": [str(tmp_path / "to/stl10_binary.tar.gz"), str(folder)],
        "next": [f"seqjepa-data shard stl10 --source {tmp_path}/to/stl10_binary --out shards/stl10"],
    }
    assert {f"stl10_binary/{path.name}": path.read_bytes() for path in folder.iterdir()} == FILES
    assert len(Stl10Source(folder).records()) == 6
    assert get(server, "stl10", "--to", tmp_path / "to", "--yes", "--unpack").exit_code == 0
    assert len(server.asked) == 1


def test_only_the_wanted_members_are_unpacked(
    server: Loopback, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever else a stranger has put into the archive."""
    link = tarfile.TarInfo("stl10_binary/link")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc"
    odd = [link, tarfile.TarInfo("../outside"), tarfile.TarInfo("/tmp/absolute"), tarfile.TarInfo("stl10_binary/more")]
    use(server, archive(FILES, *odd), tmp_path, monkeypatch)
    assert get(server, "stl10", "--to", tmp_path / "to", "--yes", "--unpack").exit_code == 0
    assert sorted(path.name for path in (tmp_path / "to").iterdir()) == ["stl10_binary", "stl10_binary.tar.gz"]
    assert {f"stl10_binary/{path.name}" for path in (tmp_path / "to/stl10_binary").iterdir()} == set(FILES)
    assert not (tmp_path / "outside").exists()


@pytest.mark.parametrize("how", ["a link", "other bytes", "missing", "cut"])
def test_a_wrong_archive_is_not_unpacked(
    server: Loopback, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    data = archive({name: content for name, content in FILES.items() if name != "stl10_binary/test_y.bin"})
    if how == "a link":
        link = tarfile.TarInfo("stl10_binary/train_X.bin")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        data = archive({}, link)
    elif how == "other bytes":
        data = archive(FILES | {"stl10_binary/test_X.bin": bytes(2 * 27648)})
    elif how == "cut":
        data = archive(FILES)[:-40_000]
    use(server, data, tmp_path, monkeypatch)
    done = get(server, "stl10", "--to", tmp_path / "to", "--yes", "--unpack")
    assert done.exit_code == 1
    said = {"a link": "is no file of", "other bytes": "instead of", "missing": "does not hold", "cut": "is damaged"}
    assert said[how] in done.stderr.splitlines()[-1]
    assert [path.name for path in (tmp_path / "to").iterdir()] == ["stl10_binary.tar.gz"]


def test_another_folder_of_that_name_is_left_alone(server: Loopback, tmp_path: Path) -> None:
    (tmp_path / "to/stl10_binary").mkdir(parents=True)
    (tmp_path / "to/stl10_binary/mine").write_text("x")
    done = get(server, "stl10", "--to", tmp_path / "to", "--yes", "--unpack")
    assert done.exit_code == 2
    assert "move it away" in done.stderr
    assert [path.name for path in (tmp_path / "to/stl10_binary").iterdir()] == ["mine"]


def test_the_split_lists_come_first_or_alone(server: Loopback, tmp_path: Path) -> None:
    done = get(server, "3diebench", "--to", tmp_path / "to", "--yes", "--lists-only")
    assert done.exit_code == 0
    assert [str(path.relative_to(tmp_path / "to")) for path in (tmp_path / "to").rglob("*.npy")] == [
        "lists/val_images.npy"
    ]
    assert not (tmp_path / "to/3DIEBench.tar.gz").exists()
    done = get(server, "3diebench", "--to", tmp_path / "to", "--yes")
    assert done.exit_code == 0
    assert [headers["path"] for headers in server.asked] == ["/val_images.npy", "/3DIEBench.tar.gz"]
    assert "its publisher states no checksum" in done.stderr


def test_a_failure_is_one_line(server: Loopback, tmp_path: Path) -> None:
    server.acts = [Act(status=404)]
    done = get(server, "stl10", "--to", tmp_path / "to", "--yes")
    assert done.exit_code == 1
    assert done.stderr.splitlines()[-1].startswith(f"error: {server.url}/stl10_binary.tar.gz: the server says 404")


def test_a_disk_that_is_too_small_is_said_first(
    server: Loopback, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch_set, "_free", lambda folder: 1000)
    done = get(server, "stl10", "--to", tmp_path / "to", "--yes")
    assert done.exit_code == 1
    assert "has 1.0 kB free, and about" in done.stderr
    assert server.asked == []
    assert not (tmp_path / "to").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["cifar10", "--to", "x"], "'cifar10' cannot be fetched; there are: stl10, cifar100, tiny-imagenet, 3diebench"),
        (["cifar100", "--to", "x", "--unpack"], "--unpack is for stl10"),
        (["cifar100", "--to", "x", "--lists-only"], "--lists-only is for 3diebench"),
        (["cifar100", "--to", "x", "--from", "file:///etc"], "no http:// or https:// address"),
        (["cifar100", "--to", __file__], "is no folder"),
    ],
)
def test_what_cannot_be_asked_for_is_one_line(words: list[str], said: str) -> None:
    done = CliRunner().invoke(cli.seqjepa_data_app, ["get", *words])
    assert done.exit_code == 2
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


def test_the_docs_say_what_the_table_says() -> None:
    page = (ROOT / "docs/data.md").read_text(encoding="utf-8")
    sets = published_sets()
    assert list(sets) == ["stl10", "cifar100", "tiny-imagenet", "3diebench"]
    for published_set in sets.values():
        assert published_set.page in page
        for file in (*published_set.files, *published_set.members):
            name = file.name.rpartition("/")[2]
            assert name in page
            (line,) = {
                line for line in page.replace("\n`", " `").splitlines() if file.digest and file.digest in line
            } or {""}
            assert bool(line) == bool(file.digest), name
            if file.url and not file.name.startswith("lists/"):
                assert file.url in page
            if file.size and file.url:
                (line,) = (line for line in page.splitlines() if file.digest in line)
                assert f"{file.size:,}" in line, name


STARTED = """
import pathlib, sys
import cli, pipelines.get.published as published
published.TABLE = pathlib.Path(sys.argv.pop(1))
cli.seqjepa_data_app()
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_killed_download_is_gone_on_from(server: Loopback, tmp_path: Path, how: signal.Signals) -> None:
    part = tmp_path / "to/stl10_binary.tar.gz.part"
    words = ["get", "stl10", "--to", str(tmp_path / "to"), "--yes", "--from", server.url]
    command = [sys.executable, "-c", STARTED, str(tmp_path / "published.toml"), *words]
    server.acts = [Act(cut=50_000, stall=60.0)]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as running:
        assert running.stderr is not None
        assert "STL-10" in running.stderr.readline()
        deadline = time.monotonic() + 30
        while not (part.exists() and part.stat().st_size) and time.monotonic() < deadline:
            time.sleep(0.05)
        running.send_signal(how)
    had = part.stat().st_size
    assert get(server, "stl10", "--to", tmp_path / "to", "--yes").exit_code == 0
    assert (tmp_path / "to/stl10_binary.tar.gz").read_bytes() == server.data
    assert server.asked[-1].get("Range") == (f"bytes={had}-" if had else None)
