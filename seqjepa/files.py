"""Files of a run directory: the old one or the new one, never half of it; what goes wrong is said in one line."""

from __future__ import annotations

from pathlib import Path

from shards import files
from shards.environment import advice_for
from shards.errors import FailureError
from shards.files import TEMPORARY, disk_full_named

__all__ = ["TEMPORARY", "write_atomic"]


def write_atomic(path: Path, data: bytes) -> None:
    """Replace `path` at once. DiskFullError and FailureError leave the old file as it was."""
    try:
        with disk_full_named(path.parent, lambda: "free some and run the same command again"):
            files.write_atomic(path, data)
    except OSError as error:
        advice = advice_for(error.errno)
        raise FailureError(f"cannot write {path}: {error.strerror}{advice and f'; {advice}'}") from None
