"""Every view or image of a split once, in storage order, decoded by threads ahead of its use.

The index says where each lies, so nothing of the training loader is needed, and decoders release the GIL.

Letters: b of a batch; H × W pixels.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import simplejpeg

from shards.reader import ImageIndex, SplitIndex
from shards.reading.on_demand import comes_and_goes
from shards.stores.cache import check_shards

Batch = tuple[np.ndarray, np.ndarray, np.ndarray]
Chunk = TypeVar("Chunk")


def decoding_threads() -> int:
    """As many as there are cores for this process, at most 16."""
    return min(16, len(os.sched_getaffinity(0)))


def stored_views(index: SplitIndex, batch_size: int, threads: int, part: slice | None = None) -> Iterator[Batch]:
    """Yields (samples int64 [b], views int64 [b], pixels uint8 [b, H, W, 3]) until each distinct view came once.

    In storage order; part: some of these alone, by their number in it. Padding slots (view ≥ n_views of its sample) are
    left out. Raises DamageError naming the view that does not decode.
    """
    samples, views = np.nonzero(np.arange(index.offsets.shape[1]) < index.n_views[:, None])
    samples, views = samples[part or slice(None)], views[part or slice(None)]
    if not any(map(comes_and_goes, index.shard_paths)):
        check_shards([index.shard_paths[number] for number in np.unique(index.shard[samples])])
    with ThreadPoolExecutor(threads) as pool:

        def submit(start: int) -> tuple[Batch, list[Future[None]]]:
            s, v = samples[start : start + batch_size], views[start : start + batch_size]
            pixels = np.empty((len(s), index.height, index.width, 3), np.uint8)
            parts = np.array_split(np.arange(len(s)), threads)
            return (s, v, pixels), [pool.submit(_decode_views, index, s, v, pixels, rows) for rows in parts]

        yield from read_ahead(range(0, len(samples), batch_size), submit)
        index.require_same()


def _decode_views(index: SplitIndex, samples: np.ndarray, views: np.ndarray, out: np.ndarray, rows: np.ndarray) -> None:
    for row in rows:
        s, v = int(samples[row]), int(views[row])
        if index.encoding == "raw":
            out[row] = index.read_view(s, v)
            continue
        try:
            simplejpeg.decode_jpeg(index.read_bytes(s, v), colorspace="RGB", buffer=out[row])
        except ValueError:
            out[row] = index.read_view(s, v)  # raises the DamageError that names shard, sample and view


def image_chunks(
    index: ImageIndex, size: int, threads: int, maps: bool = True, part: range | None = None
) -> Iterator[Batch]:
    """Yields (rows int64 [b], images uint8 [b, H, W, 3], maps float32 [b, H, W]) with b ≤ size, in stored order.

    maps=False: they are not read, and all are ones. part: these rows alone. Raises DamageError naming the
    sample that cannot be read.
    """
    part = range(len(index)) if part is None else part
    with ThreadPoolExecutor(threads) as pool:

        def read(row: int, image: np.ndarray, saliency: np.ndarray) -> None:
            image[:] = index.read_image(row)
            if maps:
                saliency[:] = index.read_map(row)

        def submit(start: int) -> tuple[Batch, list[Future[None]]]:
            rows = np.arange(start, min(start + size, part.stop))
            images = np.empty((len(rows), index.height, index.width, 3), np.uint8)
            saliency = np.ones(images.shape[:3], np.float32)
            work = zip(rows.tolist(), images, saliency, strict=True)
            return (rows, images, saliency), [pool.submit(read, *item) for item in work]

        yield from read_ahead(range(part.start, part.stop, size), submit)
        index.require_same()


def read_ahead(starts: Iterable[int], submit: Callable[[int], tuple[Chunk, list[Future[None]]]]) -> Iterator[Chunk]:
    """Chunks in order, the next one being read while the caller works on this one."""
    ahead: tuple[Chunk, list[Future[None]]] | None = None
    for start in [*starts, None]:
        current, ahead = ahead, None if start is None else submit(start)
        if current is not None:
            chunk, futures = current
            for future in futures:
                future.result()
            yield chunk
