"""The image files of a folder, or of a plain tar or zip that holds the same: their names, and any one's content.

A FileReader also tells what the files hold, and whether they may have changed.
"""

from __future__ import annotations

import codecs
import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from tqdm import tqdm

from pipelines.archives import (
    LARGEST_FILE,
    NOWHERE,
    OUTSIDE,
    TRAILING,
    ArchiveMember,
    FolderFiles,
    LeftOut,
    is_utf8,
    printable,
    read_content,
    read_file,
    readable,
)
from pipelines.archives.tar import TarStream
from pipelines.archives.tree import ArchiveTree, DiskTree, walk_tree
from pipelines.archives.zip import is_zip, unpack, walk_zip
from pipelines.sources.content import Read, content_sha256, file_stats, stamp_of, stamped
from pipelines.sources.decode import SUFFIXES
from pipelines.sources.split_folders import may_tell_splits, split_of
from shards.errors import FormatError, reason_of

NOTES = "_annotations.txt"  # end of the one kind of text file that says what is in an image
MOST_TABLES = 100  # kept by name
TEXTS = (NOTES, "wnids.txt", "words.txt")


HIDDEN = re.compile(
    r"(^|/)(\.|__MACOSX/|@eaDir/|[@#]recycle/|\$RECYCLE\.BIN/|System Volume Information/|lost\+found/)", re.IGNORECASE
)  # also what macOS, Windows and network drives put beside people's files: thumbnails, deleted pictures
MISSING = (NOWHERE, OUTSIDE)  # images whose content is not to be had: they are bad, not other files


def holds_parquet(path: Path) -> bool:
    """Whether a source is a Parquet file, or a folder of some without an image, or a link to a folder, beside them."""
    if path.is_file():
        return path.suffix.lower() == ".parquet"
    found = False
    for place, folders, names in os.walk(path):
        linked = any(os.path.islink(f"{place}/{name}") for name in folders)
        if linked or any(name.lower().endswith(SUFFIXES) for name in names):
            return False
        found = found or any(name.lower().endswith(".parquet") for name in names)
    return found


@dataclass(frozen=True, slots=True)
class FileEntry:
    """`name`: path below the root, with "/". `offset` and `length`: its bytes in a tar, 0 in a folder; in a zip
    where its header begins, and the bytes of its packed content.

    A length below 0 is that of a sparse file in a tar, −1 − bytes, whose headers begin at `offset`. An offset below 0
    is that of a file that is not there: MISSING[−1 − offset] says why.
    """

    name: str
    offset: int = 0
    length: int = 0


def stored_size(length: int) -> int:
    """Bytes in an archive of a FileEntry's `length`."""
    return length if length >= 0 else -1 - length


def on_disk(name: str) -> str:
    """As this locale spells a path whose bytes on the disk are `name` in UTF-8."""
    return name if name.isascii() else os.fsdecode(name.encode("utf-8", "surrogateescape"))


@dataclass(frozen=True)
class FileReader:
    """Reads files of a folder, or of a plain tar or a zip by their place in it. Small, for it travels to workers."""

    path: Path
    root: str = ""
    zipped: bool = False

    def read(self, name: str, offset: int, length: int) -> bytes:
        """Raises ValueError if the file is empty, larger than 32 MiB, unreadable or cut short.

        OSError where the machine is to blame: too many open files, a disk that fails.
        """
        if offset < 0:
            raise ValueError(MISSING[-1 - offset])
        if self.is_folder:
            return self._of_folder(name)
        if not 0 < stored_size(length) <= LARGEST_FILE:
            return read_content(b"")  # which says so
        if self.zipped:
            return read_content(unpack(self.path, offset, length, LARGEST_FILE))
        return self._sparse(offset) if length < 0 else self._bytes(offset, length)

    @cached_property
    def is_folder(self) -> bool:
        return self.path.is_dir()

    def path_of(self, name: str) -> str:
        """Where a file of a folder is."""
        return f"{self.path}/{on_disk(f'{self.root}{name}')}"

    def files(self, names: Iterable[str]) -> FolderFiles:
        """Where files of a folder are."""
        return FolderFiles(str(self.path), [on_disk(f"{self.root}{name}") for name in names])

    def content_sha256(
        self, names: Sequence[Any], lengths: Iterable[int], read: Read, stamp: hashlib._Hash | None = None
    ) -> str:
        """Over names, sizes and a sample of the bytes; in an archive the sizes are those of the stored members.

        stamp: told of a folder's files as they are looked at, so that its hexdigest() is then their stamp
        """
        if self.is_folder:
            stats = file_stats(map(self.path_of, map(str, names)))
            sizes: Iterable[int] = (size for size, _, _ in (stamped(stats, stamp) if stamp else stats))
        else:
            sizes = map(stored_size, lengths)
        named = self._of_folder if self.is_folder else None
        return content_sha256(zip(map(str, names), sizes, strict=True), read, named)

    def stamp(self, names: Iterable[str]) -> str:
        """Differs whenever one of these files may have been written to."""
        return stamp_of(file_stats(map(self.path_of, names) if self.is_folder else [self.path]))

    def _of_folder(self, name: str) -> bytes:
        return read_file(self.path_of(name))

    def _bytes(self, offset: int, length: int) -> bytes:
        with readable(), self.path.open("rb", buffering=0) as file:
            file.seek(offset)
            data = file.read(length)
        if len(data) != length:
            raise ValueError("cut short: the archive ends inside it")
        return data

    def _sparse(self, offset: int) -> bytes:
        try:
            with readable(), TarStream(self.path, seek=True, start=offset) as stream:
                next(iter(stream))
                return stream.read()
        except (FormatError, StopIteration) as error:
            raise ValueError(f"a damaged sparse file ({reason_of(error)})") from error


