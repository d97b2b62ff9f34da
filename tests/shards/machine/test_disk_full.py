"""A full disk ends in a DiskFullError that says what to do; doing it ends as if nothing had happened."""

from __future__ import annotations

import errno
import itertools
import os
import resource
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from shard_sets import build, contents, final_files

from shards.errors import DiskFullError
from shards.machine.environment import describe_error
from shards.machine.files import disk_full_named

WRITING = ("open", "write", "fsync", "replace", "mkdir")


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("full") / "set"
    build(folder)
    return contents(folder)


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """64 KiB of memory as a disk."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(tmp_path)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("needs the right to mount a tmpfs")
    yield tmp_path
    subprocess.run(["umount", "-l", str(tmp_path)], check=True)


def test_a_disk_that_is_really_full(tiny_disk: Path, reference: dict[str, str]) -> None:
    out = tiny_disk / "set"
    with pytest.raises(DiskFullError, match=r"no space left on .*/set: \d shards? finished.*same command again"):
        build(out)
    before = final_files(out)
    assert 1 <= sum(name.endswith(".tar") for name in before) < 5
    assert before.items() <= reference.items()
    assert not list((out / "_meta" / "tmp").iterdir()), "a partial shard must give its space back"
    subprocess.run(["mount", "-o", "remount,size=1m", str(tiny_disk)], check=True)
    written: list[str] = []
    build(out, on_shard=written.append)
    assert contents(out) == reference
    assert not {f"{name}.tar" for name in written} & before.keys()


def fail_at(number: int, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The number-th operation that may need space fails; of a write, half is done first."""
    counter = itertools.count()

    def patched(name: str, original: Callable) -> Callable:
        def operation(*args, **kwargs):
            writes = name != "open" or args[1] & os.O_CREAT
            if writes and next(counter) == number:
                if name == "write":
                    original(args[0], bytes(args[1])[: len(args[1]) // 2])
                raise OSError(code, os.strerror(code))
            return original(*args, **kwargs)

        return operation

    for name in WRITING:
        monkeypatch.setattr(os, name, patched(name, getattr(os, name)))


ALL = pytest.param(errno.ENOSPC, 1, marks=pytest.mark.slow)


@pytest.mark.parametrize(("code", "step"), [(errno.ENOSPC, 7), (errno.EDQUOT, 23), ALL])
def test_every_single_write_may_fail(memory_folder: Path, reference: dict[str, str], code: int, step: int) -> None:
    for number in itertools.count(0, step):
        out = memory_folder / str(number)
        with pytest.MonkeyPatch.context() as monkeypatch:
            fail_at(number, code, monkeypatch)
            try:
                build(out)
                break
            except DiskFullError:
                pass
        assert final_files(out).items() <= reference.items()
        build(out)
        assert contents(out) == reference, number
    assert number > 50


def test_other_errors_are_not_called_a_full_disk(tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        fail_at(12, errno.EIO, monkeypatch)
        with pytest.raises(OSError, match="Input/output error"):
            build(tmp_path / "set")


def test_a_limit_on_the_size_of_files_names_the_folder(tmp_path: Path) -> None:
    """The error of a write has no name of its own: `synth` and `get` said that a file was too large, and not where."""
    _, hard = soft = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64, hard))
    try:
        with pytest.raises(OSError, match="too large") as caught, disk_full_named(tmp_path):
            (tmp_path / "image_0.jpg").write_bytes(bytes(100))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, soft)
    assert describe_error(caught.value).startswith(f"{tmp_path}: File too large; a limit on the size of files (ulimit")
