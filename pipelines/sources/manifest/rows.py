"""What the columns of a manifest say of each row beside numbers: sequence, step, time, split and class.

Every mistake is named with its row. Letters: R rows in the order of the file, Q sequences.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from pipelines.archives import printable
from pipelines.sources.declared_actions import TIMES
from pipelines.sources.manifest.columns import (
    EMPTY,
    WHOLE,
    as_integers,
    as_numbers,
    as_texts,
    distinct,
    holds_texts,
    is_text,
    pc,
)
from pipelines.sources.manifest.read_table import RawTable
from pipelines.sources.mistakes import Mistakes
from pipelines.sources.split_folders import in_nfc, pairs_alike, say_nearly_alike, say_own_splits, split_of
from pipelines.sources.subset import train_or_val
from pipelines.sources.table import LARGEST_STEP, divided_steps
from shards.errors import UsageError, few
from shards.layout import SPLIT_NAME

ROLES: dict[str, tuple[str, ...]] = {
    "image": ("file_name", "image"),
    "sequence": ("sequence",),
    "step": ("step",),
    "timestamp": ("timestamp",),
    "frame": ("frame",),
    "split": ("split",),
    "label": ("label",),
}
"""Names that a column has which plays a part; --image, --sequence … name another."""

NAMES = ("image", "sequence", "split", "label")  # parts whose cells are names


@dataclass
class Rows:
    """A table under way: what was found, what was wrong with it, what is worth a line."""

    raw: RawTable
    roles: dict[str, str]
    mistakes: Mistakes = field(default_factory=Mistakes)
    notes: list[str] = field(default_factory=list)

    def column(self, role: str) -> pa.ChunkedArray | None:
        return self.raw.columns[self.roles[role]] if role in self.roles else None

    def tell(self, rows: np.ndarray, say: Callable[[int], str], kind: str) -> None:
        """A mistake for each of these rows: "row 7: x is empty"."""
        self.mistakes.add_each(rows.tolist(), lambda row: f"{self.raw.where(row)}: {say(row)}", kind)


def find_roles(raw: RawTable, given: dict[str, str], mistakes: Mistakes, notes: list[str]) -> dict[str, str]:
    """Which column plays which part. `given`: columns named by options; the others go by their names."""
    found = {}
    for role, names in ROLES.items():
        wanted = (given[role],) if role in given else names
        exact = [name for name in wanted if name in raw.columns]
        alike = [name for name in raw.columns if name.casefold() in {want.casefold() for want in wanted}]
        if exact or len(alike) == 1:
            found[role] = (exact or alike)[0]
            column = raw.columns[found[role]]
            if role in NAMES and not holds_texts(column):
                mistakes.add(
                    f"column {printable(found[role])} holds {column.type}, of which no {role} can be made", "roles"
                )
            if not exact:
                notes.append(f"column {alike[0]!r} is taken as {wanted[0]}")
        elif role in given:
            there = ", ".join(map(printable, list(raw.columns)[:20]))
            mistakes.add(f"--{role} {given[role]}: there is no such column; there are {there}", "roles")
    return found


@dataclass(frozen=True)
class Order:
    """How rows are sorted: by sequence, then step.

    rows     int64 [R], of the file, in that order     of     int64 [R], rank of each one's sequence
    steps    int64 [R]                                 names  [Q] sequences that have rows, ascending
    ordered  whether steps come from a column          times  float64 [R], seconds since its sequence's first row
    seconds  float64 [R], of the rows as they are in the file, as the column has them; None: dates
    divisor  what steps were divided by
    """

    rows: np.ndarray
    of: np.ndarray
    names: Sequence[str]
    steps: np.ndarray
    ordered: bool
    times: np.ndarray | None = None
    seconds: np.ndarray | None = None
    divisor: int = 1

    @property
    def bounds(self) -> np.ndarray:
        """int64 [Q + 1]: where each sequence begins among `rows`."""
        return np.searchsorted(self.of, np.arange(len(self.names) + 1))


def sequences_of(rows: Rows, images: pa.ChunkedArray, videos: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """int64 [R], rank of each row's sequence (−1: none), and the names. Without a column: folders, or videos."""
    column = rows.column("sequence")
    if column is not None:
        codes, names = _named(rows, "sequence", column)
        rows.tell(np.flatnonzero(codes < 0), lambda _: f"{rows.roles['sequence']} is empty", "sequence")
        return codes, names
    codes, names = distinct(images if videos.any() else pc.replace_substring_regex(images, r"/?[^/]*$", ""))
    if videos.any():
        rows.notes.append("there is no column sequence: each video is one")
    elif len(names) < 2:
        rows.mistakes.add(
            "no column says which object, scene or episode a row belongs to: add a column sequence, or name one with "
            "--sequence COLUMN (folders say so only where images lie in several)",
            "sequence",
        )
    else:
        rows.notes.append(f"there is no column sequence: each of {len(names)} folders of images is one")
    return codes, names


