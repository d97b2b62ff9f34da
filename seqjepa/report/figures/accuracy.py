"""Figure 3: invariance against equivariance, accuracy over R², a point for each method.

Figures 8–11: accuracy of z_AGG over M_tr and M_val, published and ours side by side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from seqjepa.paper.published import Published, of_source
from seqjepa.report.figures.drawing import PUBLISHED, SERIES, draw, spread_apart, wrapped
from seqjepa.report.figures.figure import Datum, Figure, Panel
from seqjepa.report.groups import Group, Mean, accuracy, conditioning, families, label, seen
from seqjepa.report.render.page import scrolling
from seqjepa.report.warnings import PAPER_EPOCHS

SCATTER_KEY, SCATTER_TITLE = "figure-3", "Figure 3: accuracy against R² of the transformation"
SCATTER_COLUMNS = ("panel", "whose", "method", "kind", "R²", "± R²", "top-1, %", "± top-1", "seeds")
SCATTER_CAPTION = (
    "To the right: more equivariant; up: more invariant. Circles: told nothing of the actions; triangles: told. Grey "
    "and hollow: published (Tables 1–3; crop for the augmentations). Coloured: ours, R² averaged over dimensions, bars "
    "over seeds. Ours stand among the published points only for the same data set at the same resolution; other data "
    "have a panel of their own, whose numbers are not comparable with the paper’s."
)


@dataclass(frozen=True)
class Point:
    """top1 in percent. told: whether the method knows the actions."""

    name: str
    r2: Mean
    top1: Mean
    told: bool
    published: bool


@dataclass(frozen=True)
class Plane:
    """What the axes of a kind of data are: where it is published, and which R² of ours stands for it."""

    source: str
    metric: str
    key: str
    x_label: str


PLANES = {
    "3DIEBench": Plane("Table 1", "R2_rel_rot", "r2_rel_rot_avg", "R² of the relative rotation"),
    "STL-10": Plane("Table 3", "R2_position", "r2_position_avg", "R² of the way between patches"),
    "CIFAR100": Plane("Table 2", "R2_crop", "r2_crop_avg", "R² of the crop"),
    "TinyImageNet": Plane("Table 2", "R2_crop", "r2_crop_avg", "R² of the crop"),
}
KINDS = {"3DIEBench": "stored views", "STL-10": "patches", "CIFAR100": "augmented"}
LIKE = {"rotation": "3DIEBench", "position": "STL-10", "augmentation": "CIFAR100"}


def accuracy_vs_r2(groups: Sequence[Group]) -> Figure:
    """The published panel of 3DIEBench always; the others' where a run of ours is on the same data; then our data."""
    ours: dict[tuple[str, str, str], list[Point]] = {}
    for group in groups:
        if point := _our_point(group):
            plane = LIKE[seen(group.config)]
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
    missing = "" if ours else "no run has both accuracy and R²; the published points alone are drawn"
    drawn = tuple(Panel(title, _scatter(title, plane, points)) for title, plane, points in panels)
    rows = tuple(_point_row(title, point) for title, _, points in panels for point in points)
    return Figure(SCATTER_KEY, SCATTER_TITLE, SCATTER_CAPTION, drawn, SCATTER_COLUMNS, rows, missing)


def _our_point(group: Group) -> Point | None:
    plane = PLANES[LIKE[seen(group.config)]]
    r2, found = group.mean(lambda scores: scores.get(plane.key)), accuracy(group)
    if r2 is None or found is None:
        return None
    m_val, top1 = found
    name = label(group.config, m_val or None)
    if group.home and (epochs := group.runs[0].epochs_done) < PAPER_EPOCHS[group.home]:
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
        if row.conditioning in ("", "rotation", "rotation (context)", "position", "crop+jitter+blur")
    ]


def _method(row: Published) -> tuple[object, ...]:
    return (row.method, row.conditioning, row.m_tr, row.m_val, row.variant)


def _point_name(row: Published) -> str:
    sizes = f" ({row.m_tr},{row.m_val})" if row.m_tr and row.m_val else ""
    no_actions = ", no actions" if row.method == "seq-JEPA" and not row.conditioning else ""
    return f"{row.method}{sizes}{no_actions}" + (f", {row.variant}" if row.variant else "")


def _scatter(title: str, plane: Plane, points: Sequence[Point]) -> str:
    def paint(axes: Axes) -> None:
        colours = _point_colours(points)
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
    return draw(paint, f"{SCATTER_TITLE}, {title}: {said}.", size=(4.6, 4))


def _point_colours(points: Sequence[Point]) -> list[str]:
    ours = iter(range(len(points)))
    return [PUBLISHED if p.published else SERIES[next(ours) % len(SERIES)] for p in points]


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


