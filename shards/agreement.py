"""Does an index say what a tar holds? In whole-array operations: verify() asks it of millions of members."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from shards.errors import FormatError
from shards.json_fields import json_object
from shards.kinds import kind_of
from shards.kinds.base import Kind
from shards.sample import label_member
from shards.schema import Spec
from shards.split_table import SplitTable
from shards.tar import BLOCK, END, headers


def shard_disagreements(split: SplitTable, number: int, spec: Spec) -> Iterator[str]:
    """One line for each sample of the shard whose headers, own members, label or JSON are not the index's.

    The index has passed check_index, so that every member lies inside the tar and they leave no gaps.
    """
    path, kind = split.shard_paths[number], kind_of(spec)
    blocks = np.memmap(path, np.uint8, mode="r").reshape(-1, BLOCK)
    samples = np.flatnonzero(split.shard == number)
    bad = _other_headers(blocks, split, samples, spec) | kind.differs(blocks, split, samples)
    bad |= np.array([_other_ending(blocks.ravel(), split, int(sample), kind) for sample in samples])
    for sample in samples[bad]:
        yield f"{path.name}: sample {split.keys[sample]!r} is not what the index says"
    if blocks[-len(END) // BLOCK :].any():
        yield f"{path.name}: no end marker"


def _other_headers(blocks: np.ndarray, split: SplitTable, samples: np.ndarray, spec: Spec) -> np.ndarray:
    """bool, one a sample: a header that is not, byte for byte, the one of the member that the index has there."""
    offsets, lengths = split.offsets[samples], split.lengths[samples]
    keys = np.array([split.keys[sample] for sample in samples], "S")
    names = np.char.add(keys[:, None], np.array(spec.suffixes(), "S"))
    found = blocks[offsets.ravel() // BLOCK - 1]
    same = (found == headers(names.ravel(), lengths.ravel())).all(1)
    return ~same.reshape(offsets.shape).all(1)


def _other_ending(data: np.ndarray, split: SplitTable, sample: int, kind: Kind) -> bool:
    """Whether the label or the JSON, the last two members, are others than the index's."""
    label, record = (
        data[start : start + length].tobytes()
        for start, length in zip(split.offsets[sample, -2:], split.lengths[sample, -2:], strict=True)
    )
    row = {name: column[sample] for name, column in split.columns.items()}
    meta = {name: values[sample] for name, values in split.meta.items()}
    try:
        same = json_object(record, "JSON") == {**kind.record(row), **meta}
    except FormatError:
        return True
    return not same or label != label_member(int(split.label[sample]))
