"""Two processes never hold one folder: with flock, without it, and when one has it and the other has not."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from python_path import python_path

from shards.errors import UsageError
from shards.machine import lock
from shards.machine.lock import FolderLock, exclusive_file

ROOT = Path(__file__).resolve().parents[3]
HOLD = """
import fcntl, os, sys, time
def refuse(fd, how):
    raise OSError(int(sys.argv[2]), os.strerror(int(sys.argv[2])))
if int(sys.argv[2]):
    fcntl.flock = refuse
from pathlib import Path
from shards.machine import lock
lock.GRACE_SECONDS = float(sys.argv[3])
from shards.errors import UsageError
try:
    held = lock.FolderLock(Path(sys.argv[1]), "in use")
except UsageError as error:
    sys.exit(str(error))
"""
WAIT = "print('held', flush=True)\nsys.stdin.read()\nheld.release()\n"
# Counts: whoever is inside writes its number, waits, and has to find it again.
COUNT = """
inside = Path(sys.argv[1]).with_name("inside")
inside.write_text(str(os.getpid()), encoding="utf-8")
time.sleep(0.02)
ok = inside.read_text(encoding="utf-8") == str(os.getpid())
held.release()
sys.exit(0 if ok else "two were inside")
"""


def start(path: Path, number: int = 0, then: str = WAIT, grace: float = 0.3) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", HOLD + then, str(path), str(number), str(grace)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    env = {**os.environ, "PYTHONPATH": python_path()}
    return subprocess.Popen(command, **pipes, text=True, encoding="utf-8", env=env)


def holding(path: Path, number: int = 0) -> subprocess.Popen[str]:
    process = start(path, number)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def end(process: subprocess.Popen[str], *, kill: bool = False) -> str:
    if kill:
        process.kill()
    return process.communicate("", timeout=20)[1]


@pytest.fixture
def no_flock(monkeypatch: pytest.MonkeyPatch):
    def refuse(number: int = errno.ENOLCK) -> None:
        def flock(fd: int, how: int) -> None:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(lock.fcntl, "flock", flock)

    monkeypatch.setattr(lock, "GRACE_SECONDS", 0.2)
    lock._warn_once.cache_clear()
    return refuse


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_without_locks_a_file_is_the_lock_after_one_warning(tmp_path, no_flock, caplog, number):
    no_flock(number)
    path = tmp_path / "lock"
    for _ in range(2):
        held = FolderLock(path, "in use")
        host, pid, _started = exclusive_file(path).read_text(encoding="utf-8").split()
        assert int(pid) == os.getpid()
        assert host
        with pytest.raises(UsageError, match=f"^in use: wait for process {os.getpid()}"):
            FolderLock(path, "in use")
        held.release()
        held.release()
        assert list(tmp_path.iterdir()) == []
    assert len(caplog.records) == 1
    assert os.strerror(number) in caplog.text


@pytest.mark.parametrize("number", [errno.EPERM, errno.EBADF])
def test_another_failure_is_one_line(tmp_path, no_flock, number):
    no_flock(number)
    with pytest.raises(UsageError, match=f"cannot lock .*{os.strerror(number)}"):
        FolderLock(tmp_path / "lock", "in use")


def test_a_full_disk_is_named(tmp_path, no_flock):
    no_flock(errno.ENOSPC)
    with pytest.raises(OSError, match="No space left") as caught:
        FolderLock(tmp_path / "lock", "in use")
    assert caught.value.filename == str(tmp_path)


@pytest.mark.parametrize(("first", "second"), [(0, errno.ENOLCK), (errno.ENOLCK, 0), (errno.ENOLCK, errno.ENOLCK)])
def test_whoever_has_locks_and_whoever_has_not_heed_each_other(tmp_path, first, second):
    holder = holding(tmp_path / "lock", first)
    assert f"in use: wait for process {holder.pid}" in end(start(tmp_path / "lock", second))
    end(holder)
    assert start(tmp_path / "lock", second).communicate("", timeout=20)[0] == "held\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("first", "second"), [(0, errno.ENOLCK), (errno.ENOLCK, 0), (errno.ENOLCK, errno.ENOLCK)])
def test_a_killed_owner_on_this_machine_is_succeeded(tmp_path, first, second):
    end(holding(tmp_path / "lock", first), kill=True)
    assert list(tmp_path.iterdir())
    assert start(tmp_path / "lock", second).communicate("", timeout=20)[0] == "held\n"
    assert not [path for path in tmp_path.iterdir() if path.stat().st_size and second]


def test_another_machines_lock_is_named_and_kept(tmp_path, no_flock):
    no_flock()
    path = tmp_path / "lock"
    exclusive_file(path).write_text("node17/- 4711 99\n", encoding="utf-8")
    with pytest.raises(UsageError, match=rf"in use: process 4711 on node17 .*delete {exclusive_file(path)}"):
        FolderLock(path, "in use")
    assert exclusive_file(path).read_text(encoding="utf-8") == "node17/- 4711 99\n"


def test_a_process_number_used_again_is_no_owner(tmp_path, no_flock):
    no_flock()
    path = tmp_path / "lock"
    host, pid, _started = (lock._host(), os.getpid(), lock._started(os.getpid()))
    exclusive_file(path).write_text(f"{host} {pid} 1\n", encoding="utf-8")
    FolderLock(path, "in use").release()


def test_a_garbled_lock_file_is_named(tmp_path, no_flock):
    no_flock()
    exclusive_file(tmp_path / "lock").write_bytes(b"\xff\x00")
    with pytest.raises(UsageError, match=r"delete .*lock\.pid"):
        FolderLock(tmp_path / "lock", "in use")


@pytest.mark.slow
@pytest.mark.parametrize("numbers", [(errno.ENOLCK,), (errno.ENOLCK, 0)])
def test_never_two_inside_with_kills(tmp_path, numbers):
    """A crowd for one lock, every seventh of it killed at some moment; whoever was inside was alone."""
    crowd: list[subprocess.Popen[str]] = []
    for number in range(60):
        crowd.append(start(tmp_path / "lock", numbers[number % len(numbers)], COUNT, grace=60))
        if number % 7 == 6:
            time.sleep(0.1)
            crowd[number - 3].kill()
    said = [process.communicate("", timeout=120)[1] for process in crowd]
    assert not [line for line in said if "two were inside" in line or "Traceback" in line]
    assert sum(process.returncode == 0 for process in crowd) >= 60 - 60 // 7 - 1
