"""seqjepa.open_sequences: what training sees of a shard set, as a torch data set for anybody's loop."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from numbers import Integral
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.utils.data import IterableDataset, get_worker_info
from torch.utils.data._utils.collate import default_collate_fn_map

from seqjepa.config import RunConfig
from seqjepa.data.loader import Loader
from seqjepa.data.sequence import ViewSequence
from seqjepa.devices import pick_device
from seqjepa.recipes import flatten, load_recipe
from seqjepa.training.data import TrainingData, build_loader, open_training_data, window_for, with_shuffle_window
from seqjepa.training.distributed import World
from seqjepa.training.recipe_choice import choose_recipe
from shards.errors import UsageError
from shards.stores.cache import local_folder


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
    device: str | torch.device = "cpu",
) -> ViewSequences:
    """Batches of view sequences of a split, as `seqjepa train` would draw them.

    context     M, context views; one more is the target. None: the recipe's
    batch_size  over all ranks of torch.distributed; the last batch of an epoch is smaller. As in training it is left
                out where it has fewer than two samples for each rank, and so are up to ranks − 1 that cannot be shared
    recipe      which views and actions: a name or file; "": what is chosen for such a set (`seqjepa train` says which)
    settings    "data.stride=4" …, as after --set
    workers     processes that decode ahead; None: by the cores. Of a DataLoader with workers of its own: none
    shards      a folder, or an address as s3://bucket/set
    device      where views are made, of sets of images

    Views are uint8 [B, T, 3, H, W] (float for some author-fidelity patches). Raises ConfigError, FormatError for what
    does not fit; while iterating DamageError (names shard and sample) and FailureError.
    """
    if isinstance(settings, str):
        raise UsageError(f"settings is the text {settings!r:.80}; give a list: [{settings!r:.80}]")
    if not isinstance(settings, Sequence) or not all(isinstance(setting, str) for setting in settings):
        raise UsageError(f"settings is {settings!r:.80}; give a list of texts as 'data.stride=4'")
    if workers is not None and type(workers) is not int:
        raise UsageError(f"workers is {workers!r:.40}; a whole number, 0 or more, or None is needed")
    folder = local_folder(shards)
    own = [f"data.split={json.dumps(split)}", f"optim.batch_size={batch_size}", f"seed={seed}"]
    chosen = choose_recipe(folder, [*own, *settings]) if not recipe else None
    own += [] if context is None else [f"data.context={context}"]
    if chosen:
        recipe, own = chosen.recipe, [*chosen.settings, *own]
    config = load_recipe(recipe, [*own, *settings])
    return ViewSequences(folder, config, workers, pick_device(device))


class ViewSequences(IterableDataset[ViewSequence]):
    """Iterating gives the batches of one epoch; the next iteration those of the next, or what is left of an epoch
    in which the last one was left: after `next(iter(data))`, set_epoch(0) begins anew.

    Each rank gets its piece of every batch, also where torch.distributed begins after this was opened.
    state_dict() says which batch comes next; load_state_dict() goes on there exactly. By these names Lightning and
    torchdata's StatefulDataLoader find them. In a `DataLoader(data, batch_size=None, num_workers=n)`, or one that is
    told no batch_size, the batches are the same and in the same order; its processes have copies, so the epoch is
    set_epoch's (with persistent_workers the next one each time).
    """

    def __init__(self, shards: Path, config: RunConfig, workers: int | None, device: torch.device) -> None:
        self.shards, self.config = shards, config
        self._workers, self._device = workers, device
        self._epoch = self._step = 0
        self._of: dict[str, str] = {}  # what the batches are made of
        self._window: int | None = None  # data.shuffle_window, once it is chosen
        self._stride = 0  # of a worker's own batches, where the step is of one worker; 0: of all
        self._world = World()  # when it was pickled: processes of a DataLoader are in no group of their own
        self._loader: Loader | None = None
        self._opened_by: tuple[int, World] | None = None
        self._of_the_parent: list[Loader] = []
        self._opened()

    def __len__(self) -> int:
        """Batches of an epoch, the same on every rank."""
        return len(self._opened())

    def __iter__(self) -> Iterator[ViewSequence]:
        worker = get_worker_info()
        if worker is not None:
            yield from self._of_worker(worker.id, worker.num_workers)
            return
        if self._stride:
            raise UsageError(f"the state is of one of {self._stride} workers of a DataLoader; load it in that worker")
        loader, epoch, first = self._opened(), self._epoch, self._step
        self._step = 0
        for step, batch in enumerate(loader.epoch(epoch, first), first):
            self._epoch, self._step = (epoch, step + 1) if step + 1 < len(loader) else (epoch + 1, 0)
            yield _owned(batch)
        self._epoch, self._step = epoch + 1, 0

    def set_epoch(self, epoch: int) -> None:
        """The epoch that the next iteration gives. UsageError: it is no number from 0."""
        if not isinstance(epoch, Integral) or epoch < 0:
            raise UsageError(f"epoch is {epoch!r:.40}; a whole number, 0 or more, is needed")
        self._epoch, self._step, self._stride = int(epoch), 0, 0

    def state_dict(self) -> dict[str, Any]:
        """Epoch and step of the batch that comes next; in a process of a DataLoader, of its own next, and how many
        processes share the batches; of a set that is larger than the cache, the window of the shuffle; and of what
        batches that is: the split's fingerprint, seed, batch size, settings of the data that are not the defaults."""
        state: dict[str, Any] = {"epoch": self._epoch, "step": self._step, "of": self._of}
        state |= {"shuffle_window": self._window} if self._window else {}
        return {**state, "workers": self._stride} if self._stride else state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The next iteration begins at the batch that `state`, of state_dict(), names. UsageError: it is no state of
        these batches."""
        state = state if isinstance(state, dict) else {}
        self._refuse_others(state.get("of", self._of))  # states of before said nothing
        found = [state.get(key, None if key in ("epoch", "step") else 0) for key in _STATE]
        whole = all(type(value) is int and value >= 0 for value in found)
        if whole and found[3] != (self._window or 0):
            self.close()
            self._window = found[3]
        length = len(self)
        if not whole or found[1] > length:
            raise UsageError(f"{state} is no state of {length} batches an epoch; epoch and step are needed")
        self._epoch, self._step, self._stride, _ = found

    def _refuse_others(self, of: object) -> None:
        """UsageError where a state is of other batches: samples would be given twice, and others never."""
        there, here = of if isinstance(of, dict) else {}, self._of
        if differ := [key for key in {**there, **here} if there.get(key) != here.get(key)]:
            said = ", ".join(
                f"{key} {str(there.get(key))[:16]} there, {str(here.get(key))[:16]} here" for key in differ
            )
            raise UsageError(f"the state is of other batches: {said}; open the same ones, or begin with set_epoch")

    def close(self) -> None:
        """End the processes that decode ahead."""
        if self._loader is not None:
            self._loader.close()
        self._loader = None

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_world": self._world_now(), "_loader": None, "_of_the_parent": []}

    def _world_now(self) -> World:
        if dist.is_available() and dist.is_initialized():
            return World(dist.get_rank(), dist.get_world_size())
        return World() if get_worker_info() is None else self._world

    def _opened(self) -> Loader:
        """The loader of this process in the world as it is now; in a process of a DataLoader it decodes by itself."""
        now = (os.getpid(), self._world_now())
        if self._loader is not None and now != self._opened_by:
            if self._opened_by is not None and self._opened_by[0] == now[0]:
                self._loader.close()
            else:  # after a fork: its processes are the parent's, and are left alone
                self._of_the_parent.append(self._loader)
            self._loader = None
        if self._loader is None:
            source = self._source()
            self._of = _made_of(source)
            workers = self._workers if get_worker_info() is None else 0
            self._loader = build_loader(source, source.config, now[1], workers, self._device)
            self._opened_by = now
        return self._loader

    def _source(self) -> TrainingData:
        """With a window for the shuffle that fits the cache, chosen once; ranks have to be told one."""
        source = open_training_data(self.shards, self.config)
        if self._window is None:
            alone = self._world_now().size == 1 and get_worker_info() is None
            self._window = window_for(source, World()) if alone else source.config.data.shuffle_window
        return with_shuffle_window(source, self._window)

    def _of_worker(self, number: int, many: int) -> Iterator[ViewSequence]:
        """Every `many`-th batch: of those that are left the `number`-th is the first, or where its state says."""
        loader, epoch = self._opened(), self._epoch
        if self._stride not in (0, many):
            raise UsageError(f"the state is of {self._stride} workers, and there are {many}; use as many")
        first = self._step if self._stride else self._step + number
        self._stride = many
        for step in range(first, len(loader), many):
            self._step = min(step + many, len(loader))
            yield _owned(next(loader.epoch(epoch, step)))
        self._epoch, self._step, self._stride = epoch + 1, 0, 0


_STATE = ("epoch", "step", "workers", "shuffle_window")


def _made_of(source: TrainingData) -> dict[str, str]:
    """What batches are a function of, beside epoch and step, as texts by name; without settings at their defaults, so
    that settings of later versions change nothing."""
    ours, usual = (flatten(config.model_dump()) for config in (source.config, RunConfig()))
    told = [key for key in ours if key.startswith("data.") and ours[key] != usual[key] and key not in _FREE]
    return {"shards": source.names["train"], **{key: str(ours[key]) for key in ("seed", "optim.batch_size", *told)}}


_FREE = ("data.set", "data.split", "data.shuffle_window")
"""The first two are in the split's fingerprint; the window has its own place in a state."""


def _owned(batch: ViewSequence) -> ViewSequence:
    """A copy that stays when the next batch is read."""
    return replace(batch, views=batch.views.clone(memory_format=torch.preserve_format))


def _as_they_are(batches: list[ViewSequence], *, collate_fn_map: object = None) -> ViewSequence:
    """What a DataLoader makes of the batches that it collects: its batch_size, unless told, is 1."""
    if len(batches) > 1:
        raise UsageError(
            f"a DataLoader with batch_size={len(batches)} collects what are batches already; give it batch_size=None, "
            "and open_sequences the batch_size"
        )
    return batches[0]


default_collate_fn_map[ViewSequence] = _as_they_are
