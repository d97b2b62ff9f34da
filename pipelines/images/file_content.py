"""What the files of a list hold, and whether they may have changed: the same questions for every source of files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from pipelines.content import content_sha256, file_stats, short_digest, stamp_of
from pipelines.images.file_list import FileEntry, FileReader, on_disk
from pipelines.images.source import ImageRecord


def content_of(reader: FileReader, entries: Sequence[FileEntry]) -> str:
    """A sha256 over names, sizes and a sample of the bytes; in an archive the sizes are those of the stored members."""
    if reader.path.is_dir():
        sizes: Iterable[int] = (size for size, _, _ in file_stats(_paths(reader, entries)))
    else:
        sizes = (entry.length if entry.length >= 0 else -1 - entry.length for entry in entries)

    def read(position: int, name: str) -> bytes:
        entry = entries[position]
        return reader.read(name, entry.offset, entry.length)

    return content_sha256(zip((entry.name for entry in entries), sizes, strict=True), read)


def stamp_of_files(reader: FileReader, entries: Sequence[FileEntry]) -> str:
    return stamp_of(file_stats(_paths(reader, entries) if reader.path.is_dir() else [str(reader.path)]))


def digest_of_file(reader: FileReader, record: ImageRecord) -> str:
    """short_digest of an image's bytes; of none, if they cannot be read."""
    try:
        return short_digest(reader.read(str(record.meta["file"]), record.position, record.length))
    except ValueError:
        return short_digest(b"")


def _paths(reader: FileReader, entries: Sequence[FileEntry]) -> Iterator[str]:
    return (f"{reader.path}/{on_disk(f'{reader.root}{entry.name}')}" for entry in entries)
