"""Recorded fixations from a CSV: columns image, subject, x, y (pixels of the image; others are ignored)."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from shards.environment import pass_environment_on
from shards.errors import FormatError, UsageError

COLUMNS = ("image", "subject", "x", "y")
MAX_ROWS = 50_000_000


@dataclass(frozen=True)
class FixationTable:
    """F fixations: image and subject names, and float64 [F, 2] (x, y): column and row, from the top left corner."""

    path: Path
    images: np.ndarray
    subjects: np.ndarray
    points: np.ndarray

    def __len__(self) -> int:
        return len(self.points)

    def chosen(self, mask: np.ndarray) -> FixationTable:
        return FixationTable(self.path, self.images[mask], self.subjects[mask], self.points[mask])

    def everyone(self) -> list[str]:
        """All subjects, numbers as numbers, before names."""
        return sorted(
            set(self.subjects.tolist()),
            key=lambda name: (not name.isdigit(), int(name or 0) if name.isdigit() else 0, name),
        )


def read_fixations(path: Path) -> FixationTable:
    """Raises FormatError: a missing column, a row that is no fixation (with its line), none at all."""
    images, subjects, points = [], [], []
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = csv.DictReader(file)
            missing = [name for name in COLUMNS if name not in (rows.fieldnames or ())]
            if missing:
                raise FormatError(f"{path} has no column {', '.join(missing)}; {', '.join(COLUMNS)} are needed")
            for row in rows:
                points.append(_point(path, rows.line_num, row))
                images.append(row["image"])
                subjects.append(row["subject"])
                if len(points) > MAX_ROWS:
                    raise FormatError(f"{path} has more than {MAX_ROWS:,} rows")
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        pass_environment_on(error)
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise FormatError(f"{path} cannot be read as CSV: {reason}") from error
    if not points:
        raise FormatError(f"{path} holds no fixations")
    return FixationTable(path, np.array(images), np.array(subjects), np.array(points))


def choose_subjects(table: FixationTable, text: str | None) -> list[str]:
    """ "last8", "first7", "0,3,5" or None (all) → names. Raises UsageError for somebody who is not there."""
    everyone = table.everyone()
    if text is None:
        return everyone
    if span := re.fullmatch(r"(first|last)(\d+)", text):
        number = int(span[2])
        if not 1 <= number <= len(everyone):
            raise UsageError(f"--subjects {text}: {table.path} has {len(everyone)} subjects")
        return everyone[:number] if span[1] == "first" else everyone[-number:]
    chosen = [name.strip() for name in text.split(",")]
    if unknown := sorted(set(chosen) - set(everyone)):
        raise UsageError(f"--subjects: no {', '.join(unknown)} in {table.path}; there are {_few(everyone)}")
    return chosen


def _point(path: Path, line: int, row: dict[str, str]) -> tuple[float, float]:
    try:
        x, y = float(row["x"]), float(row["y"])
    except (TypeError, ValueError):
        x = y = float("nan")
    if not (np.isfinite(x) and np.isfinite(y)) or not row["image"] or row["subject"] is None:
        raise FormatError(f"{path}, line {line}: image, subject and two numbers x, y are needed, found {_shown(row)}")
    return x, y


def _shown(row: dict[str, str]) -> str:
    return ", ".join(f"{name}={row.get(name)!r:.40}" for name in COLUMNS)


def _few(names: Sequence[str], number: int = 12) -> str:
    return ", ".join(names[:number]) + (" …" if len(names) > number else "")
