"""ImageIndex: one split of a `saliency`, `image` or `maps` set as arrays."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from shards.errors import ConfigError, DamageError, FormatError
from shards.pixels import decode_pixels
from shards.saliency_map import decode_map
from shards.schema import MAP_SUFFIXES, Encoding, ImageSpec, MapSpec, MapStorage
from shards.split_table import SplitTable, read_stored


@dataclass(frozen=True)
class ImageIndex:
    """One split. S samples in stored order, each of m members: image, map (two members in log8), label, JSON.

    shard    int32 [S], position in shard_paths      labels   int64 [S], −1 for none
    offsets  int64 [S, m], bytes into the shard      lengths  int32 [S, m], bytes
    sizes    int32 [S, 2], (height, width) of each sample in pixels
    encoding of the images, "none" in a set of maps; saliency: how maps are stored, "none" in a set of images
    height, width  of every image; 0 in a set of maps, where `sizes` has them
    meta     per name, strings or integers [S]
    """

    name: str
    shard_paths: list[Path]
    keys: list[str]
    shard: np.ndarray
    labels: np.ndarray
    offsets: np.ndarray
    lengths: np.ndarray
    sizes: np.ndarray
    encoding: Encoding | Literal["none"]
    saliency: MapStorage | Literal["none"]
    height: int
    width: int
    digest: str
    meta: dict[str, list] = field(default_factory=dict)

    @classmethod
    def of(cls, table: SplitTable, spec: ImageSpec | MapSpec) -> ImageIndex:
        if isinstance(spec, ImageSpec):
            sizes = np.tile(np.array([spec.height, spec.width], np.int32), (len(table.keys), 1))
            own = (sizes, spec.encoding, spec.saliency, spec.height, spec.width)
        else:
            sizes = np.stack([table.columns["height"], table.columns["width"]], 1)
            own = (sizes, "none", spec.storage, 0, 0)
        common = (table.name, table.shard_paths, table.keys, table.shard, table.label, table.offsets, table.lengths)
        return cls(*common, *own, digest=table.digest, meta=table.meta)

    def __len__(self) -> int:
        return len(self.keys)

    def fingerprint(self) -> str:
        """A sha256 over the index and all shards of the split: equal exactly if the split is the same."""
        return self.digest

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

    def read_bytes(self, sample: int, member: int) -> bytes:
        """The stored bytes of one member. DamageError: the shard is cut or gone."""
        path, offset = self.shard_paths[self.shard[sample]], int(self.offsets[sample, member])
        return read_stored(path, offset, int(self.lengths[sample, member]), self.keys[sample])

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

    def _place(self, sample: int) -> str:
        return f"of sample {self.keys[sample]!r} in {self.shard_paths[self.shard[sample]].name}"

    def _folder(self) -> Path:
        return self.shard_paths[0].parent
