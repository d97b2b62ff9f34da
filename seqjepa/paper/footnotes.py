"""Where the paper's numbers disagree with each other (footnotes.toml): a note, and the values that it is about."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files

from seqjepa.paper.published import Published

METRICS = ("top1_acc", "top1_acc_z_agg")
"""What a footnote that names no metric is about."""


@dataclass(frozen=True)
class Footnote:
    """concerns: fields of Published with their values, or lists of values, for each kind of value that it is about.

    Where they name no method it is seq-JEPA, where they name no metric its accuracy.
    """

    number: int
    text: str
    concerns: tuple[Mapping[str, object], ...]

    def is_about(self, row: Published) -> bool:
        return any(self._fits(row, {"method": "seq-JEPA", "metric": METRICS, **where}) for where in self.concerns)

    @staticmethod
    def _fits(row: Published, where: Mapping[str, object]) -> bool:
        found = ((getattr(row, name), value) for name, value in where.items())
        return all(mine in value if isinstance(value, list | tuple) else mine == value for mine, value in found)


FOOTNOTES = tuple(
    Footnote(note["number"], note["text"], tuple(note["concerns"]))
    for note in tomllib.loads((files("seqjepa.paper") / "footnotes.toml").read_text(encoding="utf-8"))["footnote"]
)


def numbers_for(row: Published) -> tuple[int, ...]:
    """Numbers of the footnotes on a published value."""
    return tuple(note.number for note in FOOTNOTES if note.is_about(row))
