"""Figure 6: path integration, the whole way read from what a model kept, with both ablations (paper §B.9).

Rollouts: how far seq-JEPA finds its way by its own predictions, which the paper names as future work.

Figure 7: what more views bring, in training (M_tr) and in evaluation (M_val).

Figure 15: saccade models frozen and shown other images, accuracy of z_AGG over M_val.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from seqjepa.data.known_sets import IMAGENET_SHA256, IMAGENET_VAL
from seqjepa.paper.metrics import PATHS
from seqjepa.paper.published import Published, distinct, of_source
from seqjepa.report.figures.drawing import MOST_LINES, Line, ends, line_chart
from seqjepa.report.figures.figure import COLUMNS, Datum, Figure, Panel, line_rows
from seqjepa.report.groups import TABLES_M_VAL, Group, Mean, at, by_data, families, seen
from seqjepa.report.runs import RunRecord

PATH_KEY, PATH_TITLE = "figure-6", "Figure 6: path integration"
VARIANTS = {"both": "vision+action", "no_action": "vision, no action", "no_vision": "no vision, action"}
SOURCES = {
    "position": ("Figure 6-visual", "visual", "STL-10"),
    "rotation": ("Figure 6-angular", "angular", "3DIEBench"),
}
PATH_CAPTION = (
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
        theirs = _published_paths(source)
        fitting = [group for group in measured if seen(group.config) == kind]
        at_home = [group for group in fitting if group.home == dataset]
        for group in at_home:
            title = f"{word}: {group.label} on {group.data}; grey: paper, {dataset}"
            _add_paths(panels, rows, title, [*theirs, *_our_paths(group)])
        for group in fitting:
            if group not in at_home:
                _add_paths(panels, rows, f"{word}: {group.label} on {group.data}", _our_paths(group))
        if not at_home:
            _add_paths(panels, rows, f"{word}: published alone ({dataset})", theirs)
    lacking = [
        f"no {word} run" for kind, (_, word, _) in SOURCES.items() if kind not in {seen(g.config) for g in measured}
    ]
    missing = (
        f"{' and '.join(lacking)} has path integration; the paper’s curves alone are drawn there" if lacking else ""
    )
    return Figure(PATH_KEY, PATH_TITLE, PATH_CAPTION, tuple(panels), COLUMNS, tuple(rows), missing)


def _add_paths(panels: list[Panel], rows: list[tuple[Datum, ...]], title: str, lines: Sequence[Line]) -> None:
    alt = f"{PATH_TITLE}, {title}: {ends(lines, '.2f')}."
    panels.append(Panel(title, line_chart(lines, x_label="steps, M_val", y_label="R²", alt=alt, markers=True)))
    rows += line_rows(title, lines)


def _our_paths(group: Group) -> list[Line]:
    lines = []
    for key, shown in PATHS.items():
        if found := group.curve("r2_path", key):
            spread = [m.std or 0.0 for m in found.values()] if any(m.std for m in found.values()) else []
            lines.append(Line(shown, [float(m) for m in found], [m.value for m in found.values()], spread))
    return lines


def _published_paths(source: str) -> list[Line]:
    lines = []
    for key, variant in VARIANTS.items():
        rows = [row for row in of_source(source) if row.variant == variant]
        sizes, values = [float(row.m_val or 0) for row in rows], [row.value for row in rows]
        lines.append(Line(f"paper: {PATHS[key]}", sizes, values, [row.std or 0.0 for row in rows], published=True))
    return lines


ROLLOUT_KEY, ROLLOUT_TITLE = "rollouts", "Rollouts: retrieval from predictions fed back"
ROLLOUT_CAPTION = (
    "Mean reciprocal rank of the true view among all views of its object, over the number of steps predicted ahead. "
    "Each step takes the last prediction for a view that was seen. Grey: chance. The paper has no such figure."
)


def rollout_curve(groups: Sequence[Group]) -> Figure:
    """A panel for each data set; the first six kinds of run in each."""
    panels, rows = [], []
    for data, found in by_data([g for g in groups if g.curve("rollout", "mrr")]).items():
        lines = [_rollout_line(group) for group in found][:MOST_LINES]
        chance = found[0].mean(lambda scores: scores.get("rollout", {}).get("mrr_chance"))
        if chance:
            x = lines[0].x
            lines.append(Line("chance", x, [chance.value] * len(x), published=True))
        title = f"{data}"
        alt = f"{ROLLOUT_TITLE}, {title}: {ends(lines, '.2f')}."
        panels.append(Panel(title, line_chart(lines, x_label="steps ahead", y_label="MRR", alt=alt, markers=True)))
        rows += line_rows(title, lines)
    missing = "" if panels else "no seq-JEPA run has rollouts; evaluate one with --suite all"
    return Figure(ROLLOUT_KEY, ROLLOUT_TITLE, ROLLOUT_CAPTION, tuple(panels), COLUMNS, tuple(rows), missing)


def _rollout_line(group: Group) -> Line:
    found = group.curve("rollout", "mrr")
    spread = [mean.std or 0.0 for mean in found.values()] if any(mean.std for mean in found.values()) else []
    name = group.label.removeprefix("seq-JEPA, ")
    return Line(name, [float(h) for h in found], [mean.value for mean in found.values()], spread)


SCALING_KEY, SCALING_TITLE = "figure-7", "Figure 7: scaling with the number of views"
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
SHORT_SETS = {"TinyImageNet": "Tiny", "3DIEBench": "3DIE", "STL-10": "STL", "CIFAR100": "C100"}
USUAL_M_TR = {"rotation": 3, "position": 4, "augmentation": 2}
SCALING_CAPTION = (
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
                panels.append(Panel(title, _draw_scaling(chart, title, lines)))
                rows += line_rows(title, lines)
    drawn = any(chart.ours for chart in _charts(found))
    missing = "" if drawn else "no seq-JEPA run was evaluated; the paper’s curves alone"
    return Figure(SCALING_KEY, SCALING_TITLE, SCALING_CAPTION, tuple(panels), COLUMNS, tuple(rows), missing)


@dataclass(frozen=True)
class _Chart:
    title: str
    x_label: str
    y_label: str
    ours: Sequence[Line]
    published: Sequence[Line]


def _charts(found: Sequence[Sequence[Group]]) -> tuple[_Chart, ...]:
    left, middle, right = (_published_scaling(f"Figure 7-{side}", at) for side, at in SIDES.items())
    return (
        _Chart("R² over M_tr", "M_tr", "R²", _r2_over_m_tr(found), left),
        _Chart("top-1 over M_tr", "M_tr", "top-1, %", _top1_over_m_tr(found), middle),
        _Chart("top-1 over M_val", "M_val", "top-1, %", _top1_over_m_val(found), right),
    )


def _elsewhere(found: Sequence[list[Group]]) -> dict[str, list[list[Group]]]:
    """Families whose data are not the paper's, by those data."""
    away: dict[str, list[list[Group]]] = {}
    for family in found:
        if not family[0].home:
            away.setdefault(family[0].data, []).append(family)
    return away


