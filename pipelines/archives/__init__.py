"""One member of an archive, as its tar or zip describes it.

What a source holds beside its images, counted and named: said at the end of a build, for nothing goes in silence.
"""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path, PurePosixPath
from typing import NamedTuple

FILE, FOLDER, LINK, HARD_LINK = "file", "folder", "link", "hard link"
LONGEST_PATH = 4096  # bytes; no system can unpack a longer one


class Member(NamedTuple):
    """`kind` is one of the four above, or names what else it is ("fifo").

    name      path with "/", as stored; bytes that are no UTF-8 as surrogates
    size      bytes of its content, expanded
    offset    where a FileReader finds it, and
    length    how many bytes it takes there (images/file_list.py says what both mean)
    target    what a link leads to
    """

    name: str
    kind: str
    size: int = 0
    offset: int = 0
    length: int = 0
    target: str = ""


log = logging.getLogger(__name__)

NAMED, KINDS_SHOWN = 3, 4
LONGEST_SUFFIX = 8
NOWHERE = "a link that leads nowhere"
OUTSIDE = "a link that leaves the archive"
CIRCLE = "a link to itself"
ABOVE = "a link to a folder that holds it"
NO_VIEW = "a file that is no image_<k>.jpg or latent_<k>.npy"
TRAILING = "what follows the end of the tar is no tar, and was not read"
PLURALS = {
    NOWHERE: "links that lead nowhere",
    OUTSIDE: "links that leave the archive",
    CIRCLE: "links to themselves",
    ABOVE: "links to folders that hold them",
    NO_VIEW: "files that are no image_<k>.jpg or latent_<k>.npy",
}


class LeftOut:
    """Counts files. `notes` are words about what was read, but perhaps not as it was meant."""

    def __init__(self) -> None:
        self.hidden = 0
        self.suffixes: Counter[str] = Counter()  # of ordinary files
        self.counts: Counter[str] = Counter()  # of what is no ordinary file, by what it is
        self.names: dict[str, list[str]] = {}
        self.notes: list[str] = []

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
        parts = [self._named(kind, count) for kind, count in self.counts.most_common()]
        if self.suffixes:
            shown = [f"{count} {suffix}" for suffix, count in self.suffixes.most_common(KINDS_SHOWN)]
            more = ["…"] if len(self.suffixes) > KINDS_SHOWN else []
            what = "that is no image" if self.suffixes.total() == 1 else "that are no images"
            parts.append(f"{self.suffixes.total()} {what} ({', '.join(shown + more)})")
        if self.hidden:
            parts.append(f"{self.hidden} hidden")
        said = (
            [f"{self.total} file{'s were' if self.total > 1 else ' was'} left out: {', '.join(parts)}"] if parts else []
        )
        return "; ".join(said + self.notes)

    def _named(self, kind: str, count: int) -> str:
        more = ", …" if count > NAMED else ""
        return f"{count} {kind_of(kind, count)} ({', '.join(shown(name) for name in self.names[kind])}{more})"


def warn_of(others: LeftOut, path: Path) -> None:
    """One line, if there is anything to say."""
    if line := str(others):
        log.warning("%s: %s", path, line)


def kind_of(kind: str, count: int) -> str:
    """ "a link that leads nowhere" → "link that leads nowhere", or its plural."""
    return kind.removeprefix("a ") if count == 1 else PLURALS.get(kind, f"{kind}s")


def shown(name: str) -> str:
    """A file's name as one line of a message has it, whatever characters it holds."""
    return name if name.isprintable() else ascii(name)
