"""The folder of a synthetic set: ours if it has `synth.json`, which says what it is made from and if it is finished.

Never emptied because it was there: a folder that holds anything else is refused.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shards.environment import pass_environment_on
from shards.errors import UsageError
from shards.files import write_atomic
from shards.json_fields import strict_json
from shards.lock import FolderLock

MARKER, WORK = "synth.json", ".synth"


@dataclass(frozen=True)
class OwnFolder:
    """`format` tells the makers apart; `identity` is what settles the content; `files` are paths below `root`."""

    root: Path
    format: str
    identity: dict[str, Any]
    files: Sequence[str]

    @property
    def work(self) -> Path:
        """Where files are written before they are renamed."""
        return self.root / WORK

    def look(self, overwrite: bool) -> bool:
        """Whether the very set is there and finished. UsageError: the folder holds anything else."""
        if not self.root.exists():
            return False
        if not self.root.is_dir():
            raise UsageError(f"{self.root} is not a folder; choose another --out")
        if not (self.root / MARKER).is_file():
            if any(path.name != WORK for path in self.root.iterdir()):
                raise UsageError(f"{self.root} is not empty and was not made by this command; choose another --out")
            return False
        record = self._read()
        if record["config"] != self.identity and not overwrite:
            raise UsageError(
                f"{self.root} holds other pictures ({record['config']}); choose another --out, or give --overwrite"
            )
        return record["finished"] is True and not overwrite

    @contextlib.contextmanager
    def claimed(self, overwrite: bool) -> Iterator[None]:
        """Holds the folder while it is filled, and marks it finished at the end. UsageError: in use, not writable.

        With `overwrite` what an earlier run wrote is removed first, by name.
        """
        try:
            self.work.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            pass_environment_on(error)
            raise UsageError(f"cannot write to {self.root}: {error.strerror}") from error
        lock = FolderLock(self.work / "lock", f"another build is writing {self.root}")
        try:
            self.look(overwrite)  # it may have changed while we waited for the lock
            if overwrite and (self.root / MARKER).exists():
                self._clear()
            self._mark(self.identity, finished=False)
            yield
            self._mark(self.identity, finished=True)
        finally:
            for name in (*self.files, MARKER):
                (self.work / Path(name).name).unlink(missing_ok=True)
            lock.release()
            with contextlib.suppress(OSError):
                self.work.rmdir()

    def _clear(self) -> None:
        """Killed meanwhile, the folder is the earlier run's still, and unfinished."""
        self._mark(self._read()["config"], finished=False)
        for name in self.files:
            (self.root / name).unlink(missing_ok=True)

    def _read(self) -> dict[str, Any]:
        with contextlib.suppress(ValueError, TypeError, KeyError):
            record = strict_json((self.root / MARKER).read_bytes())
            if record["format"] == self.format and isinstance(record["config"], dict) and "finished" in record:
                return record
        raise UsageError(f"{self.root / MARKER} was not written by this command; choose another --out")

    def _mark(self, config: dict[str, Any], finished: bool) -> None:
        record = {"format": self.format, "finished": finished, "config": config}
        write_atomic(self.root / MARKER, json.dumps(record, indent=1).encode(), self.work)