def _draw_scaling(chart: _Chart, title: str, lines: Sequence[Line]) -> str:
    alt = f"{SCALING_TITLE}, {title}: {ends(lines)}."
    return line_chart(lines, x_label=chart.x_label, y_label=chart.y_label, alt=alt, markers=True)


def _r2_over_m_tr(found: Sequence[Sequence[Group]]) -> list[Line]:
    lines = []
    for family in found:
        for key, shown in R2_KEYS[seen(family[0].config)].items():
            scores = {g.config.data.context: g.mean(lambda s, key=key: s.get(key)) for g in family}
            lines += _scaling_line(f"{shown}, {family[0].data}", scores)
    return lines


def _top1_over_m_tr(found: Sequence[Sequence[Group]]) -> list[Line]:
    lines = []
    for family in found:
        curves = {g.config.data.context: curve for g in family if (curve := g.curve("top1_agg"))}
        shared = set.intersection(*(set(c) for c in curves.values())) if curves else set()
        if sizes := [m for m in shared if m <= TABLES_M_VAL]:
            m_val = max(sizes)
            percent = {m_tr: curve[m_val].times(100) for m_tr, curve in curves.items()}
            lines += _scaling_line(f"{family[0].data}, M_val {m_val}", percent)
    return lines


def _top1_over_m_val(found: Sequence[Sequence[Group]]) -> list[Line]:
    lines = []
    for family in found:
        usual = USUAL_M_TR[seen(family[0].config)]
        group = min(family, key=lambda g: (not g.curve("top1_agg"), abs(g.config.data.context - usual)))
        percent = {m: score.times(100) for m, score in group.curve("top1_agg").items()}
        lines += _scaling_line(f"{group.data}, M_tr {group.config.data.context}", percent)
    return lines


