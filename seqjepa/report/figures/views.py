"""Curves over the number of views: Figure 6 (paths), Figure 7 (scaling), Figure 15 (transfer), and rollouts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

from seqjepa.paper.figures import (
    PATH_CURVES,
    PATH_VARIANTS,
    SCALING_R2,
    TRANSFER_PATCHES,
    TRANSFER_PIXELS,
    USUAL_M_TR,
)
from seqjepa.paper.measures import value_at
from seqjepa.paper.metrics import NAMED, PATHS
from seqjepa.paper.published import Published, of_source
from seqjepa.paper.sets import IMAGENET_SHA256, IMAGENET_VAL, SETS_BY_NAME
from seqjepa.report.figures.drawing import MOST_LINES, Chart, Figure, Line, figure_of_charts, line_of
from seqjepa.report.groups import TABLES_M_VAL, Group, Mean, by_data, families
from seqjepa.report.runs import RunRecord

Family = Sequence[Group]
"""Groups that differ in M_tr alone."""


def path_figure(groups: Sequence[Group]) -> Figure:
    """Figure 6, path integration: what a model kept of the whole way, with both ablations (paper §B.9).

    Visual and angular: a panel for each kind of run that has the numbers, with the paper's curves on its own data, and
    the paper's alone where none of ours is on them.
    """
    measured = [group for group in groups if group.curve("r2_path.both")]
    panels: list[tuple[str, Sequence[Line]]] = []
    for curves in PATH_CURVES:
        theirs = _published_lines(curves.source, lambda row: PATHS[PATH_VARIANTS[row.variant]])
        fitting = [group for group in measured if group.kind == curves.kind]
        at_home = [group for group in fitting if group.home == curves.dataset]
        for group in at_home:
            title = f"{curves.word}: {group.label} on {group.data}; grey: paper, {curves.dataset}"
            panels.append((title, [*theirs, *_our_paths(group)]))
        for group in fitting:
            if group not in at_home:
                panels.append((f"{curves.word}: {group.label} on {group.data}", _our_paths(group)))
        if not at_home:
            panels.append((f"{curves.word}: published alone ({curves.dataset})", theirs))
    kinds = {group.kind for group in measured}
    lacking = " and ".join(f"no {curves.word} run" for curves in PATH_CURVES if curves.kind not in kinds)
    charts = [Chart(title, lines, "steps, M_val", "R²") for title, lines in panels]
    return figure_of_charts("figure-6", charts, missing=bool(lacking), digits=".2f", lacking=lacking)


def _published_lines(source: str, name_of: Callable[[Published], str], size: str = "m_val") -> list[Line]:
    """A line for each name that rows of results.csv have; size: the field that is x."""
    found: dict[str, dict[int, Mean]] = {}
    for row in of_source(source):
        found.setdefault(f"paper: {name_of(row)}", {})[getattr(row, size)] = Mean(row.value, row.std, row.seeds or 1)
    return [replace(line_of(name, means), published=True) for name, means in found.items()]


def own_paths(groups: Sequence[Group]) -> Figure:
    """The same of runs on own data, a panel each."""
    measured = [group for group in groups if group.curve("r2_path.both")]
    charts = [Chart(f"{group.label} on {group.data}", _our_paths(group), "steps, M_val", "R²") for group in measured]
    return figure_of_charts("paths", charts, missing=not charts, digits=".2f")


def _our_paths(group: Group) -> list[Line]:
    curves = {shown: group.curve(f"r2_path.{key}") for key, shown in PATHS.items()}
    return [line_of(shown, curve) for shown, curve in curves.items() if curve]


def scaling(groups: Sequence[Group]) -> Figure:
    """Figure 7, what more views bring in training (M_tr) and in evaluation (M_val).

    Three panels of the paper's curves with ours on the same data, then three for each other data. Ours are from runs
    that differ in M_tr alone.
    """
    found = families(groups, "data.context")
    charts = list(_scaling_charts([family for family in found if family[0].home]))
    elsewhere = [family for family in found if not family[0].home]
    for data in dict.fromkeys(family[0].data for family in elsewhere):
        charts += _scaling_charts([family for family in elsewhere if family[0].data == data], data)
    drawn = any(lines(family) for family in found for lines in (_r2_over_m_tr, _top1_over_m_tr, _top1_over_m_val))
    return figure_of_charts("figure-7", charts, missing=not drawn)


def _scaling_charts(found: Sequence[Family], data: str = "") -> Iterator[Chart]:
    """data: that of the families; "" for the paper's, beside whose curves they stand."""
    sides: tuple[tuple[str, str, str, str, Callable[[Family], list[Line]]], ...] = (
        ("left", "R² over M_tr", "M_tr", "R²", _r2_over_m_tr),
        ("middle", "top-1 over M_tr", "M_tr", "top-1, %", _top1_over_m_tr),
        ("right", "top-1 over M_val", "M_val", "top-1, %", _top1_over_m_val),
    )
    for side, title, x_label, y_label, lines_of in sides:
        ours = [line for family in found for line in lines_of(family)]
        if data:
            ours = [line for line in ours if len(line.x) > 1]  # one point alone shows no scaling
        lines = [*([] if data else _published_lines(f"Figure 7-{side}", _curve_name, x_label.lower())), *ours]
        if lines:
            yield Chart(f"{title}, ours on {data}" if data else title, lines, x_label, y_label)


