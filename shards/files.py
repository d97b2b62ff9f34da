"""Files that appear whole or not at all, and what a full disk is called."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from shards.errors import DiskFullError

FULL = (errno.ENOSPC, errno.EDQUOT)


TEMPORARY = ".tmp-"


class AtomicFile:
    """A file written under a temporary name. seal() makes it durable, publish() gives it its final name.

    tmp_dir: where it is written, on the same file system; None: beside its final place, under a name of its own.
    """

    def __init__(self, path: Path, tmp_dir: Path | None = None) -> None:
        self.path = path
        self._tmp = tmp_dir / path.name if tmp_dir else path.with_name(TEMPORARY + path.name)
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        with self._named():
            self._fd: int | None = os.open(self._tmp, flags, 0o666)

    def write(self, data: bytes) -> None:
        assert self._fd is not None, "written after seal()"
        rest = memoryview(data)
        with self._named():
            while rest:
                rest = rest[os.write(self._fd, rest) :]

    def seal(self) -> None:
        if self._fd is not None:
            with self._named():
                os.fsync(self._fd)
            self._close()

    def sha256(self) -> str:
        """Of what a reader finds on disk; after seal(), before publish()."""
        return sha256_of_file(self._tmp)

    def publish(self) -> None:
        self.seal()
        with self._named():
            os.replace(self._tmp, self.path)
            sync_folder(self.path.parent)

    def discard(self) -> None:
        """Forgets the temporary file, giving its space back. Safe at any time before publish()."""
        with contextlib.suppress(OSError):
            self._close()
        with contextlib.suppress(OSError):
            os.unlink(self._tmp)

    @contextlib.contextmanager
    def _named(self) -> Iterator[None]:
        """What goes wrong is of the file that was asked for: nobody knows the temporary name."""
        try:
            yield
        except OSError as error:
            error.filename, error.filename2 = str(self.path), None
            raise

    def _close(self) -> None:
        if self._fd is not None:
            fd, self._fd = self._fd, None
            os.close(fd)


def write_atomic(path: Path, data: bytes, tmp_dir: Path | None = None) -> None:
    """Writes `data` to `path` so that no reader and no crash ever sees a part of it."""
    file = AtomicFile(path, tmp_dir)
    try:
        file.write(data)
        file.publish()
    except BaseException:
        file.discard()
        raise


def sync_folder(folder: Path) -> None:
    """Makes a rename in `folder` durable."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sha256_of_bytes(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def sha256_of_file(path: Path, on_bytes: Callable[[int], object] = lambda count: None) -> str:
    """Hex digest of a file, read once; `on_bytes` hears how many bytes each step read (for a progress bar)."""
    digest, buffer = hashlib.sha256(), memoryview(bytearray(1 << 20))
    with open(path, "rb", buffering=0) as file:
        while count := file.readinto(buffer):
            digest.update(buffer[:count])
            on_bytes(count)
    return digest.hexdigest()


@contextlib.contextmanager
def disk_full_named(folder: Path, advice: Callable[[], str]) -> Iterator[None]:
    """Turns "no space left on device" (or a quota) into a DiskFullError whose text ends with `advice()`."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise DiskFullError(f"no space left on {folder}: {advice()}") from error
