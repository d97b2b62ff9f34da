"""Where models run: in this process, or one process for each device, each of which takes whole shards in turn."""

from __future__ import annotations

import contextlib
import multiprocessing
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any, Protocol

import torch

from pipelines.images.source import ImageRecord, ImageSource
from pipelines.pool import as_workers_start, begin_worker
from pipelines.saliency.batches import make_maps
from pipelines.saliency.models import ModelChoice
from pipelines.transform import Transformed
from shards.environment import describe
from shards.errors import FailureError, SeqJepaError
from shards.schema import MapStorage

SECONDS_TO_END = 5


@dataclass(frozen=True)
class MapJob:
    """What every process is told. workers: of each process, for reading; threads: of torch, None leaves them."""

    choice: ModelChoice
    source: ImageSource
    storage: MapStorage
    workers: int
    threads: int | None = None


class Engine(Protocol):
    """`provenance` is the model's."""

    provenance: dict[str, Any]

    def make(self, shards: Sequence[Sequence[ImageRecord]]) -> Iterator[tuple[int, Transformed]]:
        """(which shard, result) for each record; in order within a shard. Once."""
        ...

    def close(self) -> None: ...


def start_engine(job: MapJob, devices: Sequence[str]) -> Engine:
    """Raises UsageError where the model cannot be made."""
    return OneProcess(job, devices[0]) if len(devices) == 1 else Crew(job, devices)


class OneProcess:
    def __init__(self, job: MapJob, device: str):
        self.job, self.model = job, job.choice.build(device)
        self.provenance = self.model.provenance

    def make(self, shards: Sequence[Sequence[ImageRecord]]) -> Iterator[tuple[int, Transformed]]:
        numbers = (number for number, shard in enumerate(shards) for _ in shard)
        made = make_maps(shards, self.job.source, self.model, self.job.storage, self.job.workers)
        return zip(numbers, made, strict=True)

    def close(self) -> None:
        """Nothing to end: worker processes end with the iterator of make()."""


class Crew:
    """A process for each device; shard i goes to process i mod n. Results come as they are made."""

    def __init__(self, job: MapJob, devices: Sequence[str]):
        self.devices = list(devices)
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

    def make(self, shards: Sequence[Sequence[ImageRecord]]) -> Iterator[tuple[int, Transformed]]:
        awaited: dict[int, deque[int]] = {}
        for member, connection in enumerate(self.connections):
            own = range(member, len(shards), len(self.connections))
            with self._death_named(member):
                connection.send([shards[number] for number in own])
            awaited[member] = deque(number for number in own for _ in shards[number])
        while awaited := {member: numbers for member, numbers in awaited.items() if numbers}:
            ready = wait([self.connections[member] for member in awaited])
            for member in [member for member in awaited if self.connections[member] in ready]:
                yield awaited[member].popleft(), self._receive(member)

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
    """The life of a member: its model's provenance, then a result for each record of the shards that it is sent."""
    begin_worker()
    try:
        if job.threads:
            torch.set_num_threads(job.threads)
        model = job.choice.build(device)
        connection.send(model.provenance)
        for result in make_maps(connection.recv(), job.source, model, job.storage, job.workers):
            connection.send(result)
    except (EOFError, ConnectionError):
        return  # the parent has given up
    except SeqJepaError as error:
        connection.send(error)
    except (OSError, MemoryError) as error:
        connection.send(FailureError(f"on {device}: {describe(error)}"))
    except Exception as error:
        connection.send(FailureError(f"on {device}: {type(error).__name__}: {error}"))
    finally:
        connection.close()
