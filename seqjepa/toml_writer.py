"""The little of TOML that a run's configuration needs: tables of booleans, numbers and strings."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping


def dumps(table: Mapping[str, object]) -> str:
    """Nested mappings → TOML text that `tomllib` reads back to equal values.

    Plain values come first, then one `[table]` for each nested mapping. Raises TypeError for anything that TOML
    (or this writer) has no word for: None, NaN, other classes.
    """
    return "\n".join(_lines(table, ())) + "\n"


def _lines(table: Mapping[str, object], path: tuple[str, ...]) -> list[str]:
    plain = {k: v for k, v in table.items() if not isinstance(v, Mapping)}
    nested = {k: v for k, v in table.items() if isinstance(v, Mapping)}
    lines = [f"{_key(k)} = {_value(v)}" for k, v in plain.items()]
    for name, child in nested.items():
        here = (*path, name)
        lines += ["", f"[{'.'.join(map(_key, here))}]", *_lines(child, here)]
    return lines


def _key(name: str) -> str:
    bare = name.isascii() and name.replace("_", "").replace("-", "").isalnum()
    return name if bare else _string(name)


def _value(value: object) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case float() if math.isfinite(value):
            return repr(value)
        case str():
            return _string(value)
        case list() | tuple():
            return f"[{', '.join(map(_value, value))}]"
    raise TypeError(f"no TOML for {value!r}")


def _string(text: str) -> str:
    # JSON's escapes are a subset of TOML's, but JSON leaves DEL bare, which TOML forbids.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