def _named(rows: Rows, role: str, column: pa.ChunkedArray) -> tuple[np.ndarray, list[str]]:
    """`distinct`; of whole numbers alone 3.0 is 3, as pandas spells it where a cell is empty.

    A mistake: one name in two spellings. A line for what may be meant as none, as pandas' "nan", or −1 beside 0, 1 …
    """
    texts = as_texts(column)
    if pc.all(pc.match_substring_regex(texts, WHOLE)).as_py():
        texts = pc.replace_substring_regex(texts, r"\.0*$", "")
    codes, names = distinct(texts)
    none = ("-1",) if role == "label" and all(name == "-1" or name.isdecimal() for name in names) else EMPTY
    if words := [name for name in names if name.lower() in none]:
        rows.notes.append(
            f"{rows.roles[role]} {words[0]!r} is taken for a name; where there is none, leave its cell empty"
        )
    for other, name in pairs_alike((name for name in names if not name.isascii()), in_nfc):
        rows.mistakes.add(
            f"{rows.roles[role]} has {other!a} and {name!a}, one name in two spellings (Unicode NFC and NFD); write "
            "one of them",
            role,
        )
    return codes, names


def order_of(rows: Rows, of: np.ndarray, names: list[str], time_unit: str) -> Order:
    """By the column of steps, or else of times, or else as rows come. Rows without a sequence count to the first."""
    doubtful = of < 0
    of, count = np.maximum(of, 0), len(of)
    numbers, (seconds, dates) = _steps(rows, doubtful), _seconds(rows, time_unit, doubtful)
    key = numbers if numbers is not None else seconds
    by = np.arange(count) if key is None else key
    order = np.lexsort((np.arange(count), by, of))
    present, of = np.unique(of[order], return_inverse=True)
    names = [names[i] for i in present.tolist()] if len(names) else [""]
    same = np.diff(of) == 0
    if key is not None:
        equal = same & (np.diff(by[order]) == 0) & ~(doubtful[order][1:] | doubtful[order][:-1])
        _refuse_same(rows, order, equal, "step" if numbers is not None else "timestamp")
    first = order[np.searchsorted(of, of)]  # of each one's sequence
    times = None if seconds is None else seconds[order] - seconds[first]
    seconds = None if dates else seconds
    if numbers is None:
        return Order(order, of, names, np.arange(count) - np.searchsorted(of, of), key is not None, times, seconds)
    sure = ~(doubtful[order][1:] | doubtful[order][:-1])
    if times is not None and (back := same & sure & (np.diff(times) < 0)).any():
        rows.tell(order[1:][back], lambda _: "its timestamp is before that of the step before", "times")
    steps, divisor = divided_steps(numbers[order], of)
    if (steps > LARGEST_STEP).any():
        what = f"{rows.roles.get('step') or rows.roles['frame']} is too far from its sequence's first"
        rows.tell(order[steps > LARGEST_STEP], lambda _: what, "step")
    return Order(order, of, names, steps, True, times, seconds, divisor)


def _steps(rows: Rows, doubtful: np.ndarray) -> np.ndarray | None:
    """int64 [R]; `doubtful`, bool [R], gets those that are none."""
    role = "step" if "step" in rows.roles else "frame"
    if role not in rows.roles:
        return None
    if role == "frame":
        rows.notes.append(f"steps are those of the column {rows.roles[role]}")
    numbers, bad = whole_numbers(rows, role)
    doubtful |= bad
    return numbers


def whole_numbers(rows: Rows, role: str) -> tuple[np.ndarray, np.ndarray]:
    """(int64 [R], bool [R]: cells that are none, each a mistake) of the column that plays this part."""
    column, name = rows.raw.columns[rows.roles[role]], rows.roles[role]
    numbers, empty, wrong = as_integers(column)
    rows.tell(np.flatnonzero(empty), lambda _: f"{name} is empty", role)
    rows.tell(np.flatnonzero(wrong), lambda row: f"{name} is {_shown(column, row)}, no whole number", role)
    return numbers, empty | wrong


def _seconds(rows: Rows, unit: str, doubtful: np.ndarray) -> tuple[np.ndarray | None, bool]:
    """(float64 [R]: dates since the earliest of all, numbers as they are; whether they are dates). `doubtful` gets
    cells that are none."""
    if (column := rows.column("timestamp")) is None:
        return None, False
    name = rows.roles["timestamp"]
    if is_text(column.type) and (parsed := _dates(column)) is not None:
        column = parsed
    if pa.types.is_date(column.type):
        column = column.cast(pa.timestamp("ms"))
    dates = pa.types.is_timestamp(column.type)
    if dates or pa.types.is_duration(column.type):
        numbers, empty, _ = as_integers(column.cast(pa.int64()))
        earliest = numbers[~empty].min() if dates and not empty.all() else 0
        values = (numbers - earliest) * TIMES[column.type.unit]
    else:
        found = as_numbers(column, rows.raw.separator)
        if found is None or found.values.shape[1] != 1 or found.is_text:
            rows.mistakes.add(f"{name} holds no times: seconds, or dates such as 2024-05-01T12:00:00.25", "times")
            return None, False
        if unit not in TIMES:
            rows.mistakes.add(f"{name} is in {printable(unit)!r}; times are in {', '.join(TIMES)}, or dates", "unit")
        values, empty = found.values[:, 0] * TIMES.get(unit, 1.0), found.empty | found.wrong
        empty |= ~np.isfinite(values)
    rows.tell(np.flatnonzero(empty), lambda row: f"{name} is {_shown(column, row)}, no time", "times")
    doubtful |= empty
    return np.where(empty, 0.0, values), dates


