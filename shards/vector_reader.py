"""Feature vectors gathered from the mapped tars of a split, as many at once as one likes, in any order.

Letters: D numbers of a vector, F distinct views of all samples of a split, one after the other
(shards/reading/sequences.py).
"""

from __future__ import annotations

import mmap
from pathlib import Path

import numpy as np

from shards.errors import ConfigError, DamageError
from shards.machine.environment import pass_environment_on
from shards.reading.split_index import SplitIndex
from shards.stores.cache import fetch_split
from shards.tar import BLOCK
from shards.vectors import DTYPES, vector_header, vector_length

_AT_ONCE = 16 << 20  # bytes


class VectorReader:
    """Random access to the vectors of a split. ConfigError: it holds pixels. DamageError: a shard cannot be read."""

    def __init__(self, index: SplitIndex) -> None:
        if index.features is None:
            raise ConfigError(f"split {index.name!r} holds views of pixels, not features")
        self.index, self.size = index, index.features.size
        self.dtype = np.dtype(DTYPES[index.features.dtype])
        self._header = np.frombuffer(vector_header(index.features), np.uint8)
        self._length = vector_length(index.features)
        self._blocks = np.arange(-(-self._length // BLOCK))
        fetch_split(index.shard_paths, index.name)
        self._maps = [_mapped(path) for path in index.shard_paths]
        index.require_same()  # what is mapped stays what it is
        self._shards = [np.frombuffer(whole, np.uint8).reshape(-1, BLOCK) for whole in self._maps]

    def take(self, samples: np.ndarray, slots: np.ndarray) -> np.ndarray:
        """Places, int64 […] each → vectors in the stored dtype […, D].

        DamageError, naming shard and sample, where there is anything but a vector of the set; numbers that are not
        finite are found by take_all() alone.
        """
        found = np.empty((samples.size, self.size), self.dtype)
        rows, columns = samples.ravel(), slots.ravel()
        shards = self.index.shard[rows]
        for shard in np.unique(shards).tolist():
            mine = np.flatnonzero(shards == shard)
            if self._maps[shard].size() < len(self._maps[shard]):  # whoever reads what is gone is killed (SIGBUS)
                self._refuse(int(mine[0]), rows, columns, "is in a shard that has become shorter")
            starts = self.index.offsets[rows[mine], columns[mine]] // BLOCK  # members begin where blocks do
            stored = self._shards[shard][starts[:, None] + self._blocks].reshape(len(mine), -1)
            wrong = (stored[:, : len(self._header)] != self._header).any(1)
            if wrong.any():
                self._refuse(int(mine[wrong.argmax()]), rows, columns, "is no vector of this set")
            found[mine] = stored[:, len(self._header) : self._length].copy().view(self.dtype)
        return found.reshape(*samples.shape, self.size)

    def take_all(self) -> np.ndarray:
        """Every distinct view's vector in stored order [F, D]. DamageError also where a number is not finite."""
        samples, slots = self.index.sequences.locate(np.arange(self.index.sequences.firsts[-1]))
        found = np.empty((len(samples), self.size), self.dtype)
        step = max(1, _AT_ONCE // self._length)
        for start in range(0, len(samples), step):
            part = slice(start, start + step)
            vectors = self.take(samples[part], slots[part])
            if not (fine := np.isfinite(vectors).all(1)).all():
                self._refuse(int(fine.argmin()), samples[part], slots[part], "has numbers that are not finite")
            found[part] = vectors
        return found

    def _refuse(self, row: int, samples: np.ndarray, slots: np.ndarray, what: str) -> None:
        sample = int(samples[row])
        path = self.index.shard_paths[self.index.shard[sample]]
        raise DamageError(
            f"{path}: view {slots[row]} of sample {self.index.keys[sample]!r} {what}; `seqjepa-data verify "
            f"{path.parent}` finds all that is damaged"
        )


def _mapped(path: Path) -> mmap.mmap:
    """DamageError: no whole blocks, or not readable."""
    try:
        with path.open("rb") as file:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:
        if isinstance(error, OSError):
            pass_environment_on(error)
        raise DamageError(f"cannot read {path}: {error}") from error
    if len(data) % BLOCK:
        raise DamageError(f"{path} is cut: run verify on the set")
    return data
