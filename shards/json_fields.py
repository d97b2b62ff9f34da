"""JSON of unknown origin, field by field: every function raises FormatError, one line, for what it did not expect."""

from __future__ import annotations

import json
from typing import Any, TypeVar

from shards.errors import FormatError

T = TypeVar("T")


def plain_json(value: Any, what: str) -> Any:
    """`value` as JSON gives it back (tuples become lists). FormatError: not JSON, NaN, or a null anywhere."""
    try:
        plain = json.loads(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise FormatError(f"{what} is not plain JSON: {error}") from error
    _refuse_nulls(plain, what)
    return plain


def _refuse_nulls(value: Any, what: str) -> None:
    if value is None:
        raise FormatError(f"{what} is null: leave it out instead")
    if isinstance(value, dict | list):
        for name, inner in value.items() if isinstance(value, dict) else enumerate(value):
            _refuse_nulls(inner, f"{what}.{name}")


def json_object(data: bytes, where: str) -> dict[str, Any]:
    """`data` as a JSON object."""
    try:
        record = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{where} is not JSON: {error}") from error
    if not isinstance(record, dict):
        raise FormatError(f"{where} is not a JSON object")
    return record


def take(record: dict[str, Any], name: str, kind: type[T]) -> T:
    """record[name], which must be a `kind`."""
    value = record.get(name)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise FormatError(f"{name} must be a {kind.__name__}, found {value!r:.60}")
    return value


def number(record: dict[str, Any], name: str, low: int, high: int) -> int:
    """record[name], an integer from low to high."""
    value = take(record, name, int)
    if not low <= value <= high:
        raise FormatError(f"{name} is {value}, allowed are {low} to {high}")
    return value


def one_of(record: dict[str, Any], name: str, allowed: tuple[str, ...]) -> Any:
    """record[name], one of `allowed`."""
    value = record.get(name)
    if value not in allowed:
        raise FormatError(f"{name} {value!r:.40} is unknown, allowed: {', '.join(allowed)}")
    return value


def strings(record: dict[str, Any], name: str) -> tuple[str, ...]:
    """record[name], a list of strings."""
    values = take(record, name, list)
    if not all(isinstance(value, str) for value in values):
        raise FormatError(f"{name} must be strings")
    return tuple(values)
