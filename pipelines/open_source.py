"""Opening a folder tree or a tar of objects."""

from __future__ import annotations

from pathlib import Path

from pipelines.sources import Source
from pipelines.tar_source import TarSource
from pipelines.tree_source import TreeSource
from shards.errors import FormatError


def open_source(path: Path) -> Source:
    """TreeSource for a folder, TarSource for a file. Raises FormatError if there is neither."""
    if path.is_dir():
        return TreeSource(path)
    if path.is_file():
        return TarSource(path)
    raise FormatError(f"{path} is not there; give the unpacked tree or its .tar or .tar.gz")
