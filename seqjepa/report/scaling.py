"""Figure 7: what more views bring, in training (M_tr) and in evaluation (M_val)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from seqjepa.report.figure import Figure, Panel
from seqjepa.report.figures import Line, ends, line_chart
from seqjepa.report.line_rows import COLUMNS, line_rows
from seqjepa.report.published import Published, distinct, of_source
from seqjepa.report.run_groups import TABLES_M_VAL, Group, Mean, families, seen

KEY, TITLE = "figure-7", "Figure 7: scaling with the number of views"
R2_KEYS = {
    "rotation": {"r2_rel_rot_avg": "rotation"},
    "position": {"r2_position_avg": "position"},
    "augmentation": {"r2_crop_avg": "crop", "r2_jitter_avg": "jitter", "r2_blur_avg": "blur"},
}
R2_NAMES = {
    "R2_rel_rot": "rotation",
    "R2_position": "position",
    "R2_crop": "crop",
    "R2_jitter": "jitter",
    "R2_blur": "blur",
}
SHORT = {"TinyImageNet": "Tiny", "3DIEBench": "3DIE", "STL-10": "STL", "CIFAR100": "C100"}
USUAL_M_TR = {"rotation": 3, "position": 4, "augmentation": 2}
CAPTION = (
    "Left: R² of the transformation over M_tr. Middle: top-1 of z_AGG over M_tr, at M_val = 5 or the most that was "
    "measured. Right: top-1 of z_AGG over M_val. Grey and hollow: the paper’s curves, read from its figure. Ours stand "
    "among them only for the same data set at the same resolution; other data have panels of their own, whose levels "
    "are not comparable with the paper’s."
)
SIDES = {"left": "m_tr", "middle": "m_tr", "right": "m_val"}


def scaling(groups: Sequence[Group]) -> Figure:
    """Three panels of the paper's curves with ours on the same data, then three for each other data.

    Ours are from runs that differ in M_tr alone.
    """
    found = families(groups, "data.context")
    panels, rows = [], []
    for data, some in {"": [f for f in found if f[0].home], **_elsewhere(found)}.items():
        for chart in _charts(some):
            ours = [line for line in chart.ours if not data or len(line.x) > 1]  # one point alone shows no scaling
            lines = [*([] if data else chart.published), *ours]
            if lines:
                title = f"{chart.title}, ours on {data}" if data else chart.title
                panels.append(Panel(title, _drawn(chart, title, lines)))
                rows += line_rows(title, lines)
    drawn = any(chart.ours for chart in _charts(found))
    missing = "" if drawn else "no seq-JEPA run was evaluated; the paper’s curves alone"
    return Figure(KEY, TITLE, CAPTION, tuple(panels), COLUMNS, tuple(rows), missing)


@dataclass(frozen=True)
class _Chart:
    title: str
    x_label: str
    y_label: str
    ours: Sequence[Line]
    published: Sequence[Line]


def _charts(found: Sequence[Sequence[Group]]) -> tuple[_Chart, ...]:
    left, middle, right = (_published(f"Figure 7-{side}", at) for side, at in SIDES.items())
    return (
        _Chart("R² over M_tr", "M_tr", "R²", _left(found), left),
        _Chart("top-1 over M_tr", "M_tr", "top-1, %", _middle(found), middle),
        _Chart("top-1 over M_val", "M_val", "top-1, %", _right(found), right),
    )


def _elsewhere(found: Sequence[list[Group]]) -> dict[str, list[list[Group]]]:
    """Families whose data are not the paper's, by those data."""
    away: dict[str, list[list[Group]]] = {}
    for family in found:
        if not family[0].home:
            away.setdefault(family[0].data, []).append(family)
    return away


def _drawn(chart: _Chart, title: str, lines: Sequence[Line]) -> str:
    alt = f"{TITLE}, {title}: {ends(lines)}."
    return line_chart(lines, x_label=chart.x_label, y_label=chart.y_label, alt=alt, markers=True)


def _left(found: Sequence[Sequence[Group]]) -> list[Line]:
    lines = []
    for family in found:
        for key, shown in R2_KEYS[seen(family[0].config)].items():
            scores = {g.config.data.context: g.mean(lambda s, key=key: s.get(key)) for g in family}
            lines += _line(f"{shown}, {family[0].data}", scores)
    return lines


def _middle(found: Sequence[Sequence[Group]]) -> list[Line]:
    lines = []
    for family in found:
        curves = {g.config.data.context: curve for g in family if (curve := g.curve("top1_agg"))}
        shared = set.intersection(*(set(c) for c in curves.values())) if curves else set()
        if sizes := [m for m in shared if m <= TABLES_M_VAL]:
            m_val = max(sizes)
            percent = {m_tr: curve[m_val].times(100) for m_tr, curve in curves.items()}
            lines += _line(f"{family[0].data}, M_val {m_val}", percent)
    return lines


def _right(found: Sequence[Sequence[Group]]) -> list[Line]:
    lines = []
    for family in found:
        usual = USUAL_M_TR[seen(family[0].config)]
        group = min(family, key=lambda g: (not g.curve("top1_agg"), abs(g.config.data.context - usual)))
        percent = {m: score.times(100) for m, score in group.curve("top1_agg").items()}
        lines += _line(f"{group.data}, M_tr {group.config.data.context}", percent)
    return lines


def _line(name: str, scores: dict[int, Mean | None] | dict[int, Mean]) -> list[Line]:
    """One line in order of size, or none."""
    points = sorted((size, score) for size, score in scores.items() if score)
    if not points:
        return []
    spread = [score.std or 0.0 for _, score in points] if any(score.std for _, score in points) else []
    return [Line(name, [float(size) for size, _ in points], [score.value for _, score in points], spread)]


def _published(source: str, size: str) -> list[Line]:
    lines = []
    rows = of_source(source)
    for name in distinct(_curve_name(row) for row in rows):
        points = sorted((getattr(row, size), row.value) for row in rows if _curve_name(row) == name)
        lines.append(Line(f"paper: {name}", [float(x) for x, _ in points], [y for _, y in points], published=True))
    return lines


def _curve_name(row: Published) -> str:
    shown = SHORT[row.dataset]
    return f"{R2_NAMES[row.metric]}, {shown}" if row.metric in R2_NAMES else shown
