"""Files of a run directory: the old one or the new one, never half of it; what goes wrong is said in one line."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from shards import files
from shards.environment import advice_for
from shards.errors import FailureError
from shards.files import TEMPORARY, disk_full_named

__all__ = ["TEMPORARY", "named_failures", "write_atomic"]


def write_atomic(path: Path, data: bytes) -> None:
    """Replace `path` at once. DiskFullError and FailureError leave the old file as it was."""
    with named_failures(path):
        files.write_atomic(path, data)


@contextlib.contextmanager
def named_failures(path: Path) -> Iterator[None]:
    """What the system says of writing `path`, as DiskFullError or FailureError."""
    try:
        with disk_full_named(path.parent, lambda: "free some and run the same command again"):
            yield
    except OSError as error:
        reason = error.strerror or (os.strerror(error.errno) if error.errno else type(error).__name__)
        advice = advice_for(error.errno)
        raise FailureError(f"cannot write {path}: {reason}{advice and f'; {advice}'}") from None
