"""Figure 15: saccade models frozen and shown other images, accuracy of z_AGG over M_val."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from seqjepa.data.known_sets import IMAGENET_SHA256, IMAGENET_VAL
from seqjepa.report.figure import Figure, Panel
from seqjepa.report.figures import Line, ends, line_chart
from seqjepa.report.line_rows import COLUMNS, line_rows
from seqjepa.report.published import distinct, of_source
from seqjepa.report.records import RunRecord
from seqjepa.report.run_groups import Group, at

KEY, TITLE = "figure-15", "Figure 15: transfer of saccade models to other images"
CAPTION = (
    "Top-1 of z_AGG on images that the model was not trained on, percent; a linear classifier for each M_val. Grey and "
    "hollow: the paper’s curves, STL-10 to ImageNet-1k with patches of 32 and 84 px. Ours name images and patches, and "
    "stand among them only for the same two data sets, resolution and patches."
)
MISSING = "no run was evaluated on other images (seqjepa evaluate RUN --shards OTHER)"


def transfer(groups: Sequence[Group]) -> Figure:
    """One panel with the paper's two curves and ours between the same sets, and one for each other kind of run."""
    panels, rows = [], []
    theirs, beside, elsewhere = _published(), [], []
    for group in groups:
        for name in distinct(name for run in group.runs for name in run.transfers):
            if ours := _ours(group, name):
                (beside if _is_the_papers(group, name) else elsewhere).append((group, ours))
    drawn = {"": [*theirs, *(replace(line, name=f"{group.label}, {line.name}") for group, line in beside)]}
    for group, line in elsewhere:
        drawn.setdefault(f"{group.label}, trained on {group.data}", []).append(line)
    for title, lines in drawn.items():
        title = title or ("published and ours" if beside else "published alone")
        alt = f"{TITLE}, {title}: {ends(lines)}."
        panels.append(Panel(title, line_chart(lines, x_label="M_val", y_label="top-1, %", alt=alt, markers=True)))
        rows += line_rows(title, lines)
    missing = "" if beside or elsewhere else MISSING
    return Figure(KEY, TITLE, CAPTION, tuple(panels), COLUMNS, tuple(rows), missing)


def _is_the_papers(group: Group, name: str) -> bool:
    """Whether it went from STL-10 to ImageNet's thousand classes at 224 px with patches of the paper's."""
    protocol = at(group.runs[0].transfers.get(name, {}), "trained", "protocol") or {}
    patch = at(protocol, "fixating", "patch")
    images = protocol.get("classes_sha256") == IMAGENET_SHA256 and protocol.get("val_samples") == IMAGENET_VAL
    return group.home == "STL-10" and images and protocol.get("resolution") == 224 and patch in (32, 84)


def _ours(group: Group, name: str) -> Line | None:
    curves = [_curve(run, name) for run in group.runs]
    sizes = sorted({int(m) for curve in curves for m in curve})
    means = {m: group.over_seeds(lambda run, m=m: _curve(run, name).get(str(m))) for m in sizes}
    found = {m: mean.times(100) for m, mean in means.items() if mean}
    spread = [mean.std or 0.0 for mean in found.values()] if any(mean.std for mean in found.values()) else []
    return Line(name, [float(m) for m in found], [mean.value for mean in found.values()], spread) if found else None


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
