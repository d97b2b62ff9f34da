"""Images and a table of them, metadata.csv, .jsonl or .parquet as Hugging Face's ImageFolder has it, as a ViewTable.

A row is an image (`file_name` or `image`), with any columns of numbers and what else is known of it: `sequence`, `step`
or `timestamp`, `split`, `label`. docs/manifest.md has the whole format. All mistakes are found before any is told.

Letters: R rows, Q sequences, P parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.archives import printable
from pipelines.sources.columns import Numbers, as_numbers, as_texts, compute
from pipelines.sources.declared_actions import (
    FILE,
    Declared,
    action_of,
    fields_of,
    read_declared,
    scale_of,
    value_problems,
)
from pipelines.sources.leaks import refuse_leaks
from pipelines.sources.locate import plain_names
from pipelines.sources.manifest_pictures import are_videos, pictures_of
from pipelines.sources.manifest_rows import Order, Rows, find_roles, labels_of, order_of, sequences_of, splits_of
from pipelines.sources.mistakes import Mistakes
from pipelines.sources.read_table import SUFFIXES, read_table
from pipelines.sources.table import ViewTable
from shards.errors import FormatError, UsageError
from shards.schema import MAX_PARAMS, ActionSpec, ActionTerm

if TYPE_CHECKING:
    import pyarrow as pa

STEM = "metadata"
EXACT = 2**24  # up to which a float32 holds every whole number


@dataclass(frozen=True)
class ManifestOptions:
    """manifest       the table; None: the one metadata.csv, .jsonl or .parquet of the source
    columns        names of columns by the part that they play (manifest_rows.ROLES)
    val_fraction   this share of the sequences of each class is validation
    actions        an actions.toml; None: the one beside the table      action  a preset's name instead
    units          "yaw=deg" …      ignore  columns that are not kept
    allow_repeats  the same pixels in two splits are said, not refused
    """

    manifest: Path | None = None
    columns: dict[str, str] = field(default_factory=dict)
    val_fraction: float | None = None
    actions: Path | None = None
    action: str | None = None
    units: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    allow_repeats: bool = False

    def to_json(self) -> dict[str, Any]:
        """Of the command line."""
        files = {
            name: path.name if path else None for name, path in (("manifest", self.manifest), ("actions", self.actions))
        }
        return {
            **files,
            **self.columns,
            "val_fraction": self.val_fraction,
            "action": self.action,
            "unit": list(self.units) or None,
            "ignore": list(self.ignore) or None,
            "allow_repeats": self.allow_repeats or None,
        }


@dataclass
class Reading:
    """What became of a manifest. `table` is None where there are mistakes; `notes`: what is worth a line.

    draft: what a dry run looks at; it may be there also with mistakes, and is then not to be built from
    """

    path: Path
    mistakes: Mistakes
    notes: list[str]
    table: ViewTable | None = None
    draft: ViewTable | None = None

    def checked(self) -> ViewTable:
        """FormatError: the first 20 mistakes."""
        self.mistakes.raise_any(self.path.name)
        assert self.table is not None
        return self.table


def has_manifest(source: Path) -> bool:
    folder = source if source.is_dir() else source.parent
    return any((folder / f"{STEM}{suffix}").is_file() for suffix in SUFFIXES)


def find_manifest(source: Path, given: Path | None) -> Path:
    """FormatError: it is not there, or there are several."""
    folder = source if source.is_dir() else source.parent
    if not source.exists():
        raise FormatError(f"{source} is not there; give the folder (or plain .tar or .zip) of the images")
    if given is not None:
        found = [path for path in (given, folder / given) if path.is_file()]
        if not found:
            raise FormatError(f"--manifest {given}: there is no such file")
        return found[0]
    there = [folder / f"{STEM}{suffix}" for suffix in SUFFIXES if (folder / f"{STEM}{suffix}").is_file()]
    if len(there) > 1:
        raise FormatError(f"{folder} holds {' and '.join(path.name for path in there)}; say which with --manifest FILE")
    if not there:
        below = sorted(path for suffix in SUFFIXES for path in folder.glob(f"*/{STEM}{suffix}"))
        hint = f" (there is {below[0].relative_to(folder)}; --source {below[0].parent}?)" if below else ""
        raise FormatError(
            f"{folder} holds no {STEM}.csv, .jsonl or .parquet{hint}; give the table of its images with "
            "--manifest FILE (docs/layouts.md has what needs no table)"
        )
    return there[0]


def read_manifest(source: Path, asked: ManifestOptions) -> Reading:
    """All that is wrong with it is in `mistakes`. FormatError or UsageError: nothing can be made of it at all."""
    path = find_manifest(source, asked.manifest)
    mistakes = Mistakes()
    raw = read_table(path, mistakes)
    rows = Rows(raw, {}, mistakes, list(raw.notes))
    rows.roles = find_roles(raw, asked.columns, mistakes, rows.notes)
    declared = _declared(path, asked, mistakes)
    reading = Reading(path, mistakes, rows.notes)
    if "image" not in rows.roles:
        if "image" not in asked.columns:
            mistakes.add(_no_image(list(raw.columns)), "roles")
        return reading
    if not len(raw.numbers):
        return reading
    names = plain_names(as_texts(raw.columns[rows.roles["image"]]), raw.where, mistakes, rows.notes)
    of, sequences = sequences_of(rows, names, are_videos(names))
    time_unit = declared.units.get(rows.roles.get("timestamp", ""), "s")
    order = order_of(rows, of, sequences, time_unit)
    labels = labels_of(rows, order)
    splits = splits_of(rows, order, labels, asked.val_fraction)
    columns = _numbers(rows, asked, declared, order)
    fields = fields_of([column.name for column in columns], _without_time(declared, rows), mistakes)
    action = action_of(declared, fields, mistakes)
    _refuse_unordered_commands(action, order, mistakes)
    params = _filled(rows, order, columns, action)
    pictures = pictures_of(rows, source, names, order.seconds, order.rows)
    if not are_videos(names).any():
        _refuse_same_images(rows, order, names)
    if pictures is None:
        return reading
    numbers = raw.numbers[order.rows]
    table = ViewTable(
        sequences=order.names,
        of=order.of.astype(np.int32),
        steps=order.steps.astype(np.int32),
        ordered=order.ordered,
        params=params[order.rows],
        fields=fields,
        splits=splits,
        labels=labels,
        pictures=pictures,
        actions=action,
        settled={"layout": "manifest"} | ({} if order.divisor == 1 else {"step_divisor": order.divisor}),
        where=lambda row: f"{path.name}, {raw.word} {numbers[row]}",
    )
    reading.draft = table
    if "missing" not in mistakes.by_kind:
        refuse_leaks(table, mistakes, rows.notes, allow_repeats=asked.allow_repeats)
    if not mistakes.count:
        reading.table = table
    return reading


def _no_image(columns: Sequence[str]) -> str:
    there = ", ".join(map(printable, columns[:20]))
    bare = any("/" in name or name.lower().endswith((".jpg", ".png", ".jpeg")) or _is_number(name) for name in columns)
    hint = " (is the first row of names missing?)" if bare else ""
    if "image.bytes" in columns:
        hint = " (the pictures are within the table: write them to files)"
    return f"no column is called file_name or image; there are {there}{hint}; name one with --image COLUMN"


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _declared(path: Path, asked: ManifestOptions, mistakes: Mistakes) -> Declared:
    file = asked.actions or (path.with_name(FILE) if path.with_name(FILE).is_file() else None)
    if asked.actions and not asked.actions.is_file():
        raise UsageError(f"--actions {asked.actions}: there is no such file")
    return read_declared(file, asked.action, asked.units, mistakes)


def _without_time(declared: Declared, rows: Rows) -> Declared:
    """A timestamp's unit is what it is read in; it is stored in s."""
    name = rows.roles.get("timestamp")
    return Declared(declared.terms, {**declared.units, **({name: "s"} if name else {})}, declared.where)


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


