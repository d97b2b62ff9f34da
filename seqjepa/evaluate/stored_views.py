"""Every stored view of a split, once, in storage order: pixels for the feature cache.

Nothing is drawn here, so nothing of the training loader is needed: the index says where each view lies, and a few
threads decode the next batch (the decoder releases the GIL) while the encoder works on this one.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import simplejpeg

from shards.reader import SplitIndex

Batch = tuple[np.ndarray, np.ndarray, np.ndarray]


def stored_views(index: SplitIndex, batch_size: int, threads: int) -> Iterator[Batch]:
    """Yields (samples int64 [b], views int64 [b], pixels uint8 [b, H, W, 3]) until each distinct view came once.

    Padding slots (view ≥ n_views of its sample) are left out. Raises DamageError naming the view that does not decode.
    """
    samples, views = np.nonzero(np.arange(index.offsets.shape[1]) < index.n_views[:, None])
    starts = range(0, len(samples), batch_size)
    with ExitStack() as stack, ThreadPoolExecutor(threads) as pool:
        files = [stack.enter_context(_mapped(path)) for path in index.shard_paths]

        def submit(start: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[Future[None]]]:
            s, v = samples[start : start + batch_size], views[start : start + batch_size]
            pixels = np.empty((len(s), index.height, index.width, 3), np.uint8)
            parts = np.array_split(np.arange(len(s)), threads)
            return s, v, pixels, [pool.submit(_decode_rows, index, files, s, v, pixels, rows) for rows in parts]

        ahead = None
        for start in [*starts, None]:
            current, ahead = ahead, submit(start) if start is not None else None
            if current is not None:
                s, v, pixels, futures = current
                for future in futures:
                    future.result()
                yield s, v, pixels


def _mapped(path: Path) -> mmap.mmap:
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def _decode_rows(
    index: SplitIndex, files: list[mmap.mmap], samples: np.ndarray, views: np.ndarray, out: np.ndarray, rows: np.ndarray
) -> None:
    for row in rows:
        s, v = int(samples[row]), int(views[row])
        if index.encoding == "raw":
            out[row] = index.read_view(s, v)
            continue
        start = int(index.offsets[s, v])
        data = files[index.shard[s]][start : start + int(index.lengths[s, v])]
        try:
            simplejpeg.decode_jpeg(data, colorspace="RGB", buffer=out[row])
        except ValueError:
            out[row] = index.read_view(s, v)  # raises the DamageError that names shard, sample and view
