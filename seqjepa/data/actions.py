"""Actions: what takes a view to the next, as an ActionSpec declares it, computed from the views' parameters.

The kinds of the paper are presets (PRESETS, paper §A.1). Whatever depends on what an action is made of is answered
here: its size, its normalisation, what probes read of it, which of its terms add up along a path.

Quaternions are scalar-last (x, y, z, w), of unit norm, with the sign that falls out: q and −q are one rotation, and
either way of choosing between them is discontinuous somewhere. Only `result = "canonical"` chooses.
Letters: B samples, T views, P parameters of a view, A numbers of an action.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from shards.errors import ConfigError
from shards.schema import HUE, PRESET_ACTIONS, ROTATION, ActionSpec, ActionTerm, ParamField

if TYPE_CHECKING:
    from shards.reading.split_index import SplitIndex

ROTATION_COLUMNS = ROTATION.columns
POSITION_COLUMNS = PRESET_ACTIONS["position"].columns
AUGMENTATION_FIELDS = (
    *(ParamField(f"crop_{side}", "px") for side in ("top", "left", "height", "width")),  # of the image
    *(ParamField(factor, "1") for factor in ("brightness", "contrast", "saturation")),
    ParamField("hue", "turn"),
    ParamField("blur_sigma", "px"),  # of the view
)
"""The nine recorded parameters of an augmented view (hafezgh/seq-jepa@73e0550 augmentations.py:155-175)."""
AUGMENTATION_COLUMNS = tuple(field.name for field in AUGMENTATION_FIELDS)


def _augmentation(start: int, stop: int) -> ActionSpec:
    return ActionSpec((ActionTerm("difference", AUGMENTATION_COLUMNS[start:stop], normalise="zscore"),))


PRESETS: Mapping[str, ActionSpec] = {
    **{name: PRESET_ACTIONS[name] for name in ("rotation", "rotation_colour", "position")},
    **{f"rotation_{result}": ActionSpec((replace(ROTATION, result=result),)) for result in ("canonical", "6d")},
    "crop": _augmentation(0, 4),
    "jitter": _augmentation(4, 8),
    "blur": _augmentation(8, 9),
    "augmentation": _augmentation(0, 9),
    "none": PRESET_ACTIONS["none"],
}
"""Kinds of action by name: relative rotations of objects, saccades, and augmentations, whose parameters are scaled.
rotation_canonical and rotation_6d are forms of `rotation` that a method may be told; probes read the paper's."""
OF_THE_SHARDS, DECLARED = "shards", "declared"
"""In the place of a preset's name: what the shards declare, and a list of terms."""
IMPLIED = ("rotation", "position", "augmentation")
"""What the columns of a set that declares no actions imply: the first of these presets that they suffice for."""


def preset(name: str) -> ActionSpec:
    """The kind of action of that name. ConfigError, listing the names that there are."""
    if name not in PRESETS:
        raise ConfigError(f"there is no action {name!r}; there are: {', '.join(PRESETS)}")
    return PRESETS[name]


def as_spec(action: str | ActionSpec) -> ActionSpec:
    """A preset by its name, or the spec itself. ConfigError for another name."""
    return preset(action) if isinstance(action, str) else action


def action_name(action: str | ActionSpec) -> str:
    """The preset's name; "declared" for terms that are those of no preset."""
    if isinstance(action, str):
        return action
    return next((name for name, spec in PRESETS.items() if spec == action), DECLARED)


def action_of_shards(action: str | ActionSpec, index: SplitIndex) -> str | ActionSpec:
    """What `action` means for a split of views: where it is "shards", what the set declares, or else its columns imply.

    Zscores get the mean and deviation of the split's distinct views. ConfigError where the columns are not there.
    """
    if action == OF_THE_SHARDS:
        action = implied_action(index.param_names) if index.actions is None else index.actions
    if isinstance(action, str):
        return action
    distinct = index.params[np.arange(index.params.shape[1]) < index.n_views[:, None]]
    return with_constants(action, distinct, index.param_names)


def implied_action(names: Sequence[str]) -> str:
    """The preset that parameters of these names suffice for, "none" where they suffice for no other."""
    return next((kind for kind in IMPLIED if set(PRESETS[kind].columns) <= set(names)), "none")


def is_augmentation(action: str | ActionSpec) -> bool:
    """Whether it is made of the parameters of augmentations, which have to be scaled (augment.parameters.scaled)."""
    found = () if action == OF_THE_SHARDS else as_spec(action).columns
    return bool(found) and set(found) <= set(AUGMENTATION_COLUMNS)


