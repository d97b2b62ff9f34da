"""What a shard set says about itself: plain frozen dataclasses. metadata.py turns them into JSON and back.

Shape letters: S samples of a split, N view slots of a sample, P parameters of a view, H × W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

FORMAT_NAME = "seqjepa-shards"
FORMAT_VERSION = 1
MAX_VIEWS = 1000
MAX_PARAMS = 64
MAX_SIDE = 8192

Encoding = Literal["jpeg", "raw"]
EXTENSION: dict[str, str] = {"jpeg": "jpg", "raw": "npy"}


@dataclass(frozen=True)
class ParamField:
    """One of the P parameters of a view, e.g. ("rot_x", "rad") or ("floor_hue", "1") for a plain number."""

    name: str
    unit: str


THREE_DIEBENCH_PARAMS: tuple[ParamField, ...] = (
    ParamField("rot_x", "rad"),
    ParamField("rot_y", "rad"),
    ParamField("rot_z", "rad"),
    ParamField("floor_hue", "1"),
    ParamField("light_theta", "rad"),
    ParamField("light_phi", "rad"),
    ParamField("light_hue", "1"),
)
"""The seven latents of 3DIEBench, in stored order (SPEC C.1)."""


@dataclass(frozen=True)
class ViewSpec:
    """What every sample of a `views` set holds: N view slots of H × W RGB pixels and [N, P] parameters."""

    views: int
    height: int
    width: int
    encoding: Encoding
    params: tuple[ParamField, ...]

    @property
    def param_names(self) -> tuple[str, ...]:
        return tuple(field.name for field in self.params)

    def suffixes(self) -> list[str]:
        """Member names without the key, in the order in which they are stored: views, params, label, JSON."""
        digits = max(2, len(str(self.views - 1)))
        extension = EXTENSION[self.encoding]
        views = [f".{slot:0{digits}d}.{extension}" for slot in range(self.views)]
        return [*views, ".params.npy", ".cls", ".json"]


@dataclass(frozen=True)
class ShardEntry:
    """One tar. `name` has no extension ("train-000003"); sha256 is of the whole file."""

    name: str
    samples: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class SplitInfo:
    """One split: its shards in order and its index (a path relative to the set's folder)."""

    shards: tuple[ShardEntry, ...]
    samples: int
    index: str
    index_sha256: str

    @property
    def bytes(self) -> int:
        return sum(shard.bytes for shard in self.shards)


@dataclass(frozen=True)
class DatasetInfo:
    """The whole of `_meta/dataset.json`.

    normalisation  {"mean": [3], "std": [3]} for pixels in [0, 1], measured on the training split
    fingerprint    what the set was built from, as given to SetBuilder: an equal one means an equal set
    provenance     command, package versions, source checksums … JSON values without nulls
    """

    name: str
    spec: ViewSpec
    classes: tuple[str, ...]
    splits: dict[str, SplitInfo]
    normalisation: dict[str, list[float]]
    readme_sha256: str
    fingerprint: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    kind: Literal["views"] = "views"
    format_version: int = FORMAT_VERSION

    @property
    def samples(self) -> int:
        return sum(split.samples for split in self.splits.values())
