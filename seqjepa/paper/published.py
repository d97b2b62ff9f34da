"""The paper's own numbers, one row a value: 531 of Tables 1–12 and the poster, 370 read from Figures 6–11 and 15.

results.csv lies beside this file. Accuracies are percent, R² and retrieval fractions, as printed. Where numbers
disagree with each other (footnotes.toml) there is a note, and the values that it is about.
"""

from __future__ import annotations

import csv
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files


@dataclass(frozen=True)
class Published:
    """One value. Where the paper says nothing, a field is "" or None.

    source        "Table 1" … "Table 12", "Poster STL10", "Figure 8" …, by the captions' numbers
    group         the part of the table: Invariant, Equivariant …
    conditioning  what the method is told: "rotation", "rotation+color", "crop+jitter+blur", "position" …
    m_tr, m_val   views of context in training and in evaluation
    views         Table 6: the pixels a side of a patch;  resolution: of what the encoder is given
    metric        "top1_acc" …;  unit: "%", "R2", "fraction", "h", "points", "GFLOPs (=GMACs)", "" in figures
    std           over `seeds` runs, type unstated
    """

    source: str
    dataset: str
    method: str
    group: str
    conditioning: str
    m_tr: int | None
    m_val: int | None
    variant: str
    split: str
    views: int | None
    resolution: int | None
    metric: str
    value: float
    std: float | None
    unit: str
    seeds: int | None
    note: str

    @property
    def paper_set(self) -> str:
        """The data set as sets.py calls it; "" where a value depends on none (Table 6)."""
        return self.dataset.removesuffix("-OOD").removesuffix(" (presumed)")


WHOLE = ("m_tr", "m_val", "views", "resolution", "seeds")
"""Fields that hold whole numbers."""


@cache
def published() -> tuple[Published, ...]:
    """All of them, in the order of the tables."""
    text = (files("seqjepa.paper") / "results.csv").read_text(encoding="utf-8")
    return tuple(_published(fields) for fields in csv.DictReader(text.splitlines()))


def of_source(source: str) -> tuple[Published, ...]:
    """Those of one table or figure, such as "Table 1"."""
    return tuple(row for row in published() if row.source == source)


def _published(fields: dict[str, str]) -> Published:
    """A line of results.csv, whose columns are the fields of Published (M_tr and M_val in capitals)."""
    row: dict = {name.lower(): text for name, text in fields.items()}
    row |= {name: int(row[name]) if row[name] else None for name in WHOLE}
    return Published(**row | {"value": float(row["value"]), "std": float(row["std"]) if row["std"] else None})


FOOTNOTED = ("top1_acc", "top1_acc_z_agg")
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
        return any(self._fits(row, {"method": "seq-JEPA", "metric": FOOTNOTED, **where}) for where in self.concerns)

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
