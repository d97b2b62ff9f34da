"""Images and a table of them, metadata.csv, .jsonl or .parquet as Hugging Face's ImageFolder has it, as a ViewTable.

A row is an image (`file_name` or `image`), with any columns of numbers and what else is known of it: `sequence`, `step`
or `timestamp`, `split`, `label`. docs/manifest.md has the whole format. All mistakes are found before any is told.

Letters: R rows, Q sequences, P parameters.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.archives import printable
from pipelines.sources.declared_actions import Declared, action_of, fields_of, read_declared
from pipelines.sources.leaks import refuse_leaks
from pipelines.sources.manifest.columns import POINT, as_texts, pc
from pipelines.sources.manifest.locate import are_videos, pictures_of, plain_names
from pipelines.sources.manifest.numbers import filled_params, number_columns
from pipelines.sources.manifest.read_table import ADVICE, SUFFIXES, read_table
from pipelines.sources.manifest.rows import Order, Rows, find_roles, labels_of, order_of, sequences_of, splits_of
from pipelines.sources.mistakes import Mistakes
from pipelines.sources.table import ViewTable
from shards.errors import FormatError

STEM = "metadata"


@dataclass(frozen=True)
class ManifestOptions:
    """manifest       the table; None: the one metadata.csv, .jsonl or .parquet of the source
    columns        names of columns by the part that they play (rows.ROLES)
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
        return {
            "manifest": self.manifest.name if self.manifest else None,
            "actions": self.actions.name if self.actions else None,
            **self.columns,
            "val_fraction": self.val_fraction,
            "action": self.action,
            "unit": list(self.units) or None,
            "ignore": list(self.ignore) or None,
            "allow_repeats": self.allow_repeats or None,
        }


@dataclass
class ReadViews:
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
    return bool(_manifests(source if source.is_dir() else source.parent))


def _manifests(folder: Path) -> list[Path]:
    return [path for suffix in SUFFIXES if (path := folder / f"{STEM}{suffix}").is_file()]


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
    there = _manifests(folder)
    if len(there) > 1:
        raise FormatError(f"{folder} holds {' and '.join(path.name for path in there)}; say which with --manifest FILE")
    if not there:
        raise FormatError(
            f"{folder} holds no {STEM}.csv, .jsonl or .parquet{_other_table(folder)}; give the table of its images "
            "with --manifest FILE (docs/layouts.md has what needs no table)"
        )
    return there[0]


def _other_table(folder: Path) -> str:
    """What may be meant instead, in brackets."""
    if below := sorted(path for suffix in SUFFIXES for path in folder.glob(f"*/{STEM}{suffix}") if path.is_file()):
        return f" (there is {below[0].relative_to(folder)}; --source {below[0].parent}?)"
    if beside := sorted(path.name for suffix in SUFFIXES for path in folder.glob(f"*{suffix}") if path.is_file()):
        return f" (there is {printable(beside[0])}; --manifest {printable(beside[0])}?)"
    if others := sorted(path for path in folder.glob("*.*") if path.suffix.lower() in ADVICE):
        return f" (there is {printable(others[0].name)}{ADVICE[others[0].suffix.lower()]})"
    return ""


def read_manifest(source: Path, asked: ManifestOptions) -> ReadViews:
    """All that is wrong with it is in `mistakes`. FormatError or UsageError: nothing can be made of it at all."""
    path = find_manifest(source, asked.manifest)
    mistakes = Mistakes()
    raw = read_table(path, mistakes)
    rows = Rows(raw, {}, mistakes, list(raw.notes))
    rows.roles = find_roles(raw, asked.columns, mistakes, rows.notes)
    declared = read_declared(asked.actions, asked.action, asked.units, mistakes, path.parent)
    reading = ReadViews(path, mistakes, rows.notes)
    if "image" not in rows.roles:
        if "image" not in asked.columns:
            mistakes.add(_no_image(list(raw.columns)), "roles")
    elif len(raw.numbers) and (table := _table_of(rows, source, path, asked, declared)) is not None:
        reading.draft = table
        if not any(kind.startswith("missing") for kind in mistakes.by_kind):
            refuse_leaks(table, mistakes, rows.notes, allow_repeats=asked.allow_repeats)
        if not mistakes.count:
            reading.table = table
    return reading


def _table_of(rows: Rows, source: Path, path: Path, asked: ManifestOptions, declared: Declared) -> ViewTable | None:
    """What the rows say; None where their images cannot be found out. Mistakes are noted, in this order."""
    raw, mistakes = rows.raw, rows.mistakes
    names = plain_names(as_texts(raw.columns[rows.roles["image"]]), raw.where, mistakes, rows.notes)
    videos = are_videos(names)
    of, sequences = sequences_of(rows, names, videos)
    time_unit = declared.units.get(rows.roles.get("timestamp", ""), "s")
    order = order_of(rows, of, sequences, time_unit)
    labels = labels_of(rows, order)
    splits = splits_of(rows, order, labels, asked.val_fraction)
    columns = number_columns(rows, asked.ignore, declared, order)
    kept = [column.name for column in columns]
    # A timestamp's unit is what it is read in; it is stored in s, where it holds times and is kept.
    time = rows.roles.get("timestamp")
    units = {name: unit for name, unit in declared.units.items() if name != time}
    units |= {time: "s"} if time and time in kept else {}
    fields = fields_of(kept, Declared(declared.terms, units, declared.where), mistakes)
    action = action_of(declared, fields, mistakes)
    if action and not order.ordered and any(term.op == "command" for term in action.terms):
        mistakes.add("a command leads from a row to the next: add a column step or timestamp, or name one", "actions")
    params = filled_params(rows, order, columns, action)
    pictures = pictures_of(rows, source, names, order.seconds, order.rows)
    if not videos.any():
        _refuse_same_images(rows, order, names)
    if pictures is None:
        return None
    numbers = raw.numbers[order.rows]
    return ViewTable(
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


def _no_image(columns: Sequence[str]) -> str:
    there = ", ".join(map(printable, columns[:20]))
    bare = any("/" in name or re.search(rf"(?i)\.(jpg|png|jpeg)$|{POINT}", name) for name in columns)
    hint = " (is the first row of names missing?)" if bare else ""
    if "image.bytes" in columns:
        hint = " (the pictures are within the table: write them to files; `shard folder` takes it, without sequences)"
    return f"no column is called file_name or image; there are {there}{hint}; name one with --image COLUMN"


def _refuse_same_images(rows: Rows, order: Order, names: pa.ChunkedArray) -> None:
    """One image twice in a sequence without steps: a row was copied by mistake."""
    if order.ordered or "sequence" not in rows.roles:
        return
    codes = pc.rank(names.combine_chunks(), tiebreaker="dense").to_numpy()[order.rows]
    named = np.asarray(pc.is_valid(names).to_numpy(), bool)[order.rows]
    by = np.lexsort((order.rows, codes, order.of))
    same = (np.diff(codes[by]) == 0) & (np.diff(order.of[by]) == 0) & named[by[1:]]
    earlier = dict(zip(order.rows[by[1:]][same].tolist(), order.rows[by[:-1]][same].tolist(), strict=True))
    rows.tell(
        np.sort(order.rows[by[1:]][same]),
        lambda row: f"repeats {rows.raw.where(earlier[row])}: the same image of the same sequence",
        "repeated",
    )
