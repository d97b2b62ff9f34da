"""Where each tar of a source lies on this disk as a plain tar.

A plain tar on the disk is read where it is, at random. What can be read only once (`pipe:`, a URL) or not at random (a
packed tar) is copied into a plain one first, in a folder of our own, a tar at a time: the build reads a source twice
and over several processes, a stream may change or break between two readings, and the same command goes on with the
tars that are there already. Disk for the whole source is the price; memory holds a megabyte.
"""

from __future__ import annotations

import bz2
import contextlib
import fcntl
import gzip
import hashlib
import io
import json
import logging
import lzma
import os
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from pipelines.archives import TRAILING
from pipelines.archives.tar import TarStream
from pipelines.sources.webdataset.options import TarFile
from shards.errors import FailureError, FormatError, UsageError, reason_of
from shards.machine.environment import pass_environment_on
from shards.machine.files import AtomicFile, disk_full_named
from shards.machine.lock import NO_LOCKS, FolderLock, exclusive_file, is_file_at

log = logging.getLogger(__name__)

OPENERS: dict[bytes, Callable[[Any], Any]] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\0": lzma.open}
MAGIC = 6  # bytes
CHUNK = 1 << 20
CURL = {6: "no such host", 7: "nobody answers", 18: "cut in the middle", 22: "the server says no (is it there?)"}
FULL = "free some, or give another --spool, and run the same again"
EXIT = re.compile(r"exit (-?\d+)")
MARK, LOCK, ONE = "seqjepa-spool.json", "lock", ".one"
MARKED = {"format": "seqjepa spool", "what": "copies of tars, for a build of shards; removed when it is finished"}


class Spool:
    """Plain tars on this disk: those of the user where they lie, copies of all others in `folder`, made when needed.

    Builds share it: each tar is copied by one of them, and who comes to a tar that another is copying takes the next.
    What a killed build left is used again; remove() by the last one ends it. Where the file system has no locks, it is
    held by one build at a time.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self._held: _Shared | FolderLock | None = None
        self._copies: dict[str, Path] = {}  # by URL: once it is read, a pipe of the shell has another time

    def plain(self, tars: Sequence[TarFile]) -> list[Path]:
        """Paths of plain tars, in the order of `tars`.

        FailureError: a stream that breaks off; FormatError: a copied tar that is cut or damaged. Copies are kept.
        """
        for wait in (False, True):
            paths = [self._plain(tar, number, len(tars), wait) for number, tar in enumerate(tars)]
        return paths

    def remove(self) -> None:
        """The copies, when the set is finished and nobody else is at work here; and the folder, if it is empty then."""
        self._end(copies=True)

    def release(self) -> None:
        """For another build; copies stay. A folder without any goes."""
        self._end(copies=False)

    def _end(self, copies: bool) -> None:
        held, self._held = self._held, None
        if held is None:
            return
        if isinstance(held, _Shared) and not held.alone():
            held.release()
            return
        for path in [*self.folder.glob(f"*{ONE}"), *(self.folder.glob("*.tar") if copies else ())]:
            path.unlink(missing_ok=True)
        empty = not any(self.folder.glob("*.tar"))
        if empty:
            (self.folder / MARK).unlink(missing_ok=True)
        held.release()
        if empty:
            with contextlib.suppress(OSError):  # something else lies in it
                self.folder.rmdir()

    def _plain(self, tar: TarFile, number: int, count: int, wait: bool) -> Path:
        """wait: for whoever is copying it. Else it may not be there yet."""
        if not tar.is_stream and Path(tar.url).is_file() and not _is_packed(Path(tar.url)):  # else: a pipe of the shell
            return Path(tar.url)
        self._claim()
        path = self._copies.setdefault(tar.url, self.folder / f"{_fingerprint(tar)}.tar")
        if not path.exists():
            with self._at(path, wait) as ours, disk_full_named(self.folder, lambda: FULL):
                if ours and not path.exists():
                    _copy(tar, path, f"{tar.name} ({number + 1} of {count})")
        return path

    @contextlib.contextmanager
    def _at(self, path: Path, wait: bool) -> Iterator[bool]:
        """Whether this copy is ours to make, for as long as the block lasts."""
        if isinstance(self._held, FolderLock):
            yield True
            return
        with path.with_suffix(ONE).open("ab") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                yield False
            else:
                yield True

    def _claim(self) -> None:
        """UsageError: the folder is not ours; without locks also: another build's."""
        if self._held is not None:
            return
        try:
            if self._is_foreign() and self._is_foreign():  # another build that ended as we looked has removed it all
                raise UsageError(f"{self.folder} is not empty and holds no copies of ours; give another --spool")
            self._held = _shared(self.folder / LOCK)
        except (NotADirectoryError, FileExistsError, PermissionError) as error:
            raise UsageError(f"cannot write to {self.folder}: {error.strerror}; give another --spool") from error
        self._held = self._held or FolderLock(self.folder / LOCK, f"another build copies tars into {self.folder}")
        (self.folder / MARK).write_bytes(json.dumps(MARKED).encode())  # under its name: others look, and write it too

    def _is_foreign(self) -> bool:
        try:
            there = {entry.name for entry in self.folder.iterdir()}
        except FileNotFoundError:
            return False
        return MARK not in there and not there <= {LOCK, exclusive_file(self.folder / LOCK).name}


