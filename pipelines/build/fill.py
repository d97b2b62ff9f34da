"""The records of planned shards: read here, in order, made into samples by a pool of processes or on nodes, and written
through a builder or, on another node, through its hand.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from operator import attrgetter
from typing import Any

from pipelines.build.plan import DIGITS, Notes, PlannedShard, ShardNote
from pipelines.build.pool import map_in_order
from pipelines.build.source_watch import source_digest
from shards.building.shard_writer import ShardPart, ShardWriter
from shards.engines.hand import Hand, Opens
from shards.engines.ray_engine import RayCluster
from shards.errors import FormatError
from shards.machine.environment import usable_cores
from shards.sample import Sample
from shards.schema import ViewSpec
from shards.stats import PixelStats


@dataclass(frozen=True)
class Transformed:
    """What a worker hands back. `sample` is None where nothing was left of it; `psnr_sum` is in dB over its images.

    `bad` names what is left out and why, `odd` what was read but may be damaged, or other than meant.
    `source`: short_digest of the bytes that it was made of.
    """

    sample: Sample | None
    stats: PixelStats
    psnr_sum: float = 0.0
    bad: tuple[str, ...] = ()
    images: int = 1
    odd: tuple[str, ...] = ()
    source: str = ""

    @classmethod
    def left_out(cls, why: str, source: str) -> Transformed:
        """Of an image of which there is no sample; `why` begins with its name."""
        return cls(None, PixelStats(), bad=(why,), images=0, source=source)


Results = Iterator[tuple[PlannedShard, Transformed]]
_name = attrgetter("name")  # of a record


class OpenShard:
    """A shard that is being filled."""

    def __init__(self, builder: Opens, planned: PlannedShard):
        self.name = planned.name
        self.awaited = len(planned.positions)
        self.writer: ShardWriter = builder.open_shard(planned.split, planned.number)
        self.chunked = isinstance(builder.spec, ViewSpec) and builder.spec.chunked
        self.note = ShardNote()
        self.sources: list[str] = []
        self.samples = 0

    def take(self, result: Transformed) -> None:
        self.awaited -= 1
        self.note.bad += result.bad
        self.note.odd += result.odd
        self.sources.append(result.source)
        if result.sample is not None:
            self.writer.add(result.sample, result.stats)
            self.note.images += result.images
            self.note.psnr_sum += result.psnr_sum
            self.samples += 1
        elif self.chunked:
            raise FormatError(f"every view of a part of a sequence is bad, e.g. {result.bad[0]}; repair the source")

    def close(self, notes: Notes) -> ShardNote:
        if not self.samples:
            raise FormatError(f"every image of {self.name} is bad, e.g. {self.note.bad[0]}; repair the source")
        digests = "".join([digest[:DIGITS] for digest in self.sources])
        note = replace(self.note, source=source_digest(self.sources), digests=digests)
        notes.write(self.name, note)
        self.writer.close()
        return note


@dataclass(frozen=True)
class Filled:
    """What a shard that was written elsewhere leaves."""

    planned: PlannedShard
    part: ShardPart
    note: ShardNote


def fill_elsewhere(hand: Hand, planned: PlannedShard, results: Iterator[Transformed]) -> Filled:
    """In another process: write a shard that the hand's builder has claimed. Errors as OpenShard."""
    with hand.open() as opened:
        shard = OpenShard(opened, planned)
        try:
            for result in results:
                shard.take(result)
            note = shard.close(Notes(opened.layout))
        except BaseException:
            shard.writer.abort()
            raise
        return Filled(planned, opened.parts[0], note)


@dataclass(frozen=True)
class Records:
    """`Prepared.work` of a source whose records are read one by one.

    read       positions → records of the source, in order, each with a `name` for messages; of files, where they are
    transform  what becomes of one, in a worker
    workers    processes; None: one for each usable core
    joins      as map_in_order
    stream     the source is read once from front to back, for all shards that nobody has claimed; else shard by shard
    """

    read: Callable[[Sequence[int]], Iterator[Any]]
    transform: Callable[[Any], Transformed]
    workers: int | None
    joins: Callable[[Sequence[Any], Any], bool] | None = None
    stream: bool = False

    def __call__(self, shards: Iterator[PlannedShard]) -> Results:
        """Over a pool of processes."""
        processes, under_way = usable_cores() if self.workers is None else self.workers, deque[PlannedShard]()

        def records() -> Iterator[Any]:
            for shard, record in self._pairs(shards):
                under_way.append(shard)
                yield record

        results = map_in_order(self.transform, records(), processes, _name, self.joins)
        with contextlib.closing(results):  # type: ignore[type-var]
            for _, result in results:
                yield under_way.popleft(), result

    def over_ray(self, cluster: RayCluster, hand: Hand, shards: Iterator[PlannedShard]) -> Iterator[Filled]:
        """On the nodes of a cluster, a task a shard: of files a node gets their names, of a stream their bytes."""
        fill = partial(_fill, hand, self.transform)
        return cluster.map_tasks(fill, self._gathered(shards), lambda gathered: gathered[0].name, _bytes_of)

    def _pairs(self, shards: Iterator[PlannedShard]) -> Iterator[tuple[PlannedShard, Any]]:
        if self.stream:
            shard_of = {position: shard for shard in shards for position in shard.positions}
            positions = sorted(shard_of)
            for position, record in zip(positions, self.read(positions), strict=True):
                yield shard_of[position], record
            return
        for shard in shards:
            for _, record in zip(shard.positions, self.read(shard.positions), strict=True):
                yield shard, record

    def _gathered(self, shards: Iterator[PlannedShard]) -> Iterator[Gathered]:
        """Splits alternate in a stream, so that one shard of each may be incomplete."""
        opened: dict[str, Gathered] = {}
        for shard, record in self._pairs(shards):
            _, records = opened.setdefault(shard.name, (shard, []))
            records.append(record)
            if len(records) == len(shard.positions):
                yield opened.pop(shard.name)


Gathered = tuple[PlannedShard, list[Any]]  # a shard with all its records


def _fill(hand: Hand, transform: Callable[[Any], Transformed], gathered: Gathered) -> Filled:
    planned, records = gathered
    results = map_in_order(transform, records, 1, _name)
    return fill_elsewhere(hand, planned, (result for _, result in results))


def _bytes_of(gathered: Gathered) -> int:
    """What the records bring with them; those of files bring nothing to speak of."""
    contents = (getattr(record, "views", ()) for record in gathered[1])
    return sum(len(data) for views in contents if isinstance(views, list) for data in views if type(data) is bytes)