def _numbers(rows: Rows, asked: ManifestOptions, declared: Declared, order: Order) -> list[Column]:
    """The P columns of numbers. Says which columns are left out."""
    for name in asked.ignore:
        if name not in rows.raw.columns:
            rows.mistakes.add(f"--ignore {name}: there is no such column", "roles")
    columns, left_out, commas = [], [], []
    for name, column in rows.raw.columns.items():
        if name == rows.roles.get("timestamp"):
            columns += _times(name, order)
        elif name not in asked.ignore and name not in rows.roles.values():
            found = as_numbers(column, rows.raw.separator)
            if found is None or found.is_text:
                left_out.append(f"{printable(name)} ({_kind(column, found)})")
                continue
            commas += [name] if found.comma else []
            parts = [name] if not found.shape else [f"{name}.{i}" for i in range(found.values.shape[1])]
            columns += _stored(rows, name, parts, column, found, declared)
    if left_out:
        rows.notes.append(f"left out, being no numbers: {', '.join(left_out)}")
    if commas:
        rows.notes.append(f"decimal commas are read in {', '.join(commas)}")
    names = [column.name for column in columns]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        rows.mistakes.add(f"two columns would be called {twice[0]}; rename one of them", "roles")
    if len(names) > MAX_PARAMS:
        rows.mistakes.add(f"{len(names)} columns of numbers; a set has at most {MAX_PARAMS}: --ignore some", "roles")
    return columns


def _times(name: str, order: Order) -> list[Column]:
    if order.times is None:
        return []
    seconds, none = np.empty(len(order.rows), np.float32), np.zeros(len(order.rows), bool)
    seconds[order.rows] = order.times
    return [Column(name, name, seconds, none, none)]


def _kind(column: pa.ChunkedArray, found: Numbers | None) -> str:
    return "empty" if found and found.empty.all() else str(column.type).replace("string", "text")[:40]


