"""One split of a set as arrays: StoredMembers (what every kind has), SplitIndex (views), ImageIndex (images and maps).

Each is enough to read any member without walking a tar.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np

from shards.errors import ConfigError, DamageError, FormatError
from shards.index import META, check_index, column_numpy, number_columns, table_from_bytes
from shards.kinds.views import ViewKind
from shards.layout import Layout
from shards.machine.environment import pass_environment_on
from shards.machine.files import sha256_of_bytes
from shards.metadata import read_info
from shards.pixels import decode_pixels
from shards.reading.on_demand import bring, comes_and_goes, fetch_or_stream
from shards.reading.sequences import Sequences
from shards.saliency_map import decode_map
from shards.schema import (
    MAP_SUFFIXES,
    ActionSpec,
    DatasetInfo,
    Encoding,
    FeatureSpec,
    ImageSpec,
    MapSpec,
    MapStorage,
    SplitInfo,
    ViewEncoding,
    ViewSpec,
)
from shards.stores.cache import fetch, is_cached
from shards.vectors import decode_vector

MAX_INDEX = 16 << 30


@dataclass(frozen=True)
class StoredMembers:
    """What the index of any kind says: S samples in stored order, each of m members.

    shard    int32 [S], position in shard_paths      labels   int64 [S], −1 for none
    offsets  int64 [S, m], bytes into the shard      lengths  int32 [S, m], bytes
    meta     per name, strings or integers [S]       digest   see fingerprint()
    stored   fingerprint() of the whole split, where these are some of its samples
    """

    name: str
    shard_paths: list[Path]
    keys: list[str]
    shard: np.ndarray
    labels: np.ndarray
    offsets: np.ndarray
    lengths: np.ndarray
    meta: dict[str, list]
    digest: str
    stored: str

    def __len__(self) -> int:
        return len(self.keys)

    def fingerprint(self) -> str:
        """A sha256 over the index and all shards of the split: equal exactly if the split is the same."""
        return self.digest

    def require_same(self) -> None:
        """DamageError: the set was made anew since this was read, so that the same places may hold what has other
        labels. What lies in a cache for a while only is never replaced."""
        if any(map(comes_and_goes, self.shard_paths)):
            return
        root = self.shard_paths[0].parent
        with contextlib.suppress(FileNotFoundError, FormatError, KeyError):  # a build removes dataset.json at first
            if _split_digest(read_info(root).splits[self.name]) == self.stored:
                return
        raise DamageError(f"{root}: the set was made anew while it was read: run the command again")

    def read_bytes(self, sample: int, member: int) -> bytes:
        """The stored bytes of one member, a view's where members are views. DamageError: the shard is cut or gone."""
        path, offset = self.shard_paths[self.shard[sample]], int(self.offsets[sample, member])
        return read_stored(path, offset, int(self.lengths[sample, member]), self.keys[sample])

    def _place(self, sample: int) -> str:
        return f"of sample {self.keys[sample]!r} in {self.shard_paths[self.shard[sample]].name}"


@dataclass(frozen=True)
class SplitTable(StoredMembers):
    """columns: the kind's own, [S] or [S, width]."""

    columns: dict[str, np.ndarray]

    @property
    def common(self) -> dict[str, Any]:
        """What every kind has, by name."""
        return {part.name: getattr(self, part.name) for part in fields(StoredMembers)}


def load_table(root: Path, info: DatasetInfo, name: str, tars: bool = True) -> SplitTable:
    """tars: False where a set in a store is only looked at, so that its shards stay there.

    DamageError: the index or a tar's size is not what dataset.json says. FormatError: an impossible index."""
    if tars:
        fetch_or_stream(root, info, name)
    else:
        fetch(root, info, [name], tars=False)
    entry, layout = info.splits[name], Layout(root)
    paths = [layout.shard(shard.name) for shard in entry.shards]
    for shard, path in zip(entry.shards, paths, strict=True):
        if not is_cached(root) or (tars and not comes_and_goes(path)):
            _check_size(path, shard.bytes)
    where = root / entry.index
    table = table_from_bytes(_read_index(where, entry.index_sha256), info.spec, entry.samples, str(where))
    columns = {n: column_numpy(table, n, column.width) for n, column in number_columns(info.spec).items()}
    arrays = {"shard": column_numpy(table, "shard"), **columns}
    keys = table.column("key").to_pylist()
    check_index(keys, arrays, entry, info, str(where))
    shard, labels, offsets, lengths = (arrays.pop(n) for n in ("shard", "label", "offsets", "lengths"))
    meta = {c.removeprefix(META): table.column(c).to_pylist() for c in table.column_names if c.startswith(META)}
    digest = _split_digest(entry)
    return SplitTable(name, paths, keys, shard, labels, offsets, lengths, meta, digest, digest, arrays)


