"""The image files of a folder, or of a plain tar or zip that holds the same: their names, and any one's content."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from pipelines.images.decode import SUFFIXES
from pipelines.images.split_folders import split_of
from pipelines.images.zip_entries import is_zip, unpack, walk_zip
from pipelines.sources import LARGEST_FILE, read_content
from pipelines.tar_stream import TarStream
from shards.environment import pass_environment_on
from shards.errors import FormatError

log = logging.getLogger(__name__)

DEEPEST = 16  # folders inside each other
NOTES = "_annotations.txt"  # end of the one kind of text file that says what is in an image
SOLUTION, TRUTH, SYNSETS = "LOC_val_solution.csv", "ILSVRC2012_validation_ground_truth.txt", "meta.mat"  # ImageNet's
TEXTS = (NOTES, "wnids.txt", "words.txt", SOLUTION, TRUTH, SYNSETS)


@dataclass(frozen=True)
class FileEntry:
    """`name`: path below the root, with "/". `offset` and `length`: its bytes in a tar, 0 in a folder; in a zip
    where its header begins, and the bytes of its packed content."""

    name: str
    offset: int = 0
    length: int = 0


@dataclass(frozen=True)
class FileReader:
    """Reads files of a folder, or of a plain tar or a zip by their place in it. Small, for it travels to workers."""

    path: Path
    root: str = ""
    zipped: bool = False

    def read(self, name: str, offset: int, length: int) -> bytes:
        """Raises ValueError if the file is empty, larger than 32 MiB, unreadable or cut short."""
        if self.path.is_dir():
            return read_content(self.path / self.root / name)
        if not 0 < length <= LARGEST_FILE:
            return read_content(b"")  # which says so
        try:
            if self.zipped:
                return read_content(unpack(self.path, offset, length, LARGEST_FILE))
            with self.path.open("rb", buffering=0) as file:
                file.seek(offset)
                data = file.read(length)
        except OSError as error:
            pass_environment_on(error)
            raise ValueError(f"unreadable ({error.strerror})") from error
        if len(data) != length:
            raise ValueError("cut short: the archive ends inside it")
        return data


@dataclass(frozen=True)
class FileList:
    """Images in ascending order of name. `notes` are texts that say what is in them; `left_out` counts all others."""

    reader: FileReader
    images: list[FileEntry]
    notes: list[FileEntry] = field(default_factory=list)
    left_out: int = 0


def list_files(path: Path) -> FileList:
    """What `path` holds. A lone folder at the top is passed through, so that names begin below it.

    Hidden files and what has no image's suffix are left out. Raises FormatError if no image is there, for a tar that is
    gzipped, cut or damaged, and for names that are not UTF-8 or leave the folder.
    """
    images, notes, left_out = [], [], 0
    for entry in tqdm(_walk(path), desc="listing", unit="file", disable=None, leave=False):
        if _hidden(entry.name):
            left_out += 1
        elif entry.name.lower().endswith(SUFFIXES):
            images.append(entry)
        elif entry.name.endswith(TEXTS):
            notes.append(entry)
        else:
            left_out += 1
    if not images:
        raise FormatError(
            f"{path} holds no {', '.join(SUFFIXES)} file; give the folder (or plain .tar or .zip) of them"
        )
    if left_out:
        log.info("%d files of %s are hidden or no images, and are left out", left_out, path)
    root = _lone_root([entry.name for entry in (*images, *notes)])
    reader = FileReader(path, root, path.is_file() and is_zip(path))
    return FileList(reader, _below(images, root), _below(notes, root), left_out)


def _walk(path: Path) -> Iterable[FileEntry]:
    if path.is_dir():
        return _walk_folder(path, "", (os.path.realpath(path),))
    if not path.is_file():
        raise FormatError(f"{path} is not there; give a folder, plain .tar or .zip of images")
    return _walk_archive(path)


def _walk_folder(folder: Path, prefix: str, above: tuple[str, ...]) -> Iterator[FileEntry]:
    """Links are followed, except to a folder that holds them."""
    try:
        with os.scandir(folder) as found:
            entries = sorted(found, key=lambda entry: entry.name)
    except OSError as error:
        pass_environment_on(error)
        raise FormatError(f"{folder} cannot be listed: {error.strerror}") from error
    for entry in entries:
        name = _checked(prefix + entry.name, folder)
        if not entry.is_dir():
            yield FileEntry(name)
        elif (real := os.path.realpath(entry.path)) not in above and len(above) < DEEPEST:
            yield from _walk_folder(Path(entry.path), f"{name}/", (*above, real))


def _walk_archive(path: Path) -> Iterator[FileEntry]:
    for name, offset, length in walk_zip(path) if is_zip(path) else _walk_tar(path):
        parts = [part for part in name.split("/") if part not in ("", ".")]
        if ".." in parts or not parts:
            raise FormatError(f"{path} holds {name!r}, which leaves its folder; pack it again")
        yield FileEntry(_checked("/".join(parts), path), offset, length)


def _walk_tar(path: Path) -> Iterator[tuple[str, int, int]]:
    with TarStream(path, seek=True) as stream:
        for name, length in stream:
            yield name, stream.offset(), length


def _checked(name: str, where: Path) -> str:
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise FormatError(f"{where} holds a file whose name is not UTF-8, {name!a}; rename it") from error
    return name


def _hidden(name: str) -> bool:
    return any(part.startswith(".") for part in name.split("/"))


def _lone_root(names: list[str]) -> str:
    """ "a/b/" if every name begins with it; "" mostly. A folder that is a split is no mere wrapping."""
    first, last = min(names).split("/")[:-1], max(names).split("/")[:-1]
    shared = []
    for left, right in zip(first, last, strict=False):
        if left != right or split_of(left):
            break
        shared.append(left)
    return "".join(f"{part}/" for part in shared)


def _below(entries: list[FileEntry], root: str) -> list[FileEntry]:
    """Of a name that an archive holds twice, the later content counts, as when it is unpacked."""
    last = {entry.name: entry for entry in entries}
    return [FileEntry(name[len(root) :], last[name].offset, last[name].length) for name in sorted(last)]
