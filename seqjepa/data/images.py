"""ImageReader: whole images with their saliency maps, on the device: what patches and augmentations are made from.

Letters: S images of a split, B of a batch, H × W pixels.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from seqjepa.data.ahead import DecodedAhead, Reading
from seqjepa.data.decode_worker import ROW, RowError, Setup
from seqjepa.data.sampling import EpochOrder, Sampling
from shards.errors import DamageError, reason_of
from shards.split_index import ImageIndex

_SHARE = {"cuda": 0.5, "cpu": 0.25}  # of the free memory, that images may take for good
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
        self.index = index
        self.order = EpochOrder(index.name, len(index), sampling)
        members = _Members.of(index, maps)
        stream = partial(_Stream, index, members, reading)
        fits = reading.resident
        if fits is None:
            fits = len(index) * sum(members.sizes) <= _free_bytes(reading.device, sampling.world_size)
        self.resident = fits
        self._source: _Source = _Resident(stream, self.order, reading.device) if fits else stream(self.order)

    def batch(self, epoch: int, step: int) -> ImageBatch:
        """This rank's piece of batch `step` of an epoch; streamed, one after the other is fast."""
        rows, (images, *parts) = self._source.fetch(epoch, step)
        maps = _as_maps(parts, self.index.saliency, images.shape[1:3]) if parts else None
        return ImageBatch(rows, images.permute(0, 3, 1, 2), maps)

    def close(self) -> None:
        """End the worker processes and let go of what is resident. Another batch starts anew."""
        self._source.close()


class _Source(Protocol):
    """Where rows of a batch and their regions (images uint8 [B, H, W, 3], parts of maps uint8 [B, bytes]) come from."""

    def fetch(self, epoch: int, step: int) -> tuple[NDArray[np.int64], list[Tensor]]: ...
    def close(self) -> None: ...


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


class _Stream:
    """Read by worker processes, ahead of their use, and copied to the device."""

    def __init__(self, index: ImageIndex, members: _Members, reading: Reading, order: EpochOrder) -> None:
        self._device = reading.device
        setup = Setup.of(index, order.local_batch, members.sizes[1:])
        plan, damage = partial(_plan, index, members, order), partial(_damage, index, members)
        self._ahead = DecodedAhead(plan, order.steps, setup, damage, reading)

    def fetch(self, epoch: int, step: int) -> tuple[NDArray[np.int64], list[Tensor]]:
        plan, regions = self._ahead.fetch(epoch, step)
        return plan.rows, [torch.from_numpy(region).to(self._device, non_blocking=True) for region in regions]

    def close(self) -> None:
        self._ahead.close()


class _Resident:
    """Read once, as `stream` does it, when first asked for; then on the device."""

    def __init__(self, stream: partial[_Stream], order: EpochOrder, device: torch.device) -> None:
        self._stream, self._order, self._device = stream, order, device
        self._store: list[Tensor] = []

    def fetch(self, epoch: int, step: int) -> tuple[NDArray[np.int64], list[Tensor]]:
        self._store = self._store or self._read()
        rows = self._order.rows(epoch, step, step + 1)
        chosen = torch.from_numpy(rows).to(self._device, non_blocking=True)
        return rows, [kept.index_select(0, chosen) for kept in self._store]

    def close(self) -> None:
        self._store = []

    def _read(self) -> list[Tensor]:
        from tqdm import tqdm

        samples, sampling = self._order.samples, self._order.sampling
        whole = Sampling(1, min(samples, _IMAGES_AT_ONCE), sampling.seed, shuffle=False)
        stored = EpochOrder("", samples, whole)
        stream, store = self._stream(stored), []
        bar = tqdm(total=samples, desc=f"load to {self._device.type}", unit="image", disable=None, leave=False)
        with bar:
            for step in range(stored.steps):
                rows, regions = stream.fetch(0, step)
                store = store or [region.new_empty((samples, *region.shape[1:])) for region in regions]
                for kept, region in zip(store, regions, strict=True):
                    kept[rows[0] : rows[-1] + 1] = region
                bar.update(len(rows))
        stream.close()
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)  # whatever stream uses them finds them filled
        return store


def _plan(index: ImageIndex, members: _Members, order: EpochOrder, epoch: int, step: int) -> _ImagePlan:
    rows = order.rows(epoch, step, step + 1)
    table = np.empty((len(rows), len(members.columns)), ROW)
    table["offset"] = index.offsets[rows[:, None], members.columns]
    table["length"] = index.lengths[rows[:, None], members.columns]
    table["shard"] = index.shard[rows][:, None]
    return _ImagePlan(rows, table.reshape(-1))


def _damage(index: ImageIndex, members: _Members, plan: _ImagePlan, error: RowError) -> DamageError:
    sample, member = divmod(error.row, len(members.columns))
    row, what = int(plan.rows[sample]), "the saliency map" if member else "the image"
    path = index.shard_paths[int(index.shard[row])]
    return DamageError(
        f"{path}: {what} of sample {index.keys[row]!r} cannot be decoded ({reason_of(error)}); "
        f"`seqjepa-data verify {path.parent}` finds all that is damaged"
    )


def _as_maps(parts: Sequence[Tensor], storage: str, size: Sequence[int]) -> Tensor:
    """The stored bytes of maps (see shards/saliency_map.py) → float16 or float32 [B, H, W], up to a factor each."""
    if storage == "float16":
        return parts[0].view(torch.float16).unflatten(1, size)
    levels, limits = parts[0].unflatten(1, size), parts[1].view(torch.float32)
    span = (limits[:, 1] - limits[:, 0])[:, None, None]
    return ((levels.float() - 255) * (span / 255)).exp_()


def _free_bytes(device: torch.device, world_size: int) -> float:
    """Bytes that a split may take for good."""
    if device.type == "cuda":
        return _SHARE["cuda"] * torch.cuda.mem_get_info(device)[0]
    ranks_here = int(os.environ.get("LOCAL_WORLD_SIZE", world_size))
    return _SHARE["cpu"] * _free_memory() / max(1, ranks_here)


def _free_memory() -> int:
    """Bytes of the machine's memory that are free or easily freed; 0 where that cannot be told."""
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            facts = dict(line.split(":", 1) for line in file)
        return 1024 * int(facts["MemAvailable"].split()[0])
    except (OSError, KeyError, ValueError):
        return 0
