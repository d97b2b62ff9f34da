"""Maps that belong to images: a `maps` set, where in it the map of each image lies, and what makes one. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.build.fill import Transformed
from pipelines.sources import ImageRecord, ImageSource
from shards.errors import FormatError
from shards.machine.environment import pass_environment_on
from shards.reader import ShardSet
from shards.reading.split_index import ImageIndex, read_stored
from shards.saliency_map import decode_map, encode_map
from shards.sample import MapSample
from shards.schema import MapSpec, MapStorage
from shards.stats import PixelStats

IMAGE_DIGEST = "image_digest"  # in the meta of a map: short_digest of the bytes of its image


@dataclass(frozen=True)
class StoredMap:
    """A map's place: its shard, and the (offset, length) of each of its members, in bytes. Small, for workers."""

    key: str
    path: Path
    spans: tuple[tuple[int, int], ...]
    storage: MapStorage
    height: int
    width: int
    image_digest: str = ""

    def refuse_other(self, image_digest: str) -> None:
        """FormatError unless the map is of the image with these bytes. Sets of before do not say of which they are."""
        if self.image_digest and self.image_digest != image_digest:
            raise FormatError("its map is of another picture of this name")

    def members(self) -> tuple[bytes, ...]:
        """The members as they are stored. DamageError: the shard is cut or gone."""
        return tuple(read_stored(self.path, offset, length, self.key) for offset, length in self.spans)

    def read(self) -> np.ndarray:
        """float32 [height, width], summing to 1. FormatError: "a map with NaN …"."""
        return decode_map(self.members(), self.storage)


class MapSet:
    """A finished `maps` set at `path`. FormatError: none, or a set of another kind."""

    def __init__(self, path: Path):
        self.set = ShardSet.open(path)
        self.path = path
        if not isinstance(self.set.info.spec, MapSpec):
            raise FormatError(
                f"{path} holds {self.set.info.kind} shards; --maps needs what build-saliency or import-saliency writes"
            )
        self.storage: MapStorage = self.set.info.spec.storage

    @cached_property
    def splits(self) -> dict[str, ImageIndex]:
        return {name: self.set.images(name) for name in self.set.splits}

    @cached_property
    def _rows(self) -> dict[str, dict[str, int]]:
        """Of each key of each split."""
        return {name: {key: row for row, key in enumerate(index.keys)} for name, index in self.splits.items()}

    @property
    def fingerprint(self) -> dict[str, str]:
        """For each split a sha256 that tells its maps from any others."""
        return {name: index.fingerprint() for name, index in self.splits.items()}

    @property
    def provenance(self) -> dict[str, Any]:
        """What the maps are: `saliency_model` if their set names it, and `maps` with all else that it says."""
        record = dict(self.set.info.provenance)
        model = {"saliency_model": record.pop("saliency_model")} if "saliency_model" in record else {}
        return {**model, "maps": {"set": self.set.info.name, **record}}

    def refuse_other_images(self, source: ImageSource) -> None:
        """FormatError if both sides say what is in their images and it differs: keys alone would not show it."""
        made_from = self.set.info.provenance.get("source", {}).get("sample_sha256", {})
        ours = source.fingerprint.get("sample_sha256", {})
        for split in made_from.keys() & ours.keys():
            if made_from[split] != ours[split]:
                raise self.other_images(source, split)

    def other_images(self, source: ImageSource, split: str, example: str = "") -> FormatError:
        named = f" (e.g. {example})" if example else ""
        return FormatError(
            f"{self.path} holds maps of other {split} images than those in {source.path}{named}; build theirs"
        )

    def missing(self, record: ImageRecord) -> str:
        """Why there is no map of an image."""
        found = [split for split, rows in self._rows.items() if record.key in rows]
        other = f", but one of {found[0]}; build maps of the same splits (--val-fraction)" if found else ""
        return f"{record.name} has no map in {self.path} ({record.split}/{record.key}){other}"

    def find(self, records: Sequence[ImageRecord]) -> list[StoredMap | None]:
        """The map of each image, by split and key; None where there is none."""
        found = []
        for record in records:
            row = self._rows.get(record.split, {}).get(record.key)
            found.append(None if row is None else _stored(self.splits[record.split], row, self.storage))
        return found


def _stored(index: ImageIndex, row: int, storage: MapStorage) -> StoredMap:
    spans = tuple((int(index.offsets[row, m]), int(index.lengths[row, m])) for m in index.map_members)
    height, width = (int(side) for side in index.sizes[row])
    digest = index.meta[IMAGE_DIGEST][row] if IMAGE_DIGEST in index.meta else ""
    return StoredMap(index.keys[row], index.shard_paths[index.shard[row]], spans, storage, height, width, digest)


def load(record: ImageRecord, source: ImageSource) -> tuple[np.ndarray | str, str]:
    """uint8 [H, W, 3] RGB; or, for an image that cannot be read, its name and what is wrong with it. And its digest."""
    digest = source.digest(record)
    try:
        return source.read(record), digest
    except (ValueError, OSError) as error:
        pass_environment_on(error)
        return f"{record.name}: {error}", digest


def map_to_sample(
    record: ImageRecord, p: np.ndarray, image_size: tuple[int, ...], storage: MapStorage, digest: str
) -> Transformed:
    """A map [H, W] as a sample, its meta with the image's own size and digest. FormatError: it is no density."""
    meta = {**record.meta, IMAGE_DIGEST: digest, "image_height": image_size[0], "image_width": image_size[1]}
    parts, (height, width) = encode_map(p, storage), p.shape
    sample = MapSample(record.key, parts, height, width, record.label, meta)
    return Transformed(sample, PixelStats(), source=digest)
