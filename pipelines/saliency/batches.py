"""Images of many sizes → maps, same-size images together, in the images' own order.

A batch never holds images of two shards, so that a shard's bytes do not depend on which others were made before it.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from pipelines.images.maps import IMAGE_DIGEST
from pipelines.images.source import ImageRecord, ImageSource
from pipelines.pool import map_in_order
from pipelines.saliency.load import load
from pipelines.saliency.models import SaliencyModel
from pipelines.transform import Transformed
from shards.errors import FailureError, FormatError, UsageError
from shards.saliency_map import encode_map
from shards.sample import MapSample
from shards.schema import MapStorage
from shards.stats import PixelStats

FULL_BATCH_PIXELS = 512 * 512  # of an image; of larger ones, fewer go into a batch


def make_maps(
    shards: Sequence[Sequence[ImageRecord]],
    source: ImageSource,
    model: SaliencyModel,
    storage: MapStorage,
    workers: int,
) -> Iterator[Transformed]:
    """One result for each record, in order, shard after shard. `bad` names an image that cannot be read, or that the
    model refuses.

    workers: processes that read and decode; 0 or 1: here. Raises FailureError if the model or a worker fails.
    """
    records = list(itertools.chain.from_iterable(shards))
    images = map_in_order(partial(load, source=source), records, workers, lambda record: record.name)
    with contextlib.closing(images):  # type: ignore[type-var]
        for shard in shards:
            yield from _maps_of_shard(itertools.islice(images, len(shard)), model, storage)


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


class SizeBatches:
    """Images wait for others of their size; one batch is under way on the device while the next is gathered."""

    def __init__(self, model: SaliencyModel, storage: MapStorage):
        self.model = model
        self.storage: MapStorage = storage
        self._waiting: dict[tuple[int, ...], list[Placed]] = {}
        self._under_way: tuple[list[Placed], Tensor] | None = None

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
        pixels = image.shape[0] * image.shape[1]
        return max(1, min(self.model.batch_size, self.model.batch_size * FULL_BATCH_PIXELS // pixels))

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
        before = self._collect()
        self._under_way = batch, density
        return before

    def _collect(self) -> dict[int, Transformed]:
        if self._under_way is None:
            return {}
        batch, density = self._under_way
        self._under_way = None
        maps = density.cpu().numpy()
        return {
            item.place: to_sample(item.record, p, item.image.shape, self.storage)
            for item, p in zip(batch, maps, strict=True)
        }


def left_out(why: str, digest: str) -> Transformed:
    """In place of a sample; `why` begins with the image's name."""
    return Transformed(None, PixelStats(), bad=(why,), images=0, source=digest)


def _digest(record: ImageRecord) -> str:
    return str(record.meta.get(IMAGE_DIGEST, ""))


def to_sample(record: ImageRecord, p: np.ndarray, image_shape: tuple[int, ...], storage: MapStorage) -> Transformed:
    """A map [H, W] as a sample; its meta has the image's own size too. FailureError: it is no density."""
    height, width = p.shape
    meta = {**record.meta, "image_height": image_shape[0], "image_width": image_shape[1]}
    try:
        parts = encode_map(p, storage)
    except FormatError as error:
        raise FailureError(f"{record.name}: the model gave {error}") from error
    sample = MapSample(record.key, parts, height, width, record.label, meta)
    return Transformed(sample, PixelStats(), source=_digest(record))
