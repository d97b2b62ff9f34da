"""Files that are either the old one or the new one, never half of it."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from shards.errors import DiskFullError, FailureError

TEMPORARY = ".tmp-"


def write_atomic(path: Path, data: bytes) -> None:
    """Write under a temporary name, sync, rename, sync the folder. DiskFullError leaves the old file as it was."""
    temporary = path.with_name(TEMPORARY + path.name)
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFullError(f"no space left for {path}; free some and run the same command again") from None
        raise FailureError(f"cannot write {path}: {error.strerror}") from None


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
