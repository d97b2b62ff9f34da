"""JSON of unknown origin, field by field: every function raises FormatError, one line, for what it did not expect.

strict_json, for those who say more about their file, raises ValueError instead.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any, TypeVar

from shards.errors import FormatError

T = TypeVar("T")
_SHA256 = re.compile(r"[0-9a-f]{64}")


def plain_json(value: Any, what: str) -> Any:
    """`value` as JSON gives it back (tuples become lists), with "?" for bytes of a folder's name that are no UTF-8.

    FormatError: not JSON, NaN, or a null anywhere.
    """
    try:
        plain = json.loads(json.dumps(value, ensure_ascii=False, allow_nan=False).encode("utf-8", "replace"))
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


def strict_json(data: bytes | str, *, nan: bool = False) -> Any:
    """What `data`, in UTF-8, says. nan: NaN and Infinity, which JSON does not have, are let through.

    ValueError, its text one line: not JSON, not UTF-8, nested too deeply, a key that an object has twice, a number of
    thousands of digits or beyond float64.
    """
    text = data if isinstance(data, str) else data.decode("utf-8-sig")
    constant = float if nan else _no_number
    try:
        return json.loads(text, object_pairs_hook=_unique, parse_float=_finite, parse_constant=constant)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no number of JSON")


def _finite(digits: str) -> float:
    if math.isinf(value := float(digits)):
        raise ValueError(f"{digits:.20} is too large a number")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice!r:.60} occurs twice in one object")
    return record


def json_object(data: bytes, where: str, *, nan: bool = False) -> dict[str, Any]:
    """`data` as a JSON object. nan: see strict_json."""
    try:
        record = strict_json(data, nan=nan)
    except ValueError as error:
        raise FormatError(f"{where} is not JSON: {error}") from error
    if not isinstance(record, dict):
        raise FormatError(f"{where} is not a JSON object")
    return record


def take(record: dict[str, Any], name: str, kind: type[T]) -> T:
    """record[name], which must be a `kind`."""
    if not isinstance(record, dict):
        raise FormatError(f"an object with {name} is needed, found {record!r:.60}")
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


def digest(record: dict[str, Any], name: str) -> str:
    """record[name], a sha256 in hexadecimal digits."""
    value = take(record, name, str)
    if not _SHA256.fullmatch(value):
        raise FormatError(f"{name} is not a sha256: {value!r:.80}")
    return value


def of_channels(record: dict[str, Any], name: str, low: float, where: str) -> list[float]:
    """record[name], three numbers from `low` to 1, one for each colour. where: what `record` is, for messages."""
    values = take(record, name, list)
    if len(values) != 3 or not all(type(v) in (int, float) and low <= v <= 1 for v in values):
        raise FormatError(f"{where}.{name} must be three numbers from {low} to 1, found {values!r:.60}")
    return [float(v) for v in values]
