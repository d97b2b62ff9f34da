"""What has come so far of a file: NAME.part, and NAME.part.json, which says what it is a part of."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tqdm import tqdm

from pipelines.get.answer import Origin
from pipelines.get.published import PublishedFile
from shards.errors import FailureError, UsageError
from shards.files import sync_folder, write_atomic

PART, NOTE = ".part", ".part.json"
LARGEST_NOTE = 1 << 16


class PartFile:
    """NAME.part and the note beside it. UsageError: a file of that name is there that no earlier run of ours wrote."""

    def __init__(self, file: PublishedFile, final: Path) -> None:
        self.file, self.final = file, final
        self.path = final.with_name(final.name + PART)
        self.note = final.with_name(final.name + NOTE)
        self.origin = self._read_note()
        if self.path.is_symlink() or (self.path.exists() and (self.origin is None or not self.path.is_file())):
            raise UsageError(f"{self.path} is there and is not ours; move it away or choose another folder")
        if self.origin is not None and self.origin.url != file.url:
            self.begin(Origin(file.url, "", file.size))

    @property
    def size(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    def resumable(self) -> bool:
        """Whether what is there can be told from another version: by the server's validator, or by a checksum later."""
        return self.origin is not None and self.size > 0 and bool(self.origin.validator or self.file.digest)

    def begin(self, origin: Origin) -> None:
        """Forget what is there; from now on it is a part of `origin`."""
        self.path.unlink(missing_ok=True)
        write_atomic(self.note, json.dumps(asdict(origin)).encode())
        self.origin = origin

    def discard(self) -> None:
        self.path.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)

    def publish(self) -> None:
        """Under its name, if it is the published file; nothing that has appeared there meanwhile is replaced."""
        assert self.origin is not None
        found = digest_of(self.path, self.file.algorithm) if self.file.digest else ""
        if found != self.file.digest:
            size = self.size
            self.discard()
            raise FailureError(
                f"{self.origin.url} served {size:,} bytes with {self.file.algorithm} {found} instead of "
                f"{self.file.digest}; nothing was kept. Run the command again, or get it elsewhere (--from)"
            )
        _rename_to_free(self.path, self.final)
        self.note.unlink(missing_ok=True)
        sync_folder(self.final.parent)

    def _read_note(self) -> Origin | None:
        try:
            if self.note.stat().st_size > LARGEST_NOTE:
                return None
            record: Any = json.loads(self.note.read_bytes())
            origin = Origin(record["url"], record["validator"], record["total"])
        except (OSError, ValueError, KeyError, TypeError):
            return None
        known = isinstance(origin.url, str) and isinstance(origin.validator, str) and type(origin.total) is int
        return origin if known else None


def _rename_to_free(path: Path, final: Path) -> None:
    try:
        os.link(path, final)  # which, unlike a rename, replaces nothing
        path.unlink()
    except FileExistsError:
        raise UsageError(f"{final} has appeared meanwhile; move it away and run the same command again") from None
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK, errno.EACCES):
            raise
        if final.exists():
            raise UsageError(f"{final} has appeared meanwhile; move it away and run the same command again") from None
        path.rename(final)  # file systems without hard links


def is_right(file: PublishedFile, path: Path) -> bool | None:
    """Whether a file on disk is the published one; None: its size is, as far as it is known, and nothing else is."""
    if not path.is_file() or (file.size and path.stat().st_size != file.size):
        return False
    return digest_of(path, file.algorithm) == file.digest if file.digest else None


def digest_of(path: Path, algorithm: str) -> str:
    digest = hashlib.new(algorithm, usedforsecurity=False)
    size = path.stat().st_size
    with (
        path.open("rb", buffering=0) as file,
        tqdm(total=size, desc=algorithm, unit="B", unit_scale=True, disable=None, leave=False) as bar,
    ):
        while data := file.read(1 << 20):
            digest.update(data)
            bar.update(len(data))
    return digest.hexdigest()
