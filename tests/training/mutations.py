"""What happens to files: flipped bits, cuts, holes, other files' bytes, other values. Every mutation is of a seed."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

VALUES: tuple[Any, ...] = (
    None, True, False, -1, 0, 1, 2, 10**30, -0.5, 1e308, float("nan"), float("inf"), "", "x" * 300, "\n", "../..",
    [], [1], [[]], {}, {"a": 1},
)  # fmt: skip
Mutation = Callable[[bytes, random.Random, list[Path]], bytes]


def flip(data: bytes, rng: random.Random, others: list[Path]) -> bytes:
    changed = bytearray(data or b"\0")
    changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def cut(data: bytes, rng: random.Random, others: list[Path]) -> bytes:
    return data[: rng.choice([0, 1, rng.randrange(len(data) + 1), max(0, len(data) - 1)])]


def insert(data: bytes, rng: random.Random, others: list[Path]) -> bytes:
    at = rng.randrange(len(data) + 1)
    return data[:at] + rng.randbytes(rng.randrange(1, 9)) + data[at:]


def blank(data: bytes, rng: random.Random, others: list[Path]) -> bytes:
    at = rng.randrange(len(data) + 1)
    length = min(rng.choice([1, 16, 512]), len(data) - at)
    return data[:at] + bytes(length) + data[at + length :]


def swap(data: bytes, rng: random.Random, others: list[Path]) -> bytes:
    return rng.choice(others).read_bytes()


def edit_json(data: bytes, rng: random.Random, others: list[Path]) -> bytes:
    """Another value, a lost key, or a nest, somewhere; of JSON lines in one of them."""
    lines = data.decode().splitlines() if data.count(b"\n{") else [data.decode()]
    number = rng.randrange(len(lines))
    try:
        record = json.loads(lines[number])
    except ValueError:
        return flip(data, rng, others)
    place: Any = record
    while isinstance(place, dict | list) and place:
        key = rng.choice(list(place) if isinstance(place, dict) else range(len(place)))
        if not isinstance(place[key], dict | list) or not place[key] or rng.random() < 0.3:
            break
        place = place[key]
    else:
        return flip(data, rng, others)
    action = rng.random()
    if action < 0.2:
        place.pop(key)
    elif action < 0.3:
        place[key] = "NEST"
    else:
        place[key] = rng.choice(VALUES)
    nest = "[" * 3000 + "]" * 3000
    lines[number] = json.dumps(record, indent=None if len(lines) > 1 else 2).replace('"NEST"', nest)
    return ("\n".join(lines) + "\n").encode()


def edit_toml(data: bytes, rng: random.Random, others: list[Path]) -> bytes:
    lines = data.decode().splitlines()
    number = rng.choice([k for k, line in enumerate(lines) if "=" in line] or [0])
    key = lines[number].partition("=")[0]
    value = rng.choice(['"x"', "-1", "0", "7", "0.3", "nan", "1e300", "true", "[]", "{}", "99999999999", "[" * 2000])
    lines[number] = rng.choice([f"{key}= {value}", "", f"{lines[number]}\n{lines[number]}", f"new = {value}"])
    return ("\n".join(lines) + "\n").encode()


def edit_parquet(data: bytes, rng: random.Random, others: list[Path]) -> bytes:
    table = pq.read_table(pa.BufferReader(data))
    column = rng.randrange(table.num_columns)
    if rng.random() < 0.3:
        table = table.remove_column(column)
    else:
        values = table.column(column).to_pylist()
        values[rng.randrange(len(values))] = values[0]
        values[rng.randrange(len(values))] = values[-1]
        table = table.set_column(column, table.schema.field(column), pa.array(values, table.schema.field(column).type))
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    return sink.getvalue().to_pybytes()


RAW: tuple[Mutation, ...] = (flip, flip, cut, insert, blank, swap)
EDITS: dict[str, Mutation] = {".json": edit_json, ".jsonl": edit_json, ".toml": edit_toml, ".parquet": edit_parquet}


def mutate(path: Path, rng: random.Random) -> str:
    """Change the file; → what was done to it."""
    edit = EDITS.get(re.sub(r".*(\.[a-z]+)$", r"\1", path.name))
    how = edit if edit and rng.random() < 0.5 else rng.choice(RAW)
    others = [p for p in sorted(path.parent.iterdir()) if p.is_file() and p != path] or [path]
    path.write_bytes(how(path.read_bytes(), rng, others))
    return f"{path.name} {how.__name__}"
