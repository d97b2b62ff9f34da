"""Leases in a store: by which builders on many machines share the shards of a set.

A lease is a small object, created once, that names its holder and is written again every few seconds. It saves work and
never decides what is right: shards are created once, and whoever writes one writes the same bytes.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import threading
import time
import weakref

from shards.errors import FormatError, SeqJepaError
from shards.lock import runs_here, this_process
from shards.store_write import StoreWriter

LEASE_SECONDS = 60.0
"""A holder that has not been heard of for so long is taken for dead; one of this machine that is dead, at once."""
BEAT_SECONDS = 10.0
LONGEST = 4096  # bytes of a lease


class Leases:
    """Those in one folder of a store, for one holder, from construction to leave().

    No clocks are compared: a lease is old when we have seen it unchanged for LEASE_SECONDS.
    """

    def __init__(self, store: StoreWriter, folder: str) -> None:
        self._store, self._folder = store, folder
        self._me = this_process() + secrets.token_hex(8).encode()
        self._held: set[str] = set()
        self._seen: dict[str, tuple[str | None, float]] = {}
        self._ended = threading.Event()
        self._leave = weakref.finalize(self, _leave, store, self._held, self._ended, os.getpid())
        beat = (store, self._held, self._me, self._ended)
        threading.Thread(target=_beat, args=beat, daemon=True).start()

    def take(self, name: str) -> bool:
        """Whether the lease is ours now."""
        path = f"{self._folder}/{name}"
        if path in self._held:
            return True
        if not self._store.create_if_absent(path, self._me):
            if not self._is_old(path):
                return False
            self._store.put(path, self._me)  # of several that do so the last has it
            if not self._is_mine(path):
                return False
        self._seen.pop(path, None)
        self._held.add(path)
        return True

    def holds(self, name: str) -> bool:
        return f"{self._folder}/{name}" in self._held

    def release(self, name: str) -> None:
        """Idempotent."""
        path = f"{self._folder}/{name}"
        if path in self._held:
            self._held.discard(path)
            self._store.delete([path])

    def leave(self) -> None:
        """Gives up all of them. Idempotent."""
        self._leave()

    def _is_mine(self, path: str) -> bool:
        return self._content(path).startswith(self._me)

    def _is_old(self, path: str) -> bool:
        if runs_here(self._content(path).partition(b"\n")[0]) is False:
            return True
        tag = self._store.tag(path)
        known, since = self._seen.get(path, (None, 0.0))
        if tag != known:
            self._seen[path] = (tag, time.monotonic())
            return tag is None
        return time.monotonic() - since > LEASE_SECONDS

    def _content(self, path: str) -> bytes:
        try:
            return self._store.folder.read(path, LONGEST)
        except FormatError:  # it has just been given up
            return b""


def _beat(store: StoreWriter, held: set[str], me: bytes, ended: threading.Event) -> None:
    number = 0
    while not ended.wait(BEAT_SECONDS):
        number += 1
        for path in list(held):
            with contextlib.suppress(SeqJepaError):  # a store that is away for a moment
                if path in held:
                    store.put(path, me + b" %d" % number)


def _leave(store: StoreWriter, held: set[str], ended: threading.Event, pid: int) -> None:
    """Nothing of it in a forked child, which holds no lease."""
    if os.getpid() != pid:
        return
    ended.set()
    with contextlib.suppress(SeqJepaError):
        store.delete(list(held))
    held.clear()