@dataclass(frozen=True)
class _Shared:
    """A lock that several builds hold at a time."""

    path: Path
    fd: int

    def alone(self) -> bool:
        """Whether no other build holds it, nor can from now on. If not, neither do we any more."""
        try:
            fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def release(self) -> None:
        """Removes its file, if we were alone(); but not that of a build which came after another had removed ours."""
        if self.alone():
            with contextlib.suppress(OSError):
                if is_file_at(self.fd, self.path):
                    self.path.unlink()
        os.close(self.fd)


def _shared(path: Path) -> _Shared | None:
    """Makes the folder too. None: there are no locks here."""
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except FileNotFoundError:  # the last of the others has just removed the folder
            continue
        try:
            fcntl.flock(fd, fcntl.LOCK_SH)
            if is_file_at(fd, path):
                return _Shared(path, fd)
        except OSError as error:
            if error.errno in NO_LOCKS:
                os.close(fd)
                return None
            if not isinstance(error, FileNotFoundError):
                raise
        os.close(fd)


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

    with AtomicFile(path) as file:
        try:
            stream = gopen(tar.url)
        except (OSError, ValueError, ImportError) as error:
            pass_environment_on(error)
            raise FailureError(
                f"{tar.url} cannot be opened ({reason_of(error)}); run the same command again"
            ) from error
        try:
            _pour(tar, stream, file, shown)
        finally:
            _close(stream)
        file.seal()
        _check(tar, file.staged)


def _pour(tar: TarFile, stream: Any, file: AtomicFile, shown: str) -> None:
    """stream: what webdataset opens, a file or what a command prints."""
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
    except (EOFError, OSError, zlib.error, lzma.LZMAError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        if (code := EXIT.search(str(error))) is None:
            raise FormatError(f"{tar.url} is cut short or damaged ({reason_of(error)}); fetch it again") from error
        number = int(code[1])
        why = CURL.get(number, f"it ended with {number}") if not tar.url.startswith("pipe:") else f"exit code {number}"
        raise FailureError(
            f"{tar.url} broke off: {why}; run the same command again, it goes on with this tar"
        ) from error


class _Plain(io.RawIOBase):
    """webdataset's stream, which has `read` alone, as a file."""

    def __init__(self, stream: Any):
        self.stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self.stream.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


def _close(stream: Any) -> None:
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
        raise FormatError(str(error).replace(str(path), tar.url)) from error
    if stream.trailing:
        log.warning("%s: %s", tar.url, TRAILING)
