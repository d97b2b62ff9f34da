"""What a shard set says about itself: plain frozen dataclasses. metadata.py turns them into JSON and back.

Shape letters: S samples of a split, N view slots of a sample, P parameters of a view, H × W pixels, A numbers of
an action.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, get_args

from shards.errors import FormatError
from shards.json_fields import one_of, strings, take

FORMAT_NAME = "seqjepa-shards"
FORMAT_VERSION = 2
"""The newest that is read. 2: sequences in chunks, or features; all other sets are written as version 1."""
MAX_VIEWS = 1000
MAX_PARAMS = 64
MAX_SIDE = 8192
MAX_VALUES = 256
MAX_FEATURES = 65_536  # numbers of a feature vector
MAX_NUMBER = 1e12  # of an action's values, means and deviations

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
"""The seven latents of 3DIEBench, in stored order (facebookresearch/SIE@54541cf data/README.md:58-67)."""


ActionOp = Literal["difference", "angle_difference", "relative_rotation", "relative_pose", "command", "categorical"]
RotationForm = Literal["euler_xyz", "quaternion_xyzw", "matrix"]
_ROTATION_COLUMNS: dict[str, tuple[int, ...]] = {"euler_xyz": (3,), "quaternion_xyzw": (4,), "matrix": (9,)}
_POSE_COLUMNS: dict[str, tuple[int, ...]] = {"euler_xyz": (6,), "quaternion_xyzw": (7,), "matrix": (12, 16)}
_ROTATION_SIZE = {"quaternion": 4, "canonical": 4, "6d": 6}


@dataclass(frozen=True)
class ActionTerm:
    """One term of an action: what `op` makes of some parameters (`columns`, in this order) of two views.

    difference         n columns → n numbers, second view less first
    angle_difference   n columns in rad → n, the same wrapped to [−π, π)
    relative_rotation  the second view's rotation in the first view's frame, R₁ᵀR₂. `form`: 3 extrinsic x-y-z angles
                       in rad, a quaternion (x, y, z, w), or a matrix row by row. `result`: such a quaternion (4) of the
                       sign that falls out, "canonical" (4), of q and −q the one with w ≥ 0, or "6d", the first two
                       columns of the matrix, one after the other (6; Zhou et al. 2019)
    relative_pose      R₁ᵀR₂ as above, then the translation R₁ᵀ(t₂ − t₁) (3). The columns are t (3), then angles or a
                       quaternion; or, as a matrix, [R | t] row by row (12, or 16 with the last row 0 0 0 1)
    command            n columns → n, as recorded beside a view on the way to the next. `over` a stride of several
                       steps: the last, the sum or the mean of theirs
    categorical        1 column → one-hot of the second view's value among `values`
    normalise          of columns before a difference or command. zscore: less `mean`, over `std` (each [n]; both empty:
                       to be measured on training views). norm: over their L2 norm along the views of a sequence, as
                       released for augmentations (docs/fidelity.md #22)
    """

    op: ActionOp
    columns: tuple[str, ...]
    form: RotationForm = "euler_xyz"
    result: Literal["quaternion", "canonical", "6d"] = "quaternion"
    over: Literal["last", "sum", "mean"] = "last"
    values: tuple[float, ...] = ()
    normalise: Literal["none", "zscore", "norm"] = "none"
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    @property
    def size(self) -> int:
        """Numbers that the term adds to A."""
        if self.op == "categorical":
            return len(self.values)
        if self.op in ("relative_rotation", "relative_pose"):
            return _ROTATION_SIZE[self.result] + 3 * (self.op == "relative_pose")
        return len(self.columns)

    def to_json(self) -> dict[str, Any]:
        """The fields that `op` has and that are not at their default; `form` is called "from"."""
        fields = {"from" if name == "form" else name: value for name, value in vars(self).items()}
        default = {"from": "euler_xyz", "result": "quaternion", "over": "last", "normalise": "none"}
        kept = {name: fields[name] for name in _OPTIONS[self.op] if fields[name] not in ((), default.get(name))}
        plain = {name: list(value) if isinstance(value, tuple) else value for name, value in kept.items()}
        return {"op": self.op, "columns": list(self.columns)} | plain

    @classmethod
    def from_json(cls, record: Any) -> ActionTerm:
        """The inverse, every field checked. FormatError, one line."""
        if not isinstance(record, dict):
            raise FormatError(f"a term must be a table, found {record!r:.60}")
        op: ActionOp = one_of(record, "op", get_args(ActionOp))
        known = ("op", "columns", *_OPTIONS[op])
        if unknown := [key for key in record if key not in known]:
            raise FormatError(f"{op} has no {', '.join(unknown)!r:.60}, allowed: {', '.join(known)}")
        options = {key: _option(record, key) for key in _OPTIONS[op] if key in record}
        if "from" in options:
            options["form"] = options.pop("from")
        term = cls(op, strings(record, "columns"), **options)
        if problem := _term_problem(term):
            raise FormatError(f"{op}: {problem}")
        return term


_OPTIONS: dict[ActionOp, tuple[str, ...]] = {
    "difference": ("normalise", "mean", "std"),
    "angle_difference": (),
    "relative_rotation": ("from", "result"),
    "relative_pose": ("from", "result"),
    "command": ("over", "normalise", "mean", "std"),
    "categorical": ("values",),
}
_WORDS = {
    "from": tuple(_ROTATION_COLUMNS),
    "result": tuple(_ROTATION_SIZE),
    "over": ("last", "sum", "mean"),
    "normalise": ("none", "zscore", "norm"),
}


def _option(record: dict[str, Any], key: str) -> Any:
    """One of _WORDS, or else numbers."""
    if key in _WORDS:
        return one_of(record, key, _WORDS[key])
    values = take(record, key, list)
    if not all(type(value) in (int, float) and abs(value) <= MAX_NUMBER for value in values):
        raise FormatError(f"{key} must be numbers of at most {MAX_NUMBER:g}, found {values!r:.60}")
    return tuple(map(float, values))


def _term_problem(term: ActionTerm) -> str | None:
    """What contradicts what in a term, as the end of "OP: …"."""
    n = len(term.columns)
    numbers = {"relative_rotation": _ROTATION_COLUMNS, "relative_pose": _POSE_COLUMNS}.get(term.op, {}).get(term.form)
    numbers = (1,) if term.op == "categorical" else numbers or tuple(range(1, MAX_PARAMS + 1))
    if n not in numbers or len(set(term.columns)) != n:
        allowed = " or ".join(map(str, numbers)) if len(numbers) <= 2 else f"1 to {MAX_PARAMS}"
        return f"needs {allowed} different columns, found {', '.join(term.columns)!r:.200}"
    if term.op == "categorical" and not 2 <= len(set(term.values)) == len(term.values) <= MAX_VALUES:
        return f"needs 2 to {MAX_VALUES} different values, found {len(term.values)}"
    if (term.mean or term.std) and not (term.normalise == "zscore" and n == len(term.mean) == len(term.std)):
        return "mean and std are for normalise zscore, one number each a column"
    return f"std must be at least {1 / MAX_NUMBER:g}" if any(value < 1 / MAX_NUMBER for value in term.std) else None


@dataclass(frozen=True)
class ActionSpec:
    """How an action is made of the parameters of two views: its terms, one after the other. None: A is 0."""

    terms: tuple[ActionTerm, ...] = ()

    @property
    def size(self) -> int:
        """A, how many numbers an action has."""
        return sum(term.size for term in self.terms)

    @property
    def columns(self) -> tuple[str, ...]:
        """Every parameter that plays a part, once, in the order of the terms."""
        return tuple(dict.fromkeys(name for term in self.terms for name in term.columns))

    def to_json(self) -> list[dict[str, Any]]:
        return [term.to_json() for term in self.terms]

    @classmethod
    def from_json(cls, records: Any) -> ActionSpec:
        """The inverse. FormatError: no list of terms, or "action 2: …" of the first that is wrong."""
        if not isinstance(records, list | tuple) or len(records) > MAX_PARAMS:
            raise FormatError(f"actions must be a list of at most {MAX_PARAMS} terms, found {records!r:.60}")
        terms = []
        for number, record in enumerate(records, 1):
            try:
                terms.append(ActionTerm.from_json(record))
            except FormatError as error:
                raise FormatError(f"action {number}: {error}") from None
        return cls(tuple(terms))

    def problem(self, params: Sequence[ParamField]) -> str | None:
        """Why it cannot be made of views with these parameters; None if it can."""
        units = {param.name: param.unit for param in params}
        if missing := [name for name in self.columns if name not in units]:
            return f"actions need {', '.join(missing)}; the parameters are {', '.join(units) or 'none'}"
        for term in self.terms:
            euler = term.op in ("relative_rotation", "relative_pose") and term.form == "euler_xyz"
            angles = term.columns if term.op == "angle_difference" else term.columns[-3:] if euler else ()
            if wrong := [name for name in angles if units[name] != "rad"]:
                return f"{term.op} needs angles in rad, and {wrong[0]} is in {units[wrong[0]]!r:.40}"
        return None


ROTATION = ActionTerm("relative_rotation", ("rot_x", "rot_y", "rot_z"))
HUE = ActionTerm("difference", ("floor_hue", "light_hue"))  # raw and not circular (Table 7)
PRESET_ACTIONS: dict[str, ActionSpec] = {
    "rotation": ActionSpec((ROTATION,)),
    "rotation_colour": ActionSpec((ROTATION, HUE)),
    "position": ActionSpec((ActionTerm("difference", ("x", "y")),)),  # in fractions of width and height
    "none": ActionSpec(),
}
"""Actions by name that a set can declare where its columns have these names (paper §A.1)."""


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
