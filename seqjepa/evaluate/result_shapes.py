"""Which JSON type each part of results.json has: a number, an object of numbers by size, a text, a list."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from seqjepa.evaluate.rows import ROWS

OBJECTS = ("costs", "best", "per_class", "protocol", "intervals")
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
    **dict.fromkeys(("probe_epochs", "train_draws", "precision", "skipped", "fixating", "augmenting"), OBJECT),
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
    elif odd := next((size for size, value in values.items() if not _is_of_a_size(size, value)), None):
        yield f"{prefix}{row}.{odd:.40} is not a number of a size"


def _is_of_a_size(size: str, value: Any) -> bool:
    return size.isascii() and size.isdecimal() and not isinstance(value, dict)
