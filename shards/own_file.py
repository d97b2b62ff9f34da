"""Files that a command writes by name: new ones, and those that it wrote before; anything else is left alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from shards.environment import pass_environment_on
from shards.errors import UsageError
from shards.files import disk_full_named, write_atomic

LOOKED_AT = 4096
"""Bytes of a file in which its sign has to be."""


@dataclass(frozen=True)
class OwnFile:
    """path: where; data: what; sign: what a file that it replaces has to hold; maker: whose sign that is."""

    path: Path
    data: bytes
    sign: bytes
    maker: str


def write_own(files: Sequence[OwnFile]) -> None:
    """Write all, or none where a path is refused: each whole or not at all.

    UsageError: a path is taken by something that we did not write, its folder is not there, or two are the same.
    """
    if len({file.path.resolve() for file in files}) < len(files):
        raise UsageError("two of the files to write are the same; give each a name of its own")
    for file in files:
        refuse_foreign(file.path, file.sign, file.maker)
    for file in files:
        with disk_full_named(file.path.parent, lambda: "free some and run the same command again"):
            write_atomic(file.path, file.data)


def refuse_foreign(path: Path, sign: bytes, maker: str) -> None:
    """UsageError unless `path` is free, in a folder that is there, or a plain file with `sign` in its beginning."""
    if not path.parent.is_dir():
        raise UsageError(f"{path.parent} is not a folder; make it, or choose another place for {path.name}")
    if path.is_symlink():
        raise UsageError(
            f"{path} is a link to {path.readlink()}, which is not replaced; remove it or give another name"
        )
    if path.is_dir():
        raise UsageError(f"{path} is a folder; give the name of a file")
    if not path.exists():
        return
    if not path.is_file() or sign not in _beginning(path):
        raise UsageError(f"{path} is there and was not made by {maker}; remove it or choose another name")


def _beginning(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(LOOKED_AT)
    except OSError as error:
        pass_environment_on(error)
        raise UsageError(f"cannot read {path}, which is there: {error.strerror}; choose another name") from error
