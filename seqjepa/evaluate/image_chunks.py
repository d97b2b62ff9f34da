"""Every image of a split with its saliency map, once, in stored order."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from shards.reader import ImageIndex

Chunk = tuple[np.ndarray, np.ndarray, np.ndarray]


def image_chunks(index: ImageIndex, size: int, threads: int, *, maps: bool = True) -> Iterator[Chunk]:
    """Yields (rows int64 [b], images uint8 [b, H, W, 3], maps float32 [b, H, W]) with b ≤ size, one chunk read ahead.

    maps=False: they are not read, and all are ones. Raises DamageError naming the sample that cannot be read.
    """
    with ThreadPoolExecutor(threads) as pool:

        def read(row: int, image: np.ndarray, saliency: np.ndarray) -> None:
            image[:] = index.read_image(row)
            if maps:
                saliency[:] = index.read_map(row)

        def submit(start: int) -> tuple[Chunk, list[Future[None]]]:
            rows = np.arange(start, min(start + size, len(index)))
            images = np.empty((len(rows), index.height, index.width, 3), np.uint8)
            saliency = np.ones(images.shape[:3], np.float32)
            work = zip(rows.tolist(), images, saliency, strict=True)
            return (rows, images, saliency), [pool.submit(read, *item) for item in work]

        ahead = None
        for start in [*range(0, len(index), size), None]:
            current, ahead = ahead, submit(start) if start is not None else None
            if current is not None:
                chunk, futures = current
                for future in futures:
                    future.result()
                yield chunk
