"""Where each tar of a source lies on this disk as a plain tar.

A plain tar on the disk is read where it is, at random. What can be read only once (`pipe:`, a URL) or not at random (a
packed tar) is copied into a plain one first, in a folder of our own, a tar at a time: the build reads a source twice
and over several processes, a stream may change or break between two readings, and the same command goes on with the
tars that are there already. Disk for the whole source is the price; memory holds a megabyte.
"""

from __future__ import annotations

import bz2
import contextlib
import gzip
import hashlib
import io
import json
import logging
import lzma
import re
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from tqdm import tqdm

from pipelines.archives import TRAILING
from pipelines.archives.tar import TarStream
from pipelines.sources.webdataset.options import TarFile
from shards.environment import pass_environment_on
from shards.errors import FailureError, FormatError, UsageError, reason_of
from shards.files import AtomicFile, disk_full_named, write_atomic
from shards.lock import FolderLock, exclusive_file

log = logging.getLogger(__name__)

OPENERS: dict[bytes, Callable[[Any], Any]] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\0": lzma.open}
MAGIC = 6  # bytes
CHUNK = 1 << 20
CURL = {6: "no such host", 7: "nobody answers", 18: "cut in the middle", 22: "the server says no (is it there?)"}
EXIT = re.compile(r"exit (-?\d+)")
MARK, LOCK = "seqjepa-spool.json", "lock"
MARKED = {"format": "seqjepa spool", "what": "copies of tars, for a build of shards; removed when it is finished"}


class Stream(Protocol):
    """What webdataset opens: a file, or what a command prints."""

    def read(self, size: int, /) -> bytes: ...

    def close(self) -> None: ...


class Spool:
    """Plain tars on this disk: those of the user where they lie, copies of all others in `folder`, made when needed.

    Held by one build at a time. What a killed build left is used again; `remove()` ends it.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self._lock: FolderLock | None = None

    def plain(self, tars: Sequence[TarFile]) -> list[Path]:
        """Paths of plain tars, in the order of `tars`.

        FailureError: a stream that breaks off; FormatError: a copied tar that is cut or damaged. Copies are kept.
        """
        return [self._plain(tar, number, len(tars)) for number, tar in enumerate(tars)]

    def remove(self) -> None:
        """The copies, when the set is finished; and the folder, if nothing else lies in it."""
        if self._lock is not None:
            for path in self.folder.glob("*.tar"):
                path.unlink(missing_ok=True)
        self.release()

    def release(self) -> None:
        """For another build; copies stay. A folder without any goes."""
        if self._lock is None:
            return
        empty = not any(self.folder.glob("*.tar"))
        if empty:
            (self.folder / MARK).unlink(missing_ok=True)
        self._lock.release()
        self._lock = None
        if empty:
            with contextlib.suppress(OSError):  # something else lies in it
                self.folder.rmdir()

    def _plain(self, tar: TarFile, number: int, count: int) -> Path:
        if not tar.is_stream and Path(tar.url).is_file() and not _is_packed(Path(tar.url)):  # else: a pipe of the shell
            return Path(tar.url)
        self._claim()
        path = self.folder / f"{_fingerprint(tar)}.tar"
        if not path.exists():
            with disk_full_named(self.folder, lambda: "free some, or give another --spool, and run the same again"):
                _copy(tar, path, f"{tar.name} ({number + 1} of {count})")
        return path

    def _claim(self) -> None:
        """UsageError: the folder is not ours, or another build's."""
        if self._lock is not None:
            return
        try:
            there = sorted(entry.name for entry in self.folder.iterdir()) if self.folder.exists() else []
            ours = {MARK, LOCK, exclusive_file(self.folder / LOCK).name}
            if there and MARK not in there and not set(there) <= ours:
                raise UsageError(f"{self.folder} is not empty and holds no copies of ours; give another --spool")
            self.folder.mkdir(parents=True, exist_ok=True)
        except (NotADirectoryError, FileExistsError, PermissionError) as error:
            raise UsageError(f"cannot write to {self.folder}: {error.strerror}; give another --spool") from error
        self._lock = FolderLock(self.folder / LOCK, f"another build copies tars into {self.folder}")
        write_atomic(self.folder / MARK, json.dumps(MARKED).encode())


def _is_packed(path: Path) -> bool:
    with path.open("rb") as file:
        begin = file.read(MAGIC)
    return any(begin.startswith(magic) for magic in OPENERS)


def _fingerprint(tar: TarFile) -> str:
    """Of what is copied: the URL or command; of a file also its size and time."""
    stat = None if tar.is_stream else Path(tar.url).stat()
    told = tar.url if stat is None else f"{Path(tar.url).resolve()}\0{stat.st_size}\0{stat.st_mtime_ns}"
    return hashlib.sha256(told.encode("utf-8", "surrogateescape")).hexdigest()[:32]


def _copy(tar: TarFile, path: Path, shown: str) -> None:
    """Whole or not at all, and looked through once."""
    from webdataset.gopen import gopen

    file = AtomicFile(path)
    try:
        try:
            stream = gopen(tar.url)
        except (OSError, ValueError, ImportError) as error:
            pass_environment_on(error)
            raise FailureError(
                f"{tar.where} cannot be opened ({reason_of(error)}); run the same command again"
            ) from error
        try:
            _pour(tar, stream, file, shown)
        finally:
            _close(stream)
        file.seal()
        _check(tar, path.with_name(f".tmp-{path.name}"))
        file.publish()
    except BaseException:
        file.discard()
        raise


def _pour(tar: TarFile, stream: Stream, file: AtomicFile, shown: str) -> None:
    raw = io.BufferedReader(_Plain(stream), CHUNK)
    try:
        begin = raw.peek(MAGIC)
        opener = next((opener for magic, opener in OPENERS.items() if begin.startswith(magic)), None)
        source = opener(raw) if opener else raw
        with tqdm(desc=shown, unit="B", unit_scale=True, disable=None, leave=False) as bar:
            while data := source.read(CHUNK):
                file.write(data)
                bar.update(len(data))
        stream.close()  # of a command: raises unless it ended well
    except (EOFError, gzip.BadGzipFile, zlib.error, lzma.LZMAError) as error:
        raise FormatError(f"{tar.where} is cut short or damaged ({reason_of(error)}); fetch it again") from error
    except OSError as error:
        if error.errno is not None:
            raise
        if (code := EXIT.search(str(error))) is None:  # bz2
            raise FormatError(f"{tar.where} is cut short or damaged ({reason_of(error)}); fetch it again") from error
        number = int(code[1])
        why = CURL.get(number, f"it ended with {number}") if not tar.url.startswith("pipe:") else f"exit code {number}"
        raise FailureError(
            f"{tar.where} broke off: {why}; run the same command again, it goes on with this tar"
        ) from error


class _Plain(io.RawIOBase):
    """webdataset's stream, which has `read` alone, as a file."""

    def __init__(self, stream: Stream):
        self.stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self.stream.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


def _close(stream: Stream) -> None:
    """A command that we no longer listen to is told to end, and may do so as it likes."""
    command = getattr(stream, "proc", None)
    if command is not None and command.poll() is None:
        command.terminate()
    try:
        stream.close()
    except OSError as error:
        log.debug("%s", error)


def _check(tar: TarFile, path: Path) -> None:
    """FormatError unless it is a tar from its first header to its end mark."""
    try:
        with TarStream(path, seek=True) as stream:
            for _ in stream:
                pass
    except FormatError as error:
        raise FormatError(str(error).replace(str(path), tar.where)) from error
    if stream.trailing:
        log.warning("%s: %s", tar.where, TRAILING)
