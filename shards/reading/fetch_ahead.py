"""FetchAhead: the shards of a split in the cache, fetched before they are read and let go of behind the reader.

A reader says in which order it will want shards (a schedule for each epoch) and asks for those of each batch. Threads
fetch along that order as far ahead as the reader's claim on the cache allows. Shards of batches that are at work are
pinned. What was fetched ahead is kept, but makes way for what another rank, or this one, has to have now. Behind the
reader shards stay on the disk until something else wants their room, those first that will be needed last.

                       release(position)              ready(position)
    ── no longer needed ──┤── pinned: being read ──┤── kept: fetched ahead ──┤── not there ──▶ order of the epoch
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from shards.errors import UsageError
from shards.layout import Layout
from shards.schema import DatasetInfo, ShardEntry
from shards.stores.cache import STREAMS, fetch_shard, hold
from shards.stores.cache_room import Claim, Pins, make_room, numbered, origin
from shards.stores.store import Store, open_store

log = logging.getLogger(__name__)

Position = tuple[int, int]
"""Epoch and step."""
SHOW_AFTER = 1.0
"""Seconds of waiting after which a bar tells what for."""
PATIENCE = 20.0
"""Seconds in which others may move on, where what is needed now finds no room."""
LAST_WORDS = 15.0
"""Seconds that threads get to stop: they look up at each part of a file."""


class Visit(NamedTuple):
    """The steps of an epoch, first … last, between which a shard (its number in the split) is read."""

    first: int
    last: int
    shard: int


class FetchAhead:
    """Shards of one split for one reader.

    schedule  the visits of an epoch, ascending; a shard may have several. It is a forecast: what is asked for comes
    claim     the name of the claim, which readers with the same schedule share, and its bytes. UsageError: no room
    stays     nothing is let go of: the claim is the whole split
    epochs    after an epoch the next one follows

    ready() raises DamageError, FailureError, UsageError and DiskFullError as shards.stores.cache.fetch() does.
    """

    def __init__(
        self,
        root: Path,
        info: DatasetInfo,
        split: str,
        schedule: Callable[[int], Sequence[Visit]],
        claim: tuple[str, int],
        *,
        stays: bool = False,
        epochs: bool = True,
    ) -> None:
        hold(root)
        self.root, self.info, self.stays = root, info, stays
        self._entries = info.splits[split].shards
        self._first_number = numbered(info)[self._entries[0].name][0] if self._entries else 0
        self._visits = lru_cache(maxsize=3)(schedule)
        self._epochs, self._claim_of = epochs, claim
        self._claim: Claim | None = Claim(root, *claim)
        self._changed = threading.Condition()
        self._threads: list[threading.Thread] = []
        self._reset((0, 0))

    def ready(self, at: Position, shards: Iterable[int], wait: bool = True) -> bool:
        """Whether all of these can be read at this position, and until it is released. wait: until they can be."""
        needed = set(shards)
        with self._changed:
            self._start()
            if wait:
                self._await(needed, at)
            elif not needed <= self._there or not all(self._promise(shard, at) for shard in needed):
                return False
        return True

    def loosen(self, shard: int) -> None:
        """It was ready and may make way again for what somebody has to have: its reader tries again if it is gone."""
        with self._changed:
            if shard in self._pinned and self._pins is not None:
                self._pinned.discard(shard)
                self._pins.unpin(self._first_number + shard)

    def release(self, before: Position) -> None:
        """The reader is here, and done with all positions before. Going back, or far ahead, begins anew."""
        with self._changed:
            if before < self._at or before[0] > self._at[0] + 1:
                self._reset(before)
            self._at, self._stalled = before, False
            if not self.stays:
                for shard in [shard for shard in self._there if self._until[shard] < before]:
                    self._let_go(shard)
            self._changed.notify_all()

    def close(self) -> None:
        """End the threads, unpin and give back the room. Asking again begins anew."""
        with self._changed:
            threads, self._threads, self._closed = self._threads, [], True
            self._changed.notify_all()
        end = time.monotonic() + LAST_WORDS
        for thread in threads:
            thread.join(max(0.0, end - time.monotonic()))
        with self._changed:
            self._reset(self._at)
            if self._pins is not None:
                self._pins.close()
            if self._claim is not None:
                self._claim.close()
            self._pins = self._claim = None

    _pins: Pins | None = None
    _closed = True

    def _reset(self, at: Position) -> None:
        """Nothing is held, and the schedule is followed from here on. Whatever is being fetched is not waited for."""
        for shard in list(getattr(self, "_there", ())):
            self._let_go(shard)
        self._at = at
        self._cursor = [at[0], 0]  # epoch, and which of its visits comes next
        self._until: dict[int, Position] = {}  # of shards that are held or under way: the last position that needs them
        self._there: set[int] = set()
        self._pinned: set[int] = set()  # of these, by batches that are at work
        self._held = 0  # bytes of both
        self._urgent: deque[int] = deque()
        self._failed: dict[int, BaseException] = {}
        self._stalled = False  # fetching ahead has failed: it is tried again when the reader has gone on

    def _start(self) -> None:
        if self._threads:
            return
        self._claim = self._claim or Claim(self.root, *self._claim_of)
        self._pins, self._closed = Pins(self.root), False
        count = min(STREAMS, len(self._entries))
        self._threads = [threading.Thread(target=self._run, daemon=True, name="fetch") for _ in range(count)]
        for thread in self._threads:
            thread.start()

    def _await(self, needed: set[int], at: Position) -> None:
        begun, bar = time.monotonic(), None
        try:
            while not self._all_there(needed, at):
                for shard in needed & self._failed.keys():
                    raise self._failed.pop(shard)
                self._changed.wait(SHOW_AFTER)
                if bar is None and time.monotonic() - begun > SHOW_AFTER:
                    desc = f"fetch {self.info.name}"
                    bar = tqdm(total=len(needed), desc=desc, unit="shard", disable=None, leave=False)
                if bar is not None:
                    bar.update(len(needed & self._there) - bar.n)
        finally:
            if bar is not None:
                bar.close()

    def _all_there(self, needed: set[int], at: Position) -> bool:
        """Whether they are, and pinned; what nobody fetches yet is fetched before all else."""
        for shard in needed:
            if not self._promise(shard, at) and shard not in self._until and shard not in self._failed:
                self._take(shard, at)
                self._urgent.append(shard)
                self._changed.notify_all()
        return needed <= self._pinned

    def _promise(self, shard: int, at: Position) -> bool:
        """Pins a shard that is there until `at`. False: it is not, or had to make way for something else."""
        if not self._extend(shard, at) or shard not in self._there:
            return False
        if shard not in self._pinned:
            assert self._pins is not None
            self._pins.pin(self._first_number + shard)
            if not Layout(self.root).shard(self._entries[shard].name).exists():
                self._let_go(shard)
                return False
            self._pinned.add(shard)
        return True

    def _extend(self, shard: int, at: Position) -> bool:
        """Whether the shard is held or under way; it stays until `at` then."""
        if shard not in self._until:
            return False
        self._until[shard] = max(self._until[shard], at)
        return True

    def _take(self, shard: int, until: Position) -> None:
        self._until[shard] = until
        self._held += self._entries[shard].bytes

    def _let_go(self, shard: int) -> None:
        self._there.discard(shard)
        self._pinned.discard(shard)
        if self._until.pop(shard, None) is not None:
            self._held -= self._entries[shard].bytes
        if self._pins is not None:
            self._pins.let_go(self._first_number + shard)

    def _run(self) -> None:
        while (found := self._next()) is not None:
            error = None
            try:
                self._fetch(*found)
            except BaseException as caught:
                error = caught
            self._note(*found, error)

    def _fetch(self, shard: int, now: bool) -> None:
        pins, number = self._pins, self._first_number + shard
        if pins is None:
            raise _ClosedError
        pins.keep(number)
        if now:
            pins.pin(number)
        try:
            room = partial(self._make_room, pins, shard, now)
            fetch_shard(self.root, number, self._entries[shard], lambda: self._store, room, self._stop)
        finally:
            pins.end(number)

    def _next(self) -> tuple[int, bool] | None:
        """What this thread fetches, and whether it is needed now; None: nothing more."""
        with self._changed:
            while not self._closed:
                if self._urgent:
                    return self._urgent.popleft(), True
                if (shard := self._next_of_schedule()) is not None:
                    return shard, False
                self._changed.wait()
        return None

    def _next_of_schedule(self) -> int | None:
        while not self._stalled and (visit := self._peek()):
            until = (self._cursor[0], visit.last)
            if self._extend(visit.shard, until):
                self._cursor[1] += 1
                continue
            if self._held + self._entries[visit.shard].bytes > self._claim_of[1]:
                return None
            self._take(visit.shard, until)
            self._cursor[1] += 1
            return visit.shard
        return None

    def _peek(self) -> Visit | None:
        """The next visit that lies ahead, in this epoch or in the one after it."""
        while self._cursor[0] <= self._at[0] + self._epochs:
            visits = self._visits(self._cursor[0])
            while self._cursor[1] < len(visits):
                visit = visits[self._cursor[1]]
                if (self._cursor[0], visit.last) >= self._at:
                    return visit
                self._cursor[1] += 1
            self._cursor = [self._cursor[0] + 1, 0]
        return None

    def _note(self, shard: int, now: bool, error: BaseException | None) -> None:
        """How fetching a shard ended. What fails ahead of need is tried again, once it is needed."""
        with self._changed:
            if error is not None:
                self._let_go(shard)
                self._stalled = True
                if now:
                    self._failed[shard] = error
            elif shard in self._until:
                self._there.add(shard)
            elif self._pins is not None:  # the reader went elsewhere meanwhile
                self._pins.let_go(self._first_number + shard)
            self._changed.notify_all()

    def _make_room(self, pins: Pins, shard: int, now: bool) -> None:
        """Where it is needed now and all is in use, others get some time to move on."""
        end = time.monotonic() + PATIENCE
        while True:
            with self._changed:
                names = [self._entries[other].name for other in self._by_next_use(now)]
            try:
                return make_room(pins, self.info, [self._entries[shard]], names, now)
            except UsageError:
                if not now or time.monotonic() > end:
                    raise
            self._stop(0)
            time.sleep(0.1)

    def _by_next_use(self, now: bool) -> list[int]:
        """Shards that are not kept, or now that are not pinned; those first that will be needed last or not at all."""
        epoch, step = self._at
        use: dict[int, Position] = {}
        for later in (epoch, epoch + 1)[: 1 + self._epochs]:
            for visit in self._visits(later):
                if later > epoch or visit.last >= step:
                    use.setdefault(visit.shard, (later, visit.first))
        never = (epoch + 2, 0)
        stay = self._pinned if now else self._until
        others = (shard for shard in range(len(self._entries)) if shard not in stay)
        return sorted(others, key=lambda shard: use.get(shard, never), reverse=True)

    def _stop(self, count: int) -> None:
        if self._closed:
            raise _ClosedError

    @cached_property
    def _store(self) -> Store:
        return open_store(origin(self.root))


class _ClosedError(Exception):
    """The reader has gone: what is being fetched is of no use."""


def live_bytes(entries: Sequence[ShardEntry], visits: Iterable[Visit], ahead: int) -> int:
    """The most bytes that are read at one time, by a reader that is at up to `ahead` steps more at once."""
    events: list[tuple[int, int]] = []
    for visit in visits:
        size = entries[visit.shard].bytes
        events += [(visit.first - ahead, size), (visit.last + 1, -size)]
    most = now = 0
    for _, change in sorted(events):  # at the same step, what leaves goes first
        now += change
        most = max(most, now)
    return most