def _split_digest(entry: SplitInfo) -> str:
    return sha256_of_bytes("".join([entry.index_sha256, *(shard.sha256 for shard in entry.shards)]).encode())


def read_stored(path: Path, offset: int, length: int, key: str) -> bytes:
    """The bytes of a member of sample `key`. DamageError: the shard is cut or gone."""
    try:
        data = _read(path, offset, length)
    except OSError as error:
        pass_environment_on(error)
        raise DamageError(f"cannot read {path}: {error.strerror}") from error
    if len(data) != length:
        raise DamageError(f"{path} ends inside sample {key!r}: run verify on the set")
    return data


def _read(path: Path, offset: int, length: int, tries: int = 3) -> bytes:
    """A shard that comes and goes is brought, also where it goes just before it is opened."""
    bring(path)
    try:
        with open(path, "rb") as file:
            file.seek(offset)
            return file.read(length)
    except FileNotFoundError:
        if tries == 1 or not comes_and_goes(path):
            raise
    return _read(path, offset, length, tries - 1)


def _check_size(path: Path, expected: int) -> None:
    if not path.is_file():
        raise DamageError(f"{path} is missing: copy the set again or rebuild it")
    if (found := path.stat().st_size) != expected:
        raise DamageError(f"{path} has {found} bytes instead of {expected}: copy the set again or rebuild it")


def _read_index(path: Path, sha256: str) -> bytes:
    if not path.is_file() or path.stat().st_size > MAX_INDEX:
        raise DamageError(f"{path} is missing or too large: copy the set again or rebuild it")
    data = path.read_bytes()
    if sha256_of_bytes(data) != sha256:
        raise DamageError(f"{path} is damaged (its sha256 differs): copy the set again or rebuild it")
    return data


@dataclass(frozen=True)
class ImageIndex(StoredMembers):
    """One split. The members of a sample: image, map (two members in log8), label, JSON.

    sizes    int32 [S, 2], (height, width) of each sample in pixels
    encoding of the images, "none" in a set of maps; saliency: how maps are stored, "none" in a set of images
    height, width  of every image; 0 in a set of maps, where `sizes` has them
    """

    sizes: np.ndarray
    encoding: Encoding | Literal["none"]
    saliency: MapStorage | Literal["none"]
    height: int
    width: int

    @classmethod
    def of(cls, table: SplitTable, spec: ImageSpec | MapSpec) -> ImageIndex:
        if isinstance(spec, ImageSpec):
            sizes = np.tile(np.array([spec.height, spec.width], np.int32), (len(table.keys), 1))
            own = {"encoding": spec.encoding, "saliency": spec.saliency, "height": spec.height, "width": spec.width}
        else:
            sizes = np.stack([table.columns["height"], table.columns["width"]], 1)
            own = {"encoding": "none", "saliency": spec.storage, "height": 0, "width": 0}
        return cls(**table.common, sizes=sizes, **own)

    @property
    def image_member(self) -> int:
        """Column of offsets and lengths that is the image's. ConfigError: a set of maps."""
        if self.encoding == "none":
            raise ConfigError(f"{self._folder()} holds maps without their images")
        return 0

    @property
    def map_member(self) -> int:
        """Column of offsets and lengths that is the map's; in log8 the next one is its range. ConfigError: no maps."""
        if self.saliency == "none":
            raise ConfigError(f"{self._folder()} holds images without saliency maps")
        return 0 if self.encoding == "none" else 1

    @property
    def map_members(self) -> range:
        """All columns that are the map's."""
        return range(self.map_member, self.map_member + len(MAP_SUFFIXES[self.saliency]))

    def read_image(self, sample: int) -> np.ndarray:
        """uint8 [H, W, 3] RGB. DamageError: the bytes do not decode to that. ConfigError: a set of maps."""
        data = self.read_bytes(sample, self.image_member)
        try:
            return decode_pixels(data, self.encoding, self.height, self.width)  # pyright: ignore[reportArgumentType]
        except FormatError as error:
            raise DamageError(f"image {self._place(sample)} does not decode: {error}") from error

    def read_map(self, sample: int) -> np.ndarray:
        """float32 [H, W], sums to 1. FormatError: "map of sample …: a map with NaN …", "a map of another size …".

        DamageError: the shard is cut or gone. ConfigError: a set of images only.
        """
        parts = [self.read_bytes(sample, member) for member in self.map_members]
        try:
            found = decode_map(parts, self.saliency)  # pyright: ignore[reportArgumentType]
            if found.shape != tuple(self.sizes[sample]):
                height, width = self.sizes[sample]
                raise FormatError(f"a map of another size than its image: {found.shape}, the image is {height}×{width}")
            return found
        except FormatError as error:
            raise FormatError(f"map {self._place(sample)}: {error}") from error

    def _folder(self) -> Path:
        return self.shard_paths[0].parent


