"""SplitIndex: one split of a `views` set as arrays, enough to read any view without walking a tar."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from shards.errors import DamageError, FormatError
from shards.pixels import decode_pixels
from shards.schema import Encoding, ViewSpec
from shards.split_table import SplitTable, read_stored


@dataclass(frozen=True)
class SplitIndex:
    """One split. S samples in stored order, N view slots, P parameters; slots from n_views on are repeats.

    shard    int32 [S], position in shard_paths      labels   int64 [S], −1 for none
    n_views  int32 [S], distinct views               view_ids int32 [S, N], numbers in the source, −1 for repeats
    offsets  int64 [S, N], bytes into the shard      lengths  int32 [S, N], bytes
    params   float32 [S, N, P], in the units of ViewSpec.params, columns called param_names
    rest_offsets int64 [S, 3], rest_lengths int32 [S, 3]: the params, label and JSON members, in that order
    meta     per name, strings or integers [S]
    sequence 0: a set of views. T > 0: runs of T slots, each run a sequence in its order
    """

    name: str
    shard_paths: list[Path]
    keys: list[str]
    shard: np.ndarray
    labels: np.ndarray
    n_views: np.ndarray
    view_ids: np.ndarray
    offsets: np.ndarray
    lengths: np.ndarray
    params: np.ndarray
    encoding: Encoding
    height: int
    width: int
    param_names: tuple[str, ...]
    digest: str
    rest_offsets: np.ndarray
    rest_lengths: np.ndarray
    meta: dict[str, list] = field(default_factory=dict)
    sequence: int = 0

    @classmethod
    def of(cls, table: SplitTable, spec: ViewSpec) -> SplitIndex:
        slots = spec.views
        places = {
            name: np.ascontiguousarray(whole)
            for member, array in (("offsets", table.offsets), ("lengths", table.lengths))
            for name, whole in ((member, array[:, :slots]), (f"rest_{member}", array[:, slots:]))
        }
        return cls(
            name=table.name,
            shard_paths=table.shard_paths,
            keys=table.keys,
            shard=table.shard,
            labels=table.label,
            n_views=table.columns["n_views"],
            view_ids=table.columns["view_ids"],
            params=table.columns["params"].reshape(-1, slots, len(spec.params)),
            **places,
            encoding=spec.encoding,
            height=spec.height,
            width=spec.width,
            param_names=spec.param_names,
            digest=table.digest,
            meta=table.meta,
            sequence=spec.sequence,
        )

    def __len__(self) -> int:
        return len(self.keys)

    def fingerprint(self) -> str:
        """A sha256 over the index and all shards of the split: equal exactly if the split is the same."""
        return self.digest

    def read_bytes(self, sample: int, view: int) -> bytes:
        """The stored bytes of one view. DamageError: the shard is cut or gone."""
        path, offset = self.shard_paths[self.shard[sample]], int(self.offsets[sample, view])
        return read_stored(path, offset, int(self.lengths[sample, view]), self.keys[sample])

    def read_view(self, sample: int, view: int) -> np.ndarray:
        """uint8 [H, W, 3] RGB, decoded; for previews and tests. DamageError: the bytes do not decode to that."""
        data = self.read_bytes(sample, view)
        try:
            return decode_pixels(data, self.encoding, self.height, self.width)
        except FormatError as error:
            where = f"view {view} of sample {self.keys[sample]!r} in {self.shard_paths[self.shard[sample]].name}"
            raise DamageError(f"{where} does not decode: {error}") from error
