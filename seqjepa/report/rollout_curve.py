"""Rollouts: how far seq-JEPA finds its way by its own predictions, which the paper names as future work."""

from __future__ import annotations

from collections.abc import Sequence

from seqjepa.report.figure import Figure, Panel
from seqjepa.report.figures import MOST_LINES, Line, ends, line_chart
from seqjepa.report.line_rows import COLUMNS, line_rows
from seqjepa.report.run_groups import Group, by_data

KEY, TITLE = "rollouts", "Rollouts: retrieval from predictions fed back"
CAPTION = (
    "Mean reciprocal rank of the true view among all views of its object, over the number of steps predicted ahead. "
    "Each step takes the last prediction for a view that was seen. Grey: chance. The paper has no such figure."
)


def rollout_curve(groups: Sequence[Group]) -> Figure:
    """A panel for each data set; the first six kinds of run in each."""
    panels, rows = [], []
    for data, found in by_data([g for g in groups if g.curve("rollout", "mrr")]).items():
        lines = [_line(group) for group in found][:MOST_LINES]
        chance = found[0].mean(lambda scores: scores.get("rollout", {}).get("mrr_chance"))
        if chance:
            x = lines[0].x
            lines.append(Line("chance", x, [chance.value] * len(x), published=True))
        title = f"{data}"
        alt = f"{TITLE}, {title}: {ends(lines, '.2f')}."
        panels.append(Panel(title, line_chart(lines, x_label="steps ahead", y_label="MRR", alt=alt, markers=True)))
        rows += line_rows(title, lines)
    missing = "" if panels else "no seq-JEPA run has rollouts; evaluate one with --suite all"
    return Figure(KEY, TITLE, CAPTION, tuple(panels), COLUMNS, tuple(rows), missing)


def _line(group: Group) -> Line:
    found = group.curve("rollout", "mrr")
    spread = [mean.std or 0.0 for mean in found.values()] if any(mean.std for mean in found.values()) else []
    name = group.label.removeprefix("seq-JEPA, ")
    return Line(name, [float(h) for h in found], [mean.value for mean in found.values()], spread)
