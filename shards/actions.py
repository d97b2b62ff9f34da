"""The parameters of a view, and how actions are made of those of two views: what a set declares, checked.

Shape letters: P parameters of a view, A numbers of an action.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from shards.errors import FormatError
from shards.json_fields import one_of, strings, take

MAX_PARAMS = 64
MAX_VALUES = 256
MAX_NUMBER = 1e12  # of an action's values, means and deviations


@dataclass(frozen=True)
class ParamField:
    """One of the P parameters of a view, e.g. ("rot_x", "rad") or ("floor_hue", "1") for a plain number."""

    name: str
    unit: str


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
    def whole(self) -> tuple[int, ...]:
        """For each of the A numbers which quantity it is of: the numbers of a rotation are of one."""
        found: list[int] = []
        for term in self.terms:
            turned = _ROTATION_SIZE[term.result] if term.op in ("relative_rotation", "relative_pose") else 1
            first = max(found, default=-1) + 1
            found += [first] * turned + list(range(first + 1, first + 1 + term.size - turned))
        return tuple(found)

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
