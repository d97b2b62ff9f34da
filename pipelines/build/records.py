"""The records of planned shards: read here, in order, and made into samples by a pool of processes or on nodes."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from pipelines.build.fill import Filled, Results, Transformed, fill_elsewhere
from pipelines.build.plan import PlannedShard
from pipelines.build.pool import map_in_order
from shards.engines.hand import Hand
from shards.engines.ray_engine import RayCluster
from shards.machine.environment import usable_cores

Read = Callable[[Sequence[int]], Iterator[Any]]


@dataclass(frozen=True)
class Records:
    """`Prepared.work` of a source whose records are read one by one.

    read       positions → records of the source, in order, each with a `name` for messages; of files, where they are
    transform  what becomes of one, in a worker
    workers    processes; None: one for each usable core
    joins      as map_in_order
    stream     the source is read once from front to back, for all shards that nobody has claimed; else shard by shard
    """

    read: Read
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
        return cluster.map_tasks(fill, self._gathered(shards), lambda shard: shard.planned.name, _bytes_of)

    def _pairs(self, shards: Iterator[PlannedShard]) -> Iterator[tuple[PlannedShard, Any]]:
        return _front_to_back(shards, self.read) if self.stream else _shard_by_shard(shards, self.read)

    def _gathered(self, shards: Iterator[PlannedShard]) -> Iterator[Gathered]:
        """Splits alternate in a stream, so that one shard of each may be incomplete."""
        opened: dict[str, Gathered] = {}
        for shard, record in self._pairs(shards):
            gathered = opened.setdefault(shard.name, Gathered(shard, []))
            gathered.records.append(record)
            if len(gathered.records) == len(shard.positions):
                yield opened.pop(shard.name)


def _name(record: Any) -> str:
    return record.name


@dataclass(frozen=True)
class Gathered:
    """A shard with all its records."""

    planned: PlannedShard
    records: list[Any]


def _fill(hand: Hand, transform: Callable[[Any], Transformed], shard: Gathered) -> Filled:
    results = map_in_order(transform, shard.records, 1, _name)
    return fill_elsewhere(hand, shard.planned, (result for _, result in results))


def _bytes_of(shard: Gathered) -> int:
    """What the records bring with them; those of files bring nothing to speak of."""
    contents = (getattr(record, "views", ()) for record in shard.records)
    return sum(len(data) for views in contents if isinstance(views, list) for data in views if type(data) is bytes)


def _shard_by_shard(shards: Iterator[PlannedShard], read: Read) -> Iterator[tuple[PlannedShard, Any]]:
    for shard in shards:
        for _, record in zip(shard.positions, read(shard.positions), strict=True):
            yield shard, record


def _front_to_back(shards: Iterator[PlannedShard], read: Read) -> Iterator[tuple[PlannedShard, Any]]:
    shard_of = {position: shard for shard in shards for position in shard.positions}
    positions = sorted(shard_of)
    for position, record in zip(positions, read(positions), strict=True):
        yield shard_of[position], record