def _dates(texts: pa.ChunkedArray) -> pa.ChunkedArray | None:
    """Dates as ISO 8601 writes them, with an offset from UTC in all or in none; None where one is something else."""
    texts = texts.cast(pa.string())
    for written, zone in ((pc.replace_substring_regex(texts, r"(Z|[+-]00:?00)$", ""), None), (texts, "UTC")):
        with contextlib.suppress(pa.ArrowException):
            return written.cast(pa.timestamp("ns", zone))
    return None


def _shown(column: pa.ChunkedArray, row: int) -> str:
    value = column[row].as_py()
    return "empty" if value in (None, "") else f"{printable(str(value))[:40]!r}"


def _refuse_same(rows: Rows, order: np.ndarray, same: np.ndarray, what: str) -> None:
    earlier = dict(zip(order[1:][same].tolist(), order[:-1][same].tolist(), strict=True))
    name = rows.roles.get(what, rows.roles.get("frame", what))

    def say(row: int) -> str:
        value = _shown(rows.raw.columns[name], row)
        return f"repeats {rows.raw.where(earlier[row])}: the same sequence and {name} {value}"

    rows.tell(order[1:][same], say, "repeated")


def labels_of(rows: Rows, order: Order) -> Sequence[str | None]:
    """[Q]: the class of each sequence; None for none."""
    if (column := rows.column("label")) is None:
        return [None] * len(order.names)
    codes, names = _named(rows, "label", column)
    say_nearly_alike(names, rows.notes.append)
    firsts = _one_a_sequence(rows, order, codes, names, "label")
    return [None if code < 0 else names[code] for code in firsts.tolist()]


def splits_of(rows: Rows, order: Order, labels: Sequence[str | None], val_fraction: float | None) -> list[str]:
    """[Q]: as the column says, or a share of the sequences of each class; or else all training."""
    column = rows.column("split")
    if column is None:
        splits = train_or_val(order.names, labels, val_fraction)
        if val_fraction is None:
            rows.notes.append("no column split, no --val-fraction: all is training")
        elif "val" not in splits:
            rows.notes.append("no sequence is validation: of a class with a single one it is for training")
        return splits
    if val_fraction is not None:
        raise UsageError(
            f"--val-fraction {val_fraction}: the table has splits in its column {rows.roles['split']}; leave out one"
        )
    codes, names = _named(rows, "split", column)
    rows.tell(np.flatnonzero(codes < 0), lambda _: f"{rows.roles['split']} is empty", "split")
    plain = [split_of(name) or name.lower() for name in names]
    wrong = np.array([not SPLIT_NAME.fullmatch(name) for name in plain] + [False])
    allowed = "train, val, test, or letters, digits and _"
    rows.tell(np.flatnonzero(wrong[codes]), lambda row: f"{names[codes[row]]!r} is no split; {allowed}", "split")
    unique = sorted(set(plain))
    if unique and "train" not in unique:
        rows.notes.append(f"there is no training split, only {few(unique)}")
    say_own_splits((name for name in unique if SPLIT_NAME.fullmatch(name)), rows.notes.append)
    ranks = np.array([*(unique.index(name) for name in plain), -1])[codes]
    firsts = _one_a_sequence(rows, order, ranks, unique, "split")
    return [unique[rank] if rank >= 0 else "train" for rank in firsts.tolist()]  # no split: a mistake was told


def _one_a_sequence(rows: Rows, order: Order, codes: np.ndarray, names: Sequence[str], role: str) -> np.ndarray:
    """int64 [Q]: the code that each sequence's rows share; a mistake for rows that have another than its first."""
    firsts = codes[order.rows[order.bounds[:-1]]]
    differing = codes[order.rows] != firsts[order.of]
    sequence = dict(zip(order.rows[differing].tolist(), order.of[differing].tolist(), strict=True))

    def say(row: int) -> str:
        at = sequence[row]
        here, first = (names[code] if code >= 0 else "none" for code in (int(codes[row]), int(firsts[at])))
        begin, name = rows.raw.where(int(order.rows[int(order.bounds[at])])), printable(str(order.names[at]))
        return f"{role} {here!r}, but {begin} of the same sequence {name} has {first!r}; a sequence has one {role}"

    rows.tell(np.sort(order.rows[differing]), say, role)
    return firsts
