"""Runs a saliency model over shards of images: in this process, or in one process for each device.

A process takes whole shards in turn. Images of one size go through the model together and come back in the images'
own order. A batch never holds images of two shards, so that a shard's bytes do not depend on which others were made
before it.
"""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import socket
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing.connection import Connection, wait
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from pipelines.build.fill import Filled, Transformed, fill_elsewhere
from pipelines.build.maps import IMAGE_DIGEST
from pipelines.build.plan import PlannedShard
from pipelines.build.pool import as_workers_start, begin_worker, map_in_order
from pipelines.saliency.load import load
from pipelines.saliency.models import ModelChoice, SaliencyModel
from pipelines.sources import ImageRecord, ImageSource
from shards.environment import describe_error
from shards.errors import FailureError, FormatError, SeqJepaError, UsageError
from shards.hand import Hand
from shards.ray_engine import RayCluster
from shards.saliency_map import encode_map
from shards.sample import MapSample
from shards.schema import MapStorage
from shards.stats import PixelStats

SECONDS_TO_END = 5
BEGIN, MORE = "begin", "more"


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

    def make(self, shards: Iterator[Sequence[ImageRecord]]) -> Iterator[tuple[int, Transformed]]:
        """(which shard, result) for each record; in order within a shard. A shard is taken when somebody is free."""
        ...

    def close(self) -> None: ...


def start_engine(job: MapJob, devices: Sequence[str]) -> Engine:
    """Raises UsageError where the model cannot be made."""
    return OneProcess(job, devices[0]) if len(devices) == 1 else Crew(job, devices)


class OneProcess:
    def __init__(self, job: MapJob, device: str):
        self.job, self.model = job, job.choice.build(device)
        self.provenance = self.model.provenance

    def make(self, shards: Iterator[Sequence[ImageRecord]]) -> Iterator[tuple[int, Transformed]]:
        awaited: deque[int] = deque()

        def taken() -> Iterator[Sequence[ImageRecord]]:
            for number, shard in enumerate(shards):
                awaited.extend([number] * len(shard))
                yield shard

        for result in make_maps(taken(), self.job.source, self.model, self.job.storage, self.job.workers):
            yield awaited.popleft(), result

    def close(self) -> None:
        """Nothing to end: worker processes end with the iterator of make()."""


class Crew:
    """A process for each device, which asks for a shard when it can read on. Results come as they are made."""

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

    def make(self, shards: Iterator[Sequence[ImageRecord]]) -> Iterator[tuple[int, Transformed]]:
        awaited: dict[int, deque[int]] = {member: deque() for member in range(len(self.connections))}
        coming, reading = enumerate(shards), set(awaited)
        for member, connection in enumerate(self.connections):
            with self._death_named(member):
                connection.send(BEGIN)
        while at_work := [member for member, numbers in awaited.items() if numbers or member in reading]:
            ready = wait([self.connections[member] for member in at_work])
            for member in [member for member in at_work if self.connections[member] in ready]:
                message = self._receive(member)
                if message != MORE:
                    yield awaited[member].popleft(), message
                    continue
                number, shard = next(coming, (0, []))
                awaited[member].extend([number] * len(shard))
                reading -= set() if shard else {member}
                with self._death_named(member):
                    self.connections[member].send(shard)

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
        while connection.recv() == BEGIN:
            for result in make_maps(_asked_for(connection), job.source, model, job.storage, job.workers):
                connection.send(result)
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


class Nodes:
    """The nodes of a Ray cluster: an actor for each GPU, or on CPUs for each core, which write the shards too."""

    def __init__(self, job: MapJob, cluster: RayCluster, device: str):
        self.gpus, self.cluster = int(device == "cuda"), cluster
        self.begin = partial(_begin, job, device)
        (self.provenance,) = cluster.map_actors(self.begin, [None], lambda _: "the model", gpus=self.gpus, most=1)

    def fill(
        self, hand: Hand, shards: Iterator[tuple[PlannedShard, Sequence[ImageRecord]]], most: int
    ) -> Iterator[Filled]:
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


FULL_BATCH_PIXELS = 512 * 512  # of an image; of larger ones, fewer go into a batch
SMALL_IMAGES = 1024  # at most, of smaller ones on a GPU, which one batch size's worth of pixels keeps busy
CPU = torch.device("cpu")


def make_maps(
    shards: Iterable[Sequence[ImageRecord]],
    source: ImageSource,
    model: SaliencyModel,
    storage: MapStorage,
    workers: int,
) -> Iterator[Transformed]:
    """One result for each record, in order, shard after shard, each of which has some.

    `bad` names an image that cannot be read, or that the model refuses. workers: processes that read and decode; 0 or
    1: here. Raises FailureError if the model or a worker fails.
    """
    lengths: deque[int] = deque()

    def records() -> Iterator[ImageRecord]:
        for shard in shards:
            lengths.append(len(shard))
            yield from shard

    images = map_in_order(partial(load, source=source), records(), workers, lambda record: record.name)
    with contextlib.closing(images):  # type: ignore[type-var]
        for first in images:
            of_shard = itertools.chain([first], itertools.islice(images, lengths.popleft() - 1))
            yield from _maps_of_shard(of_shard, model, storage)


