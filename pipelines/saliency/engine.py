"""Runs a saliency model over shards of images: in this process, in one for each device, or on the nodes of a cluster.

A process takes whole shards in turn; what it does with them is in batches.py.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import socket
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection, wait
from typing import Any

import torch

from pipelines.build.fill import Filled, Results, fill_elsewhere
from pipelines.build.plan import PlannedShard
from pipelines.build.pool import as_workers_start, begin_worker
from pipelines.saliency.batches import make_maps
from pipelines.saliency.models import ModelChoice
from pipelines.saliency.speed import Metered, Speed
from pipelines.sources import ImageRecord, ImageSource
from shards.engines.hand import Hand
from shards.engines.ray_engine import RayCluster
from shards.errors import FailureError, SeqJepaError
from shards.machine.environment import describe_error
from shards.schema import MapStorage

SECONDS_TO_END = 5
BEGIN, MORE = "begin", "more"
Shards = Iterator[tuple[PlannedShard, Sequence[ImageRecord]]]


@dataclass(frozen=True)
class MapJob:
    """What every process is told. workers: of each process, for reading; threads: of torch, None leaves them."""

    choice: ModelChoice
    source: ImageSource
    storage: MapStorage
    workers: int
    threads: int | None = None


def start_engine(job: MapJob, devices: Sequence[str]) -> Engine:
    """Raises UsageError where the model cannot be made."""
    return OneProcess(job, devices[0]) if len(devices) == 1 else Crew(job, devices)


class OneProcess:
    """`provenance` is the model's. `speed` is there when all has been made, where the model's work can be counted."""

    def __init__(self, job: MapJob, device: str):
        self.job, self.model = job, Metered(job.choice.build(device))
        self.provenance = self.model.provenance
        self.speed: Speed | None = None

    def make(self, shards: Shards) -> Results:
        """A result for each record; in order within a shard. A shard is taken when somebody is free."""
        awaited: deque[PlannedShard] = deque()

        def taken() -> Iterator[Sequence[ImageRecord]]:
            for shard, records in shards:
                awaited.extend([shard] * len(records))
                yield records

        for result in make_maps(taken(), self.job.source, self.model, self.job.storage, self.job.workers):
            yield awaited.popleft(), result
        self.speed = self.model.speed()

    def close(self) -> None:
        """Nothing to end: worker processes end with the iterator of make()."""


class Crew:
    """A process for each device, which asks for a shard when it can read on. Results come as they are made."""

    def __init__(self, job: MapJob, devices: Sequence[str]):
        self.devices = list(devices)
        self.speed: Speed | None = None
        context = multiprocessing.get_context("spawn")
        self.connections: list[Connection] = []
        self.processes = []
        try:
            for device in devices:
                ours, theirs = context.Pipe()
                process = context.Process(target=_serve, args=(theirs, job, device))
                with as_workers_start():
                    process.start()
                theirs.close()
                self.connections.append(ours)
                self.processes.append(process)
            found = [self._receive(number) for number in range(len(devices))]
        except BaseException:
            self.close()
            raise
        self.provenance: dict[str, Any] = found[0]
        if any(other != found[0] for other in found):
            self.close()
            raise FailureError(f"the devices {', '.join(devices)} set the model up differently: use equal ones")

    def make(self, shards: Shards) -> Results:
        awaited: dict[int, deque[Any]] = {member: deque() for member in range(len(self.connections))}
        reading = set(awaited)
        for member, connection in enumerate(self.connections):
            with self._death_named(member):
                connection.send(BEGIN)
        while at_work := [member for member, left in awaited.items() if left or member in reading]:
            ready = wait([self.connections[member] for member in at_work])
            for member in [member for member in at_work if self.connections[member] in ready]:
                message = self._receive(member)
                if message != MORE:
                    yield awaited[member].popleft(), message
                    continue
                shard, records = next(shards, (None, []))
                awaited[member].extend([shard] * len(records))
                reading -= set() if records else {member}
                with self._death_named(member):
                    self.connections[member].send(records)
        self.speed = Speed.of_all([self._receive(member) for member in awaited])

    def close(self) -> None:
        """They hold nothing worth saving: ended at once. Idempotent."""
        for connection in self.connections:
            connection.close()
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            process.join(SECONDS_TO_END)

    def _receive(self, member: int) -> Any:
        with self._death_named(member):
            message = self.connections[member].recv()
        if isinstance(message, SeqJepaError):
            raise message
        return message

    @contextlib.contextmanager
    def _death_named(self, member: int) -> Iterator[None]:
        try:
            yield
        except (EOFError, ConnectionError) as error:
            raise FailureError(
                f"the process on {self.devices[member]} was killed, perhaps for want of memory; run the same command "
                "again, with a smaller --batch-size or fewer --processes"
            ) from error


def _serve(connection: Connection, job: MapJob, device: str) -> None:
    """The life of a member: sends the provenance of its model, the results of the shards that it is sent, its speed."""
    begin_worker()
    try:
        if job.threads:
            torch.set_num_threads(job.threads)
        model = Metered(job.choice.build(device))
        connection.send(model.provenance)
        while connection.recv() == BEGIN:
            for result in make_maps(_asked_for(connection), job.source, model, job.storage, job.workers):
                connection.send(result)
            connection.send(model.speed())
    except (EOFError, ConnectionError):
        return  # the parent has given up
    except SeqJepaError as error:
        connection.send(error)
    except (OSError, MemoryError) as error:
        connection.send(FailureError(f"on {device}: {describe_error(error)}"))
    except Exception as error:
        connection.send(FailureError(f"on {device}: {type(error).__name__}: {error}"))
    finally:
        connection.close()


def _asked_for(connection: Connection) -> Iterator[Sequence[ImageRecord]]:
    connection.send(MORE)
    while shard := connection.recv():
        yield shard
        connection.send(MORE)


Engine = OneProcess | Crew


class Nodes:
    """The nodes of a Ray cluster: an actor for each GPU, or on CPUs for each core, which write the shards too: fill()
    stands for make()."""

    def __init__(self, job: MapJob, cluster: RayCluster, device: str):
        self.gpus, self.cluster = int(device == "cuda"), cluster
        self.begin = partial(_begin, job, device)
        (self.provenance,) = cluster.map_actors(self.begin, [None], lambda _: "the model", gpus=self.gpus, most=1)

    def make(self, shards: Shards) -> Results:
        raise AssertionError("the nodes write what they make")

    def fill(self, hand: Hand, shards: Shards, most: int) -> Iterator[Filled]:
        """Each of the shards, at most so many."""
        begin = partial(self.begin, hand, self.provenance)
        return self.cluster.map_actors(begin, shards, lambda item: item[0].name, gpus=self.gpus, most=most)


def _begin(
    job: MapJob, device: str, hand: Hand | None = None, provenance: dict[str, Any] | None = None
) -> Callable[[Any], Any]:
    """In an actor: without a hand what gives the model's provenance, with one what fills a shard.

    UsageError: the model is set up differently than on another node.
    """
    if job.threads:
        torch.set_num_threads(job.threads)
    model = job.choice.build(device)
    if hand is None:
        return lambda _: model.provenance
    if model.provenance != provenance:
        raise FailureError(f"node {socket.gethostname()} sets the model up differently: use equal devices and weights")

    def fill(item: tuple[PlannedShard, Sequence[ImageRecord]]) -> Filled:
        planned, records = item
        return fill_elsewhere(hand, planned, make_maps([records], job.source, model, job.storage, job.workers))

    return fill
