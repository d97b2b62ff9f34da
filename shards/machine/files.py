"""Files that appear whole or not at all, and files that a command may replace because it wrote them.

AtomicFile and write_atomic write under a temporary name and rename. write_own replaces only files that carry the
command's own signature and refuses any other file of that name. disk_full_named turns ENOSPC into DiskFullError.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from shards.errors import DiskFullError, UsageError
from shards.machine.environment import NO_SPACE, system_errors_as

TEMPORARY = ".tmp-"


class AtomicFile:
    """A file written under a temporary name. seal() makes it durable, publish() gives it its final name.

    As a context it is published at the end, or discarded where anything goes wrong.

    tmp_dir: where it is written, on the same file system; None: beside its final place, under a name of its own.
    shared: several processes may write it at the same moment, each under another name; what a kill leaves is not
    written over by the next one.
    """

    def __init__(self, path: Path, tmp_dir: Path | None = None, *, shared: bool = False) -> None:
        self.path = path
        prefix = TEMPORARY + f"{secrets.token_hex(4)}-" * shared
        self._tmp = tmp_dir / path.name if tmp_dir else path.with_name(prefix + path.name)
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        with self._named():
            self._fd: int | None = os.open(self._tmp, flags, 0o666)

    def __enter__(self) -> AtomicFile:
        return self

    def __exit__(self, raised: object, *_: object) -> None:
        if raised is not None:
            return self.discard()
        try:
            self.publish()
        except BaseException:
            self.discard()
            raise

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

    @property
    def staged(self) -> Path:
        """Where it lies until publish()."""
        return self._tmp

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
    with AtomicFile(path, tmp_dir) as file:
        file.write(data)


@contextlib.contextmanager
def opened_fd(path: Path, flags: int) -> Iterator[int]:
    """A file's or folder's descriptor; closed at the end, which gives up locks that were taken on it."""
    fd = os.open(path, flags | os.O_CLOEXEC, 0o666)
    try:
        yield fd
    finally:
        os.close(fd)


def sync_folder(folder: Path) -> None:
    """Makes a rename in `folder` durable."""
    with opened_fd(folder, os.O_RDONLY | os.O_DIRECTORY) as fd:
        os.fsync(fd)


def sha256_of_bytes(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def sha256_of_file(path: Path, on_bytes: Callable[[int], object] = lambda count: None) -> str:
    """digest_of_file by the algorithm of all checksums of ours."""
    return digest_of_file(path, "sha256", on_bytes)


def digest_of_file(path: Path, algorithm: str, on_bytes: Callable[[int], object]) -> str:
    """Hex digest of a file, read once; `on_bytes` hears how many bytes each step read (for a progress bar)."""
    digest, buffer = hashlib.new(algorithm, usedforsecurity=False), memoryview(bytearray(1 << 20))
    with open(path, "rb", buffering=0) as file:
        while count := file.readinto(buffer):
            digest.update(buffer[:count])
            on_bytes(count)
    return digest.hexdigest()


@contextlib.contextmanager
def disk_full_named(
    folder: Path, advice: Callable[[], str] = lambda: "free some and run the same command again"
) -> Iterator[None]:
    """Turns "no space left on device" (or a quota) into a DiskFullError whose text ends with `advice()`.

    "File too large" of a write, which names no file, names the folder.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in NO_SPACE:
            if error.errno == errno.EFBIG and error.filename is None:
                error.filename = str(folder)
            raise
        raise DiskFullError(f"no space left on {folder}: {advice()}") from error


LOOKED_AT = 4096
"""Bytes at each end of a file in which its sign has to be."""


@dataclass(frozen=True)
class OwnFile:
    """path: where; data: what; sign: what a file that it replaces has to hold; maker: whose sign that is."""

    path: Path
    data: bytes
    sign: bytes
    maker: str


def write_own(files: Sequence[OwnFile]) -> None:
    """Write all, or none where a path is refused: each whole or not at all.

    UsageError: a path is taken by something that we did not write, its folder is not there, or two are the same.
    """
    if len({file.path.resolve() for file in files}) < len(files):
        raise UsageError("two of the files to write are the same; give each a name of its own")
    for file in files:
        refuse_foreign(file.path, file.sign, file.maker)
    for file in files:
        with disk_full_named(file.path.parent), AtomicFile(file.path, shared=True) as written:
            written.write(file.data)


def refuse_foreign(path: Path, sign: bytes, maker: str) -> None:
    """UsageError unless `path` is free, in a folder that is there, or a plain file with `sign` near either end."""
    if not path.parent.is_dir():
        raise UsageError(f"{path.parent} is not a folder; make it, or choose another place for {path.name}")
    refuse_unfit_folder(path.parent, path.name)
    if path.is_symlink():
        raise UsageError(
            f"{path} is a link to {path.readlink()}, which is not replaced; remove it or give another name"
        )
    if path.is_dir():
        raise UsageError(f"{path} is a folder; give the name of a file")
    if not path.exists():
        return
    if not path.is_file() or sign not in _ends(path):
        raise UsageError(f"{path} is there and was not made by {maker}; remove it or choose another name")


def refuse_unfit_folder(folder: Path, name: str) -> None:
    """UsageError: nothing can be made in a folder that is there, or should: said before the work, not after it."""
    if (folder / "_meta" / "dataset.json").exists():
        raise UsageError(f"{folder} is a shard set, which holds nothing else; choose another place for {name}")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UsageError(f"{folder} may not be written to; choose another place for {name}")


def _ends(path: Path) -> bytes:
    """Where formats say who made a file: at the beginning, or, as PDF, at the end."""
    with (
        system_errors_as(lambda why: UsageError(f"cannot read {path}, which is there: {why}; choose another name")),
        path.open("rb") as file,
    ):
        beginning = file.read(LOOKED_AT)
        file.seek(-min(LOOKED_AT, path.stat().st_size), os.SEEK_END)
        return beginning + file.read(LOOKED_AT)
