"""Actions between views from their absolute parameters (paper §A.1).

Quaternions are scalar-last (x, y, z, w), of unit norm and never canonicalised: q and −q are one rotation, but flipping
signs would make the target discontinuous.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from shards.errors import ConfigError
from shards.schema import ParamField

ROTATION_COLUMNS = ("rot_x", "rot_y", "rot_z")
HUE_COLUMNS = ("floor_hue", "light_hue")
POSITION_COLUMNS = ("x", "y")
AUGMENTATION_FIELDS = (
    *(ParamField(f"crop_{side}", "px") for side in ("top", "left", "height", "width")),  # of the image
    *(ParamField(factor, "1") for factor in ("brightness", "contrast", "saturation")),
    ParamField("hue", "turn"),
    ParamField("blur_sigma", "px"),  # of the view
)
"""The nine recorded parameters of an augmented view (hafezgh/seq-jepa@73e0550 augmentations.py:155-175)."""
AUGMENTATION_COLUMNS = tuple(field.name for field in AUGMENTATION_FIELDS)
AUGMENTATION_PARTS = {"crop": slice(0, 4), "jitter": slice(4, 8), "blur": slice(8, 9), "augmentation": slice(0, 9)}
ACTIONS: dict[str, int] = {
    "rotation": 4,
    "rotation_colour": 6,
    "position": 2,
    "crop": 4,
    "jitter": 4,
    "blur": 1,
    "augmentation": 9,
}


def action_size(kind: str) -> int:
    """A, the raw action size of a kind. Raises ConfigError listing the kinds there are."""
    if kind not in ACTIONS:
        raise ConfigError(f"unknown action {kind!r}; there are: {', '.join(ACTIONS)}")
    return ACTIONS[kind]


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


def columns(names: Sequence[str], wanted: Sequence[str]) -> list[int]:
    """Positions of the wanted parameter columns. Raises ConfigError naming those that are missing."""
    missing = [name for name in wanted if name not in names]
    if missing:
        raise ConfigError(
            f"the shards have no parameter {', '.join(missing)}; they have: {', '.join(names) or 'none'}; "
            "choose another action or other shards"
        )
    return [list(names).index(name) for name in wanted]


def actions_between(params: NDArray[np.floating], names: Sequence[str], kind: str) -> NDArray[np.float32]:
    """Actions between neighbouring views: params [B, T, P] with column names → float32 [B, T-1, A].

    rotation         relative quaternion (4)
    rotation_colour  relative quaternion (4), then floor and light hue differences, raw and not circular (Table 7)
    position         from one fixation to the next (2), as fractions of the image's width and height (paper §A.1)

    Actions of augmentations, whose parameters are scaled first: augment.scaling.augmentation_actions.
    Raises ConfigError for another kind, or missing columns.
    """
    action_size(kind)
    values = np.asarray(params, dtype=np.float64)
    if kind in AUGMENTATION_PARTS:
        raise ConfigError(f"action {kind!r} is one of augmented views, and these are not")
    if kind == "position":
        return np.diff(values[..., columns(names, POSITION_COLUMNS)], axis=1).astype(np.float32)
    q = quaternion(values[..., columns(names, ROTATION_COLUMNS)])
    parts = [relative_quaternion(q[:, :-1], q[:, 1:])]
    if kind == "rotation_colour":
        parts.append(np.diff(values[..., columns(names, HUE_COLUMNS)], axis=1))
    return np.concatenate(parts, axis=-1).astype(np.float32)
