"""Figure 6: path integration, the whole way read from what a model kept, with both ablations (paper §B.9)."""

from __future__ import annotations

from collections.abc import Sequence

from seqjepa.evaluate.rows import PATHS
from seqjepa.report.figure import Datum, Figure, Panel
from seqjepa.report.figures import Line, ends, line_chart
from seqjepa.report.line_rows import COLUMNS, line_rows
from seqjepa.report.published import of_source
from seqjepa.report.run_groups import Group, seen

KEY, TITLE = "figure-6", "Figure 6: path integration"
VARIANTS = {"both": "vision+action", "no_action": "vision, no action", "no_vision": "no vision, action"}
SOURCES = {
    "position": ("Figure 6-visual", "visual", "STL-10"),
    "rotation": ("Figure 6-angular", "angular", "3DIEBench"),
}
CAPTION = (
    "R² of the transformation from the first view to the one after the last, read from z_AGG and the last action’s "
    "embedding; each head was trained on what it is shown. With one step the answer is the last action itself. Grey "
    "and hollow: the paper’s curves (three seeds), beside ours only for the same data set at the same resolution; what "
    "other data share with them is the shape."
)


def path_figure(groups: Sequence[Group]) -> Figure:
    """Visual and angular: a panel for each kind of run that has the numbers, with the paper's curves on its own data,
    and the paper's alone where none of ours is on them."""
    panels, rows = [], []
    measured = [group for group in groups if group.curve("r2_path", "both")]
    for kind, (source, word, dataset) in SOURCES.items():
        theirs = _published(source)
        fitting = [group for group in measured if seen(group.config) == kind]
        at_home = [group for group in fitting if group.home == dataset]
        for group in at_home:
            title = f"{word}: {group.label} on {group.data}; grey: paper, {dataset}"
            _add(panels, rows, title, [*theirs, *_ours(group)])
        for group in fitting:
            if group not in at_home:
                _add(panels, rows, f"{word}: {group.label} on {group.data}", _ours(group))
        if not at_home:
            _add(panels, rows, f"{word}: published alone ({dataset})", theirs)
    lacking = [
        f"no {word} run" for kind, (_, word, _) in SOURCES.items() if kind not in {seen(g.config) for g in measured}
    ]
    missing = (
        f"{' and '.join(lacking)} has path integration; the paper’s curves alone are drawn there" if lacking else ""
    )
    return Figure(KEY, TITLE, CAPTION, tuple(panels), COLUMNS, tuple(rows), missing)


def _add(panels: list[Panel], rows: list[tuple[Datum, ...]], title: str, lines: Sequence[Line]) -> None:
    alt = f"{TITLE}, {title}: {ends(lines, '.2f')}."
    panels.append(Panel(title, line_chart(lines, x_label="steps, M_val", y_label="R²", alt=alt, markers=True)))
    rows += line_rows(title, lines)


def _ours(group: Group) -> list[Line]:
    lines = []
    for key, shown in PATHS.items():
        if found := group.curve("r2_path", key):
            spread = [m.std or 0.0 for m in found.values()] if any(m.std for m in found.values()) else []
            lines.append(Line(shown, [float(m) for m in found], [m.value for m in found.values()], spread))
    return lines


def _published(source: str) -> list[Line]:
    lines = []
    for key, variant in VARIANTS.items():
        rows = [row for row in of_source(source) if row.variant == variant]
        sizes, values = [float(row.m_val or 0) for row in rows], [row.value for row in rows]
        lines.append(Line(f"paper: {PATHS[key]}", sizes, values, [row.std or 0.0 for row in rows], published=True))
    return lines
