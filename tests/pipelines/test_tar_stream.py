"""Oracle: the standard library's tarfile."""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
from pathlib import Path

import pytest

from pipelines.archives import FILE
from pipelines.archives.tar import TarStream
from shards.errors import FormatError

LONG = "a" * 60 + "/" + "b" * 80 + "/" + "ü" * 40


def archive(kind: int, names: list[str]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=kind) as tar:
        folder = tarfile.TarInfo("folder")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, "x" * 150 if kind != tarfile.USTAR_FORMAT else "x"
        tar.addfile(link)
        for number, name in enumerate(names):
            info = tarfile.TarInfo(name)
            info.size = 700 * number
            info.mtime = 0.5 if kind == tarfile.PAX_FORMAT else 0  # a fraction makes a pax header
            tar.addfile(info, io.BytesIO(bytes([number]) * info.size))
    return buffer.getvalue()


@pytest.mark.parametrize("kind", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("zipped", [False, True])
def test_reads_what_tarfile_reads(tmp_path: Path, kind: int, zipped: bool) -> None:
    names = ["./x/1", "y", "z" * 99, f"{'p' * 90}/{'q' * 60}"] + ([] if kind == tarfile.USTAR_FORMAT else [LONG])
    data = archive(kind, names)
    path = tmp_path / "some.file"
    path.write_bytes(gzip.compress(data) if zipped else data)
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        expected = [(m.name, m.size, tar.extractfile(m).read()) for m in tar if m.isfile()]
    with TarStream(path) as stream:
        assert [(m.name, m.size, stream.read()) for m in stream if m.kind == FILE] == expected
    with TarStream(path) as stream:  # every second one read, the others passed over
        files = (member for member in stream if member.kind == FILE)
        found = [(member.name, stream.read() if i % 2 else None) for i, member in enumerate(files)]
    assert found == [(name, content if i % 2 else None) for i, (name, _, content) in enumerate(expected)]


def read_all(path: Path) -> None:
    with TarStream(path) as stream:
        list(stream)
        stream.drain()


@pytest.mark.parametrize("zipped", [False, True])
def test_every_cut_is_an_error(tmp_path: Path, zipped: bool) -> None:
    data = archive(tarfile.GNU_FORMAT, ["a", "b", "c"])
    data = data[: data.rindex(b"\2" * 10) + 10 + 512 * 2]
    data = gzip.compress(data) if zipped else data[: len(data) // 512 * 512]
    for cut in range(0, len(data) - 1024 * (not zipped), 1 if zipped else 256):
        path = tmp_path / "cut"
        path.write_bytes(data[:cut])
        with pytest.raises(FormatError):
            read_all(path)


def test_sha256_and_progress_are_of_the_stored_bytes(tmp_path: Path) -> None:
    data = gzip.compress(archive(tarfile.GNU_FORMAT, ["a", "b"]))
    (tmp_path / "t").write_bytes(data)
    counts: list[int] = []
    with TarStream(tmp_path / "t", counts.append, with_sha256=True) as stream:
        list(stream)
        assert stream.drain() == hashlib.sha256(data).hexdigest()
    assert sum(counts) == len(data)


@pytest.mark.parametrize("content", [b"", b"PK\3\4" * 300, b"\x1f\x8bno gzip at all", bytes(300)])
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "t").write_bytes(content)
    with pytest.raises(FormatError, match=r"not a tar|damaged"), TarStream(tmp_path / "t") as stream:
        list(stream)


def test_a_flipped_header_is_refused(tmp_path: Path) -> None:
    data = bytearray(archive(tarfile.GNU_FORMAT, ["a", "b"]))
    data[3] ^= 1
    (tmp_path / "t").write_bytes(data)
    with pytest.raises(FormatError, match="checksum"), TarStream(tmp_path / "t") as stream:
        list(stream)
