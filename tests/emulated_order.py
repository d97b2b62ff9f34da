"""Which stream has waited for which, where CUDA is emulated: each knows, by vector clocks (Mattern 1989), how much of
every other one has ended before what it does next. Memory is looked at storage by storage.

A race is where a kernel reads what another stream may still write, or writes what one may still read or write, and
where a stream claims memory anew while another may still use what was free there: torch gives memory back to the stream
that claimed it, unless record_stream names others.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

Clock = dict[Any, int]
"""Stream → how many of its kernels are known to have ended."""


def join(clock: Clock, other: Clock) -> None:
    for stream, tick in other.items():
        clock[stream] = max(clock.get(stream, 0), tick)


@dataclass
class Use:
    """Of a storage: whose it is, the last kernel on each stream that read or wrote it, and who record_stream named."""

    alive: StorageWeakRef
    home: Any
    reads: Clock = field(default_factory=dict)
    writes: Clock = field(default_factory=dict)
    recorded: set[Any] = field(default_factory=set)


class Order:
    """races: what was found, in words. host: what the host has seen the end of, as all that it queues from then on."""

    def __init__(self) -> None:
        self.races: list[str] = []
        self.host: Clock = {}
        self._latest: Clock = {}
        self._uses: dict[int, Use] = {}
        self._shared: set[int] = set()  # those that another stream than their own was at
        self._purge_at = 1000
        self._freed: dict[Any, list[Clock]] = {}  # by whose memory it was: who may have used it then

    def claimed(self, tensor: Tensor, stream: Any) -> None:
        self._use(tensor, stream)
        if self._freed.get(stream):
            join(stream.clock, self.host)
            if any(_unknown(others, stream.clock) for others in self._freed.pop(stream)):
                self.races.append("memory is claimed anew while another stream may still be at it")

    def record(self, tensor: Tensor, stream: Any) -> None:
        self._use(tensor, stream).recorded.add(stream)

    def ran(self, stream: Any, reads: Iterable[Tensor], writes: Iterable[Tensor], where: str) -> None:
        """A kernel on `stream`."""
        join(stream.clock, self.host)
        tick = self._latest[stream] = stream.clock[stream] = stream.clock.get(stream, 0) + 1
        for tensors, written in ((reads, False), (writes, True)):
            for tensor in tensors:
                use = self._use(tensor, stream)
                if use.home is not stream:
                    self._shared.add(tensor.untyped_storage()._cdata)
                if _unknown(use.writes, stream.clock) or (written and _unknown(use.reads, stream.clock)):
                    self.races.append(
                        f"{where}: what another stream may still be at is {'written' if written else 'read'}"
                    )
                (use.writes if written else use.reads)[stream] = tick

    def host_waited(self, clock: Clock | None = None) -> None:
        """None: for all streams."""
        self.find_freed()
        join(self.host, self._latest if clock is None else clock)

    def waits(self, stream: Any, clock: Clock) -> None:
        self.find_freed()
        join(stream.clock, clock)

    def find_freed(self) -> None:
        """Before anybody knows more than when memory was given back."""
        for key in [key for key in self._shared if self._uses[key].alive.expired()]:
            self._shared.discard(key)
            use = self._uses.pop(key)
            known = dict(use.home.clock)
            for stream in use.recorded:  # of which torch waits for all that was queued until then
                join(known, stream.clock)
            spoken_for, left = {use.home, *use.recorded}, dict(use.reads)
            join(left, use.writes)
            if left := {s: tick for s, tick in left.items() if s not in spoken_for and known.get(s, 0) < tick}:
                self._freed.setdefault(use.home, []).append(left)

    def _use(self, tensor: Tensor, stream: Any) -> Use:
        storage = tensor.untyped_storage()
        if storage._cdata not in self._uses:
            if len(self._uses) > self._purge_at:
                self._uses = {k: use for k, use in self._uses.items() if k in self._shared or not use.alive.expired()}
                self._purge_at = 2 * len(self._uses) + 1000
            self._uses[storage._cdata] = Use(StorageWeakRef(storage), stream)
        return self._uses[storage._cdata]


def _unknown(uses: Clock, clock: Clock) -> bool:
    return any(clock.get(stream, 0) < tick for stream, tick in uses.items())
