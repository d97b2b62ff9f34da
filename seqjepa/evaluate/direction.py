"""Whether more or less of a number is better, for everything that compares two of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

Direction = Literal["higher", "lower", ""]
"""What is better; "" for numbers that say how easy a task is, or how many there were, and nothing of the model."""
ARROWS: dict[Direction, str] = {"higher": "↑", "lower": "↓", "": ""}
LEVELS = ("_chance", "_blind", "queries")
"""Endings of what a guess reaches."""
ERRORS = ("_deg", "_deg_median")
"""Endings of errors and angles."""


def better(key: str | Sequence[str]) -> Direction:
    """Of a number by its key in results.json, dotted or in parts: errors, angles and costs are better when lower.

    "rel_rot_deg_median" → "lower", "ood.top1_agg.5" → "higher", "neighbours.class_chance" → "".
    """
    parts = key.split(".") if isinstance(key, str) else list(key)
    if parts[0] == "costs":
        return "lower"
    name = next((part for part in reversed(parts) if not part.isdecimal()), "")
    if name.endswith(LEVELS):
        return ""
    return "lower" if name.endswith(ERRORS) else "higher"


def judged(difference: float | None, direction: Direction) -> Literal["better", "worse", ""]:
    """What a difference (this less that) says of this; "" for none, for 0 and for numbers without a direction."""
    if not difference or not direction:
        return ""
    return "better" if (difference > 0) == (direction == "higher") else "worse"