def _r2_over_m_tr(family: Family) -> list[Line]:
    lines = []
    for metric, shown in SCALING_R2[family[0].kind].items():
        scores = {group.config.data.context: group.mean(NAMED[metric].key) for group in family}
        lines += _line_by_size(f"{shown}, {family[0].data}", scores)
    return lines


def _top1_over_m_tr(family: Family) -> list[Line]:
    """At M_val 5, or the most below that all runs have."""
    curves = {g.config.data.context: curve for g in family if (curve := g.curve("top1_agg"))}
    shared = set.intersection(*(set(c) for c in curves.values())) if curves else set()
    sizes = [m for m in shared if m <= TABLES_M_VAL]
    if not sizes:
        return []
    m_val = max(sizes)
    percent = {m_tr: curve[m_val].times(100) for m_tr, curve in curves.items()}
    return _line_by_size(f"{family[0].data}, M_val {m_val}", percent)


def _top1_over_m_val(family: Family) -> list[Line]:
    """Of the run whose M_tr is nearest to the usual."""
    usual = USUAL_M_TR[family[0].kind]
    group = min(family, key=lambda g: (not g.curve("top1_agg"), abs(g.config.data.context - usual)))
    percent = {m: score.times(100) for m, score in group.curve("top1_agg").items()}
    return _line_by_size(f"{group.data}, M_tr {group.config.data.context}", percent)


def _line_by_size(name: str, scores: Mapping[int, Mean | None]) -> list[Line]:
    """One line in order of size, or none."""
    found = {size: score for size in sorted(scores) if (score := scores[size])}
    return [line_of(name, found)] if found else []


def _curve_name(row: Published) -> str:
    names = {metric: name for by_metric in SCALING_R2.values() for metric, name in by_metric.items()}
    shown = SETS_BY_NAME[row.dataset].short
    return f"{names[row.metric]}, {shown}" if row.metric in names else shown


def transfer(groups: Sequence[Group]) -> Figure:
    """Figure 15, saccade models frozen and shown other images: accuracy of z_AGG over M_val.

    One panel with the paper's two curves and ours between the same sets, and one for each other kind of run.
    """
    beside: list[Line] = []
    elsewhere: dict[str, list[Line]] = {}
    for group in groups:
        for name in dict.fromkeys(name for run in group.runs for name in run.transfers):
            if not (ours := _our_transfer(group, name)):
                continue
            if _is_the_papers(group, name):
                beside.append(replace(ours, name=f"{group.label}, {name}"))
            else:
                elsewhere.setdefault(f"{group.label}, trained on {group.data}", []).append(ours)
    title = "published and ours" if beside else "published alone"
    theirs = _published_lines("Figure 15", lambda row: f"{row.variant.replace('patch', '')} px")
    panels = {title: [*theirs, *beside], **elsewhere}
    charts = [Chart(title, lines, "M_val", "top-1, %") for title, lines in panels.items()]
    return figure_of_charts("figure-15", charts, missing=not beside and not elsewhere)


def _is_the_papers(group: Group, name: str) -> bool:
    """Whether it went from STL-10 to ImageNet's thousand classes at 224 px with patches of the paper's."""
    protocol = value_at(group.runs[0].transfers.get(name, {}), "trained.protocol") or {}
    images = protocol.get("classes_sha256") == IMAGENET_SHA256 and protocol.get("val_samples") == IMAGENET_VAL
    same_size = protocol.get("resolution") == TRANSFER_PIXELS
    return group.home == "STL-10" and images and same_size and value_at(protocol, "fixating.patch") in TRANSFER_PATCHES


def _our_transfer(group: Group, name: str) -> Line | None:
    sizes = sorted({int(m) for run in group.runs for m in _transfer_scores(run, name)})
    means = {m: group.mean_of(lambda run, m=m: _transfer_scores(run, name).get(str(m))) for m in sizes}
    found = {m: mean.times(100) for m, mean in means.items() if mean}
    return line_of(name, found) if found else None


def _transfer_scores(run: RunRecord, name: str) -> dict[str, float]:
    return value_at(run.transfers.get(name, {}), "trained.top1_agg") or {}


def rollout_curve(groups: Sequence[Group]) -> Figure:
    """How far seq-JEPA finds its way by its own predictions, which the paper names as future work.

    A panel for each data set; the first six kinds of run in each.
    """
    charts = []
    for data, found in by_data([group for group in groups if group.curve("rollout.mrr")]).items():
        shown = found[:MOST_LINES]
        lines = [line_of(group.label.removeprefix("seq-JEPA, "), group.curve("rollout.mrr")) for group in shown]
        if chance := found[0].mean("rollout.mrr_chance"):
            x = lines[0].x
            lines.append(Line("chance", x, [chance.value] * len(x), published=True))
        charts.append(Chart(data, lines, "steps ahead", "MRR"))
    return figure_of_charts("rollouts", charts, missing=not charts, digits=".2f")