MAPS = {
    "heat-map-8": ("Figure 8", "3DIEBench", ("rotation",)),
    "heat-map-9": ("Figure 9", "STL-10", ("position",)),
    "heat-map-10": ("Figure 10", "CIFAR100", ("crop+jitter+blur", "crop", "jitter", "blur")),
    "heat-map-11": ("Figure 11", "TinyImageNet", ("crop+jitter+blur", "crop", "jitter", "blur")),
}
MAP_COLUMNS = ("panel", "whose", "conditioning", "M_tr", "M_val", "top-1, %", "±", "seeds")
MAP_CAPTION = (
    "Top-1 accuracy of z_AGG, percent, over context views in training (M_tr, across) and in evaluation (M_val, down). "
    "The more colour, the higher within its own map; every map has its own scale."
)
Grid = dict[tuple[str, int, int], Mean]
"""(conditioning, M_tr, M_val) → percent."""


def heat_maps(groups: Sequence[Group]) -> list[Figure]:
    """Four figures. Ours on the paper's data stand in that data's figure, other data of the same kind in the first."""
    return [_heat_map(groups, key, *spec) for key, spec in MAPS.items()]


def _heat_map(groups: Sequence[Group], key: str, source: str, dataset: str, conditions: Sequence[str]) -> Figure:
    grids = {f"published, {dataset}": _published_grid(source)}
    for family in families(groups, "data.context", "data.action"):
        fitting = [g for g in family if _belongs(g, dataset, conditions)]
        if fitting:
            name = f"ours, {fitting[0].data}, {fitting[0].config.optim.epochs} epochs"
            taken = name in grids
            grids[f"{name} ({fitting[0].runs[0].name} …)" if taken else name] = _our_grid(fitting)
    panels = [
        Panel(title, _heat_table(title, grid, conditions), wide=len(conditions) > 1) for title, grid in grids.items()
    ]
    rows = [_map_row(title, *at, mean) for title, grid in grids.items() for at, mean in grid.items()]
    missing = "" if len(grids) > 1 else f"no seq-JEPA run of this kind ({', '.join(conditions)}) has z_AGG accuracies"
    title = f"{source}: accuracy over M_tr and M_val, {dataset}"
    return Figure(key, title, MAP_CAPTION, tuple(panels), MAP_COLUMNS, tuple(rows), missing)


def _belongs(group: Group, dataset: str, conditions: Sequence[str]) -> bool:
    """Whether it is told what the figure's runs are, on that data set or, for data of no paper, on its kind of data."""
    elsewhere = {"rotation": "3DIEBench", "position": "STL-10", "augmentation": "CIFAR100"}[seen(group.config)]
    at_home = dataset == (group.runs[0].paper_set or elsewhere)
    return at_home and conditioning(group.config) in conditions and bool(group.curve("top1_agg"))


def _published_grid(source: str) -> Grid:
    rows = of_source(source)
    return {(r.conditioning, r.m_tr or 0, r.m_val or 0): Mean(r.value, r.std, r.seeds or 1) for r in rows}


def _our_grid(family: Sequence[Group]) -> Grid:
    return {
        (conditioning(group.config), group.config.data.context, m): score.times(100)
        for group in family
        for m, score in group.curve("top1_agg").items()
    }


def _heat_table(title: str, grid: Grid, conditions: Sequence[str]) -> str:
    """A heat map that is a table: its numbers can be read, copied and spoken."""
    columns = sorted({(told, m_tr) for told, m_tr, _ in grid}, key=lambda at: (conditions.index(at[0]), at[1]))
    sizes = sorted({m_val for _, _, m_val in grid})
    low, high = min(m.value for m in grid.values()), max(m.value for m in grid.values())
    heads = "".join(f"<th scope=col>{_heat_head(told, m_tr, len(conditions) > 1)}</th>" for told, m_tr in columns)
    body = "\n".join(
        f"<tr><th scope=row>{m_val}</th>{''.join(_heat_cell(grid.get((*c, m_val)), low, high) for c in columns)}</tr>"
        for m_val in sizes
    )
    caption = f"<caption class=hidden>{escape(title)}: top-1 in percent, rows M_val, columns M_tr</caption>"
    corner = "<th scope=col><small>M_val ↓ M_tr →</small></th>"
    table = f"<table class=heat>{caption}\n<thead><tr>{corner}{heads}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>"
    return scrolling(title, table)


def _heat_head(told: str, m_tr: int, several: bool) -> str:
    short = "all" if told == "crop+jitter+blur" else told
    return f"<small>{escape(short)}</small> {m_tr}" if several else str(m_tr)


def _heat_cell(mean: Mean | None, low: float, high: float) -> str:
    if mean is None:
        return "<td class=none>–</td>"
    heat = 6 + 44 * (mean.value - low) / (high - low) if high > low else 25
    spread = f"<small> ±{mean.std:.1f}</small>" if mean.std is not None else ""
    return f'<td style="--warmth:{heat:.0f}%">{mean.value:.1f}{spread}</td>'


def _map_row(title: str, told: str, m_tr: int, m_val: int, mean: Mean) -> tuple[Datum, ...]:
    whose, _, _ = title.partition(",")
    return (title, "paper" if whose == "published" else "ours", told, m_tr, m_val, mean.value, mean.std, mean.seeds)
