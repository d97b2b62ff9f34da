"""Against Python's tarfile, which is written by other people."""

from __future__ import annotations

import io
import subprocess
import tarfile

import numpy as np
import pytest

from shards.errors import DamageError
from shards.tar import BLOCK, END, header, headers, padding, walk_members

FILES = {"a.00.jpg": b"x" * 700, "a.cls": b"7", "a.empty": b"", "a.json": b"{}" * 256}


def make(files: dict[str, bytes] = FILES) -> bytes:
    return b"".join(header(n, len(d)) + d + bytes(padding(len(d))) for n, d in files.items()) + END


@pytest.mark.parametrize(("name", "size"), [("k.00.jpg", 0), ("x" * 99, 8**11 - 1), ("a-b_c.params.npy", 1000)])
def test_header_is_what_tarfile_writes(name: str, size: int) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = size, 0o644
    assert header(name, size) == member.tobuf(tarfile.USTAR_FORMAT, "ascii", "strict")


def test_headers_of_many_are_those_of_each() -> None:
    names = ["a", "k.00.jpg", "x" * 99]
    lengths = [0, 8**11 - 1, 123456]
    expected = [header(name, length) for name, length in zip(names, lengths, strict=True)]
    assert [row.tobytes() for row in headers(np.array(names, "S"), np.array(lengths))] == expected


def test_tarfile_and_gnu_tar_read_it(tmp_path) -> None:
    with tarfile.open(fileobj=io.BytesIO(make())) as tar:
        assert {m.name: tar.extractfile(m).read() for m in tar} == FILES
    path = tmp_path / "a.tar"
    path.write_bytes(make())
    listed = subprocess.run(["tar", "tf", path], capture_output=True, text=True, check=True)
    assert listed.stdout.split() == list(FILES)
    assert listed.stderr == ""


def test_walk_finds_what_tarfile_finds() -> None:
    with tarfile.open(fileobj=io.BytesIO(make())) as tar:
        expected = [(m.name, m.offset_data, m.size) for m in tar]
    assert [(m.name, m.offset, m.length) for m in walk_members(make())] == expected


def test_walk_finds_every_cut() -> None:
    whole = make()
    for end in range(0, len(whole), BLOCK // 2):
        with pytest.raises(DamageError, match=r"cut|end marker"):
            list(walk_members(whole[:end]))


def test_walk_finds_every_flip_in_a_header() -> None:
    for bit in range(8 * BLOCK):
        data = bytearray(make())
        data[bit // 8] ^= 1 << bit % 8
        with pytest.raises(DamageError):
            list(walk_members(bytes(data)))


@pytest.mark.parametrize(("name", "size"), [("x" * 100, 1), ("", 1), ("a", 8**11), ("a", -1), ("ä", 1)])
def test_header_refuses_what_ustar_cannot_hold(name: str, size: int) -> None:
    with pytest.raises(ValueError, match=r"cannot be called|ascii"):
        header(name, size)
