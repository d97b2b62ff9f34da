"""The columns of a manifest that hold numbers, as float32 parameters in stored units; what is no number, with its row.

Letters: R rows in the order of the file, P parameters.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from pipelines.archives import printable
from pipelines.sources.declared_actions import (
    LARGEST_NUMBER,
    Declared,
    coarse,
    commands_alone,
    refuse_values,
    scale_of,
)
from pipelines.sources.manifest.columns import Numbers, as_numbers, is_text, pc
from pipelines.sources.manifest.rows import Order, Rows
from shards.schema import MAX_PARAMS, ActionSpec

NAMELESS = re.compile(r"Unnamed: \d+(_level_\d+)?")  # what pandas calls a column without a name, such as its index
EXACT = 2**24  # up to which a float32 holds every whole number


@dataclass(frozen=True)
class Column:
    """A column of parameters: its name, and `of` which column of the file it is, or is a component of.

    values    float32 [R], in stored units; NaN where there is no number
    empty     bool [R]      unusable  bool [R], cells that were told to be wrong
    """

    name: str
    of: str
    values: np.ndarray
    empty: np.ndarray
    unusable: np.ndarray


def number_columns(rows: Rows, ignore: Sequence[str], declared: Declared, order: Order) -> list[Column]:
    """The P columns of numbers. Says which columns are left out."""
    for name in ignore:
        if name not in rows.raw.columns:
            rows.mistakes.add(f"--ignore {name}: there is no such column", "roles")
    columns, left_out, commas, grouped = [], [], [], []
    nameless = [name for name in rows.raw.columns if NAMELESS.fullmatch(name) and name not in rows.roles.values()]
    if nameless:
        rows.notes.append(f"left out, being without a name of their own: {', '.join(nameless)}")
    for name, column in rows.raw.columns.items():
        if name == rows.roles.get("timestamp"):
            if order.times is not None:
                seconds, none = np.empty(len(order.rows), np.float32), np.zeros(len(order.rows), bool)
                seconds[order.rows] = order.times
                columns.append(Column(name, name, seconds, none, none))
        elif name not in (*ignore, *nameless, *rows.roles.values()):
            found = as_numbers(column, rows.raw.separator)
            if found is None or found.is_text:
                left_out.append(f"{printable(name)} ({_kind(column, found)})")
                continue
            commas += [name] if found.comma else []
            grouped += [name] if found.grouped else []
            parts = [name] if not found.shape else [f"{name}.{i}" for i in range(found.values.shape[1])]
            columns += _stored(rows, name, parts, column, found, declared)
            rows.notes.extend(coarse(parts, found.values[order.rows], order.of))
    if left_out:
        rows.notes.append(f"left out, being no numbers: {', '.join(left_out)}")
    if commas:
        rows.notes.append(f"decimal commas are read in {', '.join(commas)}")
        for name in grouped:
            what = f"{name} has points before three digits, and {commas[0]} decimal commas: do they part thousands?"
            rows.mistakes.add(f"{what} write 1234 or 1,234, or --ignore {name}", "roles")
    names = [column.name for column in columns]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        rows.mistakes.add(f"two columns would be called {twice[0]}; rename one of them", "roles")
    if len(names) > MAX_PARAMS:
        rows.mistakes.add(f"{len(names)} columns of numbers; a set has at most {MAX_PARAMS}: --ignore some", "roles")
    return columns


def _kind(column: pa.ChunkedArray, found: Numbers | None) -> str:
    """Of a column that holds no numbers; with a cell that may be meant as one, such as 30% or 1/2."""
    if found and found.empty.all():
        return "empty"
    if not found or not is_text(column.type):
        return str(column.type)[:40]
    like = pc.fill_null(pc.match_substring_regex(column, r"^\s*[\[(+−-]*\s*\.?[0-9]"), False).to_numpy()
    alike = np.flatnonzero(like & found.wrong)
    return f"text, such as {_shown(column, int(alike[0]))!r}" if len(alike) else "text"


def _stored(
    rows: Rows, name: str, parts: list[str], column: pa.ChunkedArray, found: Numbers, declared: Declared
) -> list[Column]:
    """Values as float32 in stored units. Tells cells that are no number, or one from LARGEST_NUMBER on."""
    rows.tell(np.flatnonzero(found.wrong), lambda row: f"{name} is {_cell(column, row, found)}", f"number {name}")
    with np.errstate(over="ignore", invalid="ignore"):
        stored = (found.values * scale_of(parts, declared)).astype(np.float32)
        lost = ~(np.abs(stored) < LARGEST_NUMBER) & ~(found.empty | found.wrong)[:, None]
        rounded = found.whole & (np.abs(found.values) > EXACT) & (found.values.astype(np.float32) != found.values)
    unheld = np.flatnonzero(lost.any(1))
    allowed = f"finite numbers below {LARGEST_NUMBER:g} are allowed"
    rows.tell(unheld, lambda row: f"{name} is {_shown(column, row)}; {allowed}", f"large {name}")
    if rounded.any():
        example = found.values[rounded.any(1)][0].max()
        rows.notes.append(
            f"{name} has whole numbers such as {example:.0f}, which are rounded to float32; if they only "
            f"name something: --ignore {name}"
        )
    unusable = found.wrong | lost.any(1)
    return [Column(part, name, stored[:, i], found.empty, unusable) for i, part in enumerate(parts)]


def _cell(column: pa.ChunkedArray, row: int, found: Numbers) -> str:
    value = _shown(column, row)
    if found.shape:
        return f"{value}; {'×'.join(map(str, found.shape))} numbers are needed, as in most rows"
    doubt = ": a thousands separator, or a decimal comma? write 1234 or 1.234" if found.alike else ", no number"
    return f"{value!r}{doubt}"


def _shown(column: pa.ChunkedArray, row: int) -> str:
    return printable(str(column[row].as_py()))[:40]


def filled_params(rows: Rows, order: Order, columns: Sequence[Column], action: ActionSpec | None) -> np.ndarray:
    """float32 [R, P]. An empty cell is a mistake, but for commands at the end of a sequence: they lead nowhere, and
    are stored as 0. So is a row that an action cannot be made of.
    """
    params = np.zeros((len(order.rows), len(columns)), np.float32)
    ends = np.zeros(len(order.rows), bool)
    ends[order.rows[order.bounds[1:] - 1]] = True
    commands, told = commands_alone(action), ""
    unknown = np.zeros(len(order.rows), bool)
    for i, column in enumerate(columns):
        params[:, i] = np.where(np.isfinite(column.values), column.values, 0)
        is_command = column.name in commands
        if column.of != told:  # the components of a vector are empty together
            wrong = np.flatnonzero(column.empty & ~(ends & is_command))
            advice = "; only the last row of a sequence may have none" if is_command else ""
            what = f"{column.of} is empty or NaN{advice}"
            rows.tell(wrong, lambda _, what=what: what, f"empty {column.of}")
            told = column.of
        unknown |= column.empty | column.unusable
    names = [column.name for column in columns]
    refuse_values(action, names, params, rows.mistakes, rows.raw.where, ~unknown)
    return params
