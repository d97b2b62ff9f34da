"""seqjepa.webdataset: the view sequences of a `views` set as a plain webdataset pipeline, for any training loop.

Tars are read from front to back, as webdataset does. Views and actions of a sample are those that the trainer's
Loader draws for the same (seed, epoch, sample), by the same code; the order of samples is another one: shards in
random order, mixed in a buffer.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from webdataset import filters
from webdataset.pipeline import DataPipeline
from webdataset.shardlists import SimpleShardList, split_by_node, split_by_worker
from webdataset.tariterators import group_by_keys, tar_file_expander
from webdataset.utils import pytorch_worker_info

from seqjepa.data.actions import OF_THE_SHARDS, action_of_shards
from seqjepa.data.augment.parameters import ScalingMode, stored_scaling
from seqjepa.data.draws import Draw, Purpose, draw_u32, permutation
from seqjepa.data.sampling import long_enough
from seqjepa.data.stored import Order, StoredViews, usual_order
from shards.errors import ConfigError, DamageError, FormatError
from shards.machine.environment import pass_environment_on
from shards.reader import ShardSet, SplitIndex
from shards.reading.on_demand import bring
from shards.schema import ActionSpec, ViewSpec

Example = dict[str, Any]


def webdataset(
    shards: str | Path,
    split: str = "train",
    *,
    context: int = 3,
    action: str | ActionSpec = "",
    order: Order | None = None,
    stride: int = 1,
    batch_size: int = 0,
    drop_last: bool = False,
    shuffle: int = 1000,
    seed: int = 0,
    epoch: int = 0,
    normalisation: ScalingMode = "zscore",
) -> DataPipeline:
    """One epoch of a split of a `views` set, as a pipeline whose items are dictionaries.

    "views"    uint8 [T, 3, H, W], T = context + 1 views; the last is the target
    "actions"  float32 [T-1, A], from each view to the next        "params"  float32 [T, P], in the shards' units
    "labels"   int64 [], −1 for none                               "keys"    str

    context        M, context views of a sequence
    action         a name in seqjepa.data.actions.PRESETS, or terms; "": as the set declares, or by its parameters
    order, stride  "random": distinct views in random order; "window": every stride-th of consecutive steps, in an
                   ordered set. None: what training takes, windows of an ordered set. Of a sequence that takes several
                   samples of a tar, views of one sample, without those that are too short: the trainer looks at whole
                   sequences
    batch_size     > 0: items are batches, tensors [B, …] and a list of keys; the last may be short unless drop_last
    shuffle        samples that are mixed in memory, and shards in random order; 0: stored order
    seed, epoch    fix every draw: the same pipeline gives the same items each time, another epoch gives others
    normalisation  of baked augmentations' parameters: "zscore" with the set's constants, or "author"

    Ranks of a process group and workers of a DataLoader get whole shards, so they may differ in length: use
    `.repeat().with_epoch(n)` where they have to agree. Of a baked set, epoch e has the e-th stored sequence.
    Raises ConfigError and FormatError for what does not fit; while iterating DamageError (names shard and sample), and
    ConfigError on every rank where there are more ranks than shards.
    """
    counts = (("context", context, 1), ("stride", stride, 1))
    counts += (("batch_size", batch_size, 0), ("shuffle", shuffle, 0), ("seed", seed, 0), ("epoch", epoch, 0))
    for name, value, least in counts:
        if not isinstance(value, int) or value < least:
            raise ConfigError(f"{name} is {value!r}; allowed is a whole number from {least} on")
    how = {"normalisation": normalisation, "order": order, "stride": stride}
    draw = TarDraw.of(ShardSet.open(shards), split, action, how, Draw(context + 1, seed, epoch))
    return DataPipeline(
        SimpleShardList([str(path) for path in draw.shards_in_order(shuffle > 0)]),
        shards_of_rank,
        split_by_worker,
        partial(read_tars, samples=draw.samples_by_shard()),
        filters.select(draw.is_long_enough),
        filters.map(draw),
        *([partial(mixed, size=shuffle, seed=seed, epoch=epoch)] if shuffle else []),
        filters.map(draw.decode),
        *([filters.batched(batch_size, collation_fn=stack, partial=not drop_last)] if batch_size else []),
    )


def shards_of_rank(urls: Iterable[Example]) -> Iterator[Example]:
    """Every n-th of n ranks. ConfigError: some rank would have none, and the others wait for its gradients for ever."""
    found, ranks = list(urls), pytorch_worker_info()[1]
    if len(found) < ranks:
        raise ConfigError(
            f"the split has {len(found)} shards for {ranks} ranks, which get whole shards; build the set with fewer "
            "--samples-per-shard, or use seqjepa.open_sequences"
        )
    yield from split_by_node(iter(found))


@dataclass(frozen=True)
class TarDraw:
    """A sample of a tar → the T of its views that are drawn of it, still encoded; decode() makes pixels of them.

    index    in which every sample is a sequence of its own
    members  names of the view slots' members, without the key
    short    keys of the samples that are parts of sequences and too short themselves
    """

    index: SplitIndex
    members: tuple[str, ...]
    views: StoredViews
    draw: Draw
    short: frozenset[str] = frozenset()

    @classmethod
    def of(cls, opened: ShardSet, split: str, action: str | ActionSpec, how: dict[str, Any], draw: Draw) -> TarDraw:
        """how: of StoredViews, without its action and constants.

        ConfigError where the set has no such split, sequences or parameters, or seed or epoch are out of range.
        """
        index, spec = opened.split(split), opened.info.spec
        assert isinstance(spec, ViewSpec), "split() has refused other kinds"
        kind = action_of_shards(action, index) if action else usual_action(opened, index)
        how = how | {"order": how["order"] or usual_order(spec)}
        scaling = stored_scaling(opened.info) if how["normalisation"] == "zscore" else None
        views = StoredViews(kind, scaling=scaling, **how)
        if index.ordered or spec.chunked:  # samples by themselves: webdataset reads one after the other
            index = replace(index, chunk=np.zeros_like(index.chunk))
        whole = long_enough(index, views.order, draw.views, views.stride)
        short = frozenset(index.keys) - frozenset(whole.keys)
        views.check(whole, draw.views)
        views.plan(whole, np.zeros(1, np.int64), draw)
        return cls(index, tuple(suffix.lstrip(".") for suffix in spec.suffixes()[: spec.views]), views, draw, short)

    def is_long_enough(self, sample: Example) -> bool:
        """Whether a sample of a tar gives views at all."""
        return sample["__key__"] not in self.short

    @cached_property
    def rows(self) -> dict[str, int]:
        """Row of the index by key."""
        return {key: row for row, key in enumerate(self.index.keys)}

    def shards_in_order(self, shuffle: bool) -> list[Path]:
        """The split's tars, as stored or in the epoch's random order."""
        paths = self.index.shard_paths
        return [paths[i] for i in permutation(self.draw.seed, self.draw.epoch, len(paths))] if shuffle else list(paths)

    def samples_by_shard(self) -> dict[str, int]:
        """How many samples each of the split's tars holds."""
        counts = np.bincount(self.index.shard, minlength=len(self.index.shard_paths))
        return dict(zip(map(str, self.index.shard_paths), counts.tolist(), strict=True))

    def __call__(self, sample: Example) -> Example:
        key, tar = sample["__key__"], sample["__url__"]
        row = self.rows.get(key)
        if row is None or str(self.index.shard_paths[self.index.shard[row]]) != tar:
            raise DamageError(f"{tar} holds a sample {key!r} that its index does not name")
        plan = self.views.plan(self.index, np.array([row]), self.draw)
        names = [self.members[slot] for slot in plan.slots[0].tolist()]
        if missing := [name for name in names if name not in sample]:
            raise DamageError(f"{tar}: sample {key!r} has no {', '.join(missing)}")
        label = int(self.index.labels[row])
        encoded = {f"{tar}: {key}.{name}": sample[name] for name in names}
        return {"encoded": encoded, "params": plan.params[0], "actions": plan.actions[0], "label": label, "key": key}

    def decode(self, drawn: Example) -> Example:
        """What __call__ made → an item of the pipeline."""
        views = torch.from_numpy(np.stack([self._view(where, data) for where, data in drawn["encoded"].items()]))
        return {
            "views": views.permute(0, 3, 1, 2) if views.ndim == 4 else views,
            "actions": torch.from_numpy(drawn["actions"]),
            "params": torch.from_numpy(drawn["params"]),
            "labels": torch.tensor(drawn["label"]),
            "keys": drawn["key"],
        }

    def _view(self, where: str, data: bytes) -> np.ndarray:
        try:
            return self.index.decode(data)
        except FormatError as error:
            raise DamageError(f"{where} cannot be decoded ({error}); `seqjepa-data verify` finds all damage") from error


