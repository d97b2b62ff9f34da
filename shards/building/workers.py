"""Who is at work on a set: each builder has a folder of its own in `_meta/tmp/`, and claims shards one by one.

In its folder are its temporary files and `alive`, which names its process and is touched every few seconds. Claims save
work and never decide what is right: a shard's bytes are a function of the plan. Whoever is taken for dead loses its
folder, so that what it publishes later, when its machine wakes up, fails instead of landing in another set.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import threading
import weakref
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from shards.errors import FailureError
from shards.layout import Layout
from shards.machine.lock import FolderLock, runs_here, this_process

LEASE_SECONDS = 60.0
"""A worker of another machine that has not been heard of for so long is taken for dead; of this one, at once."""
BEAT_SECONDS = 5.0
PATIENCE_SECONDS = 60.0
"""The lock of a folder is held for as long as it takes to join indexes, of a large set many seconds."""
ALIVE, GONE = "alive", "gone-"


class OvertakenError(FailureError):
    """Another builder took this one for dead, or finished the set meanwhile."""


class Worker:
    """One builder at work on a set, from construction (by whoever holds the folder's lock) to leave().

    layout  of the set, with this worker's folder for temporary files
    alone   whether nobody else was at work when it came
    """

    def __init__(self, layout: Layout, alone: bool) -> None:
        self.name = f"{os.getpid()}-{secrets.token_hex(8)}"
        self.layout, self.alone = replace(layout, worker=self.name), alone
        self._held: set[str] = set()
        try:
            self.layout.tmp.mkdir()
            (self.layout.tmp / ALIVE).write_bytes(this_process())
        except BaseException:
            shutil.rmtree(self.layout.tmp, ignore_errors=True)
            raise
        self._ended = threading.Event()
        self._leave = weakref.finalize(self, _leave, self.layout, self._held, self._ended, os.getpid())
        threading.Thread(target=_beat, args=(self.layout.tmp / ALIVE, self._ended), daemon=True).start()

    def claim(self, shard: str) -> bool:
        """Whether the shard is ours to write now. OvertakenError: nobody needs us any more."""
        if shard in self._held:
            return True
        path = self.layout.claim(shard)
        try:
            with path.open("xb") as file:
                self._held.add(shard)
                file.write(self.name.encode())
        except FileExistsError:
            return False
        except FileNotFoundError as error:  # the folder of claims goes with the end of a build
            raise overtaken(self.layout) from error
        return True

    def release(self, shard: str) -> None:
        """Idempotent."""
        if shard in self._held:
            _unclaim(self.layout, shard)
            self._held.discard(shard)

    @property
    def overtaken(self) -> bool:
        """Also where somebody has removed what was finished, and with it the folder for what comes."""
        return not ((self.layout.tmp / ALIVE).exists() and self.layout.parts.exists())

    def leave(self) -> None:
        """Gives up its claims and its folder. Idempotent."""
        self._leave()


def overtaken(layout: Layout) -> OvertakenError:
    done = f"another build has taken {layout.root} over" if layout.root.is_dir() else f"{layout.root} was removed"
    return OvertakenError(f"{done} while it was built: run the same command again")


def folder_lock(layout: Layout, patience: float | None = None) -> FolderLock:
    """Held while a build begins and while it ends, never while shards are written."""
    wait = PATIENCE_SECONDS if patience is None else patience
    return FolderLock(layout.lock, f"another build is writing {layout.root}", wait)


def remove_dead(layout: Layout) -> list[str]:
    """With the lock held: names of the workers that live; of others the folders and claims are removed."""
    os.utime(layout.lock)  # the file system's clock, which is that of every worker's `alive`
    now, live = layout.lock.stat().st_mtime, []
    for path in list(layout.workers.iterdir()):
        if not path.is_dir():
            path.unlink()
        elif not path.name.startswith(GONE) and _lives(path / ALIVE, now):
            live.append(path.name)
        else:
            _remove(path)
    for claim in list(layout.claims.iterdir()) if layout.claims.is_dir() else []:
        with contextlib.suppress(FileNotFoundError):
            owner, age = claim.read_text(encoding="utf-8", errors="replace"), now - claim.stat().st_mtime
            if owner not in live and (owner or age > LEASE_SECONDS):
                claim.unlink()
    return live


def _lives(alive: Path, now: float) -> bool:
    try:
        return runs_here(alive.read_bytes()) is not False and now - alive.stat().st_mtime < LEASE_SECONDS
    except FileNotFoundError:
        return False


def _remove(folder: Path) -> None:
    """Renamed first: from that moment on its worker can publish nothing."""
    if not folder.name.startswith(GONE):
        with contextlib.suppress(FileNotFoundError):
            folder = folder.rename(folder.with_name(GONE + folder.name))
    shutil.rmtree(folder, ignore_errors=True)


def _beat(alive: Path, ended: threading.Event) -> None:
    while not ended.wait(BEAT_SECONDS):
        try:
            os.utime(alive)
        except FileNotFoundError:
            return
        except OSError:
            continue  # a server that is away for a moment


def _leave(layout: Layout, held: set[str], ended: threading.Event, pid: int) -> None:
    """Nothing of it in a forked child, which is not the worker."""
    if os.getpid() != pid:
        return
    ended.set()
    if (layout.tmp / ALIVE).exists():
        for shard in list(held):
            _unclaim(layout, shard)
    held.clear()
    shutil.rmtree(layout.tmp, ignore_errors=True)


def _unclaim(layout: Layout, shard: str) -> None:
    """Only a claim of ours: one that was taken from us may be someone else's by now."""
    with contextlib.suppress(OSError):
        if layout.claim(shard).read_text(encoding="utf-8") == layout.worker:
            layout.claim(shard).unlink()


def unclaimed(layout: Layout, shards: Iterable[str]) -> bool:
    """Whether one of these is nobody's now."""
    return any(not layout.claim(shard).exists() for shard in shards)


def owners(layout: Layout, shards: Iterable[str]) -> dict[str, int]:
    """Who has claimed these, and when each was last heard of, in ns."""
    found = {}
    for shard in shards:
        with contextlib.suppress(FileNotFoundError):
            worker = layout.claim(shard).read_text(encoding="utf-8", errors="replace")
            found[worker] = (layout.workers / worker / ALIVE).stat().st_mtime_ns
    return found
