"""The paper's own numbers, one row a value: 531 of Tables 1–12 and the poster, 370 read from Figures 6–11 and 15.

results.csv lies beside this file. Accuracies are percent, R² and retrieval fractions, as printed.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

Number = int | None


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
    m_tr: Number
    m_val: Number
    variant: str
    split: str
    views: Number
    resolution: Number
    metric: str
    value: float
    std: float | None
    unit: str
    seeds: Number
    note: str


@cache
def published() -> tuple[Published, ...]:
    """All of them, in the order of the tables."""
    text = (files("seqjepa.paper") / "results.csv").read_text(encoding="utf-8")
    return tuple(_row(fields) for fields in csv.DictReader(text.splitlines()))


def of_source(source: str) -> tuple[Published, ...]:
    """Those of one table or figure, such as "Table 1"."""
    return tuple(row for row in published() if row.source == source)


def distinct(values: Iterable[str]) -> tuple[str, ...]:
    """Without repetitions, in the order in which they come."""
    return tuple(dict.fromkeys(values))


def _row(fields: dict[str, str]) -> Published:
    return Published(
        source=fields["source"],
        dataset=fields["dataset"],
        method=fields["method"],
        group=fields["group"],
        conditioning=fields["conditioning"],
        m_tr=_whole(fields["M_tr"]),
        m_val=_whole(fields["M_val"]),
        variant=fields["variant"],
        split=fields["split"],
        views=_whole(fields["views"]),
        resolution=_whole(fields["resolution"]),
        metric=fields["metric"],
        value=float(fields["value"]),
        std=float(fields["std"]) if fields["std"] else None,
        unit=fields["unit"],
        seeds=_whole(fields["seeds"]),
        note=fields["note"],
    )


def _whole(text: str) -> Number:
    return int(text) if text else None
