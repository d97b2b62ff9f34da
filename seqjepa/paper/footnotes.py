"""Where the paper's numbers disagree with each other: a note, and the values that it is about."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from seqjepa.paper.published import Published

Where = Mapping[str, object]
"""Fields of Published that a value has to have."""
ROTATION = {"dataset": "3DIEBench", "conditioning": "rotation"}
ALL_CIFAR = {"dataset": "CIFAR100", "conditioning": "crop+jitter+blur"}
ALL_TINY = {"dataset": "TinyImageNet", "conditioning": "crop+jitter+blur"}
STL = {"dataset": "STL-10", "conditioning": "position"}


@dataclass(frozen=True)
class Footnote:
    number: int
    text: str
    concerns: tuple[Where, ...]

    def is_about(self, row: Published) -> bool:
        return any(all(getattr(row, name) == value for name, value in where.items()) for where in self.concerns)


def numbers_for(row: Published) -> tuple[int, ...]:
    """Numbers of the footnotes on a published value."""
    return tuple(note.number for note in FOOTNOTES if note.is_about(row))


def _at(source: str, same: Where, m_tr: int, m_val: int | None, metric: str = "") -> Where:
    shown = {"source": source, **same, "m_tr": m_tr, "m_val": m_val, "method": "seq-JEPA"}
    return shown | {"metric": metric or ("top1_acc_z_agg" if source not in ("Table 1", "Table 2") else "top1_acc")}


FOOTNOTES: tuple[Footnote, ...] = (
    Footnote(
        1,
        "3DIEBench, rotation, M_tr 3, M_val 3: Table 1 and Figure 7 right say 86.14, Table 12 says 85.32, "
        "Figure 8 says 85.3.",
        tuple(_at(s, ROTATION, 3, 3) for s in ("Table 1", "Table 12", "Figure 8", "Figure 7-right")),
    ),
    Footnote(
        2,
        "3DIEBench, rotation, M_tr 3, M_val 4: Figure 7 right says 86.87, Figure 8 says 86.1.",
        tuple(_at(s, ROTATION, 3, 4) for s in ("Figure 7-right", "Figure 8")),
    ),
    Footnote(
        3,
        "3DIEBench, rotation, M_tr 1: Table 1 says 85.31 for M_val 3; Table 12 says 85.34 for 3 and 85.31 for 5; "
        "Figure 8 says 85.3 for 3 and 85.5 for 5; Figure 7 middle says 84.51.",
        (
            _at("Table 1", ROTATION, 1, 3),
            *(_at(s, ROTATION, 1, m) for s in ("Table 12", "Figure 8") for m in (3, 5)),
            _at("Figure 7-middle", ROTATION, 1, 5),
        ),
    ),
    Footnote(
        4,
        "STL-10: what Table 3 prints for M_val = 4 (83.44, and 70.45, 79.85, 77.97 of the ablations) are the values "
        "for M_val 5 of Table 12; M_val 4 is 82.9 in Figure 9 and 82.86 in Figure 7. Ours is for M_val 5.",
        (
            {"source": "Table 3", "method": "seq-JEPA", "m_val": 4, "metric": "top1_acc"},
            {"source": "Table 12", "dataset": "STL-10", "m_val": 5},
            *(_at(s, STL, 4, 4) for s in ("Figure 9", "Figure 7-right")),
        ),
    ),
    Footnote(
        5,
        "CIFAR-100, crop+jitter+blur, M_tr 2, M_val 5: Table 2 says 60.17, Table 12 and Figure 7 60.35, Figure 10 "
        "60.4; "
        "M_val 4 is 59.96 in Figure 7 and 60.0 in Figure 10.",
        (
            *(_at(s, ALL_CIFAR, 2, 5) for s in ("Table 2", "Table 12", "Figure 10")),
            *(_at("Figure 7-right", ALL_CIFAR, 2, m) for m in (4, 5)),
            _at("Figure 10", ALL_CIFAR, 2, 4),
            _at("Figure 7-middle", ALL_CIFAR, 2, 5),
        ),
    ),
    Footnote(
        6,
        "CIFAR-100, crop+jitter+blur, M_tr 1: Table 2 says 52.9 for M_val 5, which in Table 12 is the value for M_val "
        "3; there M_val 5 is 52.92.",
        (_at("Table 2", ALL_CIFAR, 1, 5), *(_at("Table 12", ALL_CIFAR, 1, m) for m in (3, 5))),
    ),
    Footnote(
        7,
        "CIFAR-100, blur, M_tr 3: Table 2 says 56.82, Table 12 says 56.72; Figure 10 says 56.7 for M_val 5 and 56.8 "
        "for 7.",
        (
            *(_at(s, ALL_CIFAR | {"conditioning": "blur"}, 3, 5) for s in ("Table 2", "Table 12", "Figure 10")),
            _at("Figure 10", ALL_CIFAR | {"conditioning": "blur"}, 3, 7),
        ),
    ),
    Footnote(
        8,
        "Tiny ImageNet, crop+jitter+blur, M_tr 3: Table 2 says 34.85, Table 12 says 34.68. Figure 7 middle has 34.68 "
        "for M_tr 3 and 34.85 for M_tr 4, so Table 2 prints the value of M_tr 4.",
        (
            *(_at(s, ALL_TINY, 3, 5) for s in ("Table 2", "Table 12")),
            *(_at("Figure 7-middle", ALL_TINY, m_tr, 5) for m_tr in (3, 4)),
        ),
    ),
    Footnote(
        9,
        "Tiny ImageNet, crop+jitter+blur, M_tr 1: Table 2 says 37.1, Table 12 says 37.07.",
        tuple(_at(s, ALL_TINY, 1, 5) for s in ("Table 2", "Table 12")),
    ),
    Footnote(
        10,
        "Tiny ImageNet, crop, M_tr 2: Table 2 says 35.74, Table 12 says 35.69.",
        tuple(_at(s, ALL_TINY | {"conditioning": "crop"}, 2, 5) for s in ("Table 2", "Table 12")),
    ),
    Footnote(
        11,
        "Tiny ImageNet, crop+jitter+blur, M_tr 3, R² of crop: Table 2 says 0.67, Figure 7 left says 0.659; its 0.671 "
        "is M_tr 4.",
        (
            _at("Table 2", ALL_TINY, 3, 5, "R2_crop"),
            *(_at("Figure 7-left", ALL_TINY, m_tr, None, "R2_crop") for m_tr in (3, 4)),
        ),
    ),
    Footnote(
        12,
        "3DIEBench without actions: Table 1 says 86.05 and gives no M_val, Table 4 says 87.36 for M_val 5; Table 12 "
        "has 86.05 for M_val 3 and 87.36 for M_val 5, so Table 1 is M_val 3.",
        (
            *(_at(s, ROTATION | {"conditioning": ""}, 3, 3) for s in ("Table 1", "Table 12")),
            _at("Table 12", ROTATION | {"conditioning": ""}, 3, 5),
            _at("Table 4", ROTATION | {"conditioning": ""}, 3, 5, "top1_acc"),
        ),
    ),
)
