"""Every file below a folder, on disk or in an archive, by one way of going through it.

Links are followed, and how deep folders lie does not matter; a link to a folder that holds it ends there.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from pipelines.left_out import ABOVE, CIRCLE, NOWHERE
from shards.environment import pass_environment_on
from shards.errors import FormatError

MOST_ENTRIES = 1 << 25  # links to folders of links multiply; no data set of images has as many
UNFOLLOWED = "a link that cannot be followed"
ERRORS = {errno.ELOOP: CIRCLE, errno.ENOENT: NOWHERE, errno.ENOTDIR: NOWHERE}
KINDS = ((stat.S_ISFIFO, "fifo"), (stat.S_ISSOCK, "socket"), (stat.S_ISCHR, "character device"))


@dataclass(frozen=True, slots=True)
class Place:
    """A file: where its content lies (FileEntry in file_list.py)."""

    offset: int = 0
    length: int = 0


class Tree(Protocol):
    """`entries` gives the names in a folder, links resolved: a Place for a file; for what is neither file nor folder a
    str that says what it is; else a folder, as the tree knows it."""

    @property
    def root(self) -> Any: ...

    def entries(self, folder: Any) -> Iterable[tuple[str, Any]]: ...

    def identity(self, folder: Any) -> Hashable: ...


def walk(tree: Tree, where: Path, folders: list[str]) -> Iterator[tuple[str, Place | str]]:
    """(path below the root, what it is) of everything that is no folder; `folders` gets the paths of those that are."""
    count = 0
    ahead: list[tuple[str, Any, tuple]] = [("", tree.root, (tree.identity(tree.root), ()))]
    while ahead:
        prefix, folder, above = ahead.pop()
        for name, node in tree.entries(folder):
            count += 1
            if count > MOST_ENTRIES:
                raise FormatError(f"{where} holds more than {MOST_ENTRIES} files and folders; do links multiply them?")
            if isinstance(node, Place | str):
                yield prefix + name, node
            elif _among(identity := tree.identity(node), above):
                yield prefix + name, ABOVE
            else:
                folders.append(prefix + name)
                ahead.append((f"{prefix}{name}/", node, (identity, above)))


def _among(identity: Hashable, above: tuple) -> bool:
    while above:
        if above[0] == identity:
            return True
        above = above[1]
    return False


class DiskTree:
    """Folders are paths in bytes, and names are these bytes read as UTF-8, whatever the locale says."""

    def __init__(self, path: Path):
        self.root = os.fsencode(path)

    def entries(self, folder: bytes) -> list[tuple[str, Any]]:
        """Raises FormatError for a folder that cannot be listed."""
        try:
            with os.scandir(folder) as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except OSError as error:
            raise _unlisted(folder, error) from error
        return [(entry.name.decode("utf-8", "surrogateescape"), _on_disk(entry)) for entry in entries]

    def identity(self, folder: bytes) -> Hashable:
        try:
            status = os.stat(folder)
        except OSError as error:
            raise _unlisted(folder, error) from error
        return status.st_dev, status.st_ino


def _unlisted(folder: bytes, error: OSError) -> FormatError:
    pass_environment_on(error)
    return FormatError(f"{os.fsdecode(folder)} cannot be listed: {error.strerror}")


def _on_disk(entry: os.DirEntry[bytes]) -> Place | str | bytes:
    if entry.is_file(follow_symlinks=False):
        return Place()
    if entry.is_dir(follow_symlinks=False):
        return entry.path
    try:
        mode = entry.stat().st_mode
    except OSError as error:
        pass_environment_on(error)
        return ERRORS.get(error.errno or 0, UNFOLLOWED)
    if stat.S_ISREG(mode):
        return Place()
    if stat.S_ISDIR(mode):
        return entry.path
    return next((kind for test, kind in KINDS if test(mode)), "block device")
