"""What a shard set says about itself: plain frozen dataclasses. metadata.py turns them into JSON and back.

Parameters of views and the actions made of them are in actions.py; their names are here too.

Shape letters: S samples of a split, N view slots of a sample, P parameters of a view, H × W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from shards.actions import HUE as HUE
from shards.actions import MAX_PARAMS as MAX_PARAMS
from shards.actions import PRESET_ACTIONS as PRESET_ACTIONS
from shards.actions import ROTATION as ROTATION
from shards.actions import ActionOp as ActionOp
from shards.actions import ActionSpec, ParamField
from shards.actions import ActionTerm as ActionTerm
from shards.actions import RotationForm as RotationForm

FORMAT_NAME = "seqjepa-shards"
FORMAT_VERSION = 2
"""The newest that is read. 2: sequences in chunks, or features; all other sets are written as version 1."""
MAX_VIEWS = 1000
MAX_SIDE = 8192
MAX_FEATURES = 65_536  # numbers of a feature vector

Encoding = Literal["jpeg", "raw"]
ViewEncoding = Literal["jpeg", "raw", "features"]
EXTENSION: dict[str, str] = {"jpeg": "jpg", "raw": "npy", "features": "npy"}
VectorDtype = Literal["float16", "float32"]
MapStorage = Literal["float16", "log8"]
MAP_SUFFIXES: dict[str, tuple[str, ...]] = {
    "none": (),
    "float16": (".sal.npy",),
    "log8": (".sal.npy", ".salrange.npy"),
}
ENDING = (".cls", ".json")
"""The members that end every sample of every kind: its label and its JSON."""
KindName = Literal["views", "saliency", "image", "maps"]


THREE_DIEBENCH_PARAMS: tuple[ParamField, ...] = (
    ParamField("rot_x", "rad"),
    ParamField("rot_y", "rad"),
    ParamField("rot_z", "rad"),
    ParamField("floor_hue", "1"),
    ParamField("light_theta", "rad"),
    ParamField("light_phi", "rad"),
    ParamField("light_hue", "1"),
)
"""The seven latents of 3DIEBench, in stored order (facebookresearch/SIE@54541cf data/README.md:58-67)."""


@dataclass(frozen=True)
class FeatureSpec:
    """What views are in a set of features: vectors of D numbers that a frozen encoder made of H × W pixels.

    size            D
    dtype           of the stored numbers
    encoder         which networks: `backbone` and whatever else of a run's [model] makes it ("pool", "stem" …)
    mean, std       per channel, for pixels in [0, 1]: how they were normalised before
    weights_sha256  of the encoder's weights, by name, dtype, shape and bytes (models.pretrained)
    file_sha256     of `_meta/encoder.safetensors`, which holds them
    """

    size: int
    dtype: VectorDtype
    encoder: dict[str, str | int | float | bool]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    weights_sha256: str
    file_sha256: str

    @property
    def backbone(self) -> str:
        return str(self.encoder["backbone"])


@dataclass(frozen=True)
class ViewSpec:
    """What every sample of a `views` set holds: N view slots of H × W RGB pixels and [N, P] parameters.

    sequence  0: the N views are an unordered set. T > 0: the slots come in N/T runs of T views, each in its order
              (sequences that were baked).
    actions   what takes a view to another, as declared by who wrote the set; None: what its columns imply
    ordered   view numbers are steps of a sequence, ascending: of a video, an episode. False: views of an object
    chunked   a sequence may be longer than N: then several samples in a row hold it, all of the same split
    features  with encoding "features": views are vectors that an encoder made of H × W pixels, which are not here
    """

    views: int
    height: int
    width: int
    encoding: ViewEncoding
    params: tuple[ParamField, ...]
    sequence: int = 0
    actions: ActionSpec | None = None
    ordered: bool = False
    chunked: bool = False
    features: FeatureSpec | None = None

    @property
    def kind(self) -> KindName:
        return "views"

    @property
    def format_version(self) -> int:
        """The oldest that has all of this: programs of before would take chunks for objects, vectors for pixels."""
        return 2 if self.chunked or self.features else 1

    @property
    def param_names(self) -> tuple[str, ...]:
        return tuple(field.name for field in self.params)

    def suffixes(self) -> list[str]:
        """Member names without the key, in the order in which they are stored: views, params, label, JSON."""
        digits = max(2, len(str(self.views - 1)))
        extension = EXTENSION[self.encoding]
        views = [f".{slot:0{digits}d}.{extension}" for slot in range(self.views)]
        return [*views, ".params.npy", *ENDING]


@dataclass(frozen=True)
class ImageSpec:
    """What every sample of a `saliency` or `image` set holds: H × W RGB pixels and, for `saliency`, a map of them."""

    height: int
    width: int
    encoding: Encoding
    saliency: MapStorage | Literal["none"] = "none"

    @property
    def kind(self) -> KindName:
        return "image" if self.saliency == "none" else "saliency"

    format_version: ClassVar[int] = 1

    def suffixes(self) -> list[str]:
        """Member names without the key, in the order in which they are stored: image, map, label, JSON."""
        return [f".{EXTENSION[self.encoding]}", *MAP_SUFFIXES[self.saliency], *ENDING]


@dataclass(frozen=True)
class MapSpec:
    """What every sample of a `maps` set holds: the saliency map of one image, each of its own H × W."""

    storage: MapStorage
    format_version: ClassVar[int] = 1

    @property
    def kind(self) -> KindName:
        return "maps"

    def suffixes(self) -> list[str]:
        """Member names without the key, in the order in which they are stored: map, label, JSON."""
        return [*MAP_SUFFIXES[self.storage], *ENDING]


Spec = ViewSpec | ImageSpec | MapSpec


def features_of(spec: Spec) -> FeatureSpec | None:
    """What its vectors are, of a set of features."""
    return spec.features if isinstance(spec, ViewSpec) else None


@dataclass(frozen=True)
class ShardEntry:
    """One tar. `name` has no extension ("train-000003"); sha256 is of the whole file.

    build  32 digits of a sha256 over the identity (sources, options) of the build that wrote it: the same for all
           shards of a set; "" in sets of before
    """

    name: str
    samples: int
    bytes: int
    sha256: str
    build: str = ""


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

    normalisation  {"mean": [3], "std": [3]} for pixels in [0, 1], measured on the training split; {} without pixels
                   (of features, how pixels were normalised stands in `spec.features`)
    fingerprint    what the set was built from, as given to SetBuilder: an equal one means an equal set
    provenance     command, package versions, source checksums … JSON values without nulls
    """

    name: str
    spec: Spec
    classes: tuple[str, ...]
    splits: dict[str, SplitInfo]
    normalisation: dict[str, list[float]]
    readme_sha256: str
    fingerprint: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    format_version: int = 1

    @property
    def kind(self) -> KindName:
        return self.spec.kind

    @property
    def samples(self) -> int:
        return sum(split.samples for split in self.splits.values())

    @property
    def shards(self) -> list[ShardEntry]:
        """Of all splits."""
        return [entry for split in self.splits.values() for entry in split.shards]