def are_augmented(names: Sequence[str]) -> bool:
    """Whether views with these parameters are augmented images: then the last one of a sequence is the target's."""
    return set(AUGMENTATION_COLUMNS) <= set(names)


def rotation_term(spec: ActionSpec) -> ActionTerm | None:
    """The first term that says how views are turned; None: there is none."""
    return next((term for term in spec.terms if term.op in ("relative_rotation", "relative_pose")), None)


def needs_order(spec: ActionSpec) -> bool:
    """Whether views have to come in the order in which they were recorded: commands lead to the very next one."""
    return any(term.op == "command" for term in spec.terms)


def path_of(spec: ActionSpec) -> ActionSpec:
    """The terms whose actions add up along a path (paper §B.9), of presets the rotation, as the paper's quaternion
    whatever a method is told, or else differences."""
    term = rotation_term(spec) if action_name(spec) != DECLARED else None
    return ActionSpec((replace(term, result="quaternion"),) if term else tuple(filter(adds_up, spec.terms)))


def adds_up(term: ActionTerm) -> bool:
    """Whether the action of a way follows from those of its parts: differences, composed turns, sums of commands."""
    if term.op == "command":
        return term.over == "sum"
    return term.op != "categorical" and term.normalise == "none"


@dataclass(frozen=True)
class ActionTarget:
    """What a probe reads of an action, from z of two views or of one.

    key     the number's name after "r2_"
    spec    the action between the two views; for `absolute`, the rotation of the one view instead, as a quaternion
    deep    by an MLP; else linearly (paper §A.2)
    angle   name of the geodesic error in degrees; "" where the target is no quaternion
    """

    key: str
    spec: ActionSpec
    deep: bool = False
    absolute: bool = False
    angle: str = ""


_OF_ROTATIONS = (
    ActionTarget("rel_rot", PRESETS["rotation"], deep=True, angle="rel_rot_deg"),
    ActionTarget("indiv_rot", PRESETS["rotation"], deep=True, absolute=True, angle="indiv_rot_deg"),
    ActionTarget("hue", ActionSpec((HUE,))),
)
POSITION_TARGET = ActionTarget("position", PRESETS["position"])
AUGMENTATION_TARGETS = tuple(
    ActionTarget(part, PRESETS[part], deep=deep) for part, deep in (("crop", True), ("jitter", True), ("blur", False))
)


def probe_targets(action: ActionSpec, names: Sequence[str]) -> tuple[ActionTarget, ...]:
    """What the paper reads of views with parameters `names`, whatever the method was told; `action` is the run's.

    Parts of augmentations, positions, or rotations and hues, which may not be there. Of actions that are no preset:
    seqjepa.evaluate.targets.
    """
    if are_augmented(names):
        return AUGMENTATION_TARGETS
    if action == PRESETS["position"] or (not action.terms and implied_action(names) == "position"):
        return (POSITION_TARGET,)
    return _OF_ROTATIONS


def columns(names: Sequence[str], wanted: Sequence[str]) -> list[int]:
    """Positions of the wanted parameter columns. Raises ConfigError naming those that are missing."""
    missing = [name for name in wanted if name not in names]
    if missing:
        raise ConfigError(
            f"the shards have no parameter {', '.join(missing)}; they have: {', '.join(names) or 'none'}; "
            "choose another action or other shards"
        )
    return [list(names).index(name) for name in wanted]


def with_constants(spec: ActionSpec, params: NDArray[np.floating], names: Sequence[str]) -> ActionSpec:
    """The zscore terms that have no constants with those of `params` [n, P] of n training views.

    A column that is constant gets std 1. Raises ConfigError for missing columns.
    """
    terms = []
    for term in spec.terms:
        if term.normalise == "zscore" and not term.mean:
            values = params[:, columns(names, term.columns)].astype(np.float64)
            std = np.where(np.ptp(values, axis=0) > 0, values.std(axis=0), 1.0)
            term = replace(term, mean=tuple(values.mean(axis=0).tolist()), std=tuple(std.tolist()))
        terms.append(term)
    return ActionSpec(tuple(terms))


