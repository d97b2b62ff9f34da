"""Three sequences of a table on a sheet: their first views, the parameters of each, and the action to the next."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from pipelines.archives import read_content
from pipelines.build.encode import Frame, fit_image
from pipelines.sources.decode import decode_image
from pipelines.sources.table import ViewTable
from shards.files import OwnFile, refuse_foreign, write_own
from shards.preview_rows import Row, Rows, label_of_term, words_of_term
from shards.schema import ActionSpec
from shards.sheet import MAKER, SIGN

SEQUENCES, VIEWS = 3, 8
TILE = 128

MakeActions = Callable[[np.ndarray, list[str], ActionSpec], np.ndarray]
"""float32 [1, T, P] of T views, names of the P columns, the action → float32 [1, T − 1, A]"""


def draw_check(table: ViewTable, out: Path, title: str, make_actions: MakeActions) -> Path:
    """Writes the PNG. UsageError: `out` is taken by something that is no sheet of ours."""
    refuse_foreign(out, SIGN, MAKER)
    count = len(table.sequences)
    chosen = sorted({0, count // 2, count - 1})[:SEQUENCES]
    terms = table.actions.terms if table.actions else ()
    what = f"{count:,} sequences, {len(table.of):,} frames"
    page = Rows(title, what, (TILE, TILE), table.fields, len(chosen), more=tuple(label_of_term(term) for term in terms))
    rows = [np.arange(table.bounds[i], table.bounds[i + 1])[:VIEWS] for i in chosen]
    page.open(max(map(len, rows)))
    for number, (sequence, shown) in enumerate(zip(chosen, rows, strict=True)):
        held = int(table.bounds[sequence + 1] - table.bounds[sequence])
        words = (
            table.labels[sequence] or "no class",
            table.sequences[sequence],
            f"{held} views, {table.splits[sequence]}",
        )
        pictures = list(zip(_images(table, shown), table.params[shown], strict=True))
        page.draw(number, Row(words, pictures, _actions(table, shown, make_actions)))
    write_own([OwnFile(out, page.sheet.png(), SIGN, MAKER)])
    return out


def _images(table: ViewTable, rows: np.ndarray) -> list[np.ndarray]:
    """uint8 [TILE, TILE, 3] each; a grey one for what cannot be read."""
    frame, contents = Frame(TILE, TILE, "squash"), table.pictures.contents(rows)
    blank = np.full((TILE, TILE, 3), 224, np.uint8)
    found = []
    if not isinstance(contents, list):
        with contextlib.suppress(ValueError):
            for pixels in contents.load():  # type: ignore[union-attr]
                found.append(fit_image(pixels, frame))
        return [*found, *[blank] * (len(rows) - len(found))]
    for content in contents:
        try:
            found.append(fit_image(decode_image(read_content(content)), frame))
        except ValueError:
            found.append(blank)
    return found


def _actions(table: ViewTable, rows: np.ndarray, make: MakeActions) -> list[list[str]]:
    """A line for each term under each view but the last."""
    if not table.actions or not table.actions.terms or len(rows) < 2:
        return []
    names = [field.name for field in table.fields]
    numbers = make(table.params[rows][None], names, table.actions)[0].astype(np.float64)
    ends = np.cumsum([term.size for term in table.actions.terms])
    parts = np.split(numbers, ends[:-1], axis=1)
    pairs = list(zip(table.actions.terms, parts, strict=True))
    return [[words_of_term(term, part[i]) for term, part in pairs] for i in range(len(rows) - 1)]
