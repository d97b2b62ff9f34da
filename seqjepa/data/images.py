"""ImageReader: whole images with their saliency maps, on the device: what patches and augmentations are made from.

Letters: S images of a split, B of a batch, H × W pixels.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from seqjepa.data.decode_ahead import DecodedAhead, Reading, damaged, places_of, read_once
from seqjepa.data.decode_worker import RowError, Setup
from seqjepa.data.device import require_cuda
from seqjepa.data.sampling import EpochOrder, Sampling, homes_of
from seqjepa.data.shards_needed import supply_for
from seqjepa.devices import available_memory, to_device
from shards.errors import DamageError
from shards.reading.split_index import ImageIndex

_SHARE = {"cuda": 0.5, "cpu": 0.25}  # of the free memory, that a split may take for good
_ENOUGH = 32 << 30  # bytes that leave room for any model, batch and activations on a large GPU
_IMAGES_AT_ONCE = 256  # read, when a whole split is


@dataclass(frozen=True)
class ImageBatch:
    """B images of one rank's piece of a batch.

    rows    int64 [B], rows of the split's index: what draws are keyed by
    images  uint8 [B, 3, H, W], strided as [B, H, W, 3], on the device
    maps    float16 or float32 [B, H, W], on the device: saliency up to a factor for each image. None if not wanted
    """

    rows: NDArray[np.int64]
    images: Tensor
    maps: Tensor | None = None


class ImageReader:
    """Batches of images of an `image` or `saliency` split, in the order that `sampling` gives; maps=True: with theirs.

    The images of a batch are valid until the next batch is asked for; on a GPU the current stream owns them.
    Raises ConfigError where the split has no maps or not one batch; DamageError and FailureError while reading.
    """

    def __init__(self, index: ImageIndex, sampling: Sampling, reading: Reading, *, maps: bool) -> None:
        self.index, self.order = index, EpochOrder(index.name, len(index), sampling, homes_of(index))
        self._reading, self._members = reading, _Members.of(index, maps)
        resident = reading.resident
        if resident is None:
            needed = len(index) * sum(self._members.sizes)
            resident = needed <= free_bytes(reading.device, sampling.world_size)
        self.resident = resident
        self._kept: list[Tensor] = []  # regions of the whole split, where it is resident
        self._ahead = self._decoded_ahead(self.order)

    def batch(self, epoch: int, step: int) -> ImageBatch:
        """This rank's piece of batch `step` of an epoch; streamed, one after the other is fast."""
        if self.resident:
            self._kept = self._kept or self._read_all()
            rows = self.order.rows(epoch, step, step + 1)
            chosen = to_device(torch.from_numpy(rows), self._reading.device)
            regions = [kept.index_select(0, chosen) for kept in self._kept]
        else:
            plan, fetched = self._ahead.fetch(epoch, step)
            rows, regions = plan.rows, self._moved(fetched)
        images, *parts = regions
        maps = _as_maps(parts, self.index.saliency, images.shape[1:3]) if parts else None
        return ImageBatch(rows, images.permute(0, 3, 1, 2), maps)

    def close(self) -> None:
        """End the worker processes and let go of what is resident. Another batch starts anew."""
        self._ahead.close()
        self._kept = []

    def _decoded_ahead(self, order: EpochOrder) -> DecodedAhead[_ImagePlan]:
        index, members = self.index, self._members
        setup = Setup.of(index, order.local_batch, members.sizes[1:])
        plan, damage = partial(_plan, index, members, order), partial(_damage_of_image, index, members)
        return DecodedAhead(plan, order.steps, setup, damage, self._reading, partial(supply_for, index, order))

    def _moved(self, regions: Sequence[np.ndarray]) -> list[Tensor]:
        """On the device: images uint8 [B, H, W, 3], parts of maps uint8 [B, bytes]."""
        return [torch.from_numpy(region).to(self._reading.device, non_blocking=True) for region in regions]

    def _read_all(self) -> list[Tensor]:
        """The regions of the whole split, read once by workers of its own."""
        samples, device = len(self.index), self._reading.device
        order = EpochOrder(self.index.name, samples, Sampling(1, min(samples, _IMAGES_AT_ONCE), 0, shuffle=False))
        kept: list[Tensor] = []
        for plan, regions in read_once(self._decoded_ahead(order), order.steps, samples, "image", device):
            moved = self._moved(regions)
            kept = kept or [region.new_empty((samples, *region.shape[1:])) for region in moved]
            for whole, region in zip(kept, moved, strict=True):
                whole[plan.rows[0] : plan.rows[-1] + 1] = region
        return kept


@dataclass(frozen=True)
class _Members:
    """What is read of a sample: the columns of the index's offsets, image first, and the bytes that each becomes."""

    columns: list[int]
    sizes: list[int]

    @classmethod
    def of(cls, index: ImageIndex, maps: bool) -> _Members:
        pixels = index.height * index.width
        columns, sizes = [index.image_member], [3 * pixels]
        if maps:
            columns += index.map_members
            sizes += [2 * pixels] if index.saliency == "float16" else [pixels, 8]
        return cls(columns, sizes)


@dataclass(frozen=True)
class _ImagePlan:
    """rows int64 [B]; table ROW [B · members], sample by sample."""

    rows: NDArray[np.int64]
    table: np.ndarray


def _plan(index: ImageIndex, members: _Members, order: EpochOrder, epoch: int, step: int) -> _ImagePlan:
    rows = order.rows(epoch, step, step + 1)
    return _ImagePlan(rows, places_of(index, rows[:, None], np.array(members.columns)).reshape(-1))


def _damage_of_image(index: ImageIndex, members: _Members, plan: _ImagePlan, error: RowError) -> DamageError:
    sample, member = divmod(error.row, len(members.columns))
    return damaged(index, int(plan.rows[sample]), "the saliency map" if member else "the image", error)


def _as_maps(parts: Sequence[Tensor], storage: str, size: Sequence[int]) -> Tensor:
    """The stored bytes of maps (see shards/saliency_map.py) → float16 or float32 [B, H, W], up to a factor each."""
    if storage == "float16":
        return parts[0].view(torch.float16).unflatten(1, size)
    levels, limits = parts[0].unflatten(1, size), parts[1].view(torch.float32)
    span = (limits[:, 1] - limits[:, 0])[:, None, None]
    return ((levels.float() - 255) * (span / 255)).exp_()


def free_bytes(device: torch.device, world_size: int) -> float:
    """Bytes that a split may take for good: half of what is free on a GPU, or all but 32 GiB; a quarter of what is free
    in the machine's memory, shared by the ranks that run there."""
    if device.type == "cuda":
        require_cuda()
        free = torch.cuda.mem_get_info(device)[0]
        return max(_SHARE["cuda"] * free, free - _ENOUGH)
    ranks_here = int(os.environ.get("LOCAL_WORLD_SIZE", world_size))
    return _SHARE["cpu"] * available_memory() / max(1, ranks_here)
