"""OwnFolder: the output folder of a synthetic set. It is ours if it has `synth.json`; nothing else is ever emptied.

synth.json   what the set is made from, and whether it is finished
.synth/      while the set is written: `lock`, held by the build, and `tmp/`, files before they are renamed
"""

from __future__ import annotations

import contextlib
import json
import logging
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2

from pipelines.build.pool import sigterm_as_interrupt
from shards.building.claim import differing_values, instead
from shards.errors import UsageError
from shards.json_fields import strict_json
from shards.machine.environment import system_errors_as
from shards.machine.files import disk_full_named, write_atomic
from shards.machine.lock import FolderLock
from shards.stores.store import require_no_address

log = logging.getLogger(__name__)

MARKER, WORK = "synth.json", ".synth"


@dataclass(frozen=True)
class OwnFolder:
    """The folder `root` of one set.

    format    tells the makers apart      identity  what decides the content, as JSON values
    files     gives the names, below `root`, of all that the finished set has; none of them is empty
    remove    deletes what an earlier run with the given identity wrote, by name, and nothing else. ValueError,
              TypeError or KeyError: no run has this identity
    notes     further entries of synth.json
    """

    root: Path
    format: str
    identity: dict[str, Any]
    files: Callable[[], Iterable[str]]
    remove: Callable[[Path, dict[str, Any]], None]
    notes: dict[str, Any] = field(default_factory=dict)

    @property
    def tmp(self) -> Path:
        """Where files are written before they are renamed."""
        return self.root / WORK / "tmp"

    def is_finished(self, overwrite: bool) -> bool:
        """Whether this very set is there, finished, and none of its files is lost.

        UsageError: the folder holds anything else, or is an address.
        """
        require_no_address(self.root, "--out")
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
            differ = differing_values(record["config"], self.identity)
            raise UsageError(f"{self.root} holds another set ({differ}): {instead(self.root)}")
        return record["finished"] is True and not overwrite and all(is_there(self.root / name) for name in self.files())

    @contextlib.contextmanager
    def claimed(self, overwrite: bool) -> Iterator[None]:
        """Holds the folder while it is filled, and marks it finished at the end. UsageError: in use, not writable.

        With `overwrite`, what an earlier run wrote is removed first.
        """
        with system_errors_as(lambda why: UsageError(f"cannot write to {self.root}: {why}; choose another --out")):
            self.tmp.mkdir(parents=True, exist_ok=True)
        lock = FolderLock(self.root / WORK / "lock", f"another build is writing {self.root}")
        try:
            self.is_finished(overwrite)  # the folder may have changed while we waited for the lock
            shutil.rmtree(self.tmp)  # a killed build leaves half-written files there
            self.tmp.mkdir()
            if overwrite and (self.root / MARKER).exists():
                self._remove_earlier()
            self._mark(self.identity, finished=False)
            yield
            self._mark(self.identity, finished=True)
        finally:
            shutil.rmtree(self.tmp, ignore_errors=True)
            lock.release()
            with contextlib.suppress(OSError):  # another build may hold it already
                (self.root / WORK).rmdir()

    def _remove_earlier(self) -> None:
        """A kill in between leaves the earlier run's folder, marked unfinished."""
        earlier = self._read()["config"]
        self._mark(earlier, finished=False)
        try:
            self.remove(self.root, earlier)
        except (ValueError, TypeError, KeyError):
            raise self._not_ours() from None

    def _read(self) -> dict[str, Any]:
        with contextlib.suppress(ValueError, TypeError, KeyError):
            record = strict_json((self.root / MARKER).read_bytes())
            if record["format"] == self.format and isinstance(record["config"], dict) and "finished" in record:
                return record
        raise self._not_ours()

    def _not_ours(self) -> UsageError:
        return UsageError(f"{self.root / MARKER} was not written by this command; choose another --out")

    def _mark(self, config: dict[str, Any], finished: bool) -> None:
        record = {"format": self.format, "finished": finished, "config": config, **self.notes}
        write_atomic(self.root / MARKER, json.dumps(record, indent=1).encode(), self.tmp)


def is_there(path: Path) -> bool:
    """Whether a file is whole. Kills leave none that is not under its final name; a power cut may leave empty ones."""
    try:
        return path.stat().st_size > 0
    except OSError:
        return False


@contextlib.contextmanager
def filled(folder: OwnFolder, overwrite: bool) -> Iterator[bool]:
    """Whether there is anything to write; what is written then stays where the work is stopped (Ctrl-C, SIGTERM)."""
    if folder.is_finished(overwrite):
        log.info("%s is finished already", folder.root)
        yield False
        return
    advice = "finished files are kept; free some and run it again"
    with disk_full_named(folder.root, lambda: advice), folder.claimed(overwrite), sigterm_as_interrupt():
        yield True


@contextlib.contextmanager
def one_opencv_thread() -> Iterator[None]:
    """More of them cost more than they give on small pictures."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before)


def remove_files(*names: str) -> Callable[[Path, dict[str, Any]], None]:
    """For sets whose files have the same names whatever they are made from: paths below the folder."""

    def remove(root: Path, _: dict[str, Any]) -> None:
        for name in names:
            (root / name).unlink(missing_ok=True)

    return remove
