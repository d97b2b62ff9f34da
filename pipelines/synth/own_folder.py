"""The folder of a synthetic set: ours if it has `synth.json`, which says what it is made from and if it is finished.

Never emptied because it was there: a folder that holds anything else is refused.

Whose folder is it? A tree of ours carries `synth.json`; while one is written there is also `.synth/`.

synth.json        what the tree is made from, its classes, and whether it is finished
.synth/lock       held by the build under way            .synth/tmp/   the object that is being written
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.synth.families import class_names
from pipelines.synth.objects import synset_id
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


FORMAT = "3die-synth tree"
MOST_FAMILIES = 10_000  # far more than there are
LISTS = tuple(f"{split}_{kind}.npy" for split in ("train", "val") for kind in ("images", "labels"))
_OBJECT_FILE = re.compile(r"(image_\d{1,4}\.jpg)|(latent_\d{1,4}\.npy)")


@dataclass(frozen=True)
class TreeFolder:
    root: Path

    @property
    def marker(self) -> Path:
        return self.root / "synth.json"

    @property
    def work(self) -> Path:
        return self.root / ".synth"

    @property
    def tmp(self) -> Path:
        return self.work / "tmp"

    def claim(self, identity: dict[str, Any], overwrite: bool) -> FolderLock | None:
        """A lock to build or resume under; None if the very tree is there and finished.

        UsageError, with nothing written: the folder is not ours, holds another tree (and `overwrite` is not given),
        or another build is writing it.
        """
        found = self._check(identity, overwrite)
        if found and found["finished"] and not overwrite:
            return None
        try:
            self.tmp.mkdir(parents=True, exist_ok=True)
        except (PermissionError, NotADirectoryError, FileExistsError) as error:
            raise UsageError(f"cannot write to {self.root}: {error.strerror}") from error
        lock = FolderLock(self.work / "lock", f"another build is writing {self.root}")
        try:
            found = self._check(identity, overwrite)  # it may have changed while we waited for the lock
            if found and (overwrite or found["config"] != identity):
                self._remove(found["config"])
            shutil.rmtree(self.tmp)
            self.tmp.mkdir()
            self.mark(identity, finished=False)
        except BaseException:
            lock.release()
            raise
        return lock

    def mark(self, identity: dict[str, Any], finished: bool) -> None:
        names = class_names(identity["families"])
        classes = {synset_id(label): name for label, name in enumerate(names)}
        record = {"format": FORMAT, "finished": finished, "config": identity, "classes": classes}
        write_atomic(self.marker, json.dumps(record, indent=1).encode(), self.tmp)

    def release(self, lock: FolderLock, finished: bool) -> None:
        """Gives the folder back; a finished tree keeps nothing but its data and its marker."""
        shutil.rmtree(self.tmp, ignore_errors=True)
        lock.release()
        if finished:
            shutil.rmtree(self.work, ignore_errors=True)

    def _check(self, identity: dict[str, Any], overwrite: bool) -> dict[str, Any] | None:
        """The marker's record if there is one that we may go on with, None for a new or empty folder."""
        if not self.root.exists():
            return None
        if not self.root.is_dir():
            raise UsageError(f"{self.root} is not a folder; choose another --out")
        if not self.marker.is_file():
            if all(path == self.work for path in self.root.iterdir()):
                return None
            raise UsageError(f"{self.root} is not empty and was not made by this command; choose another --out")
        record = self._read_marker()
        if record["config"] != identity and not overwrite:
            raise UsageError(
                f"{self.root} holds another tree ({_differences(record['config'], identity)}); "
                "choose another --out, or give --overwrite to replace it"
            )
        return record

    def _read_marker(self) -> dict[str, Any]:
        try:
            record = strict_json(self.marker.read_bytes())
            good = record["format"] == FORMAT and "finished" in record and _is_ours(record["config"])
        except (ValueError, KeyError, TypeError):
            good = False
        if not good:
            raise UsageError(f"{self.marker} was not written by this command; choose another --out")
        return record

    def _remove(self, config: dict[str, Any]) -> None:
        """Removes the tree that `config` describes: lists and object folders by their names, nothing else."""
        ours = re.compile(f"{int(config.get('seed', 0)):016x}[0-9a-f]{{16}}")
        for name in LISTS:
            (self.root / name).unlink(missing_ok=True)
        for label in range(int(config.get("families", 0))):
            synset = self.root / synset_id(label)
            if synset.is_dir() and not synset.is_symlink():
                for folder in synset.iterdir():
                    if ours.fullmatch(folder.name) and folder.is_dir() and not folder.is_symlink():
                        _remove_files(folder)
                _remove_if_empty(synset)


def _is_ours(config: Any) -> bool:
    """Whether a tree can be found again by what its marker says of it."""
    if not isinstance(config, dict):
        return False
    seed, families = config.get("seed", 0), config.get("families", 0)
    return type(seed) is int is type(families) and 0 <= seed < 2**64 and 0 <= families <= MOST_FAMILIES


def _remove_files(folder: Path) -> None:
    for path in folder.iterdir():
        if _OBJECT_FILE.fullmatch(path.name):
            path.unlink()
    _remove_if_empty(folder)


def _remove_if_empty(folder: Path) -> None:
    if not any(folder.iterdir()):
        folder.rmdir()


def _differences(old: dict[str, Any], new: dict[str, Any]) -> str:
    """ "size: 64 there, 128 here; …" for every value that differs."""
    names = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    return "; ".join(f"{name}: {old.get(name)} there, {new.get(name)} here" for name in names)
