"""Figure 15: saccade models frozen and shown other images, accuracy of z_AGG over M_val."""

from __future__ import annotations

from collections.abc import Sequence

from seqjepa.report.figure import Figure, Panel
from seqjepa.report.figures import Line, ends, line_chart
from seqjepa.report.line_rows import COLUMNS, line_rows
from seqjepa.report.published import distinct, of_source
from seqjepa.report.records import RunRecord
from seqjepa.report.run_groups import Group, at

KEY, TITLE = "figure-15", "Figure 15: transfer of saccade models to other images"
CAPTION = (
    "Top-1 of z_AGG on images that the model was not trained on, percent; a linear classifier for each M_val. Grey and "
    "hollow: the paper’s curves, STL-10 to ImageNet-1k with patches of 32 and 84 px. Ours name images and patches."
)


def transfer(groups: Sequence[Group]) -> Figure:
    """One panel with the paper's two curves, and one for each kind of run that was transferred."""
    theirs = _published()
    drawn = [(f"{group.label}, trained on {group.data}", ours) for group in groups if (ours := _ours(group))]
    panels, rows = [], []
    for title, ours in drawn or [("published alone", [])]:
        lines = [*theirs, *ours]
        alt = f"{TITLE}, {title}: {ends(lines)}."
        panels.append(Panel(title, line_chart(lines, x_label="M_val", y_label="top-1, %", alt=alt, markers=True)))
        rows += line_rows(title, lines)
    missing = "" if drawn else "no run was evaluated on other images (seqjepa evaluate RUN --shards OTHER)"
    return Figure(KEY, TITLE, CAPTION, tuple(panels), COLUMNS, tuple(rows), missing)


def _ours(group: Group) -> list[Line]:
    lines = []
    for name in distinct(name for run in group.runs for name in run.transfers):
        curves = [_curve(run, name) for run in group.runs]
        sizes = sorted({int(m) for curve in curves for m in curve})
        means = [group.over_seeds(lambda run, m=m, name=name: _curve(run, name).get(str(m))) for m in sizes]
        if found := [mean.times(100) for mean in means if mean]:
            spread = [mean.std or 0.0 for mean in found] if any(mean.std for mean in found) else []
            lines.append(Line(name, [float(m) for m in sizes], [mean.value for mean in found], spread))
    return lines


def _curve(run: RunRecord, transfer: str) -> dict[str, float]:
    return at(run.transfers.get(transfer, {}), "trained", "top1_agg") or {}


def _published() -> list[Line]:
    rows = of_source("Figure 15")
    lines = []
    for variant in distinct(row.variant for row in rows):
        points = [(float(row.m_val or 0), row.value) for row in rows if row.variant == variant]
        name = f"paper: {variant.replace('patch', '')} px"
        lines.append(Line(name, [x for x, _ in points], [y for _, y in points], published=True))
    return lines
