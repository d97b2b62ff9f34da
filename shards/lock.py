"""One builder per folder: an flock'd file, which the kernel frees when its owner dies, however it dies."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import time
import weakref
from pathlib import Path

from shards.errors import UsageError

# A killed builder may take a moment to disappear.
GRACE_SECONDS = 2.0


class FolderLock:
    """Held from construction to release(), which also removes the file. UsageError: someone else holds it.

    It stays with its process: a forked child closes its copy, or it would hold the lock of a killed parent.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        fd = _acquire(path)
        self._close = weakref.finalize(self, os.close, fd)
        _forget_in_children()
        _held.add(self)

    def release(self) -> None:
        """Idempotent."""
        if self._close.alive:
            # Removed while still held: whoever waits on this file sees that it is gone and starts afresh.
            with contextlib.suppress(OSError):
                os.unlink(self.path)
            self._close()


_held: weakref.WeakSet[FolderLock] = weakref.WeakSet()


@functools.cache
def _forget_in_children() -> None:
    os.register_at_fork(after_in_child=lambda: [lock._close() for lock in list(_held)])


def _acquire(path: Path) -> int:
    give_up = time.monotonic() + GRACE_SECONDS
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _still_there(fd, path):
                return fd
        except BlockingIOError:
            if time.monotonic() > give_up:
                os.close(fd)
                raise UsageError(f"another build is writing {path.parent.parent}: wait for it, or stop it") from None
            time.sleep(0.05)
        except OSError:
            os.close(fd)
            raise
        os.close(fd)


def _still_there(fd: int, path: Path) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(fd), os.stat(path))
    return False
