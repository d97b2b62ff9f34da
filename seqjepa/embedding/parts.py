"""What is embedded so far: OUT.parts/ beside the file that is to be, made, known and removed by us.

parts.json says what they are parts of. Each part appears whole, under its number; rows of a part and the batches in it
do not depend on where a command was stopped, so the joined file is the same as of one that was not.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from seqjepa.files import named_failures, write_file
from shards.errors import UsageError
from shards.machine.environment import pass_environment_on
from shards.machine.files import TEMPORARY, refuse_unfit_folder
from shards.machine.lock import FolderLock
from shards.pixels import npy_bytes, npy_header

KIND = "seqjepa-embedding-parts"
IDENTITY = "parts.json"
LOCK = f"{TEMPORARY}lock"
PATIENCE_SECONDS = 60.0
"""Tasks hold the whole folder one after the other, each for a moment when it begins and when it ends."""
OURS = re.compile(rf"[a-z_]+-\d+-\d{{6}}\.(npy|json)|{re.escape(IDENTITY)}|{re.escape(TEMPORARY)}.*|joined-.*")


@dataclass(frozen=True)
class Part:
    """A part to fill: its name, the number of its source, and which rows of that."""

    source: int
    name: str
    rows: range


class Parts:
    """The folder. `identity`: JSON values; parts of another one are refused.

    Held for this process alone; or, with `task`, for that one of several that fill parts of it at the same time.
    """

    def __init__(self, folder: Path, identity: dict[str, Any], overwrite: bool, task: int | None = None) -> None:
        self.folder = folder
        if folder.exists() and (not folder.is_dir() or folder.is_symlink()):
            raise UsageError(f"{folder} is there and is no folder of ours; remove it or choose another --out")
        if not folder.exists():
            refuse_unfit_folder(folder.parent, folder.name)
        self._lock = self._enter(None if task is None else PATIENCE_SECONDS)
        try:
            if task is None:
                self._refuse_tasks()
            self._begin(identity, overwrite)
            if task is not None:
                whole, self._lock = self._lock, self._lock_of(task)
                whole.release()
        except BaseException:
            self._lock.release()
            raise

    def _enter(self, patience: float | None) -> FolderLock:
        """The lock of all, in the folder, which is made if it is missing."""
        while True:
            with named_failures(self.folder):
                self.folder.mkdir(exist_ok=True)
            try:
                self._check_ours()
                return self._lock_of_all(patience)
            except (FileNotFoundError, UsageError) as error:  # another, which was at its end, has removed the folder
                if not isinstance(error.__cause__ or error, FileNotFoundError):
                    raise

    def take_all(self) -> bool:
        """At the end of a task: whether no other is at work, and the folder is held for this process alone from now on.

        Tasks that end at the same time ask one after the other, and the last one finds the others gone.
        """
        try:
            whole = self._lock_of_all(PATIENCE_SECONDS)
        except UsageError:  # one that joins the parts holds it for so long
            return False
        self._lock.release()
        self._lock = whole
        try:
            self._refuse_tasks(patience=0)
        except UsageError:
            whole.release()
            return False
        return True

    @classmethod
    def of_others(cls, folder: Path) -> Parts:
        """Of a folder that another process holds, for which parts are filled here."""
        parts = cls.__new__(cls)
        parts.folder = folder
        return parts

    def _begin(self, identity: dict[str, Any], overwrite: bool) -> None:
        folder, wanted = self.folder, {"kind": KIND, "format": 1, **identity}
        found = self._identity()
        if found is not None and found != wanted:
            if not overwrite:
                differ = ", ".join(key for key in wanted if found.get(key) != wanted[key])
                raise UsageError(
                    f"{folder} holds parts of another embedding (another {differ}); let that one finish, choose "
                    "another --out, or use --overwrite"
                )
            self._refuse_tasks()
            self._remove_files()
        if found != wanted:
            write_file(folder / IDENTITY, json.dumps(wanted).encode())

    def _lock_of_all(self, patience: float | None) -> FolderLock:
        return FolderLock(self.folder / LOCK, f"another `seqjepa embed` writes {self.folder}", patience)

    def _lock_of(self, task: int, patience: float | None = None) -> FolderLock:
        path = self.folder / f"{LOCK}-{task}"
        return FolderLock(path, f"task {task} of this `seqjepa embed` is at work in {self.folder}", patience)

    def _refuse_tasks(self, patience: float | None = None) -> None:
        """UsageError: a task is at work."""
        for path in self.folder.glob(f"{LOCK}-*"):
            number = path.name.removeprefix(f"{LOCK}-")
            if number.isdecimal():
                self._lock_of(int(number), patience).release()

    def filled(
        self, name: str, rows: int, width: int, make: Callable[[], tuple[np.ndarray, list[tuple[int, str]]]]
    ) -> bool:
        """Whether part `name`, float32 [rows, width], was there; else it is made. make: values, and broken rows."""
        if self.has(name, rows, width):
            return True
        path, (values, broken) = self.folder / f"{name}.npy", make()
        write_file(path.with_suffix(".json"), json.dumps(broken).encode())
        write_file(path, npy_bytes(values.astype("<f4", copy=False)))
        return False

    def has(self, name: str, rows: int, width: int) -> bool:
        """Whether the part is there, float32 [rows, width]."""
        path, header = self.folder / f"{name}.npy", npy_header((rows, width), "<f4")
        try:
            with path.open("rb") as file:
                return path.stat().st_size == len(header) + 4 * rows * width and file.read(len(header)) == header
        except FileNotFoundError:
            return False

    def values(self, name: str) -> np.ndarray:
        """float32 [rows, width], mapped."""
        return np.load(self.folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)

    def broken(self, name: str) -> list[tuple[int, str]]:
        """Row numbers and what is wrong with them; their values are zeros."""
        return [(int(row), str(why)) for row, why in json.loads((self.folder / f"{name}.json").read_bytes())]

    def scratch(self, name: str) -> Path:
        """Where a joined file is written before it gets its name."""
        return self.folder / f"joined-{name}"

    def release(self) -> None:
        self._lock.release()

    def remove(self) -> None:
        """All of it, when it is joined."""
        self._remove_files()
        self._lock.release()
        with contextlib.suppress(OSError):
            self.folder.rmdir()

    def _check_ours(self) -> None:
        known = self._identity() is not None  # asked again below: another may begin or end as we look
        there = sorted(path.name for path in self.folder.iterdir())
        foreign = [name for name in there if not OURS.fullmatch(name)]
        named = [name for name in there if not name.startswith(TEMPORARY)]
        if foreign or (named and not known and self._identity() is None):
            raise UsageError(f"{self.folder} holds {(foreign or named)[0]!r}, which is not ours; choose another --out")

    def _identity(self) -> dict[str, Any] | None:
        try:
            found = json.loads((self.folder / IDENTITY).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            pass_environment_on(error)
            return None
        return found if isinstance(found, dict) and found.get("kind") == KIND else None

    def _remove_files(self) -> None:
        """The identity last: what is left by a kill in between is still known as ours."""
        names = sorted(path.name for path in self.folder.iterdir() if OURS.fullmatch(path.name))
        for name in sorted(names, key=lambda name: name == IDENTITY):
            if not name.startswith(LOCK):
                (self.folder / name).unlink(missing_ok=True)


class Joined:
    """Parts of equal length (the last is shorter), one after the other, as one array [R, width]."""

    def __init__(self, parts: Sequence[np.ndarray], length: int) -> None:
        self._parts, self._length = parts, length

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """float32 [*rows.shape, width] of row numbers of any shape."""
        flat = rows.reshape(-1)
        found = np.empty((len(flat), self._parts[0].shape[1]), np.float32)
        of = flat // self._length
        for part in np.unique(of):
            at = of == part
            found[at] = self._parts[part][flat[at] - part * self._length]
        return found.reshape(*rows.shape, -1)


def parts_of(kind: str, source: int, rows: int, length: int) -> list[Part]:
    """Parts "z-0-000000" … of the rows of a source, `length` of them each, the last one fewer."""
    ranges = (range(start, min(start + length, rows)) for start in range(0, rows, length))
    return [Part(source, f"{kind}-{source}-{number:06d}", part) for number, part in enumerate(ranges)]