def usual_action(opened: ShardSet, index: SplitIndex) -> str | ActionSpec:
    """The action that the set declares or that its parameters imply. ConfigError: none is made of these."""
    action = action_of_shards(OF_THE_SHARDS, index)
    if action == "none" and index.param_names:
        raise ConfigError(
            f"{opened.place} declares no action, and none follows from its parameters {', '.join(index.param_names)}; "
            "give action='none', or the terms of one (ActionSpec)"
        )
    return action


def read_tars(shards: Iterable[Example], samples: dict[str, int]) -> Iterator[Example]:
    """{"url": path} → samples, members undecoded: webdataset.tarfile_to_samples for plain files, which it closes.

    samples  how many each of the shards holds, by path: tarfile takes damage between members for the end of a tar
    Raises DamageError.
    """
    for shard in shards:
        path, count = shard["url"], 0
        try:
            bring(Path(path))
            with open(path, "rb") as stream:
                for sample in group_by_keys(tar_file_expander([{"url": path, "stream": stream}])):
                    count += 1
                    yield sample
        except (tarfile.TarError, OSError, ValueError) as error:
            pass_environment_on(error)
            raise DamageError(
                f"{path} cannot be read ({error.args[0]}); `seqjepa-data verify` finds all damage"
            ) from error
        if count != samples[path]:
            raise DamageError(f"{path} ends after {count} of its {samples[path]} samples; verify the set")


def mixed(samples: Iterable[Example], size: int, seed: int, epoch: int) -> Iterator[Example]:
    """Samples through a buffer of `size`, in an order that (seed, epoch) fixes however often it is asked for."""
    number = int(draw_u32(seed, epoch, Purpose.SHUFFLE, [0], 1)[0, 0])
    return filters.detshuffle(size, size, seed=number).run(samples)


def stack(items: list[Example]) -> Example:
    """Sequences → one batch: tensors [B, …], views strided as [B, T, H, W, 3], and a list of keys."""
    batch = {name: torch.stack([item[name] for item in items]) for name in ("actions", "params", "labels")}
    views = [item["views"] for item in items]
    if views[0].ndim == 4:
        views = torch.stack([pixels.permute(0, 2, 3, 1) for pixels in views]).permute(0, 1, 4, 2, 3)
    else:  # features
        views = torch.stack(views)
    return {"views": views, **batch, "keys": [item["keys"] for item in items]}
