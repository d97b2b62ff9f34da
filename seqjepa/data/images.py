"""ImageFeed: whole images with their saliency maps, on the device: what patches and augmentations are made from.

Letters: S images of a split, B of a batch, H × W pixels.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from seqjepa.data.ahead import DecodedAhead
from seqjepa.data.decode_worker import ROW, RowError, Setup
from seqjepa.data.ring import auto_workers
from seqjepa.data.sampling import EpochOrder, Sampling
from shards.errors import DamageError, reason_of

if TYPE_CHECKING:
    from shards.reader import ImageIndex

_SHARE = {"cuda": 0.5, "cpu": 0.25}  # of the free memory, that images may take for good
_IMAGES_AT_ONCE = 256  # read, when a whole split is


@dataclass(frozen=True)
class ImageBatch:
    """B images of one rank's piece of a batch.

    rows    int64 [B], rows of the split's index: what draws are keyed by
    images  uint8 [B, 3, H, W], strided as [B, H, W, 3], on the device
    maps    float16 or float32 [B, H, W], on the device: saliency up to a factor for each image. None if not wanted
    labels  int64 [B], on the device; −1 for none
    keys    B sample keys
    """

    rows: NDArray[np.int64]
    images: Tensor
    maps: Tensor | None
    labels: Tensor
    keys: list[str]


class ImageFeed:
    """Batches of images of an `image` or `saliency` split, in the order that `sampling` gives.

    maps      read the saliency maps too
    workers   decode processes (None: auto_workers; 0: decode here)
    resident  True: the split is read when the first batch is asked for, and lives on the device from then on. False: it
              is read ahead by the workers, epoch after epoch. None: resident if it fits, in half of a GPU's free memory
              or a quarter of the machine's, shared by the ranks that run there

    The images of a batch are valid until the next batch is asked for; on a GPU the current stream owns them.
    Raises ConfigError where the split has no maps or not one batch; DamageError and FailureError while reading.
    """

    def __init__(
        self,
        index: ImageIndex,
        sampling: Sampling,
        *,
        device: torch.device | str = "cpu",
        maps: bool,
        workers: int | None = None,
        prefetch: int = 2,
        resident: bool | None = None,
    ) -> None:
        self.index, self.device = index, torch.device(device)
        self.order = EpochOrder(index.name, len(index), sampling)
        members = _Members.of(index, maps)
        workers = auto_workers(sampling.world_size) if workers is None else workers
        source = partial(_Streamed, index, members, self.device, workers, prefetch)
        if resident is None:
            resident = len(index) * members.bytes <= _room(self.device, sampling.world_size)
        self.resident = resident
        self._source: _Source = _Resident(source, self.order, self.device) if resident else source(self.order)

    def batch(self, epoch: int, step: int) -> ImageBatch:
        """This rank's piece of batch `step` of an epoch; streamed, one after the other is fast."""
        rows, (images, *parts) = self._source.fetch(epoch, step)
        labels = torch.from_numpy(self.index.labels[rows].astype(np.int64))
        return ImageBatch(
            rows,
            images.permute(0, 3, 1, 2),
            _as_maps(parts, self.index.saliency, images.shape[1:3]) if parts else None,
            labels.to(self.device, non_blocking=True),
            [self.index.keys[row] for row in rows.tolist()],
        )

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

    @property
    def bytes(self) -> int:
        return sum(self.sizes)


@dataclass(frozen=True)
class _Plan:
    """rows int64 [B]; table ROW [B · members], sample by sample."""

    rows: NDArray[np.int64]
    table: np.ndarray


class _Streamed:
    """Read by worker processes, ahead of their use, and copied to the device."""

    def __init__(
        self,
        index: ImageIndex,
        members: _Members,
        device: torch.device,
        workers: int,
        prefetch: int,
        order: EpochOrder,
    ) -> None:
        self._device = device
        self._ahead = DecodedAhead(
            partial(_plan, index, members, order),
            order.steps,
            partial(_setup, index, members, order.local_batch),
            partial(_damage, index, members),
            workers=workers,
            prefetch=prefetch,
            pinned=device.type == "cuda",
        )

    def fetch(self, epoch: int, step: int) -> tuple[NDArray[np.int64], list[Tensor]]:
        plan, filled = self._ahead.fetch(epoch, step)
        regions = (torch.from_numpy(region) for region in filled.regions)
        return plan.rows, [region.to(self._device, non_blocking=True) for region in regions]

    def close(self) -> None:
        self._ahead.close()


class _Resident:
    """Read once, as `source` does it, when first asked for; then on the device."""

    def __init__(self, source: partial[_Streamed], order: EpochOrder, device: torch.device) -> None:
        self._source, self._order, self._device = source, order, device
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

        samples = self._order.samples
        stored = EpochOrder("", samples, Sampling(1, "position", min(samples, _IMAGES_AT_ONCE), 0, shuffle=False))
        source, store = self._source(stored), []
        bar = tqdm(total=samples, desc=f"load to {self._device.type}", unit="image", disable=None, leave=False)
        with bar:
            for step in range(stored.steps):
                rows, regions = source.fetch(0, step)
                store = store or [region.new_empty((samples, *region.shape[1:])) for region in regions]
                for kept, region in zip(store, regions, strict=True):
                    kept[rows[0] : rows[-1] + 1] = region
                bar.update(len(rows))
        source.close()
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)  # whatever stream uses them finds them filled
        return store


def _plan(index: ImageIndex, members: _Members, order: EpochOrder, epoch: int, step: int) -> _Plan:
    rows = order.rows(epoch, step, step + 1)
    table = np.empty((len(rows), len(members.columns)), ROW)
    table["offset"] = index.offsets[rows[:, None], members.columns]
    table["length"] = index.lengths[rows[:, None], members.columns]
    table["shard"] = index.shard[rows][:, None]
    return _Plan(rows, table.reshape(-1))


def _setup(index: ImageIndex, members: _Members, rows: int, slots: int) -> Setup:
    return Setup(
        shard_paths=[str(path) for path in index.shard_paths],
        encoding=index.encoding,
        height=index.height,
        width=index.width,
        rows=rows,
        slots=slots,
        extras=members.sizes[1:],
    )


def _damage(index: ImageIndex, members: _Members, plan: _Plan, error: RowError) -> DamageError:
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


def _room(device: torch.device, world_size: int) -> float:
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
