"""Every file below a folder, on disk or in an archive, found by one walk.

Links are followed, and how deep folders lie does not matter; a link to a folder that holds it ends there.

`ArchiveTree` has the folders that an archive makes when it is unpacked, without unpacking it. It takes members in their
order, as `tar -x` does: of a name that comes twice the later one counts, a hard link shares what its target was at that
time. It follows symbolic links afterwards, when all is there. What is not in the archive cannot be reached.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, AnyStr

from pipelines.archives import (
    ABOVE,
    CIRCLE,
    FILE,
    FOLDER,
    HARD_LINK,
    LINK,
    LONGEST_PATH,
    NOWHERE,
    OUTSIDE,
    ArchiveMember,
    printable,
)
from shards.errors import FormatError
from shards.machine.environment import pass_environment_on

MOST_ENTRIES = 1 << 25  # links to folders of links multiply; no data set of images has as many
UNFOLLOWED = "a link that cannot be followed"
ERRORS = {errno.ELOOP: CIRCLE, errno.ENOENT: NOWHERE, errno.ENOTDIR: NOWHERE}
KINDS = ((stat.S_ISFIFO, "fifo"), (stat.S_ISSOCK, "socket"), (stat.S_ISCHR, "character device"))


@dataclass(frozen=True, slots=True)
class Place:
    """A file: where its content lies (FileEntry in sources/files.py)."""

    offset: int = 0
    length: int = 0


def walk_tree(tree: DiskTree | ArchiveTree, where: Path, folders: list[str]) -> Iterator[tuple[str, Place | str]]:
    """(path below the root, what it is) of everything that is no folder; `folders` gets the paths of those that are.

    `tree.entries` gives the names in a folder, links resolved: a Place for a file; for what is neither file nor folder
    a str that says what it is; else a folder, as the tree knows it.
    """
    count = 0
    root: Any = tree.root
    ahead: list[tuple[str, Any, tuple]] = [("", root, (tree.identity(root), ()))]
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
        """Errors as sorted_entries."""
        return [(entry.name.decode("utf-8", "surrogateescape"), _on_disk(entry)) for entry in sorted_entries(folder)]

    def identity(self, folder: bytes) -> Hashable:
        try:
            status = os.stat(folder)
        except OSError as error:
            raise _unlisted(folder, error) from error
        return status.st_dev, status.st_ino


def sorted_entries(folder: AnyStr) -> list[os.DirEntry[AnyStr]]:
    """What lies in a folder, by name. FormatError: it cannot be listed."""
    try:
        with os.scandir(folder) as found:
            return sorted(found, key=lambda entry: entry.name)
    except OSError as error:
        raise _unlisted(folder, error) from error


def _unlisted(folder: str | bytes, error: OSError) -> FormatError:
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


MOST_LINKS = 40  # followed for one path, as on Linux
PASSES = 40  # over hard links whose targets come after them


@dataclass(frozen=True, slots=True)
class Symlink:
    target: str


@dataclass(frozen=True, slots=True)
class Other:
    """Neither file nor folder nor link; `kind` names it."""

    kind: str


@dataclass(eq=False, slots=True)
class Folder:
    parent: Folder | None
    children: dict[str, Folder | Place | Symlink | Other] = field(default_factory=dict)


Node = Folder | Place | Symlink | Other


class ArchiveTree:
    """A Tree. FormatError: a name that leaves the folder, members that cannot lie beside each other."""

    def __init__(self, path: Path, members: Iterable[ArchiveMember]):
        self.path = path
        self.root = Folder(None)
        early: list[ArchiveMember] = []  # hard links before their targets
        for member in members:
            if member.kind != HARD_LINK:
                self._put(member.name, _node(member))
            elif not self._share(member):
                early.append(member)
        self._share_late(early)

    def entries(self, folder: Folder) -> Iterator[tuple[str, Any]]:
        for name, node in sorted(folder.children.items()):
            reached = self._follow(node, folder) if isinstance(node, Symlink) else node
            yield name, reached.kind if isinstance(reached, Other) else reached

    def identity(self, folder: Folder) -> int:
        return id(folder)

    def _follow(self, link: Symlink, folder: Folder) -> Folder | Place | Other | str:
        """What a link that lies in `folder` leads to; or why it leads to nothing."""
        return self._walk(link.target, folder) if link.target else NOWHERE

    def _walk(self, path: str, folder: Folder) -> Folder | Place | Other | str:
        if path.startswith("/"):
            return OUTSIDE
        node: Node = folder
        ahead, links = path.split("/")[::-1], 1
        while ahead:
            part = ahead.pop()
            if not isinstance(node, Folder):
                return NOWHERE  # "a/b" where a is a file
            if part in ("", "."):
                continue
            below = node.parent if part == ".." else node.children.get(part)
            if below is None:
                return OUTSIDE if part == ".." else NOWHERE
            if not isinstance(below, Symlink):
                node = below
                continue
            links += 1
            if links > MOST_LINKS:
                return CIRCLE
            if below.target.startswith("/"):
                return OUTSIDE
            ahead += below.target.split("/")[::-1]
        assert not isinstance(node, Symlink)
        return node

    def _find(self, name: str) -> Node | None:
        """What has this name, a link itself and not what it leads to."""
        parts = self._parts(name)
        folder = self._walk("/".join(parts[:-1]), self.root)
        return folder.children.get(parts[-1]) if parts and isinstance(folder, Folder) else None

    def _share(self, member: ArchiveMember) -> bool:
        """A hard link: one more name for what is there. Whether its target is there."""
        node = self._find(member.target)
        if node is None or isinstance(node, Folder):
            return False
        self._put(member.name, node)
        return True

    def _share_late(self, early: list[ArchiveMember]) -> None:
        """Links whose targets came after them: `tar -x` cannot make them, but what they mean is clear."""
        left = [member for member in reversed(early) if self._find(member.name) is None]
        for _ in range(PASSES):
            before, left = len(left), [member for member in left if not self._share(member)]
            if len(left) in (0, before):
                break
        for member in left:
            self._put(member.name, Other(NOWHERE))

    def _put(self, name: str, node: Node) -> None:
        parts = self._parts(name)
        if not parts:
            if not isinstance(node, Folder):  # "./" is the root itself
                raise self._refused(name, "is no name for a file")
            return
        folder = self.root
        for part in parts[:-1]:
            folder = self._below(folder, part, name)
        there = folder.children.get(parts[-1])
        if isinstance(node, Folder):
            if isinstance(there, Folder):
                return
            node.parent = folder
        elif isinstance(there, Folder) and there.children:
            raise self._refused(name, "is a folder, and a file too")
        folder.children[parts[-1]] = node

    def _below(self, folder: Folder, part: str, name: str) -> Folder:
        """The folder of this name, made if there is nothing. A link to a folder is followed, as `tar -x` does."""
        below = folder.children.get(part)
        if below is None:
            below = folder.children[part] = Folder(folder)
        reached = self._follow(below, folder) if isinstance(below, Symlink) else below
        if not isinstance(reached, Folder):
            raise self._refused(name, f"lies below {printable(part)}, which is no folder")
        return reached

    def _parts(self, name: str) -> list[str]:
        parts = [part for part in name.split("/") if part not in ("", ".")]
        if ".." in parts:
            raise self._refused(name, "leaves its folder")
        if len(name) > LONGEST_PATH:
            raise self._refused(f"{name[:60]}…", f"is a path of {len(name)} characters")
        return parts

    def _refused(self, name: str, why: str) -> FormatError:
        return FormatError(f"{self.path} holds {name!a}, which {why}; pack it again")


def _node(member: ArchiveMember) -> Node:
    if member.kind == FILE:
        return Place(member.offset, member.length)
    if member.kind == FOLDER:
        return Folder(None)
    return Symlink(member.target) if member.kind == LINK else Other(member.kind)
