"""One builder or trainer per folder: an flock'd file, which the kernel frees when its owner dies, however it dies.

Some network file systems have no flock. There, after a warning, the lock is a second file, NAME.pid, created
exclusively: it holds host, process and when that started, so that what a killed process of this machine left is taken
over. Another machine's is refused, for nobody here can tell whether its owner lives. Both ways heed each other.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import hashlib
import logging
import os
import socket
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

from shards.errors import UsageError
from shards.machine.environment import pass_environment_on

log = logging.getLogger(__name__)

# A killed builder may take a moment to disappear.
GRACE_SECONDS = 2.0
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP)


class FolderLock:
    """Held from construction to release(), which also removes the file. UsageError: someone else holds it.

    path: of the lock file, in a folder that is there. busy: who else has it, as the sentence of that UsageError.
    patience: how many seconds to wait for it; None: GRACE_SECONDS.
    It stays with its process: a forked child closes its copy, or it would hold the lock of a killed parent.
    """

    def __init__(self, path: Path, busy: str, patience: float | None = None) -> None:
        self.path = path
        try:
            self._close = weakref.finalize(self, _acquire(path, busy, GRACE_SECONDS if patience is None else patience))
        except OSError as error:
            error.filename = str(path.parent)  # nobody knows the lock's name
            pass_environment_on(error)
            raise UsageError(f"cannot lock {path}: {error.strerror}; choose another folder") from error
        _forget_in_children()
        _held.add(self)

    def release(self) -> None:
        """Idempotent."""
        self._close()

    def __enter__(self) -> FolderLock:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


_held: weakref.WeakSet[FolderLock] = weakref.WeakSet()


@functools.cache
def _forget_in_children() -> None:
    os.register_at_fork(after_in_child=lambda: [lock._close() for lock in list(_held)])


def exclusive_file(path: Path) -> Path:
    """What stands for the lock file `path` where the file system has no locks."""
    return path.with_name(f"{path.name}.pid")


def _acquire(path: Path, busy: str, patience: float) -> Callable[[], None]:
    """What ends the lock: removes its files in the process that took it, and closes it in that and its children."""
    give_up, excuse = time.monotonic() + patience, ""
    while time.monotonic() <= give_up or not excuse:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            files, excuse = _try(fd, path)
        except BaseException:
            os.close(fd)
            raise
        if files:
            return functools.partial(_end, fd, os.getpid(), files)
        os.close(fd)
        time.sleep(0.05)
    raise UsageError(f"{busy}: {excuse}")


def _try(fd: int, path: Path) -> tuple[tuple[Path, ...], str]:
    """(files to remove at the end, ""), or nothing and why not; neither: the file was removed meanwhile."""
    locked = _flocked(fd)
    if locked is None:
        excuse = _exclusively(path)
        return ((), excuse) if excuse else ((path, exclusive_file(path)), "")
    if not locked:
        return (), "wait for it, or stop it"
    _write_identity(fd)
    excuse = _other(exclusive_file(path))  # looked for before the next line, see _end
    if not excuse and is_file_at(fd, path):
        return (path,), ""
    os.ftruncate(fd, 0)
    return (), excuse


def _flocked(fd: int) -> bool | None:
    """Whether we have the lock now; None: there are no locks here."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        _warn_once(error.strerror)
        return None


@functools.cache
def _warn_once(reason: str) -> None:
    log.warning(
        "this file system has no locks (%s); going on with a lock file, which keeps out other processes of ours", reason
    )


def _exclusively(path: Path) -> str:
    """Take the lock by creating its exclusive file. Returns who has it instead, "" if we have."""
    own = exclusive_file(path)
    _remove_stale(own)
    try:
        fd = os.open(own, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    except FileExistsError:
        return _other(own) or f"delete {own}, if no other process of ours is at work there"
    try:
        _write_identity(fd)
        if excuse := _other(path):  # whoever has locks writes its name before it looks for ours
            os.unlink(own)
        return excuse
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(own)
        raise
    finally:
        os.close(fd)


def _write_identity(fd: int) -> None:
    os.ftruncate(fd, 0)
    os.pwrite(fd, this_process(), 0)


def this_process() -> bytes:
    """Host, process and when that started: what a file says that stands for its writer."""
    return f"{_host()} {os.getpid()} {_started(os.getpid())}\n".encode()


def runs_here(line: bytes) -> bool | None:
    """Whether the process is that a line names, as this_process does. None: it is of another machine, or unknown."""
    owner = _owner_of(line.decode(errors="replace"))
    return _started(owner[1]) == owner[2] if owner and owner[0] == _host() else None


def _other(path: Path) -> str:
    """What to do about who holds what `path` stands for; "" for nobody: no file, an empty one, a dead process."""
    owner = _owner(path)
    if owner is None:
        return ""
    host, pid, started = owner
    if host != _host():
        return f"process {pid} on {host.partition('/')[0]} has it; if that is gone, delete {path}"
    return f"wait for process {pid}, or stop it" if _started(pid) == started else ""


def _owner(path: Path) -> tuple[str, int, str] | None:
    try:
        return _owner_of(path.read_text(encoding="utf-8", errors="replace"))
    except FileNotFoundError:
        return None


def _owner_of(line: str) -> tuple[str, int, str] | None:
    try:
        host, pid, started = line.split()
        return host, int(pid), started
    except ValueError:
        return None


def _remove_stale(path: Path) -> None:
    """Only one process may do so at a time: a second one would remove the file that the first has put in its place.

    Those that could are of this machine, so a socket's name, which dies with its owner, tells them apart.
    """
    if not path.exists() or _owner(path) is None or _other(path):
        return
    with contextlib.suppress(OSError), _alone(path):
        if _owner(path) is not None and not _other(path):
            os.unlink(path)


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """OSError: another process of this machine is in such a block about the same path."""
    name = hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:32]
    with socket.socket(socket.AF_UNIX) as guard:
        guard.bind(f"\0seqjepa-lock-{name}")
        yield


@functools.cache
def _host() -> str:
    """This machine, and within it the world of process numbers that we live in (a container has its own)."""
    with contextlib.suppress(OSError):
        return f"{socket.gethostname()}/{os.readlink('/proc/self/ns/pid')}"
    return f"{socket.gethostname()}/-"


def _started(pid: int) -> str:
    """When a process of this machine started, in the kernel's ticks since boot; "" if there is none."""
    try:
        after_name = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return ""
    return "" if after_name[0] in b"ZX" else after_name[19].decode()


def _end(fd: int, owner: int, files: tuple[Path, ...]) -> None:
    if os.getpid() == owner:
        for file in files:
            # Removed while still held: whoever waits on this file sees that it is gone and starts afresh. The
            # exclusive one goes last: who finds it gone finds the other gone too.
            with contextlib.suppress(OSError):
                os.unlink(file)
    os.close(fd)


def is_file_at(fd: int, path: Path) -> bool:
    """Whether the open file is the one of that name: it may have been removed since, and another put in its place."""
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(fd), os.stat(path))
    return False