@dataclass(frozen=True)
class FileList:
    """Images in ascending order of name. `notes` are texts that say what is in them; `others` counts what else is.

    `barren`: folders that hold no image at any depth; `beside`: such as lie beside the lone folder, or one around it.
    """

    reader: FileReader
    images: list[FileEntry]
    notes: list[FileEntry] = field(default_factory=list)
    others: LeftOut = field(default_factory=LeftOut)
    barren: list[str] = field(default_factory=list)
    beside: list[str] = field(default_factory=list)

    def read_note(self, note: FileEntry, where: str, advice: str) -> bytes:
        """Without a byte order mark. FormatError, with `where` and `advice` in it: the note is empty or unreadable."""
        try:
            return self.reader.read(note.name, note.offset, note.length).removeprefix(codecs.BOM_UTF8)
        except ValueError as error:
            raise FormatError(f"{where}: {error}; {advice}") from error


def list_files(path: Path, texts: tuple[str, ...] = TEXTS) -> FileList:
    """What `path` holds. A lone folder at the top is passed through, so that names begin below it.

    texts: ends of the names of other files that say what is in the images; they count for what is a lone folder.

    Hidden files and what has no image's suffix are left out. Raises FormatError if no image is there, for a tar that is
    gzipped, cut or damaged, and for names that are not UTF-8 or leave the folder.
    """
    others = LeftOut()
    zipped = path.is_file() and is_zip(path)
    folders: list[str] = []
    images, notes = _sorted_out(path, zipped, texts, others, folders)
    if not images:
        beside = f" ({others})" if others.total else ""
        raise FormatError(
            f"{path} holds no {', '.join(SUFFIXES)} file{beside}; give the folder (or plain .tar or .zip) of them"
        )
    root = lone_root([entry.name for entry in (*images, *notes)])
    barren = _barren(folders, images)
    below = [name[len(root) :] for name in barren if name.startswith(root)]
    beside = [name for name in barren if not name.startswith(root) and root.startswith(name[: name.rfind("/") + 1])]
    return FileList(FileReader(path, root, zipped), _below(images, root), _below(notes, root), others, below, beside)


def _sorted_out(
    path: Path, zipped: bool, texts: tuple[str, ...], others: LeftOut, folders: list[str]
) -> tuple[list[FileEntry], list[FileEntry]]:
    """(images, notes)"""
    images, notes = [], []
    tree = DiskTree(path) if path.is_dir() else ArchiveTree(path, archive_members(path, zipped, others))
    for name, found in tqdm(walk_tree(tree, path, folders), desc="listing", unit="file", disable=None, leave=False):
        is_image = name.lower().endswith(SUFFIXES)
        if HIDDEN.search(name):
            others.hidden += 1
        elif isinstance(found, str):
            if not is_image or found not in MISSING:
                others.add(found, name)
                continue
            images.append(FileEntry(_checked(name, path), -1 - MISSING.index(found)))
        elif is_image or name.endswith(texts):
            (images if is_image else notes).append(FileEntry(_checked(name, path), found.offset, found.length))
        else:
            others.add_other(name)
            if len(others.tables) < MOST_TABLES and may_tell_splits(name):
                others.tables.append(name)
    return images, notes


def archive_members(path: Path, zipped: bool, others: LeftOut) -> Iterator[ArchiveMember]:
    if not path.is_file():
        there = "is neither a file nor a folder" if path.exists() else "is not there"
        raise FormatError(f"{path} {there}; give a folder, plain .tar or .zip of images")
    if zipped:
        guessed: list[str] = []
        yield from walk_zip(path, guessed)
        if guessed:
            others.notes.append(
                f"names not in UTF-8 and read in code page 437: {len(guessed)}, e.g. {printable(guessed[0])}"
            )
        return
    with TarStream(path, seek=True) as stream:
        yield from stream
    if stream.trailing:
        others.notes.append(TRAILING)


def _barren(folders: list[str], images: list[FileEntry]) -> list[str]:
    holding: set[str] = set()
    for entry in images:
        folder = entry.name.rpartition("/")[0]
        while folder and folder not in holding:
            holding.add(folder)
            folder = folder.rpartition("/")[0]
    return sorted(name for name in folders if not (name in holding or HIDDEN.search(f"{name}/")))


def _checked(name: str, where: Path) -> str:
    if not is_utf8(name):
        raise FormatError(f"{where} holds a file whose name is not UTF-8, {name!a}; rename it")
    return name


def lone_root(names: list[str]) -> str:
    """ "a/b/" if every name begins with it; "" mostly. A folder that is a split is no mere wrapping."""
    first, last = min(names).split("/")[:-1], max(names).split("/")[:-1]
    shared = []
    for left, right in zip(first, last, strict=False):
        if left != right or split_of(left):
            break
        shared.append(left)
    return "".join(f"{part}/" for part in shared)


def _below(entries: list[FileEntry], root: str) -> list[FileEntry]:
    if root:
        entries = [FileEntry(entry.name[len(root) :], entry.offset, entry.length) for entry in entries]
    return sorted(entries, key=lambda entry: entry.name)


def content_of(reader: FileReader, entries: Sequence[FileEntry], stamp: hashlib._Hash | None = None) -> str:
    """FileReader.content_sha256 of entries."""

    def read(position: int, name: str) -> bytes:
        entry = entries[position]
        return reader.read(name, entry.offset, entry.length)

    return reader.content_sha256([entry.name for entry in entries], (entry.length for entry in entries), read, stamp)