@dataclass(frozen=True)
class SplitIndex(StoredMembers):
    """One split. S samples in stored order, N view slots, P parameters; slots from n_views on are repeats.

    offsets  int64 [S, N], bytes into the shard      lengths  int32 [S, N], bytes: of the views alone
    n_views  int32 [S], distinct views               view_ids int32 [S, N], numbers in the source, −1 for repeats
    params   float32 [S, N, P], in the units of ViewSpec.params, columns called param_names
    rest_offsets int64 [S, 3], rest_lengths int32 [S, 3]: the params, label and JSON members, in that order
    sequence 0: a set of views. T > 0: runs of T slots, each run a sequence in its order
    actions  what takes a view to another, as the set declares it; None: what its columns imply
    ordered  view_ids are steps of a sequence, ascending
    features of sets of features, what their vectors are; else None
    chunk    int32 [S], which part of its sequence a sample is; zeros where each sample is one: see `sequences`
    """

    n_views: np.ndarray
    view_ids: np.ndarray
    params: np.ndarray
    encoding: ViewEncoding
    height: int
    width: int
    param_names: tuple[str, ...]
    rest_offsets: np.ndarray
    rest_lengths: np.ndarray
    chunk: np.ndarray
    sequence: int = 0
    actions: ActionSpec | None = None
    ordered: bool = False
    features: FeatureSpec | None = None

    @classmethod
    def of(cls, table: SplitTable, spec: ViewSpec) -> SplitIndex:
        slots = spec.views
        places: dict[str, Any] = {
            name: np.ascontiguousarray(whole)
            for member, array in (("offsets", table.offsets), ("lengths", table.lengths))
            for name, whole in ((member, array[:, :slots]), (f"rest_{member}", array[:, slots:]))
        }
        return cls(
            **(table.common | places),
            n_views=table.columns["n_views"],
            view_ids=table.columns["view_ids"],
            params=ViewKind(spec).params(table.columns),
            encoding=spec.encoding,
            height=spec.height,
            width=spec.width,
            param_names=spec.param_names,
            sequence=spec.sequence,
            actions=spec.actions,
            ordered=spec.ordered,
            features=spec.features,
            chunk=table.columns.get("chunk", np.zeros(len(table.keys), np.int32)),
        )

    @cached_property
    def sequences(self) -> Sequences:
        """How samples join to sequences."""
        return Sequences(self.n_views, self.chunk, self.view_ids)

    def read_view(self, sample: int, view: int) -> np.ndarray:
        """uint8 [H, W, 3] RGB, or float32 [D] of features, decoded; for previews and tests (VectorReader reads many).

        DamageError: the bytes do not decode to that.
        """
        data = self.read_bytes(sample, view)
        try:
            return self.decode(data)
        except FormatError as error:
            raise DamageError(f"view {view} {self._place(sample)} does not decode: {error}") from error

    def decode(self, data: bytes) -> np.ndarray:
        """The stored bytes of a view → uint8 [H, W, 3], or float32 [D] of features. FormatError: they are none."""
        if self.features:
            return decode_vector(data, self.features)
        return decode_pixels(data, cast(Encoding, self.encoding), self.height, self.width)
