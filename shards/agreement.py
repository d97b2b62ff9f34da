"""Does an index say what a tar holds? In whole-array operations: verify() asks it of millions of members."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from shards.errors import FormatError
from shards.metadata import json_object
from shards.reader import SplitIndex
from shards.sample import npy_bytes
from shards.schema import ViewSpec
from shards.tar import BLOCK, END, headers


def shard_disagreements(index: SplitIndex, number: int, spec: ViewSpec) -> Iterator[str]:
    """One line for each sample of the shard whose headers, parameters, label or view numbers are not the index's.

    The index has passed check_index, so that every member lies inside the tar and they leave no gaps.
    """
    path = index.shard_paths[number]
    blocks = np.memmap(path, np.uint8, mode="r").reshape(-1, BLOCK)
    samples = np.flatnonzero(index.shard == number)
    bad = _other_headers(blocks, index, samples, spec) | _other_params(blocks, index, samples)
    bad |= np.array([_other_record(blocks.ravel(), index, int(sample)) for sample in samples])
    for sample in samples[bad]:
        yield f"{path.name}: sample {index.keys[sample]!r} is not what the index says"
    if blocks[-len(END) // BLOCK :].any():
        yield f"{path.name}: no end marker"


def _other_headers(blocks: np.ndarray, index: SplitIndex, samples: np.ndarray, spec: ViewSpec) -> np.ndarray:
    """bool [S]: a header that is not, byte for byte, the one of the member that the index has there."""
    offsets = np.concatenate([index.offsets[samples], index.rest_offsets[samples]], 1)
    lengths = np.concatenate([index.lengths[samples], index.rest_lengths[samples]], 1)
    keys = np.array([index.keys[sample] for sample in samples], "S")
    names = np.char.add(keys[:, None], np.array(spec.suffixes(), "S"))
    found = blocks[offsets.ravel() // BLOCK - 1]
    same = (found == headers(names.ravel(), lengths.ravel())).all(1)
    return ~same.reshape(offsets.shape).all(1)


def _other_params(blocks: np.ndarray, index: SplitIndex, samples: np.ndarray) -> np.ndarray:
    """bool [S]: the .npy is not, byte for byte, that of the index's rows."""
    rows = index.params[samples].reshape(len(samples), -1).view(np.uint8)
    start = npy_bytes(index.params[0])[: -rows.shape[1]]
    length = len(start) + rows.shape[1]
    where = index.rest_offsets[samples, :1] // BLOCK + np.arange(-(-length // BLOCK))
    found = blocks[np.minimum(where, len(blocks) - 1)].reshape(len(samples), -1)[:, :length]
    expected = np.concatenate([np.tile(np.frombuffer(start, np.uint8), (len(rows), 1)), rows], 1)
    return (index.rest_lengths[samples, 0] != length) | (found != expected).any(1)


def _other_record(data: np.ndarray, index: SplitIndex, sample: int) -> bool:
    """Whether the label, or the JSON's view numbers, are others than the index's."""
    _, label, record = (
        data[start : start + length].tobytes()
        for start, length in zip(index.rest_offsets[sample], index.rest_lengths[sample], strict=True)
    )
    ids = index.view_ids[sample]
    try:
        found = json_object(record, "JSON").get("view_ids")
    except FormatError:
        return True
    return label != b"%d" % index.labels[sample] or found != ids[ids >= 0].tolist()
