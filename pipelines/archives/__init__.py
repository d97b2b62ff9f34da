"""Files that lie in folders, tars and zips: one member of an archive, the content of a file, and what was left out."""

from __future__ import annotations

import logging
import os
import stat
from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple, Protocol, overload

from shards.machine.environment import system_errors_as

log = logging.getLogger(__name__)

FILE, FOLDER, LINK, HARD_LINK = "file", "folder", "link", "hard link"
LONGEST_PATH = 4096  # bytes; no system can unpack a longer one
LARGEST_FILE = 32 << 20  # bytes; 3DIEBench's images have 17 thousand

NAMED, KINDS_SHOWN = 3, 4
LONGEST_SUFFIX = 8
NOWHERE = "a link that leads nowhere"
OUTSIDE = "a link that leaves the archive"
CIRCLE = "a link to itself"
ABOVE = "a link to a folder that holds it"
NO_VIEW = "a file that is no image_<k>.jpg or latent_<k>.npy"
OTHER_NAME = "a picture whose name does not match the pattern"
TRAILING = "what follows the end of the tar is no tar, and was not read"
PLURALS = {
    NOWHERE: "links that lead nowhere",
    OUTSIDE: "links that leave the archive",
    CIRCLE: "links to themselves",
    ABOVE: "links to folders that hold them",
    OTHER_NAME: "pictures whose names do not match the pattern",
    NO_VIEW: "files that are no image_<k>.jpg or latent_<k>.npy",
}


class Readable(Protocol):
    """A file that is read where it is wanted; what `read` raises is that of read_content."""

    def read(self) -> bytes: ...


Content = bytes | Path | Readable  # a file's bytes, or where a worker finds them


@dataclass(frozen=True)
class FolderFiles(Sequence[Path]):
    """Files below one folder. Each becomes a Path where it is read; what travels to workers is names alone."""

    folder: str
    names: Sequence[str]

    def __len__(self) -> int:
        return len(self.names)

    @overload
    def __getitem__(self, place: int) -> Path: ...
    @overload
    def __getitem__(self, place: slice) -> FolderFiles: ...
    def __getitem__(self, place: int | slice) -> Path | FolderFiles:
        if isinstance(place, slice):
            return FolderFiles(self.folder, self.names[place])
        return Path(f"{self.folder}/{self.names[place]}")


class ArchiveMember(NamedTuple):
    """`kind` is one of the four above, or names what else it is ("fifo").

    name      path with "/", as stored; bytes that are no UTF-8 as surrogates
    size      bytes of its content, expanded
    offset    where a FileReader finds it, and
    length    how many bytes it takes there (sources/files.py says what both mean)
    target    what a link leads to
    """

    name: str
    kind: str
    size: int = 0
    offset: int = 0
    length: int = 0
    target: str = ""


def read_content(content: Content) -> bytes:
    """Bytes of a file. Raises ValueError if it is empty, too large or cannot be read; OSError: the machine's fault."""
    if isinstance(content, Path):
        return read_file(content)
    return _sized(content if isinstance(content, bytes) else content.read())


def read_file(path: Path | str) -> bytes:
    """read_content of a file on the disk. Without a Path and its methods, which take longer than the system does."""
    with readable():
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):  # a fifo would never end
            raise ValueError("not a file")
        if status.st_size > LARGEST_FILE:
            return _sized(b"")
        with open(path, "rb", buffering=0) as file:
            return _sized(file.read())


def _sized(data: bytes) -> bytes:
    if not 0 < len(data) <= LARGEST_FILE:
        raise ValueError(f"empty, or larger than {LARGEST_FILE >> 20} MiB")
    return data


def readable() -> AbstractContextManager[None]:
    """A block that reads a file. ValueError: the system will not; OSError: the machine's fault."""
    return system_errors_as(lambda why: ValueError(f"unreadable ({why})"))


class LeftOut:
    """Counts and names what a source holds beside its images, for a line at the end of a build.

    `notes` are words about what was read, but perhaps not as it was meant. `tables`: some of the files that may say
    splits or classes.
    """

    def __init__(self) -> None:
        self.hidden = 0
        self.suffixes: Counter[str] = Counter()  # of ordinary files
        self.counts: Counter[str] = Counter()  # of what is no ordinary file, by what it is
        self.names: dict[str, list[str]] = {}
        self.notes: list[str] = []
        self.tables: list[str] = []

    @property
    def total(self) -> int:
        return self.hidden + self.suffixes.total() + self.counts.total()

    def add_other(self, name: str) -> None:
        """An ordinary file that is no image."""
        suffix = PurePosixPath(name).suffix.lower()
        self.suffixes[suffix if suffix[1:].isalnum() and len(suffix) <= LONGEST_SUFFIX else "other"] += 1

    def add(self, kind: str, name: str) -> None:
        """What is no ordinary file: a link that leads nowhere, a fifo …"""
        self.counts[kind] += 1
        named = self.names.setdefault(kind, [])
        if len(named) < NAMED:
            named.append(name)

    def __str__(self) -> str:
        """ "3 files were left out: 2 links that lead nowhere (a/b.png, c.png), 1 hidden"; empty for nothing."""
        parts = []
        for kind, count in self.counts.most_common():
            singular = kind.removeprefix("a ")
            what = singular if count == 1 else PLURALS.get(kind, f"{kind}s")
            names = ", ".join(printable(name) for name in self.names[kind])
            parts.append(f"{count} {what} ({names}{', …' if count > NAMED else ''})")
        if self.suffixes:
            suffixes = [f"{count} {suffix}" for suffix, count in self.suffixes.most_common(KINDS_SHOWN)]
            more = ["…"] if len(self.suffixes) > KINDS_SHOWN else []
            what = "that is no image" if self.suffixes.total() == 1 else "that are no images"
            parts.append(f"{self.suffixes.total()} {what} ({', '.join(suffixes + more)})")
        if self.hidden:
            parts.append(f"{self.hidden} hidden")
        were = "files were" if self.total > 1 else "file was"
        line = [f"{self.total} {were} left out: {', '.join(parts)}"] if parts else []
        return "; ".join(line + self.notes)

    def warn(self, path: Path) -> None:
        """Logs one line, if there is anything to say."""
        if line := str(self):
            log.warning("%s: %s", path, line)


def printable(name: str) -> str:
    """A file's name as one line of a message has it, whatever characters it holds."""
    return name if name.isprintable() else ascii(name)


def is_utf8(name: str) -> bool:
    """Whether a file's name is UTF-8; other bytes are surrogates."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
