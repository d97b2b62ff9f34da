"""What reports are signed with, so that one replaces a report of before and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from shards.files import OwnFile, write_own
from shards.terminal import HANDLER

MAKER = "seqjepa report"
SIGN = f"made by {MAKER}"


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
    """Write all, or none where a path is refused. Errors as shards.files.write_own.

    UTF-8; a byte of a run's path that is none is spelled \\xff.
    """
    write_own([OwnFile(file.path, file.text.encode("utf-8", HANDLER), file.sign.encode(), MAKER) for file in files])
