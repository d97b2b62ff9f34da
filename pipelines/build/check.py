"""What a dry run says of a table of views: what was understood of it, and three of its sequences on a sheet: their
first views, the parameters of each, and the action to the next. What may not be meant so: view_warnings.py.

Letters: R rows, Q sequences, P parameters, T views of a training sequence.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.archives import printable, read_content
from pipelines.build.encode import Frame, fit_image
from pipelines.sources.declared_actions import unused
from pipelines.sources.decode import decode_image
from pipelines.sources.split_folders import class_names
from pipelines.sources.table import ViewTable, choose_views_per_sample, padding_share
from shards.describe import column_lines
from shards.machine.files import OwnFile, write_own
from shards.preview.rows import Rows, label_of_term, words_of_terms
from shards.preview.sheet import MAKER, SIGN, check_sheet
from shards.schema import ActionSpec

CLASSES_NAMED = 20


def understood(table: ViewTable, views_per_sample: int | None) -> dict[str, Any]:
    """JSON values: rows, sequences, splits, classes, columns with unit and range, action, chunks."""
    lengths = np.diff(table.bounds)
    longest = int(lengths.max())
    views = min(views_per_sample or choose_views_per_sample(lengths), longest)
    spare = set(unused(table.fields, table.actions))
    labels = Counter(label for label in table.labels if label is not None)
    return {
        "rows": len(table.of),
        "sequences": len(table.sequences),
        "frames_per_sequence": {"min": int(lengths.min()), "median": float(np.median(lengths)), "max": longest},
        "ordered": table.ordered,
        "splits": _splits(table, lengths),
        "classes": {name: labels[name] for name in class_names(table.labels)[:CLASSES_NAMED]},
        "class_count": len(labels),
        "columns": [
            {"name": field.name, "unit": field.unit, **_range(table.params[:, i]), "used": field.name not in spare}
            for i, field in enumerate(table.fields)
        ],
        "action": table.actions.to_json() if table.actions else None,
        "unused": sorted(spare, key=table.names.index),
        "views_per_sample": views,
        "chunked": views < longest,
        "padding": round(padding_share(lengths, views), 4),
    }


def _splits(table: ViewTable, lengths: np.ndarray) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for split, length in zip(table.splits, lengths.tolist(), strict=True):
        counts = found.setdefault(split or "left out", {"sequences": 0, "frames": 0})
        counts["sequences"] += 1
        counts["frames"] += length
    return dict(sorted(found.items()))


def _range(values: np.ndarray) -> dict[str, float]:
    numbers = values.astype(np.float64)
    return {"min": float(numbers.min()), "max": float(numbers.max()), "mean": float(numbers.mean())}


def in_words(found: dict[str, Any]) -> str:
    """`understood` with "notes", "warnings" and "mistakes" as lines for people."""
    lines = [*_what(found)] if "rows" in found else []
    for kind in ("notes", "warnings"):
        lines += [f"{kind[:-1]}: {line}" for line in found[kind]]
    count, first = found["mistakes"]["count"], found["mistakes"]["first"]
    lines += [f"mistake: {line}" for line in first]
    lines += [f"… and {count - len(first)} mistakes more"] if count > len(first) else []
    if "sheet" in found:
        lines.append(f"sheet: {found['sheet']}")
    but = " but the sheet" if "sheet" in found else ""
    counts = [_counted(count, "mistake"), _counted(len(found["warnings"]), "warning")]
    lines.append(f"{', '.join(counts)}; nothing was written{but}")
    return "\n".join(lines)


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def _what(found: dict[str, Any]) -> Iterator[str]:
    span = found["frames_per_sequence"]
    length = f"{span['min']}" if span["min"] == span["max"] else f"{span['min']} to {span['max']}"
    order = "in the order of their steps" if found["ordered"] else "in no order"
    yield f"{found['rows']} rows, {found['sequences']} sequences of {length} frames, {order}"
    for name, counts in found["splits"].items():
        yield f"  {name:8} {counts['sequences']} sequences, {counts['frames']} frames"
    if found["class_count"]:
        named = ", ".join(f"{printable(name)} {count}" for name, count in found["classes"].items())
        more = ", …" if found["class_count"] > len(found["classes"]) else ""
        yield f"  {found['class_count']} classes: {named}{more}"
    chunks = ", longer sequences take several" if found["chunked"] else ", a sequence each"
    yield f"  samples of {found['views_per_sample']} frames{chunks}; {100 * found['padding']:.1f} % are repetitions"
    yield from column_lines(found["columns"], found["action"], found["unused"])


SEQUENCES, VIEWS = 3, 8
TILE = 128

MakeActions = Callable[[np.ndarray, list[str], ActionSpec], np.ndarray]
"""float32 [1, T, P] of T views, names of the P columns, the action → float32 [1, T − 1, A]"""


def draw_check(table: ViewTable, out: Path, title: str, make_actions: MakeActions) -> Path:
    """Writes the PNG. UsageError: as check_sheet."""
    check_sheet(out, "--sheet")
    total = len(table.sequences)
    chosen = sorted({0, total // 2, total - 1})[:SEQUENCES]
    what, terms = f"{total:,} sequences, {len(table.of):,} frames", tuple(map(label_of_term, table.terms))
    rows = [np.arange(table.bounds[i], table.bounds[i + 1])[:VIEWS] for i in chosen]
    page = Rows(title, what, (TILE, TILE), table.fields, len(chosen), max(map(len, rows)), terms)
    for number, (sequence, shown) in enumerate(zip(chosen, rows, strict=True)):
        held = int(table.bounds[sequence + 1] - table.bounds[sequence])
        label, count = table.labels[sequence] or "no class", f"{held} views, {table.splits[sequence]}"
        pictures = list(zip(_images(table, shown), table.params[shown], strict=True))
        words = _actions(table, shown, make_actions)
        page.draw(number, (label, table.sequences[sequence], count), pictures, words)
    write_own([OwnFile(out, page.sheet.png(), SIGN, MAKER)])
    return out


def _images(table: ViewTable, rows: np.ndarray) -> list[np.ndarray]:
    """uint8 [TILE, TILE, 3] each; a grey one for what cannot be read."""
    frame, contents = Frame(TILE, TILE, "squash"), table.pictures.contents(rows)
    blank = np.full((TILE, TILE, 3), 224, np.uint8)
    found = []
    if not isinstance(contents, Sequence):
        with contextlib.suppress(ValueError):
            found.extend(fit_image(pixels, frame) for pixels in contents.load())
        return [*found, *[blank] * (len(rows) - len(found))]
    for content in contents:
        try:
            found.append(fit_image(decode_image(read_content(content)), frame))
        except ValueError:
            found.append(blank)
    return found


def _actions(table: ViewTable, rows: np.ndarray, make: MakeActions) -> list[list[str]]:
    """A line for each term under each view but the last."""
    if not table.actions or not table.terms or len(rows) < 2:
        return []
    return words_of_terms(table.terms, make(table.params[rows][None], table.names, table.actions)[0])
