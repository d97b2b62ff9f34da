"""seqjepa.open_sequences: what training sees of a shard set, as a torch data set for anybody's loop."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.utils.data import IterableDataset, get_worker_info

from seqjepa.config import RunConfig
from seqjepa.data.loader import Loader
from seqjepa.data.sequence import ViewSequence
from seqjepa.recipes import load_recipe
from seqjepa.recipes.choice import choose_recipe
from seqjepa.training.data import build_loader, open_training_data
from seqjepa.training.distributed import World
from shards.cache import local_folder
from shards.errors import UsageError


def open_sequences(
    shards: str | Path,
    split: str = "train",
    *,
    context: int | None = None,
    batch_size: int = 256,
    seed: int = 42,
    recipe: str = "",
    settings: Sequence[str] = (),
    workers: int | None = None,
    device: str = "cpu",
) -> ViewSequences:
    """Batches of view sequences of a split, as `seqjepa train` would draw them.

    context     M, context views; one more is the target. None: the recipe's
    batch_size  over all ranks of torch.distributed; the last batch of an epoch is smaller
    recipe      which views and actions: a name or file; "": what is chosen for such a set (`seqjepa train` says which)
    settings    "data.stride=4" …, as after --set
    workers     processes that decode ahead; None: by the cores. Of a DataLoader with workers of its own: none
    shards      a folder, or an address as s3://bucket/set
    device      where views are made, of sets of images

    Views are uint8 [B, T, 3, H, W] (float for some author-fidelity patches). Raises ConfigError, FormatError for what
    does not fit; while iterating DamageError (names shard and sample) and FailureError.
    """
    folder = local_folder(shards)
    chosen = choose_recipe(folder) if not recipe else None
    own = [f"data.split={split}", f"optim.batch_size={batch_size}", f"seed={seed}"]
    own += [] if context is None else [f"data.context={context}"]
    if chosen:
        recipe, own = chosen.recipe, [*chosen.settings, *own]
    config = load_recipe(recipe, [*own, *settings])
    return ViewSequences(folder, config, workers, torch.device(device))


class ViewSequences(IterableDataset[ViewSequence]):
    """Iterating gives the batches of one epoch; the next iteration those of the next.

    Each rank gets its piece of every batch. state_dict() says which batch comes next; load_state_dict() goes on there
    exactly. In a `DataLoader(data, batch_size=None, num_workers=n)` the batches are the same and in the same order; its
    processes have copies, so the epoch is set_epoch's (with persistent_workers the next one each time).
    """

    def __init__(self, shards: Path, config: RunConfig, workers: int | None, device: torch.device) -> None:
        self.shards, self.config = shards, config
        self._workers, self._device = workers, device
        self._epoch = self._step = 0
        self._loader: Loader | None = None
        self._length = len(self._opened())

    def __len__(self) -> int:
        """Batches of an epoch, the same on every rank."""
        return self._length

    def __iter__(self) -> Iterator[ViewSequence]:
        worker = get_worker_info()
        if worker is not None:  # a process of a DataLoader, with every num_workers-th batch
            yield from self._of_worker(worker.id, worker.num_workers)
            return
        first, self._step = self._step, 0
        epoch = self._epoch
        for step, batch in enumerate(self._opened().epoch(epoch, first), first):
            self._epoch, self._step = (epoch, step + 1) if step + 1 < self._length else (epoch + 1, 0)
            yield _owned(batch)
        self._epoch, self._step = epoch + 1, 0

    def set_epoch(self, epoch: int) -> None:
        """The epoch that the next iteration gives."""
        self._epoch, self._step = epoch, 0

    def state_dict(self) -> dict[str, int]:
        """Epoch and step of the batch that comes next."""
        return {"epoch": self._epoch, "step": self._step}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """UsageError: it is no state of this data."""
        epoch, step = state.get("epoch"), state.get("step")
        if not (isinstance(epoch, int) and isinstance(step, int) and epoch >= 0 and 0 <= step <= self._length):
            raise UsageError(f"{state} is no state of {self._length} batches an epoch; needed are epoch and step")
        self._epoch, self._step = epoch, step

    def close(self) -> None:
        """End the processes that decode ahead."""
        if self._loader is not None:
            self._loader.close()
        self._loader = None

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_loader": None}

    def _opened(self, workers: int | None = None) -> Loader:
        if self._loader is None:
            grouped = dist.is_available() and dist.is_initialized()
            world = World(dist.get_rank(), dist.get_world_size()) if grouped else World()
            source = open_training_data(self.shards, self.config)
            workers = self._workers if workers is None else workers
            self._loader = build_loader(source, source.config, world, workers, self._device)
        return self._loader

    def _of_worker(self, number: int, many: int) -> Iterator[ViewSequence]:
        loader = self._opened(workers=0)
        for step in range(self._step + number, self._length, many):
            yield _owned(next(loader.epoch(self._epoch, step)))
        self._epoch, self._step = self._epoch + 1, 0


def _owned(batch: ViewSequence) -> ViewSequence:
    """A copy that stays when the next batch is read."""
    return replace(batch, views=batch.views.clone(memory_format=torch.preserve_format))