def _scaling_line(name: str, scores: dict[int, Mean | None] | dict[int, Mean]) -> list[Line]:
    """One line in order of size, or none."""
    points = sorted((size, score) for size, score in scores.items() if score)
    if not points:
        return []
    spread = [score.std or 0.0 for _, score in points] if any(score.std for _, score in points) else []
    return [Line(name, [float(size) for size, _ in points], [score.value for _, score in points], spread)]


def _published_scaling(source: str, size: str) -> list[Line]:
    lines = []
    rows = of_source(source)
    for name in distinct(_curve_name(row) for row in rows):
        points = sorted((getattr(row, size), row.value) for row in rows if _curve_name(row) == name)
        lines.append(Line(f"paper: {name}", [float(x) for x, _ in points], [y for _, y in points], published=True))
    return lines


def _curve_name(row: Published) -> str:
    shown = SHORT_SETS[row.dataset]
    return f"{R2_NAMES[row.metric]}, {shown}" if row.metric in R2_NAMES else shown


TRANSFER_KEY, TRANSFER_TITLE = "figure-15", "Figure 15: transfer of saccade models to other images"
TRANSFER_CAPTION = (
    "Top-1 of z_AGG on images that the model was not trained on, percent; a linear classifier for each M_val. Grey and "
    "hollow: the paper’s curves, STL-10 to ImageNet-1k with patches of 32 and 84 px. Ours name images and patches, and "
    "stand among them only for the same two data sets, resolution and patches."
)
NO_TRANSFER = "no run was evaluated on other images (seqjepa evaluate RUN --shards OTHER)"


def transfer(groups: Sequence[Group]) -> Figure:
    """One panel with the paper's two curves and ours between the same sets, and one for each other kind of run."""
    panels, rows = [], []
    theirs, beside, elsewhere = _published_transfer(), [], []
    for group in groups:
        for name in distinct(name for run in group.runs for name in run.transfers):
            if ours := _our_transfer(group, name):
                (beside if _is_the_papers(group, name) else elsewhere).append((group, ours))
    drawn = {"": [*theirs, *(replace(line, name=f"{group.label}, {line.name}") for group, line in beside)]}
    for group, line in elsewhere:
        drawn.setdefault(f"{group.label}, trained on {group.data}", []).append(line)
    for title, lines in drawn.items():
        title = title or ("published and ours" if beside else "published alone")
        alt = f"{TRANSFER_TITLE}, {title}: {ends(lines)}."
        panels.append(Panel(title, line_chart(lines, x_label="M_val", y_label="top-1, %", alt=alt, markers=True)))
        rows += line_rows(title, lines)
    missing = "" if beside or elsewhere else NO_TRANSFER
    return Figure(TRANSFER_KEY, TRANSFER_TITLE, TRANSFER_CAPTION, tuple(panels), COLUMNS, tuple(rows), missing)


def _is_the_papers(group: Group, name: str) -> bool:
    """Whether it went from STL-10 to ImageNet's thousand classes at 224 px with patches of the paper's."""
    protocol = at(group.runs[0].transfers.get(name, {}), "trained", "protocol") or {}
    patch = at(protocol, "fixating", "patch")
    images = protocol.get("classes_sha256") == IMAGENET_SHA256 and protocol.get("val_samples") == IMAGENET_VAL
    return group.home == "STL-10" and images and protocol.get("resolution") == 224 and patch in (32, 84)


def _our_transfer(group: Group, name: str) -> Line | None:
    curves = [_transfer_curve(run, name) for run in group.runs]
    sizes = sorted({int(m) for curve in curves for m in curve})
    means = {m: group.over_seeds(lambda run, m=m: _transfer_curve(run, name).get(str(m))) for m in sizes}
    found = {m: mean.times(100) for m, mean in means.items() if mean}
    spread = [mean.std or 0.0 for mean in found.values()] if any(mean.std for mean in found.values()) else []
    return Line(name, [float(m) for m in found], [mean.value for mean in found.values()], spread) if found else None


def _transfer_curve(run: RunRecord, transfer: str) -> dict[str, float]:
    return at(run.transfers.get(transfer, {}), "trained", "top1_agg") or {}


def _published_transfer() -> list[Line]:
    rows = of_source("Figure 15")
    lines = []
    for variant in distinct(row.variant for row in rows):
        points = [(float(row.m_val or 0), row.value) for row in rows if row.variant == variant]
        name = f"paper: {variant.replace('patch', '')} px"
        lines.append(Line(name, [x for x, _ in points], [y for _, y in points], published=True))
    return lines
