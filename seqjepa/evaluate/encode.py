"""Pixels through the frozen encoder, in passes of a bounded size, and the room that their features are kept in.

The bank of a split of stored views: every view through the encoder, once.

The bank of a split of images: K draws of V views of every image through the encoder once, and the image itself.

Letters: S images of H × W pixels, K draws, V views of a draw, P parameters, D width of z.

Every stored view of a split, once, in storage order: pixels for the feature cache.

Nothing is drawn here, so nothing of the training loader is needed: the index says where each view lies, and a few
threads decode the next batch (the decoder releases the GIL) while the encoder works on this one.

Every image of a split with its saliency map, once, in stored order.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

import numpy as np
import simplejpeg
import torch
from torch import Tensor
from tqdm import tqdm

from seqjepa.data.augment.parameters import Scaling
from seqjepa.data.sequence import normalise
from seqjepa.evaluate.drawn_views import DrawnViews
from seqjepa.evaluate.features import Features
from shards.reader import ImageIndex, SplitIndex

PixelStats = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and standard deviation per channel, for pixels in [0, 1]."""

FULL_PRECISION_BYTES = 2 * 2**30
GPU_PIXELS_PER_PASS = 2**23  # 8,192 patches of 32×32: activations of a ResNet-18's first layer take 2 GB
CPU_PIXELS_PER_PASS = 2**16  # 64 patches, for each thread: twice as fast as 512, whose activations leave the cache


class Embedding(Protocol):
    """What turns normalised pixels into features: a method, or one branch of it."""

    def embed(self, views: Tensor) -> Tensor:
        """[B, C, H, W] → [B, D]."""
        ...


@torch.inference_mode()
def embed(method: Embedding, views: Tensor, pixel_stats: PixelStats) -> Tensor:
    """Views, uint8 or float in 0…255 [n, C, H, W], on the model's device → z float32 [n, D]."""
    passes = views.split(views_per_pass(views.device, *views.shape[-2:]))
    return torch.cat([method.embed(normalise(part, *pixel_stats)).float() for part in passes])


def views_per_pass(device: torch.device, height: int, width: int) -> int:
    """How many views go through the encoder at once."""
    pixels = GPU_PIXELS_PER_PASS if device.type == "cuda" else CPU_PIXELS_PER_PASS * torch.get_num_threads()
    return max(1, pixels // (height * width))


def room(shape: tuple[int, ...], device: torch.device) -> Tensor:
    """Zeros for features, float32, or float16 beyond 2 GiB; on a GPU as long as they leave half of what is free.

    Made outside inference mode, so that a probe's backward pass may read what is put there.
    """
    dtype = torch.float32 if 4 * np.prod(shape, dtype=np.int64) <= FULL_PRECISION_BYTES else torch.float16
    size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    fits = device.type != "cuda" or size < torch.cuda.mem_get_info(device)[0] // 2
    return torch.zeros(shape, dtype=dtype, device=device if fits else "cpu")


def encode_views(
    method: Embedding,
    index: SplitIndex,
    pixel_stats: PixelStats,
    device: torch.device,
    *,
    run_length: int = 0,
    scaling: Scaling | None = None,
    batch_size: int = 256,
    threads: int = 2,
    progress: bool = False,
) -> Features:
    """Runs every distinct view of the split through `method.embed`.

    run_length, scaling: see FeatureBank; of sets whose views were baked as sequences. Features are kept as float32, or
    as float16 when they would exceed 2 GiB (3DIEBench's 2.6 million views: 2.7 GB).
    """
    z: Tensor | None = None
    total = int(index.n_views.sum())
    bar = tqdm(total=total, desc=f"encode {index.name}", unit="view", disable=None if progress else True, leave=False)
    with bar:
        for samples, views, pixels in stored_views(index, batch_size, threads):
            on_device = torch.from_numpy(pixels).to(device, non_blocking=True).permute(0, 3, 1, 2)
            features = embed(method, on_device, pixel_stats)
            if z is None:
                z = room((*index.offsets.shape, features.shape[-1]), device)
            z[torch.from_numpy(samples).to(z.device), torch.from_numpy(views).to(z.device)] = features.to(z)
            bar.update(len(samples))
    assert z is not None, "a split has at least one sample with one view"
    labels = torch.from_numpy(np.asarray(index.labels, np.int64)).to(z.device)
    n_views = index.n_views.astype(np.int64)
    return Features(z, n_views, index.params, index.param_names, labels, run_length, scaling=scaling)


FEWEST_IMAGES, MOST_IMAGES = 64, 1024  # at once: sampling fixations costs least in batches


def encode_images(
    method: Embedding,
    index: ImageIndex,
    drawn: DrawnViews,
    pixel_stats: PixelStats,
    device: torch.device,
    *,
    threads: int = 2,
    progress: bool = False,
) -> Features:
    """Makes all views on the device and runs them, and the whole images as they are, through `method.embed` once.

    The bank's slots are K runs of V views. Raises ConfigError where views cannot be made of the images.
    """
    store: _Store | None = None
    chunk = _images_at_once(drawn, device)
    bar = tqdm(
        total=len(index), desc=f"encode {index.name}", unit="image", disable=None if progress else True, leave=False
    )
    with bar:
        for rows, pixels, saliency in image_chunks(index, chunk, threads, maps=drawn.needs_maps):
            images = torch.from_numpy(pixels).to(device).permute(0, 3, 1, 2)
            maps = torch.from_numpy(saliency).to(device)
            whole = embed(method, images, pixel_stats)
            store = store or _Store(len(index), drawn, whole.shape[-1], device)
            store.put_images(rows, whole)
            for draw in range(drawn.draws.count):
                views, params = drawn.see(rows, images, maps, draw)
                store.put_views(rows, draw, embed(method, views.flatten(0, 1), pixel_stats), params)
            bar.update(len(rows))
    assert store is not None, "a split has at least one image"
    return store.bank(index)


def _images_at_once(drawn: DrawnViews, device: torch.device) -> int:
    """As many as give the encoder at least one full pass of views."""
    views = views_per_pass(device, drawn.side, drawn.side)
    return min(MOST_IMAGES, max(FEWEST_IMAGES, views // drawn.draws.views))


class _Store:
    """Where features and parameters are put as they come."""

    def __init__(self, images: int, drawn: DrawnViews, width: int, device: torch.device) -> None:
        self.drawn, self.views = drawn, drawn.draws.views
        slots = drawn.draws.count * self.views
        self.z = room((images, slots, width), device)
        self.z_image = room((images, width), device).to(self.z.device)
        self.params = np.zeros((images, slots, len(drawn.param_names)), np.float32)

    def put_images(self, rows: np.ndarray, z: Tensor) -> None:
        self.z_image[rows[0] : rows[-1] + 1] = z.to(self.z_image)

    def put_views(self, rows: np.ndarray, draw: int, z: Tensor, params: Tensor) -> None:
        """z [b·V, D] and params [b, V, P] of one draw of the consecutive images `rows`."""
        images = slice(rows[0], rows[-1] + 1)
        slots = slice(draw * self.views, (draw + 1) * self.views)
        self.z[images, slots] = z.to(self.z).unflatten(0, (-1, self.views))
        self.params[images, slots] = params.cpu().numpy()

    def bank(self, index: ImageIndex) -> Features:
        return Features(
            self.z,
            np.full(len(index), self.z.shape[1]),
            self.params,
            self.drawn.param_names,
            torch.from_numpy(np.asarray(index.labels, np.int64)).to(self.z.device),
            run_length=self.views,
            independent=self.drawn.independent,
            z_image=self.z_image,
            scaling=self.drawn.scaling,
        )


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
