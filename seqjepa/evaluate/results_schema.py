"""What results.json must look like to be believed: the JSON type of each part, and the values that numbers can have.

What no metric can have was not measured, and is refused.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from seqjepa.paper.metrics import METRICS, ROWS, range_of

ROUNDING = 1e-9
NOT_NUMBERS = ("protocol", "weights", "per_class", "intervals")
TEXTS = ("costs.device",)
OBJECTS = ("costs", "best", "blind", "per_class", "protocol", "intervals")
BY_SIZE = {
    **{row: "{}" in label for row, label in ROWS.items()},
    **{"costs.parameters": False, "costs.hours": False, "costs.macs_g": True},
}
"""Whether a number is there for each size, by dotted key."""
GROUPS = {key[: dot.start()] for key in BY_SIZE for dot in re.finditer(r"\.", key)}
"""Dotted keys of the objects that hold these numbers."""
NUMBER, TEXT, OBJECT, LIST = (int, float), (str,), (dict,), (list,)
PROTOCOL: Mapping[str, tuple[type, ...]] = {
    **dict.fromkeys(("m_tr", "epochs", "trained_epochs", "resolution", "views_per_sample", "seed"), NUMBER),
    **dict.fromkeys(("train_samples", "val_samples", "val_draws"), NUMBER),
    **dict.fromkeys(("fidelity", "method", "dataset", "classes_sha256", "linear_regressors", "suite"), TEXT),
    **dict.fromkeys(("normalisation", "model_sha256"), TEXT),
    **dict.fromkeys(
        ("probe_epochs", "train_draws", "precision", "skipped", "fixating", "augmenting", "targets"), OBJECT
    ),
    **dict.fromkeys(("m_val", "splits", "fingerprints"), LIST),
}
"""What is not there is not missed."""
MOST = 2**63
NAMES = {int: "a number", str: "a text", dict: "an object", list: "a list"}


def why_not_results(found: Any) -> str:
    """Why a JSON value is not what `seqjepa evaluate` writes, in a few words; empty if it is."""
    if not isinstance(found, dict):
        return f"holds a {type(found).__name__}, not an object"
    earlier = found.get("earlier", [])
    if not isinstance(earlier, list):
        return "'earlier' is not a list"
    parts = {name: found[name] for name in ("trained", "untrained") if name in found}
    parts |= {f"earlier[{k}]": scores for k, scores in enumerate(earlier)}
    for name, scores in parts.items():
        if not isinstance(scores, dict) or not isinstance(scores.get("protocol", {}), dict):
            return f"{name!r} is not what `seqjepa evaluate` writes"
        if problem := next(_problems(scores), ""):
            return f"{name}.{problem}"
    return ""


def _problems(scores: Mapping[str, Any]) -> Iterator[str]:
    for name in OBJECTS:
        if not isinstance(scores.get(name, {}), dict):
            yield f"{name} is not an object"
            return
    protocol = scores.get("protocol", {})
    for name, types in PROTOCOL.items():
        value = protocol.get(name, types[0]())
        if isinstance(value, bool) or not isinstance(value, types):
            yield f"protocol.{name} is not {NAMES[types[0]]}"
        elif types is NUMBER and not -MOST <= value <= MOST:
            yield f"protocol.{name} is no number that an evaluation has"
    yield from _off({name: part for name, part in scores.items() if name not in NOT_NUMBERS}, _out_of_range)
    yield from (f"intervals.{problem}" for problem in _off(scores.get("intervals", {}), _no_interval))


def _off(values: Mapping[str, Any], check: Callable[[str, Any], str], within: str = "") -> Iterator[str]:
    """Ends of sentences on numbers by name, and on objects of them. check: key and value → what is wrong, or nothing.

    within: the dotted key of the object.
    """
    for name, value in values.items():
        key = f"{within}.{name}" if within else name
        if BY_SIZE.get(within) and (not (name.isascii() and name.isdecimal()) or isinstance(value, dict)):
            yield f"{within}.{name:.40} is not a number of a size"
        elif isinstance(value, dict):
            yield from [f"{key} is an object, not a number"] if BY_SIZE.get(key) is False else _off(value, check, key)
        elif BY_SIZE.get(key) or key in GROUPS:
            yield f"{key} is not an object{' of numbers by size' if BY_SIZE.get(key) else ''}"
        elif key not in TEXTS and (problem := check(key.removeprefix("best.").removeprefix("blind."), value)):
            yield f"{key} {problem}"


def _out_of_range(key: str, value: Any) -> str:
    """Why a value is none that the number can have; empty if it can, or if nothing is known of the number."""
    # Of a number that is none of METRICS that of the one whose key it begins with: "retrieval.h1_blind".
    beginnings = (metric for metric in METRICS if key.startswith(metric))  # looked for where they are needed alone
    if (values := range_of(key) or range_of(max(beginnings, key=len, default=""))) is None:
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
    if not isinstance(value, list) or len(value) != 2 or not all(type(end) in (int, float) for end in value):
        return f"is {_short(value)}, not [low, high]"
    if problem := next(filter(None, (_out_of_range(key, end) for end in value)), ""):
        return problem
    return f"is {_short(value)}, whose low end is above its high end" if value[0] > value[1] else ""


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}…"
