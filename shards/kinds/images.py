"""`saliency` and `image`: one image of H × W pixels a sample, the former with a saliency map of the same size."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, get_args

import numpy as np

from shards.json_fields import number, one_of
from shards.kinds.base import LABEL_LINE, LABEL_RECORD, Columns, Kind, StoredSplit, classes_in_words
from shards.pixels import pixels_problem, raw_header, raw_length
from shards.saliency_map import STORED_AS, card_lines, map_headers, map_lengths, map_problem, map_records
from shards.schema import MAP_SUFFIXES, MAX_SIDE, DatasetInfo, Encoding, ImageSpec
from shards.tar import StoredTar, begins_with


@dataclass(frozen=True)
class ImageSample:
    """One image, with or without its saliency map.

    key       letters, digits, _ and -; unique within its split
    image     a baseline RGB JPEG, or for raw sets what `encode_raw` returns; H × W pixels
    saliency  what `encode_map` returns for the map, also H × W; () in a set without maps
    label     rank of the class in DatasetInfo.classes, −1 for none
    meta      a few strings or integers; the same names and types in every sample of a set
    """

    key: str
    image: bytes
    saliency: tuple[bytes, ...] = ()
    label: int = -1
    meta: dict[str, str | int] = field(default_factory=dict)


@dataclass(frozen=True)
class ImageKind(Kind):
    """Everything about a sample follows from the spec: no columns of its own, and the JSON holds the meta alone."""

    spec: ImageSpec

    sample_type: ClassVar[type] = ImageSample

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> ImageKind:
        return cls(
            ImageSpec(
                height=number(record, "height", 1, MAX_SIDE),
                width=number(record, "width", 1, MAX_SIDE),
                encoding=one_of(record, "encoding", get_args(Encoding)),
                saliency=one_of(record, "saliency", tuple(MAP_SUFFIXES)),
            )
        )

    def problem(self, sample: ImageSample) -> str | None:
        spec = self.spec
        if problem := pixels_problem(sample.image, spec.encoding, spec.height, spec.width):
            return f"image: {problem}"
        if spec.saliency == "none":
            return "a map in a set without maps" if sample.saliency else None
        if not sample.saliency:
            return "no map in a set with maps"
        return map_problem(sample.saliency, spec.saliency, spec.height, spec.width)

    def members(self, sample: ImageSample) -> list[bytes]:
        return [sample.image, *sample.saliency]

    def faults(self, columns: Columns, lengths: np.ndarray) -> dict[str, np.ndarray]:
        spec, faults = self.spec, {}
        if spec.encoding == "raw":
            faults["an image of an impossible length"] = lengths[:, 0] != raw_length(spec.height, spec.width)
        expected = map_lengths(np.full(len(lengths), spec.height * spec.width), spec.saliency)
        faults["a map of another size than its image"] = (lengths[:, 1:-2] != expected).any(1)
        return faults

    def differs(self, tar: StoredTar, split: StoredSplit, samples: np.ndarray) -> np.ndarray:
        """The .npy header of a raw image or of a map is not that of the set's size."""
        spec = self.spec
        headers = dict(enumerate(map_headers(spec.height, spec.width, spec.saliency), 1))
        if spec.encoding == "raw":
            headers[0] = raw_header(spec.height, spec.width)
        bad = np.zeros(len(samples), bool)
        for member, header in headers.items():
            bad |= ~begins_with(tar, split.offsets[samples, member], np.frombuffer(header, np.uint8)[None])
        return bad

    def member_records(self) -> list[dict[str, Any]]:
        spec = self.spec
        image, *_, label, record = (f"KEY{suffix}" for suffix in spec.suffixes())
        pixels = {"dtype": "uint8", "shape": [spec.height, spec.width, 3], "axes": ["row", "col", "rgb"]}
        return [
            {"name": image, **pixels},
            *map_records(spec.saliency, [spec.height, spec.width]),
            {"name": label, **LABEL_RECORD},
            {"name": record, "dtype": "JSON", "meaning": "what else is known of the image"},
        ]

    def describe(self) -> dict[str, Any]:
        spec = self.spec
        size = {"height": spec.height, "width": spec.width, "encoding": spec.encoding}
        return size | ({"saliency": spec.saliency} if spec.saliency != "none" else {})

    def describe_split(self, split: StoredSplit) -> dict[str, Any]:
        found = {"bytes_per_image": round(float(split.lengths[:, 0].mean()), 1)}
        if self.spec.saliency != "none":
            found["bytes_per_map"] = round(float(split.lengths[:, 1:-2].sum(1).mean()), 1)
        return found

    def card_summary(self, info: DatasetInfo) -> str:
        spec = self.spec
        pixels = "baseline JPEG" if spec.encoding == "jpeg" else "raw uint8 (.npy)"
        maps = "" if spec.saliency == "none" else f", each with its saliency map {STORED_AS[spec.saliency]}"
        size = f"{spec.height}×{spec.width} RGB pixels as {pixels}"
        return f"{info.samples:,} images, {size}{maps}; {classes_in_words(info)}."

    def card_members(self) -> list[str]:
        spec, (image, *_, record) = self.spec, self.spec.suffixes()
        return [
            f"* `KEY{image}`: the image, uint8 [{spec.height}, {spec.width}, 3], (row, col, RGB)",
            *card_lines(spec.saliency, f"{spec.height}, {spec.width}"),
            LABEL_LINE,
            f"* `KEY{record}`: what else is known of the image",
        ]
