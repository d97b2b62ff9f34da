"""How the members of a saliency map are described, in dataset.json and on the data card."""

from __future__ import annotations

from typing import Any

from shards.saliency_map import DTYPE
from shards.schema import MAP_SUFFIXES

STORED_AS = {"float16": "in half precision", "log8": "as an 8-bit logarithm"}
_VALUE = {
    "float16": "probability of each pixel, times H·W; divide by the sum",
    "log8": "level l of the log of probability times H·W: low + l/255·(high − low); exponentiate, divide by the sum",
}
_NAME = {"<f2": "float16", "|u1": "uint8"}


def map_records(storage: str, shape: list[Any]) -> list[dict[str, Any]]:
    """The entries of dataset.json for a map's members; [] for "none"."""
    names = [f"KEY{suffix}" for suffix in MAP_SUFFIXES[storage]]
    if not names:
        return []
    values = {"dtype": _NAME[DTYPE[storage]], "shape": shape, "axes": ["row", "col"], "meaning": _VALUE[storage]}
    limits = {"dtype": "float32", "shape": [2], "meaning": "low and high"}
    return [{"name": name, **entry} for name, entry in zip(names, (values, limits), strict=False)]


def card_lines(storage: str, shape: str) -> list[str]:
    """The lines of the data card for a map's members; [] for "none"."""
    names = [f"`KEY{suffix}`" for suffix in MAP_SUFFIXES[storage]]
    if not names:
        return []
    lines = [f"saliency, {_NAME[DTYPE[storage]]} [{shape}], (row, col): {_VALUE[storage]}", "low and high, float32 [2]"]
    return [f"* {name}: {line}" for name, line in zip(names, lines, strict=False)]
