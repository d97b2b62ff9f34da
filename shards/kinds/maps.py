"""`maps`: saliency maps without their images, each of its own size. What a saliency model leaves, image by image."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from shards.json_fields import one_of
from shards.kinds.base import LABEL_LINE, LABEL_RECORD, Column, Columns, Kind, StoredSplit
from shards.saliency_map import DTYPE, STORED_AS, card_lines, map_headers, map_lengths, map_problem, map_records
from shards.schema import MAX_SIDE, DatasetInfo, MapSpec
from shards.tar import StoredTar, begins_with


@dataclass(frozen=True)
class MapSample:
    """The saliency map of one image.

    key            that of the image: letters, digits, _ and -; unique within its split
    saliency       what `encode_map` returns
    height, width  of the map, pixels
    label          rank of the class in DatasetInfo.classes, −1 for none
    meta           a few strings or integers; the same names and types in every sample of a set
    """

    key: str
    saliency: tuple[bytes, ...]
    height: int
    width: int
    label: int = -1
    meta: dict[str, str | int] = field(default_factory=dict)


@dataclass(frozen=True)
class MapKind(Kind):
    """Height and width are columns of the index, and in the JSON."""

    spec: MapSpec

    sample_type: ClassVar[type] = MapSample
    reserved: ClassVar[frozenset[str]] = frozenset({"height", "width"})

    @property
    def has_pixels(self) -> bool:
        return False

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> MapKind:
        return cls(MapSpec(storage=one_of(record, "storage", tuple(DTYPE))))

    def problem(self, sample: MapSample) -> str | None:
        return map_problem(sample.saliency, self.spec.storage, sample.height, sample.width)

    def members(self, sample: MapSample) -> list[bytes]:
        return list(sample.saliency)

    def row(self, sample: MapSample) -> dict[str, Any]:
        return {"height": sample.height, "width": sample.width}

    def record(self, row: dict[str, Any]) -> dict[str, Any]:
        return {"height": int(row["height"]), "width": int(row["width"])}

    def columns(self) -> dict[str, Column]:
        return {"height": Column("int32"), "width": Column("int32")}

    def faults(self, columns: Columns, lengths: np.ndarray) -> dict[str, np.ndarray]:
        sides = np.stack([columns["height"], columns["width"]], 1).astype(np.int64)
        expected = map_lengths(sides.prod(1), self.spec.storage)
        return {
            f"a height or width that is not 1 to {MAX_SIDE}": np.any((sides < 1) | (sides > MAX_SIDE), axis=1),
            "a map that is not of its height and width": np.any(lengths[:, :-2] != expected, axis=1),
        }

    def differs(self, tar: StoredTar, split: StoredSplit, samples: np.ndarray) -> np.ndarray:
        """A .npy header of the map is not that of its height and width."""
        sides = np.stack([split.columns["height"], split.columns["width"]], 1)[samples]
        sizes, which = np.unique(sides, axis=0, return_inverse=True)
        bad = np.zeros(len(samples), bool)
        of_sizes = [map_headers(int(height), int(width), self.spec.storage) for height, width in sizes]
        for member, headers in enumerate(zip(*of_sizes, strict=True)):
            expected = np.frombuffer(b"".join(headers), np.uint8).reshape(len(headers), -1)[which.ravel()]
            bad |= ~begins_with(tar, split.offsets[samples, member], expected)
        return bad

    def member_records(self) -> list[dict[str, Any]]:
        *_, label, record = (f"KEY{suffix}" for suffix in self.spec.suffixes())
        return [
            *map_records(self.spec.storage, ["height", "width"]),
            {"name": label, **LABEL_RECORD},
            {"name": record, "dtype": "JSON", "meaning": "height, width: of the map; what else is known of its image"},
        ]

    def describe(self) -> dict[str, Any]:
        return {"saliency": self.spec.storage}

    def describe_split(self, split: StoredSplit) -> dict[str, Any]:
        height, width = split.columns["height"], split.columns["width"]
        return {
            "heights": {"min": int(height.min()), "max": int(height.max())},
            "widths": {"min": int(width.min()), "max": int(width.max())},
            "bytes_per_map": round(float(split.lengths[:, :-2].sum(1).mean()), 1),
        }

    def card_summary(self, info: DatasetInfo) -> str:
        return f"{info.samples:,} saliency maps, each of its own size, {STORED_AS[self.spec.storage]}; without images."

    def card_members(self) -> list[str]:
        *_, record = self.spec.suffixes()
        return [
            *card_lines(self.spec.storage, "height, width"),
            LABEL_LINE,
            f"* `KEY{record}`: `height` and `width` of the map, and what else is known of its image",
        ]
