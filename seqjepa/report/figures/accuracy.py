"""Accuracy against R² (Figure 3), and accuracy over M_tr and M_val (Figures 8–11), published and ours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from seqjepa.paper.figures import LIKE, PLANES, TOLD_ALL, HeatMap, Plane
from seqjepa.paper.published import Published, of_source
from seqjepa.paper.sets import SETS_BY_NAME
from seqjepa.report.figures.drawing import (
    CAPTIONS,
    PUBLISHED,
    SERIES,
    Datum,
    Figure,
    Panel,
    draw,
    figure_of,
    spread_apart,
    wrapped,
)
from seqjepa.report.fill_template import fill
from seqjepa.report.groups import Group, Mean, accuracy, conditioning, families, label

KINDS = {"3DIEBench": "stored views", "STL-10": "patches", "CIFAR100": "augmented"}
Grid = dict[tuple[str, int, int], Mean]
"""(conditioning, M_tr, M_val) → percent."""


@dataclass(frozen=True)
class Point:
    """top1 in percent. told: whether the method knows the actions."""

    name: str
    r2: Mean
    top1: Mean
    told: bool
    published: bool


def accuracy_vs_r2(groups: Sequence[Group]) -> Figure:
    """The published panel of 3DIEBench always; the others' where a run of ours is on the same data; then our data."""
    ours: dict[tuple[str, str, str], list[Point]] = {}
    for group in groups:
        if point := _our_point(group):
            plane = LIKE[group.kind]
            home = group.home if group.home and PLANES[group.home].key == PLANES[plane].key else ""
            ours.setdefault((home, group.data, plane), []).append(point)
    panels: list[tuple[str, Plane, list[Point]]] = []
    for dataset, plane in PLANES.items():
        beside = [p for (home, _, _), points in ours.items() if home == dataset for p in points]
        if beside or dataset == "3DIEBench":
            panels.append((f"{dataset}, published and ours" if beside else f"{dataset}, published alone",
                           plane, [*_published_points(dataset, plane), *beside]))  # fmt: skip
    away = {key: points for key, points in ours.items() if not key[0]}
    for (_, data, plane), points in away.items():
        several = sum(other == data for _, other, _ in away) > 1
        panels.append((f"ours on {data}{f', {KINDS[plane]}' if several else ''}", PLANES[plane], points))
    drawn = [Panel(title, _scatter(title, plane, points)) for title, plane, points in panels]
    rows = [_point_row(title, point) for title, _, points in panels for point in points]
    return figure_of("figure-3", drawn, rows, missing=not ours)


def _our_point(group: Group) -> Point | None:
    plane = PLANES[LIKE[group.kind]]
    r2, found = group.mean(plane.key), accuracy(group)
    if r2 is None or found is None:
        return None
    m_val, top1 = found
    name = label(group.config, m_val or None)
    if group.home and (epochs := group.runs[0].epochs_done) < SETS_BY_NAME[group.home].epochs:
        name += f", {epochs} epochs"
    return Point(name, r2, top1.times(100), bool(conditioning(group.config)), published=False)


def _published_points(dataset: str, plane: Plane) -> list[Point]:
    """Rows of the table that have both numbers, once for each method and conditioning on all that the data have."""
    rows = [row for row in of_source(plane.source) if row.dataset == dataset]
    r2 = {_method(row): row.value for row in rows if row.metric == plane.metric}
    found = [row for row in rows if row.metric == "top1_acc" and _method(row) in r2]
    return [
        Point(_point_name(row), Mean(r2[_method(row)], None, 1), Mean(row.value, None, 1), bool(row.conditioning), True)
        for row in found
        if row.conditioning in TOLD_ALL
    ]


def _method(row: Published) -> tuple[object, ...]:
    return (row.method, row.conditioning, row.m_tr, row.m_val, row.variant)


def _point_name(row: Published) -> str:
    sizes = f" ({row.m_tr},{row.m_val})" if row.m_tr and row.m_val else ""
    no_actions = ", no actions" if row.method == "seq-JEPA" and not row.conditioning else ""
    return f"{row.method}{sizes}{no_actions}" + (f", {row.variant}" if row.variant else "")


