"""Leases in a store: who builds which shard of a set, who trains a run.

A lease is a small object, created once, that names its holder and is written again every few seconds. No clocks are
compared: whoever wants it watches whether it changes. Where it does not for LEASE_SECONDS its holder is gone, and it is
taken over; a holder that was only away for so long finds out when it asks (holder). A lease saves work. Nothing that is
right may depend on it alone: two that take one over at the same moment may both think for a while that it is theirs.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import threading
import time
import weakref
from collections.abc import Iterable
from dataclasses import dataclass, field

from shards.errors import FormatError, SeqJepaError
from shards.machine.lock import runs_here, this_process
from shards.stores.store_write import StoreWriter

log = logging.getLogger(__name__)

LEASE_SECONDS = 60.0
"""A holder that has not been heard of for so long is taken for dead; one of this machine that is dead, at once."""
BEAT_SECONDS, LOOK_SECONDS = 10.0, 2.0
SETTLE_SECONDS = 0.5
"""Of several that take a lease over, the one that wrote last has it: so long after its own each looks who that is."""
LONGEST = 4096  # bytes of a lease


@dataclass(eq=False)
class _Ours:
    """What a holder shares with its thread, which writes its leases anew. writing: held for each of them."""

    store: StoreWriter
    content: bytes
    held: set[str] = field(default_factory=set)
    ended: threading.Event = field(default_factory=threading.Event)
    writing: threading.Lock = field(default_factory=threading.Lock)

    def is_in(self, path: str) -> bool:
        return _read(self.store, path).startswith(self.content)


class Leases:
    """Those in one folder of a store, "" for the store's own, for one holder, from construction to leave().

    place: of which there can be one holder alone, as "host:/folder": whoever had a lease from there before is gone. It
    is what others are told of the holder.
    """

    def __init__(self, store: StoreWriter, folder: str, place: str = "") -> None:
        self._store, self._folder, self._place = store, folder, place.replace("\n", " ")
        me = b"%s%s\n%s" % (this_process(), self._place.encode(), secrets.token_hex(8).encode())
        self._ours = _Ours(store, me)
        self._seen: dict[str, tuple[str | None, float]] = {}
        self._thread = threading.Thread(target=_beat, args=(self._ours,), daemon=True, name="lease")
        self._leave = weakref.finalize(self, _leave, self._ours, os.getpid())

    def take(self, name: str) -> bool:
        """Whether the lease is ours now."""
        path = self._path(name)
        if path in self._ours.held:
            return True
        if not self._store.create_if_absent(path, self._ours.content):
            if not self._is_old(path):
                return False
            self._store.put(path, self._ours.content)
            time.sleep(SETTLE_SECONDS)
            if not self._ours.is_in(path):
                return False
        self._seen.pop(path, None)
        self._ours.held.add(path)
        if self._thread.ident is None:
            self._thread.start()
        return True

    def wait_for(self, name: str) -> str:
        """Waits until the lease is ours, "", or somebody else's who lives: its place. LEASE_SECONDS at the most."""
        first = None
        while not self.take(name):
            seen = self._seen.get(self._path(name), (None, 0.0))[0]
            if first is None:
                log.warning(
                    "%s: %s is at work there, or was until it was killed; looking for %g seconds whether it lives",
                    *(self._store.address, self.holder(name) or "another process", LEASE_SECONDS),
                )
            elif seen != first:
                return self.holder(name) or "another process"
            first = seen or ""
            time.sleep(LOOK_SECONDS)
        return ""

    def holds(self, name: str) -> bool:
        """Whether it was ours when we last looked."""
        return self._path(name) in self._ours.held

    def holder(self, name: str) -> str:
        """Asks the store: "" if it is ours, else the place of who has it. FailureError: the store is down."""
        content = _read(self._store, self._path(name))
        return "" if content.startswith(self._ours.content) else _place(content) or "another process"

    def free(self, name: str) -> bool:
        """Whether take() would have it: it is nobody's, or its holder is gone."""
        return not self.holds(name) and self._is_old(self._path(name))

    def holders(self, names: Iterable[str]) -> dict[str, str]:
        """Others who have these, and what each wrote last: another text every few seconds for as long as it lives."""
        found = {}
        for name in names:
            content = _read(self._store, self._path(name))
            if content and not content.startswith(self._ours.content):
                token, _, beat = content.decode(errors="replace").rpartition("\n")[2].partition(" ")
                found[token] = beat
        return found

    def release(self, name: str) -> None:
        """Idempotent. One that was taken over stays."""
        _give_up(self._ours, [self._path(name)])

    def leave(self) -> None:
        """Gives up all of them. Idempotent."""
        self._leave()
        if self._thread.ident is not None:
            self._thread.join()

    def _path(self, name: str) -> str:
        return f"{self._folder}/{name}" if self._folder else name

    def _is_old(self, path: str) -> bool:
        content = _read(self._store, path)
        if runs_here(content.partition(b"\n")[0]) is False or (self._place and _place(content) == self._place):
            return True
        if (tag := self._store.tag(path)) is None:
            return True
        known, since = self._seen.get(path, (None, 0.0))
        if tag != known:
            self._seen[path] = (tag, time.monotonic())
            return False
        return time.monotonic() - since > LEASE_SECONDS


def _read(store: StoreWriter, path: str) -> bytes:
    try:
        return store.folder.read(path, LONGEST)
    except FormatError:  # it has just been given up
        return b""


def _place(content: bytes) -> str:
    """The second line; the first names the process, the third is of this holder alone."""
    return content.decode(errors="replace").partition("\n")[2].partition("\n")[0]


def _beat(ours: _Ours) -> None:
    """A lease that was taken over is not written again."""
    number = 0
    while not ours.ended.wait(BEAT_SECONDS):
        number += 1
        for path in list(ours.held):
            with ours.writing, contextlib.suppress(SeqJepaError):  # a store that is away for a moment
                if path in ours.held and ours.is_in(path):
                    ours.store.put(path, ours.content + b" %d" % number)


def _give_up(ours: _Ours, paths: list[str]) -> None:
    with ours.writing:
        held = [path for path in paths if path in ours.held]
        ours.held.difference_update(held)
        ours.store.delete([path for path in held if ours.is_in(path)])


def _leave(ours: _Ours, pid: int) -> None:
    """Nothing of it in a forked child, which holds no lease."""
    if os.getpid() != pid:
        return
    ours.ended.set()
    with contextlib.suppress(SeqJepaError):
        _give_up(ours, list(ours.held))
