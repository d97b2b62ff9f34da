"""Files that a report is written to: new ones, and reports of before; anything else is left alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from seqjepa.files import write_atomic
from shards.errors import UsageError

SIGN = "made by seqjepa report"
LOOKED_AT = 4096
"""Bytes of a file in which its sign has to be."""


def signed_html(text: str) -> str:
    """With the sign as a comment right after the document type."""
    first, _, rest = text.partition("\n")
    return f"{first}\n<!-- {SIGN} -->\n{rest}"


@dataclass(frozen=True)
class ReportFile:
    """path: where; text: what; sign: what a file that it replaces has to hold."""

    path: Path
    text: str
    sign: str = SIGN


def write_reports(files: Sequence[ReportFile]) -> None:
    """Write all, or none where a path is refused: each whole or not at all.

    UsageError: a path is taken by something that we did not write, its folder is not there, or two are the same.
    """
    if len({file.path.resolve() for file in files}) < len(files):
        raise UsageError("two of the files to write are the same; give each a name of its own")
    for file in files:
        _refuse_foreign(file.path, file.sign)
    for file in files:
        write_atomic(file.path, file.text.encode())


def _refuse_foreign(path: Path, sign: str) -> None:
    if not path.parent.is_dir():
        raise UsageError(f"{path.parent} is not a folder; make it, or choose another place for {path.name}")
    if not path.exists() and not path.is_symlink():
        return
    if not path.is_file() or sign.encode() not in _beginning(path):
        raise UsageError(f"{path} is there and was not {SIGN}; remove it or choose another name")


def _beginning(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(LOOKED_AT)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from None