def _stored(
    rows: Rows, name: str, parts: list[str], column: pa.ChunkedArray, found: Numbers, declared: Declared
) -> list[Column]:
    """Values as float32 in stored units. Tells cells that are no number, or none that a float32 can hold."""
    rows.tell(np.flatnonzero(found.wrong), lambda row: f"{name} is {_cell(column, row, found)}", f"number {name}")
    with np.errstate(over="ignore", invalid="ignore"):
        stored = (found.values * scale_of(parts, declared)).astype(np.float32)
        lost = ~np.isfinite(stored) & ~(found.empty | found.wrong)[:, None]
        rounded = found.whole & (np.abs(found.values) > EXACT) & (found.values.astype(np.float32) != found.values)
    unheld = np.flatnonzero(lost.any(1))
    rows.tell(unheld, lambda row: f"{name} is {_cell(column, row, found)}: not finite, or too large", f"large {name}")
    if rounded.any():
        example = found.values[rounded.any(1)][0].max()
        rows.notes.append(
            f"{name} has whole numbers such as {example:.0f}, which are rounded to float32; if they only "
            f"name something: --ignore {name}"
        )
    unusable = found.wrong | lost.any(1)
    return [Column(part, name, stored[:, i], found.empty, unusable) for i, part in enumerate(parts)]


def _cell(column: pa.ChunkedArray, row: int, found: Numbers) -> str:
    value = printable(str(column[row].as_py()))[:40]
    if found.shape:
        return f"{value}; {'×'.join(map(str, found.shape))} numbers are needed, as in most rows"
    doubt = ": a thousands separator, or a decimal comma? write 1234 or 1.234" if found.alike else ", no number"
    return f"{value!r}{doubt}"


def _filled(rows: Rows, order: Order, columns: Sequence[Column], action: ActionSpec | None) -> np.ndarray:
    """float32 [R, P]. An empty cell is a mistake, but for commands at the end of a sequence: they lead nowhere, and
    are stored as 0. So is a row that an action cannot be made of.
    """
    params = np.zeros((len(order.rows), len(columns)), np.float32)
    ends = np.zeros(len(order.rows), bool)
    ends[order.rows[order.bounds[1:] - 1]] = True
    terms = action.terms if action else ()
    commands = {name for term in terms if term.op == "command" for name in term.columns}
    commands -= {name for term in terms if term.op != "command" for name in term.columns}
    unknown = np.zeros(len(order.rows), bool)
    told = ""
    for i, column in enumerate(columns):
        params[:, i] = np.where(np.isfinite(column.values), column.values, 0)
        is_command = column.name in commands
        if column.of != told:  # the components of a vector are empty together
            wrong = np.flatnonzero(column.empty & ~(ends & is_command))
            rows.tell(wrong, _is_empty(column.of, is_command), f"empty {column.of}")
            told = column.of
        unknown |= column.empty | column.unusable
    _refuse_no_rotations(rows, columns, params, unknown, terms)
    return params


def _is_empty(name: str, command: bool) -> Callable[[int], str]:
    advice = "; only the last row of a sequence may have none" if command else ""
    return lambda _: f"{name} is empty or NaN{advice}"


def _refuse_no_rotations(
    rows: Rows, columns: Sequence[Column], params: np.ndarray, unknown: np.ndarray, terms: Sequence[ActionTerm]
) -> None:
    at = {column.name: i for i, column in enumerate(columns)}
    for term in terms:
        bad, what = value_problems(term, params[:, [at[name] for name in term.columns]].astype(np.float64))
        named = term.columns[0] if len(term.columns) == 1 else f"{term.columns[0]} … {term.columns[-1]}"
        rows.tell(np.flatnonzero(bad & ~unknown), lambda _, n=named, w=what: f"{n} {w}", f"{term.op} {named}")


def _refuse_unordered_commands(action: ActionSpec | None, order: Order, mistakes: Mistakes) -> None:
    if action and not order.ordered and any(term.op == "command" for term in action.terms):
        mistakes.add("a command leads from a row to the next: add a column step or timestamp, or name one", "actions")


def _refuse_same_images(rows: Rows, order: Order, names: pa.ChunkedArray) -> None:
    """One image twice in a sequence without steps: a row was copied by mistake."""
    if order.ordered or "sequence" not in rows.roles:
        return
    pc = compute()

    codes = pc.rank(names.combine_chunks(), tiebreaker="dense").to_numpy()[order.rows]
    by = np.lexsort((order.rows, codes, order.of))
    same = (np.diff(codes[by]) == 0) & (np.diff(order.of[by]) == 0)
    earlier = dict(zip(order.rows[by[1:]][same].tolist(), order.rows[by[:-1]][same].tolist(), strict=True))
    rows.tell(
        np.sort(order.rows[by[1:]][same]),
        lambda row: f"repeats {rows.raw.where(earlier[row])}: the same image of the same sequence",
        "repeated",
    )
