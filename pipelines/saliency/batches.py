"""Images in, maps out: what each process of a build does, in stages each of which is bounded.

    read, decode   worker processes, a few images ahead (pipelines/build/pool.py)
    gather         images of one size and one shard, to batches
    copy           on a GPU from page-locked memory, on a stream of its own
    model          on a GPU up to AHEAD batches are queued behind the one that it works on
    fetch, encode  on a GPU by a stream and threads of their own; then whoever asked for the results writes them

So a GPU has work while the host reads, encodes and writes, beyond a shard's end too: it waits for the host only where
that takes longer for a batch on average. On the CPU, where the model takes all cores, stages come one after the other.
What a batch holds depends on the images of its shard alone, so that a shard's bytes do not depend on what else was
made, nor on who is how fast.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from pipelines.build.fill import Transformed
from pipelines.build.maps import load, map_to_sample
from pipelines.build.pool import map_in_order
from pipelines.saliency.device import CPU, Copies
from pipelines.saliency.models import SaliencyModel, pixels_seen
from pipelines.sources import ImageRecord, ImageSource
from shards.errors import FailureError, FormatError, UsageError
from shards.schema import MapStorage

FULL_BATCH_PIXELS = 512 * 512  # of an image; of larger ones, fewer go into a batch
SMALL_IMAGES = 1024  # at most, of smaller ones on a GPU, which one batch size's worth of pixels keeps busy
AHEAD = 2  # batches
ENCODERS = 4  # threads
PIXELS_HELD = 1 << 29  # of images since the oldest that waits for others of its size: 1.6 GB, or their maps

Loaded = tuple[ImageRecord, tuple[np.ndarray | str, str]]
Result = tuple[int, Transformed]
Work = Callable[[], Transformed]


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
        ahead = AHEAD if _device(model).type == "cuda" else 0
        made = mapped(gathered(images, lengths, partial(full_batch, model)), model, storage, ahead)
        with contextlib.closing(made):  # type: ignore[type-var]
            yield from in_order(made)


@dataclass(frozen=True)
class Placed:
    """An image uint8 [H, W, 3], its place among all, its digest, and how many pixels those before it have."""

    place: int
    record: ImageRecord
    image: np.ndarray
    digest: str
    before: int


Batch = list[Placed] | Result  # or what stands for one image that is bad


def gathered(images: Iterator[Loaded], lengths: deque[int], full: Callable[[int, int], int]) -> Iterator[Batch]:
    """Batches of full(H, W) images of one size, fewer at the end of a shard; what stands for images that are bad.

    lengths: of the shards of which `images` have begun.
    """
    waiting: dict[tuple[int, ...], list[Placed]] = {}  # the size that has waited longest first
    left = pixels = 0
    for place, (record, (image, digest)) in enumerate(images):
        left = (left or lengths.popleft()) - 1
        if isinstance(image, str):
            yield place, Transformed.left_out(image, digest)
        else:
            batch = waiting.setdefault(image.shape, [])
            batch.append(Placed(place, record, image, digest, pixels))
            pixels += image.shape[0] * image.shape[1]
            if len(batch) >= full(*image.shape[:2]):
                yield waiting.pop(image.shape)
        while waiting and (not left or pixels - next(iter(waiting.values()))[0].before > PIXELS_HELD):
            yield waiting.pop(next(iter(waiting)))


def full_batch(model: SaliencyModel, height: int, width: int) -> int:
    """How many images of a size go through the model together."""
    full = int(model.batch_size * FULL_BATCH_PIXELS // max(height * width, pixels_seen(model, height, width)))
    most = SMALL_IMAGES if _device(model).type == "cuda" else model.batch_size
    return max(1, min(most, full))


def mapped(batches: Iterable[Batch], model: SaliencyModel, storage: MapStorage, ahead: int) -> Iterator[Result]:
    """Each image's result with its place, batch after batch, `ahead` batches late."""
    copies = Copies(_device(model))
    under_way: deque[list[tuple[int, Work]]] = deque()
    with _encoding(ahead) as begin:
        for batch in batches:
            if isinstance(batch, tuple):
                yield batch
                continue
            under_way.append([(place, begin(work)) for place, work in _launched(batch, model, copies, storage)])
            if len(under_way) > ahead:
                yield from _ended(under_way.popleft())
        while under_way:
            yield from _ended(under_way.popleft())


def in_order(results: Iterable[Result]) -> Iterator[Transformed]:
    held: dict[int, Transformed] = {}
    following = 0
    for place, result in results:
        held[place] = result
        while following in held:
            yield held.pop(following)
            following += 1


def _ended(begun: list[tuple[int, Work]]) -> Iterator[Result]:
    for place, result in begun:
        yield place, result()


@contextlib.contextmanager
def _encoding(ahead: int) -> Iterator[Callable[[Work], Work]]:
    """begin(work) gives what waits for its result; with nothing ahead that is the work itself."""
    if not ahead:
        yield lambda work: work
        return
    threads = ThreadPoolExecutor(ENCODERS, "encode")
    try:
        yield lambda work: threads.submit(work).result
    finally:
        threads.shutdown(cancel_futures=True)


def _launched(batch: list[Placed], model: SaliencyModel, copies: Copies, storage: MapStorage) -> list[tuple[int, Work]]:
    """What gives each image's result, with its place. The maps themselves are on their way."""
    shape, size = batch[0].image.shape, model.batch_size
    some = f"{len(batch)} image{'s' * (len(batch) > 1)}"
    what = f"{some} of {shape[0]}×{shape[1]}, e.g. {batch[0].record.name}"
    try:
        with _failures_named(what, size):
            fetched = copies.fetch(model.density(copies.batch([item.image for item in batch])))
    except UsageError as error:  # images that the model cannot take, too small ones above all
        why = str(error)
        return [
            (item.place, partial(Transformed.left_out, f"{item.record.name}: {why}", item.digest)) for item in batch
        ]

    def encoded(item: Placed, number: int) -> Transformed:
        with _failures_named(what, size):
            maps = fetched()
        try:
            return map_to_sample(item.record, maps[number], shape, storage, item.digest)
        except FormatError as error:
            raise FailureError(f"{item.record.name}: the model gave {error}") from error

    return [(item.place, partial(encoded, item, number)) for number, item in enumerate(batch)]


@contextlib.contextmanager
def _failures_named(what: str, batch_size: int) -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise FailureError(
            f"the device has no memory for {what}: run the same command again with a smaller --batch-size "
            f"(it was {batch_size})"
        ) from error
    except RuntimeError as error:  # of torch; a GPU's come late, for it is not waited for
        reason = str(error).partition("\n")[0]
        raise FailureError(f"the model failed on {what}, or before: {reason}; run the same command again") from error


def _device(model: SaliencyModel) -> torch.device:
    return getattr(model, "device", CPU)