def actions_between(
    params: NDArray[np.floating], names: Sequence[str], action: str | ActionSpec, stride: int = 1
) -> NDArray[np.float32]:
    """Actions between neighbouring views: params [B, T, P] with column names → float32 [B, T-1, A].

    stride  > 1: params [B, (T-1)·stride + 1, P] are of all steps, every stride-th of which is a view; commands are
            those of all steps between two views

    Raises ConfigError for another kind, missing columns, parameters that are no rotation or none of a term's values,
    and a zscore without constants.
    """
    spec = as_spec(action)
    values = np.asarray(params)
    parts = [_of_one_term(values[..., columns(names, term.columns)], term, stride) for term in spec.terms]
    if not parts:
        return np.zeros((len(values), (values.shape[1] - 1) // stride, 0), np.float32)
    return np.ascontiguousarray(np.concatenate(parts, axis=-1), np.float32)  # sums over it depend on strides


def every_stride(
    params: NDArray[np.floating], names: Sequence[str], action: str | ActionSpec, stride: int
) -> NDArray[np.float32]:
    """Parameters of all steps [B, (T-1)·stride + 1, P] → those of every stride-th [B, T, P].

    Commands are those of the whole way to the next: actions_between of the result, with stride 1, is that of `params`.
    """
    kept = np.array(params[:, ::stride], np.float32)
    for term in as_spec(action).terms:
        if term.op == "command" and kept.shape[1] > 1:
            plain = replace(term, normalise="none", mean=(), std=())
            at = columns(names, term.columns)
            kept[:, :-1, at] = _of_one_term(np.asarray(params)[..., at], plain, stride)
    return kept


def _of_one_term(values: NDArray[np.floating], term: ActionTerm, stride: int) -> NDArray[np.floating]:
    """The columns of a term [B, (T-1)·stride + 1, n] → [B, T-1, size]."""
    if term.op == "command":
        steps = _normalised(values, term)[:, :-1].astype(np.float64)
        steps = steps.reshape(len(values), -1, stride, values.shape[-1])
        return steps[:, :, -1] if term.over == "last" else getattr(steps, term.over)(axis=2)
    views = values[:, ::stride]
    if term.op == "difference":
        return np.diff(_normalised(views, term), axis=1)
    if term.op == "categorical":
        return _one_hot(views[:, 1:], term)
    views = views.astype(np.float64)
    if term.op == "angle_difference":
        return (np.diff(views, axis=1) + np.pi) % (2 * np.pi) - np.pi
    q = absolute_rotations(views, term)
    relative = relative_quaternion(q[:, :-1], q[:, 1:])
    rotation = _in_form(relative, term)
    if term.op == "relative_rotation":
        return rotation
    translation = rotated(conjugate(q[:, :-1]), np.diff(positions_of(views, term), axis=1))
    return np.concatenate([rotation, translation], axis=-1)


def _normalised(values: NDArray[np.floating], term: ActionTerm) -> NDArray[np.floating]:
    """Columns [B, T, n] as the term has them before anything else: float64, or float32 where they are scaled."""
    if term.normalise == "none":
        return values.astype(np.float64)
    single = values.astype(np.float32)
    if term.normalise == "norm":
        return single / _norm_over_views(single)
    if not term.mean:
        raise ConfigError(
            f"actions of {', '.join(term.columns)} need the constants of their z-scores, which sets made by "
            "`seqjepa-data bake --augment` have"
        )
    return (single - np.array(term.mean, np.float32)) / np.array(term.std, np.float32)


def _norm_over_views(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """L2 norm of float32 [B, T, n] → [B, 1, n], at least 1e-12.

    Summed view by view: a reduction's order, and so the last bit, may depend on how many samples there are. The root is
    torch's, which is not rounded as numpy's: released actions stay what they were to the bit.
    """
    from torch import from_numpy

    total = np.zeros_like(values[:, 0])
    for view in np.moveaxis(values, 1, 0):
        total += view * view
    return from_numpy(total).sqrt_().clamp_(min=1e-12).numpy()[:, None]


def _one_hot(values: NDArray[np.floating], term: ActionTerm) -> NDArray[np.floating]:
    """[B, T-1, 1] → [B, T-1, number of values]."""
    hot = values == np.array(term.values).astype(values.dtype)
    if not hot.any(axis=-1).all():
        unknown = values[~hot.any(axis=-1)][0, 0]
        raise ConfigError(f"{term.columns[0]} is {unknown:g} in a view; the action is declared for {term.values}")
    return hot


def absolute_rotations(values: NDArray[np.floating], term: ActionTerm) -> NDArray[np.floating]:
    """The columns of a rotation or pose term [..., n] → each view's quaternion [..., 4]. ConfigError: it is none."""
    values = np.asarray(values, np.float64)
    if term.form == "matrix":
        pose = term.op == "relative_pose"
        return _quaternion_of_matrix(values[..., [0, 1, 2, 4, 5, 6, 8, 9, 10]] if pose else values, term)
    if term.op == "relative_pose":
        values = values[..., 3:]
    if term.form == "euler_xyz":
        return quaternion(values)
    length = np.linalg.norm(values, axis=-1, keepdims=True)
    if not (length > 1e-6).all():
        raise ConfigError(f"{', '.join(term.columns)} are no rotation: a quaternion of zeros")
    return values / length


def _quaternion_of_matrix(values: NDArray[np.float64], term: ActionTerm) -> NDArray[np.float64]:
    from scipy.spatial.transform import Rotation

    matrices = values.reshape(-1, 3, 3)
    if (
        not np.allclose(matrices @ matrices.swapaxes(1, 2), np.eye(3), atol=1e-3)
        or not (np.linalg.det(matrices) > 0).all()
    ):
        raise ConfigError(f"{', '.join(term.columns)} are no rotation: a matrix that is not orthogonal")
    return Rotation.from_matrix(matrices).as_quat().reshape(*values.shape[:-1], 4)


def positions_of(values: NDArray[np.float64], term: ActionTerm) -> NDArray[np.float64]:
    """Columns of a pose [..., n] → the translation [..., 3]."""
    return values[..., [3, 7, 11]] if term.form == "matrix" else values[..., :3]


def _in_form(q: NDArray[np.floating], term: ActionTerm) -> NDArray[np.floating]:
    """Relative quaternions [..., 4] as `term.result` has them."""
    if term.result == "6d":  # the first two columns of their matrices
        return np.concatenate([rotated(q, axis) for axis in np.eye(3)[:2]], axis=-1)
    return q if term.result == "quaternion" else canonical(q)


def canonical(q: NDArray[np.floating]) -> NDArray[np.floating]:
    """Of q and −q [..., 4] the one with w > 0; where w is 0, the one whose first number that is not 0 is positive, as
    scipy's Rotation.as_quat(canonical=True)."""
    ordered = q[..., [3, 0, 1, 2]]
    first = np.take_along_axis(ordered, (ordered != 0).argmax(axis=-1)[..., None], axis=-1)
    return np.where(first < 0, -q, q)


def rotated(q: NDArray[np.floating], vectors: NDArray[np.floating]) -> NDArray[np.floating]:
    """Vectors [..., 3] rotated by unit quaternions [..., 4]: the vector part of q ⊗ v ⊗ conj(q)."""
    axis, w = q[..., :3], q[..., 3:]
    twice = 2 * np.cross(axis, vectors)
    return vectors + w * twice + np.cross(axis, twice)


def quaternion(euler: ArrayLike) -> NDArray[np.floating]:
    """Extrinsic x-y-z Tait–Bryan angles [..., 3] in rad → quaternions [..., 4] (x, y, z, w) in the dtype of the angles.

    q = q_z ⊗ q_y ⊗ q_x, which is scipy's Rotation.from_euler("xyz").as_quat() including its sign.
    """
    angles = np.asarray(euler)
    dtype = angles.dtype if angles.dtype.kind == "f" else np.dtype(np.float64)
    half = 0.5 * angles.astype(np.float64)
    sx, sy, sz = np.moveaxis(np.sin(half), -1, 0)
    cx, cy, cz = np.moveaxis(np.cos(half), -1, 0)
    x = sx * cy * cz - cx * sy * sz
    y = cx * sy * cz + sx * cy * sz
    z = cx * cy * sz - sx * sy * cz
    w = cx * cy * cz + sx * sy * sz
    return np.stack([x, y, z, w], axis=-1).astype(dtype)


def multiply(a: ArrayLike, b: ArrayLike) -> NDArray[np.floating]:
    """Hamilton product a ⊗ b of quaternions [..., 4] (x, y, z, w)."""
    ax, ay, az, aw = np.moveaxis(np.asarray(a), -1, 0)
    bx, by, bz, bw = np.moveaxis(np.asarray(b), -1, 0)
    x = aw * bx + ax * bw + ay * bz - az * by
    y = aw * by - ax * bz + ay * bw + az * bx
    z = aw * bz + ax * by - ay * bx + az * bw
    w = aw * bw - ax * bx - ay * by - az * bz
    return np.stack([x, y, z, w], axis=-1)


def conjugate(q: ArrayLike) -> NDArray[np.floating]:
    """The inverse rotation: (−x, −y, −z, w) for unit quaternions [..., 4]."""
    q = np.asarray(q)
    return q * np.array([-1, -1, -1, 1], dtype=q.dtype)


def relative_quaternion(a: ArrayLike, b: ArrayLike) -> NDArray[np.floating]:
    """conj(a) ⊗ b: the rotation that takes orientation a to orientation b in the object's frame (R_b = R_a · R_rel)."""
    return multiply(conjugate(a), b)
