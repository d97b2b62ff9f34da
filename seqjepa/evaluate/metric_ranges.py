"""Which values each number of results.json can have. What no metric can have was not measured, and is refused."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from seqjepa.evaluate.result_shapes import misshapen

SHARE, EXPLAINED, DEGREES, ANY = (0.0, 1.0), (-math.inf, 1.0), (0.0, 180.0), (0.0, math.inf)
RANGES = {
    "top1": SHARE,
    "r2": EXPLAINED,
    "rel_rot_deg": DEGREES,
    "indiv_rot_deg": DEGREES,
    "angle_deg": DEGREES,
    "retrieval": SHARE,
    "neighbours": SHARE,
    "rollout": SHARE,
    "odd_one_out": SHARE,
    "umap": SHARE,
    "costs": ANY,
    "objects": ANY,
    "queries": ANY,
    "context": ANY,
    "seconds": ANY,
}
"""Lowest and highest value by the beginning of a level of a dotted key; the last level that has one decides."""
ROUNDING = 1e-9
NOT_NUMBERS = ("protocol", "weights", "per_class", "intervals")
TEXTS = ("costs.device",)


def range_of(key: str) -> tuple[float, float] | None:
    """Lowest and highest value of the number of a dotted key ("ood.top1_agg.5"); None for a number not known here."""
    for level in reversed(key.split(".")):
        for beginning, values in RANGES.items():
            if level.startswith(beginning):
                return values
    return None


def why_not_results(found: Any) -> str:
    """Why a JSON value is not what `seqjepa evaluate` writes, in a few words; empty if it is."""
    if not isinstance(found, dict):
        return f"holds a {type(found).__name__}, not an object"
    earlier = found.get("earlier", [])
    if not isinstance(earlier, list):
        return "'earlier' is not a list"
    parts = {name: found[name] for name in ("trained", "untrained") if name in found}
    parts |= {f"earlier[{k}]": scores for k, scores in enumerate(earlier)}
    return next((problem for name, scores in parts.items() for problem in _problems(name, scores)), "")


def _problems(name: str, scores: Any) -> Iterator[str]:
    if not isinstance(scores, dict) or not isinstance(scores.get("protocol", {}), dict):
        yield f"{name!r} is not what `seqjepa evaluate` writes"
        return
    yield from (f"{name}.{problem}" for problem in misshapen(scores))
    for key, value in _leaves({k: v for k, v in scores.items() if k not in NOT_NUMBERS}):
        if key not in TEXTS and (problem := _out_of_range(key.removeprefix("best."), value)):
            yield f"{name}.{key} {problem}"
    intervals = scores.get("intervals", {})
    if not isinstance(intervals, dict):
        yield f"{name}.intervals is not an object"
        return
    for key, value in _leaves(intervals):
        if problem := _no_interval(key, value):
            yield f"{name}.intervals.{key} {problem}"


def _out_of_range(key: str, value: Any) -> str:
    """Why a value is none that the number can have; empty if it can, or if nothing is known of the number."""
    if (values := range_of(key)) is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return f"is {_short(value)}, not a number"
    low, high = values
    if isinstance(value, int) and abs(value) > sys.float_info.max:
        return f"is {_short(value)}, more than any number can be"
    if math.isfinite(value) and low - ROUNDING <= value <= high + ROUNDING:
        return ""
    if low == -math.inf:
        return f"is {value:g}; it can be at most {high:g}"
    return (
        f"is {value:g}; it can be {low:g} to {high:g}" if high < math.inf else f"is {value:g}; it is at least {low:g}"
    )


def _no_interval(key: str, value: Any) -> str:
    if not isinstance(value, list) or len(value) != 2:
        return f"is {_short(value)}, not [low, high]"
    if problem := next(filter(None, (_out_of_range(key, end) for end in value)), ""):
        return problem
    return f"is {_short(value)}, whose low end is above its high end" if value[0] > value[1] else ""


def _leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}…"
