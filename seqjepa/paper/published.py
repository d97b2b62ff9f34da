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
from typing import Any

from seqjepa.paper.sets import SETS_BY_NAME


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


_DATA: Mapping[str, Any] = tomllib.loads((files("seqjepa.paper") / "tables.toml").read_text(encoding="utf-8"))
HEADS: Mapping[str, str] = _DATA["heads"]
"""What fields that name rows are called."""
PAPER_METRICS: Mapping[str, tuple[str, str]] = _DATA["metrics"]
"""Metrics of results.csv: their headings in tables, and the units in which they are printed."""
NOTHING = "–"
UNCONDITIONED = ("SimCLR", "BYOL", "VICReg", "VICRegTraj")
UNSAID = ("Table 5", "Poster odd-one-out")
"""Tables that leave out what methods are conditioned on: rotation."""


@dataclass(frozen=True)
class TableLayout:
    """rows, columns: fields of Published. The order of both is that of the published values.

    own_notes: notes for tables of the same form that runs on other data fill.
    """

    key: str
    source: str
    title: str
    rows: tuple[str, ...]
    columns: tuple[str, ...] = ("metric",)
    notes: tuple[str, ...] = ()
    own_notes: tuple[str, ...] = ()

    def labels(self, row: Published) -> tuple[str, ...]:
        return tuple(_field_text(field, getattr(row, field)) for field in self.rows)

    def heading(self, row: Published) -> str:
        parts = {field: _field_text(field, getattr(row, field)) for field in self.columns}
        named = [parts[field] for field in ("dataset", "conditioning") if field in parts]
        named += [PAPER_METRICS[row.metric][0]] if "metric" in self.columns else []
        sizes = [field for field in ("m_tr", "m_val") if parts.get(field, NOTHING) != NOTHING]
        return ", ".join([*named, *(f"{HEADS[field]} {parts[field]}" for field in sizes)])


def _field_text(field: str, value: object) -> str:
    if field == "conditioning":
        return str(value) or "nothing"
    if field == "dataset":
        return SETS_BY_NAME[str(value)].label if value in SETS_BY_NAME else str(value)
    return NOTHING if value is None or value == "" else str(value)


def _layout(table: Mapping[str, Any]) -> TableLayout:
    lists = {name: tuple(value) for name, value in table.items() if isinstance(value, list)}
    return TableLayout(**{**table, **lists})


LAYOUTS = tuple(map(_layout, _DATA["table"]))


def recipe_of(row: Published) -> str:
    """Name of the recipe that a run is held against before its number stands beside the value; "" for costs that depend
    on no training (Table 6)."""
    if not row.dataset:
        return ""
    names = _DATA["recipes"]
    trained_on = "STL-10" if row.paper_set == "ImageNet-1k" else row.paper_set  # Figure 15: transfer
    data = SETS_BY_NAME[trained_on].slug
    action = "rot" if row.source in UNSAID else names["actions"].get(row.conditioning, row.conditioning)
    if row.method == "seq-JEPA":
        if row.variant == "Full-sized aug. imgs":
            return f"stl-fullsize-M{row.m_tr}"
        word = "hc" if row.source == "Table 11" else names["variants"].get(row.variant, action)
        return _joined(data, "pls" if data == "stl" else "", word, f"M{row.m_tr or names['usual_m_tr'][data]}")
    if row.method == "ContextSSL":
        return f"context-ssl-{data}"
    if row.method == "Conv-JEPA":
        return f"conv-jepa-{data}-M{row.m_tr}"
    plain = row.method.removesuffix("+")
    told = "" if data == "stl" or plain in UNCONDITIONED else action
    slug = plain.lower().replace(" ", "-").replace("vicregtraj", "vicreg-traj")
    return _joined(slug, data, told, "plus" if row.method.endswith("+") else "hc" if row.source == "Table 11" else "")


def _joined(*parts: str) -> str:
    return "-".join(part for part in parts if part)
