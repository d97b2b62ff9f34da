"""Sees to it that shards of a set in a store are in the cache when a batch is read, and go when they are not.

What is fetched, in which order, follows from the order of samples alone, so all ranks of a machine fetch the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from seqjepa.data.sampling import EpochOrder, Sampling, homes_of
from shards.errors import UsageError
from shards.metadata import read_info
from shards.reading.fetch_ahead import FetchAhead, Visit, live_bytes
from shards.reading.split_index import ImageIndex, SplitIndex
from shards.schema import ShardEntry
from shards.stores.cache import hold
from shards.stores.cache_room import SIZE, in_gb, is_cached, limit_of, unclaimed

SHARE = 0.5
"""Of what is free in the cache, that the shards take among which samples are shuffled; what remains is read ahead."""
MOST = 0.75
"""Of what is free in the cache, that a reader claims unless it cannot do with less: a run reads other splits too."""
AHEAD = 8
"""Shards that are fetched ahead, at least; fewer where there is no room for them."""


def supply_for(index: SplitIndex | ImageIndex, order: EpochOrder, ahead: int) -> FetchAhead | None:
    """What fetches for one loader; None for a set in a folder of the user's: everything is there.

    order: of its samples. ahead: batches that are at work at the same time. Unless all the split `stays`, shards come
    and go: they may not stay mapped. UsageError: the cache has no room for what is read at one time.
    """
    root = folder_of(index)
    if not is_cached(root):
        return None
    hold(root)
    info, sampling = read_info(root), order.sampling
    entries = info.splits[index.name].shards
    claim = (index.name, sum(entry.bytes for entry in entries))
    stays = claim[1] <= unclaimed(root, index.name)
    if not stays:
        name = f"{index.name}-{sampling.seed}-{sampling.window}-{sampling.batch_size}-{int(sampling.shuffle)}"
        claim = (name, _bytes_of_some(index, order, ahead, entries, unclaimed(root, name)))
    visits = partial(visits_of, index, order)
    return FetchAhead(root, info, index.name, visits, claim, stays=stays, epochs=sampling.shuffle)


def _bytes_of_some(
    index: SplitIndex | ImageIndex, order: EpochOrder, ahead: int, entries: Sequence[ShardEntry], free: int
) -> int:
    """What a reader claims whose shards come and go: what it reads at one time, and some ahead."""
    visits, sampling, root = visits_of(index, order, 0), order.sampling, folder_of(index)
    needed = live_bytes(entries, visits, 1)
    if needed > free:
        shuffled = f"samples of {sampling.window or len(entries)} shards shuffled together"
        what = shuffled if sampling.shuffle else "samples in stored order"
        raise UsageError(
            f"split {index.name!r} of {root.name} with {what} needs {in_gb(needed)} at a time, and the cache "
            f"{root.parent} has {in_gb(free)} left of {in_gb(limit_of(root.parent))}; set {SIZE}"
            + (", or a smaller data.shuffle_window in a new run" if sampling.shuffle else "")
        )
    at_work = live_bytes(entries, visits, ahead)
    wished = at_work + AHEAD * max((entries[visit.shard].bytes for visit in visits), default=0)
    return max(needed, min(wished, int(MOST * free)))


def folder_of(index: SplitIndex | ImageIndex) -> Path:
    """The set's folder."""
    return index.shard_paths[0].parent


def window_that_fits(index: SplitIndex | ImageIndex, sampling: Sampling) -> int:
    """How many shards' samples are shuffled together where the cache cannot hold all; 0: it can. UsageError: not two.

    The shards take half of what the cache has left, so that a machine with a smaller one can go on with the run.
    """
    root = folder_of(index)
    if not is_cached(root):
        return 0
    entries = read_info(root).splits[index.name].shards
    free = unclaimed(root, index.name)
    if sum(entry.bytes for entry in entries) <= free:
        return 0
    window = max(1, len(np.unique(homes_of(index))) - 1)
    while window > 1:
        order = EpochOrder(index.name, len(index), replace(sampling, window=window), homes_of(index))
        needed = live_bytes(entries, visits_of(index, order, 0), 1)
        if needed <= (SHARE if window > 2 else MOST) * free:
            return window
        window = min(window - 1, max(2, int(window * SHARE * free / needed)))
    largest = max(entry.bytes for entry in entries)
    raise UsageError(
        f"split {index.name!r} of {root.name} is larger than the cache {root.parent}, which has {in_gb(free)} left: "
        f"too little to shuffle samples of even 2 shards of {in_gb(largest)}; set {SIZE}"
    )


def visits_of(index: SplitIndex | ImageIndex, order: EpochOrder, epoch: int) -> list[Visit]:
    """Between which steps of an epoch each shard is read, ascending. A sample's views may lie in any shard that its
    sequence reaches into."""
    homes, steps, shards = homes_of(index), order.steps_of(epoch), len(index.shard_paths)
    reach = _ends_of(index) - homes
    steps, homes, reach = (array[steps < order.steps] for array in (steps, homes, reach))
    found: list[Visit] = []
    for further in range(int(reach.max(initial=0)) + 1):
        first, last = np.full(shards, order.steps), np.full(shards, -1)
        mine = reach >= further
        np.minimum.at(first, homes[mine], steps[mine])
        np.maximum.at(last, homes[mine], steps[mine])
        used = np.flatnonzero(last >= 0)
        found += map(
            Visit._make, zip(first[used].tolist(), last[used].tolist(), (used + further).tolist(), strict=True)
        )
    return sorted(found)


def _ends_of(index: SplitIndex | ImageIndex) -> np.ndarray:
    """int [S]: the shard in which each sample, or the sequence that it is a part of, ends."""
    if isinstance(index, SplitIndex) and index.sequences.joined:
        begins = np.flatnonzero(index.chunk == 0)
        ends = np.append(begins[1:], len(index)) - 1
        return index.shard[ends][index.sequences.ids]
    return index.shard
