"""Actions by name that a set can declare where its columns have these names (paper §A.1)."""

from __future__ import annotations

from collections.abc import Mapping

from shards.schema import ActionSpec, ActionTerm

ROTATION = ActionTerm("relative_rotation", ("rot_x", "rot_y", "rot_z"))
HUE = ActionTerm("difference", ("floor_hue", "light_hue"))  # raw and not circular (Table 7)

PRESET_ACTIONS: Mapping[str, ActionSpec] = {
    "rotation": ActionSpec((ROTATION,)),
    "rotation_colour": ActionSpec((ROTATION, HUE)),
    "position": ActionSpec((ActionTerm("difference", ("x", "y")),)),  # in fractions of width and height
    "none": ActionSpec(),
}
