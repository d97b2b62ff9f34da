"""The form of each table (tables.toml), and the packaged recipe that a published value is of."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from seqjepa.paper.published import Published
from seqjepa.paper.sets import SETS_BY_NAME

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