def _scatter(title: str, plane: Plane, points: Sequence[Point]) -> Markup:
    def paint(axes: Axes) -> None:
        ours = iter(range(len(points)))
        colours = [PUBLISHED if p.published else SERIES[next(ours) % len(SERIES)] for p in points]
        for point, colour in zip(points, colours, strict=True):
            axes.errorbar(
                point.r2.value, point.top1.value, xerr=point.r2.std, yerr=point.top1.std,
                marker="^" if point.told else "o", markersize=7, linestyle="none", color=colour,
                markerfacecolor="none" if point.published else colour, elinewidth=1,
            )  # fmt: skip
        axes.margins(0.08)
        axes.grid(visible=True, axis="both")
        _name_points(axes, points, colours)
        axes.set_xlabel(plane.x_label)
        axes.set_ylabel("top-1, %")
        axes.xaxis.set_major_locator(MaxNLocator(nbins=4))

    said = "; ".join(f"{p.name} R² {p.r2.value:.2f}, {p.top1.value:.1f} %" for p in points)
    return draw(paint, f"{CAPTIONS['figure-3']['title']}, {title}: {said}.", size=(4.6, 4))


def _name_points(axes: Axes, points: Sequence[Point], colours: Sequence[str]) -> None:
    """Names in a column at the right, at the height of their points or as near as there is room, with a thin line."""
    low, high = axes.get_ylim()
    left, right = axes.get_xlim()
    names, lines = wrapped([p.name for p in points])
    heights = spread_apart([p.top1.value for p in points], (high - low) * 0.054, high, lines)
    for point, name, colour, height in zip(points, names, colours, heights, strict=True):
        axes.annotate(
            name, (point.r2.value, point.top1.value), xytext=(right + (right - left) * 0.04, height),
            textcoords="data", va="center", fontsize=9, color=colour, annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.5, "alpha": 0.5, "shrinkB": 5},
        )  # fmt: skip


def _point_row(panel: str, point: Point) -> tuple[Datum, ...]:
    whose, kind = "paper" if point.published else "ours", "equivariant" if point.told else "invariant"
    seeds = None if point.published else point.top1.seeds
    return (panel, whose, point.name, kind, point.r2.value, point.r2.std, point.top1.value, point.top1.std, seeds)


def heat_map(spec: HeatMap, groups: Sequence[Group]) -> Figure:
    """Ours on the paper's data stand in that data's figure, other data of the same kind in the first."""
    rows = of_source(spec.source)
    published = {(r.conditioning, r.m_tr or 0, r.m_val or 0): Mean(r.value, r.std, r.seeds or 1) for r in rows}
    grids: dict[str, Grid] = {f"published, {spec.dataset}": published}
    for family in families(groups, "data.context", "data.action"):
        fitting = [group for group in family if _belongs(group, spec)]
        if fitting:
            name = f"ours, {fitting[0].data}, {fitting[0].runs[0].epochs_said} epochs"
            taken = name in grids
            grids[f"{name} ({fitting[0].runs[0].name} …)" if taken else name] = {
                (conditioning(group.config), group.config.data.context, m): score.times(100)
                for group in fitting
                for m, score in group.curve("top1_agg").items()
            }
    wide = len(spec.conditions) > 1
    panels = [Panel(title, _grid_html(title, grid, spec.conditions), wide) for title, grid in grids.items()]
    drawn = [_map_row(title, *place, mean) for title, grid in grids.items() for place, mean in grid.items()]
    told = ", ".join(spec.conditions)
    texts = {"source": spec.source, "dataset": spec.dataset, "conditions": told}
    return figure_of("heat-map", panels, drawn, missing=len(grids) == 1, key=spec.key, **texts)


def _belongs(group: Group, spec: HeatMap) -> bool:
    """Whether it is told what the figure's runs are, on that data set or, for data of no paper, on its kind of data."""
    at_home = spec.dataset == (group.runs[0].paper_set or LIKE[group.kind])
    return at_home and conditioning(group.config) in spec.conditions and bool(group.curve("top1_agg"))


def _grid_html(title: str, grid: Grid, conditions: Sequence[str]) -> Markup:
    """A table whose cells are warmer (percent of the colour) the higher their numbers."""
    columns = sorted({(told, m_tr) for told, m_tr, _ in grid}, key=lambda at: (conditions.index(at[0]), at[1]))
    low, high = min(m.value for m in grid.values()), max(m.value for m in grid.values())

    def warmth(mean: Mean | None) -> float:
        return 6 + 44 * (mean.value - low) / (high - low) if mean and high > low else 25

    rows = []
    for m_val in sorted({m_val for _, _, m_val in grid}):
        means = [grid.get((*column, m_val)) for column in columns]
        rows.append((m_val, [(mean, warmth(mean)) for mean in means]))
    heads = [("all" if told == "crop+jitter+blur" else told, m_tr) for told, m_tr in columns]
    return fill("heat_map.html", title=title, columns=heads, several=len(conditions) > 1, rows=rows)


def _map_row(title: str, told: str, m_tr: int, m_val: int, mean: Mean) -> tuple[Datum, ...]:
    whose, _, _ = title.partition(",")
    return (title, "paper" if whose == "published" else "ours", told, m_tr, m_val, mean.value, mean.std, mean.seeds)