def _maps_of_shard(
    images: Iterator[tuple[ImageRecord, tuple[np.ndarray | str, str]]], model: SaliencyModel, storage: MapStorage
) -> Iterator[Transformed]:
    batches, ready, following = SizeBatches(model, storage), {}, 0
    for place, (record, (image, digest)) in enumerate(images):
        if isinstance(image, str):
            ready[place] = left_out(image, digest)
        else:
            ready |= batches.put(place, replace(record, meta={**record.meta, IMAGE_DIGEST: digest}), image)
        while following in ready:
            yield ready.pop(following)
            following += 1
    ready |= batches.flush()
    for place in sorted(ready):
        yield ready[place]


@dataclass(frozen=True)
class Placed:
    """An image [H, W, 3] and its place in the shard."""

    place: int
    record: ImageRecord
    image: np.ndarray


class ToHost:
    """A copy to the host's memory that begins when `maps` are made, and is there before what is queued after it."""

    def __init__(self, maps: Tensor):
        self._maps = maps
        self._copied: torch.cuda.Event | None = None
        if maps.is_cuda:
            self._maps = torch.empty(maps.shape, dtype=maps.dtype)
            with contextlib.suppress(RuntimeError):  # some machines allow no page-locked memory: then copying waits
                self._maps = self._maps.pin_memory()
            self._maps.copy_(maps, non_blocking=True)
            self._copied = torch.cuda.Event()
            self._copied.record()

    def wait(self) -> Tensor:
        if self._copied is not None:
            self._copied.synchronize()
        return self._maps


class SizeBatches:
    """Images wait for others of their size; one batch is under way on the device while the next is gathered."""

    def __init__(self, model: SaliencyModel, storage: MapStorage):
        self.model = model
        self.storage: MapStorage = storage
        self._waiting: dict[tuple[int, ...], list[Placed]] = {}
        self._under_way: tuple[list[Placed], ToHost] | None = None

    def put(self, place: int, record: ImageRecord, image: np.ndarray) -> dict[int, Transformed]:
        """Maps that this image made ready, by place: those of the batch before, if it completes one."""
        batch = self._waiting.setdefault(image.shape, [])
        batch.append(Placed(place, record, image))
        if len(batch) < self._full(image):
            return {}
        return self._launch(self._waiting.pop(image.shape))

    def flush(self) -> dict[int, Transformed]:
        """Everything that is left, by place."""
        ready: dict[int, Transformed] = {}
        for shape in list(self._waiting):
            ready |= self._launch(self._waiting.pop(shape))
        return ready | self._collect()

    def _full(self, image: np.ndarray) -> int:
        pixels, side = image.shape[0] * image.shape[1], getattr(self.model, "input_size", None)
        if side is not None:  # what the model makes of the image counts too
            pixels = max(pixels, pixels * side**2 // min(image.shape[:2]) ** 2)
        full = self.model.batch_size * FULL_BATCH_PIXELS // pixels
        most = SMALL_IMAGES if getattr(self.model, "device", CPU).type == "cuda" else self.model.batch_size
        return max(1, min(most, full))

    def _launch(self, batch: list[Placed]) -> dict[int, Transformed]:
        stacked = torch.from_numpy(np.stack([item.image for item in batch])).permute(0, 3, 1, 2)
        try:
            density = self.model.density(stacked)
        except UsageError as error:  # images that the model cannot take, too small ones above all
            refused = {item.place: left_out(f"{item.record.name}: {error}", _digest(item.record)) for item in batch}
            return refused | self._collect()
        except torch.OutOfMemoryError as error:
            height, width = stacked.shape[2:]
            raise FailureError(
                f"the device has no memory for {len(batch)} images of {height}×{width}, e.g. {batch[0].record.name}: "
                f"run the same command again with a smaller --batch-size (it was {self.model.batch_size})"
            ) from error
        copied = ToHost(density)
        before = self._collect()
        self._under_way = batch, copied
        return before

    def _collect(self) -> dict[int, Transformed]:
        if self._under_way is None:
            return {}
        batch, copied = self._under_way
        self._under_way = None
        maps = copied.wait().numpy()
        return {
            item.place: map_to_sample(item.record, p, item.image.shape, self.storage)
            for item, p in zip(batch, maps, strict=True)
        }


def left_out(why: str, digest: str) -> Transformed:
    """In place of a sample; `why` begins with the image's name."""
    return Transformed(None, PixelStats(), bad=(why,), images=0, source=digest)


def _digest(record: ImageRecord) -> str:
    return str(record.meta.get(IMAGE_DIGEST, ""))


def map_to_sample(record: ImageRecord, p: np.ndarray, image_shape: tuple[int, ...], storage: MapStorage) -> Transformed:
    """A map [H, W] as a sample; its meta has the image's own size too. FailureError: it is no density."""
    height, width = p.shape
    meta = {**record.meta, "image_height": image_shape[0], "image_width": image_shape[1]}
    try:
        parts = encode_map(p, storage)
    except FormatError as error:
        raise FailureError(f"{record.name}: the model gave {error}") from error
    sample = MapSample(record.key, parts, height, width, record.label, meta)
    return Transformed(sample, PixelStats(), source=_digest(record))
