"""What an index must satisfy before anything is read through it, in whole-array operations."""

from __future__ import annotations

import numpy as np

from shards.errors import FormatError
from shards.kinds import kind_of
from shards.sample import KEY
from shards.schema import DatasetInfo, SplitInfo
from shards.tar import BLOCK, END


def check_index(
    keys: list[str], arrays: dict[str, np.ndarray], split: SplitInfo, info: DatasetInfo, where: str
) -> None:
    """FormatError, naming the first sample at fault.

    arrays: shard, label [S]; offsets, lengths [S, m]; and the kind's own columns.
    The members have to tile each shard: every header where the data before it end, the last one before the end marker.
    """
    label, lengths = arrays["label"], arrays["lengths"].astype(np.int64)
    sizes = np.array([entry.samples for entry in split.shards])
    faults = {
        "a key that is not 1 to 80 of A-Z a-z 0-9 _ -": np.array([not KEY.fullmatch(key) for key in keys]),
        "a label without a class": (label < -1) | (label >= len(info.classes)),
        "a shard out of order": arrays["shard"] != np.repeat(np.arange(len(sizes)), sizes),
        "a member of an impossible length": (lengths < 1).any(1),
        **kind_of(info.spec).faults(arrays, lengths),
    }
    for fault, bad in faults.items():
        _refuse(bad, fault, keys, where)
    if len(set(keys)) != len(keys):
        raise FormatError(f"{where}: two samples have the same key")
    _refuse(_misplaced(arrays, split), "a member that is not where the one before it ends", keys, where)


def _refuse(bad: np.ndarray, fault: str, keys: list[str], where: str) -> None:
    if bad.any():
        raise FormatError(f"{where}: sample {keys[int(bad.argmax())]!r:.90} has {fault}")


def _misplaced(arrays: dict[str, np.ndarray], split: SplitInfo) -> np.ndarray:
    """bool [S]: samples with a member whose offset is not what the lengths before it imply, or that ends too late."""
    offsets, lengths = arrays["offsets"], arrays["lengths"].astype(np.int64)
    blocks = BLOCK + lengths + (-lengths % BLOCK)
    ends = blocks.cumsum().reshape(blocks.shape)
    firsts = np.cumsum([0, *(entry.samples for entry in split.shards)])
    totals = np.concatenate([[0], ends[:, -1]])[firsts]
    starts = ends - blocks - totals[:-1][arrays["shard"]][:, None]
    bad = (offsets != starts + BLOCK).any(1)
    wrong_size = np.diff(totals) + len(END) != np.array([entry.bytes for entry in split.shards])
    bad[firsts[1:][wrong_size] - 1] = True
    return bad
