"""What results.json must look like to be believed: the JSON type of each part, and the values that numbers can have.

What no metric can have was not measured, and is refused.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from seqjepa.paper.metrics import METRICS, ROWS, range_of

ROUNDING = 1e-9
NOT_NUMBERS = ("protocol", "weights", "per_class", "intervals")
TEXTS = ("costs.device",)


def _range_of(key: str) -> tuple[float, float] | None:
    """Lowest and highest value of the number of a dotted key: that of its metric, else of the one whose key it begins
    with ("retrieval.h1_blind" → "retrieval.h1"); None for a number not known here."""
    known = max((metric for metric in METRICS if key.startswith(metric)), key=len, default="")
    return range_of(key) or range_of(known)


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
    for key, value in leaves_of(scores):
        if key not in TEXTS and (problem := _out_of_range(key.removeprefix("best.").removeprefix("blind."), value)):
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
    if (values := _range_of(key)) is None:
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


def leaves_of(scores: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """(dotted key, value) of what should be numbers."""
    yield from _leaves({name: part for name, part in scores.items() if name not in NOT_NUMBERS})


def _leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}…"


OBJECTS = ("costs", "best", "blind", "per_class", "protocol", "intervals")
BY_SIZE = {
    **{row: "{}" in label for row, label in ROWS.items()},
    **{"costs.parameters": False, "costs.hours": False, "costs.macs_g": True},
}
"""Whether a number is there for each size, by dotted key."""
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
MOST = 2**63
NAMES = {int: "a number", str: "a text", dict: "an object", list: "a list"}


def misshapen(scores: Mapping[str, Any]) -> Iterator[str]:
    """Ends of the sentence "results.json: trained.…" for each part that has another type than its readers expect.

    scores: what stands under "trained" or "untrained". Parts that are not there are not missed.
    """
    for name in OBJECTS:
        if not isinstance(scores.get(name, {}), dict):
            yield f"{name} is not an object"
            return
    for row in BY_SIZE:
        yield from _off_row(scores, row)
        yield from _off_row(scores["intervals"], row, "intervals.") if "intervals" in scores else ()
    protocol = scores.get("protocol", {})
    for name, types in PROTOCOL.items():
        value = protocol.get(name, types[0]())
        if isinstance(value, bool) or not isinstance(value, types):
            yield f"protocol.{name} is not {NAMES[types[0]]}"
        elif types is NUMBER and not -MOST <= value <= MOST:
            yield f"protocol.{name} is no number that an evaluation has"


def _off_row(values: Any, row: str, prefix: str = "") -> Iterator[str]:
    """Where the number of `row`, or those by size, should be."""
    levels = row.split(".")
    for k, level in enumerate(levels):
        if level not in values:
            return
        values = values[level]
        if k < len(levels) - 1 and not isinstance(values, dict):
            yield f"{prefix}{'.'.join(levels[: k + 1])} is not an object"
            return
    if not BY_SIZE[row]:
        if isinstance(values, dict):
            yield f"{prefix}{row} is an object, not a number"
    elif not isinstance(values, dict):
        yield f"{prefix}{row} is not an object of numbers by size"
    else:
        for size, value in values.items():
            if not (size.isascii() and size.isdecimal()) or isinstance(value, dict):
                yield f"{prefix}{row}.{size:.40} is not a number of a size"
