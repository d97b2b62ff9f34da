"""A folder of pictures with a table of them, two sequences of three; and the table written in many ways."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from small_images import encoded, picture

from pipelines.sources.manifest import ManifestOptions, ReadViews, read_manifest

SEQUENCES, STEPS, SIDE = ("a", "b"), 3, 16
Row = dict[str, Any]


def rows() -> list[Row]:
    return [
        {
            "file_name": f"{name}/{step}.png",
            "sequence": name,
            "step": step,
            "x": 0.5 * step - at,
            "label": f"cat {name}",
        }
        for at, name in enumerate(SEQUENCES)
        for step in range(STEPS)
    ]


def make_pictures(root: Path, names: Sequence[str] | None = None) -> Path:
    """The pictures of `rows()`, or of these names; the i-th is picture(i)."""
    for seed, name in enumerate(names or [row["file_name"] for row in rows()]):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(encoded(picture(seed, SIDE, SIDE)))
    return root


def csv_text(table: Sequence[Row], delimiter: str = ",", newline: str = "\n") -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(table[0]), delimiter=delimiter, lineterminator=newline)
    writer.writeheader()
    writer.writerows(table)
    return text.getvalue()


def reading_of(root: Path, text: str | bytes, name: str = "metadata.csv", **options: Any) -> ReadViews:
    (root / name).write_bytes(text.encode() if isinstance(text, str) else text)
    return read_manifest(root, ManifestOptions(root / name, **options))


def mistakes_of(reading: ReadViews) -> str:
    assert reading.table is None
    return "\n".join(reading.mistakes.first)
