"""Figure 3: invariance against equivariance, accuracy over R², a point for each method."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from seqjepa.report.canvas import PUBLISHED, SERIES, draw, spread_apart, wrapped
from seqjepa.report.figure import Datum, Figure, Panel
from seqjepa.report.published import Published, of_source
from seqjepa.report.run_groups import Group, Mean, accuracy, conditioning, label, seen
from seqjepa.report.trust import PAPER_EPOCHS

KEY, TITLE = "figure-3", "Figure 3: accuracy against R² of the transformation"
COLUMNS = ("panel", "whose", "method", "kind", "R²", "± R²", "top-1, %", "± top-1", "seeds")
CAPTION = (
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
        if point := _point(group):
            plane = LIKE[seen(group.config)]
            home = group.home if group.home and PLANES[group.home].key == PLANES[plane].key else ""
            ours.setdefault((home, group.data, plane), []).append(point)
    panels: list[tuple[str, Plane, list[Point]]] = []
    for dataset, plane in PLANES.items():
        beside = [p for (home, _, _), points in ours.items() if home == dataset for p in points]
        if beside or dataset == "3DIEBench":
            panels.append((f"{dataset}, published and ours" if beside else f"{dataset}, published alone",
                           plane, [*_published(dataset, plane), *beside]))  # fmt: skip
    away = {key: points for key, points in ours.items() if not key[0]}
    for (_, data, plane), points in away.items():
        several = sum(other == data for _, other, _ in away) > 1
        panels.append((f"ours on {data}{f', {KINDS[plane]}' if several else ''}", PLANES[plane], points))
    missing = "" if ours else "no run has both accuracy and R²; the published points alone are drawn"
    drawn = tuple(Panel(title, _scatter(title, plane, points)) for title, plane, points in panels)
    rows = tuple(_row(title, point) for title, _, points in panels for point in points)
    return Figure(KEY, TITLE, CAPTION, drawn, COLUMNS, rows, missing)


def _point(group: Group) -> Point | None:
    plane = PLANES[LIKE[seen(group.config)]]
    r2, found = group.mean(lambda scores: scores.get(plane.key)), accuracy(group)
    if r2 is None or found is None:
        return None
    m_val, top1 = found
    name = label(group.config, m_val or None)
    if group.home and (epochs := group.runs[0].epochs_done) < PAPER_EPOCHS[group.home]:
        name += f", {epochs} epochs"
    return Point(name, r2, top1.times(100), bool(conditioning(group.config)), published=False)


def _published(dataset: str, plane: Plane) -> list[Point]:
    """Rows of the table that have both numbers, once for each method and conditioning on all that the data have."""
    rows = [row for row in of_source(plane.source) if row.dataset == dataset]
    r2 = {_identity(row): row.value for row in rows if row.metric == plane.metric}
    found = [row for row in rows if row.metric == "top1_acc" and _identity(row) in r2]
    return [
        Point(_name(row), Mean(r2[_identity(row)], None, 1), Mean(row.value, None, 1), bool(row.conditioning), True)
        for row in found
        if row.conditioning in ("", "rotation", "rotation (context)", "position", "crop+jitter+blur")
    ]


def _identity(row: Published) -> tuple[object, ...]:
    return (row.method, row.conditioning, row.m_tr, row.m_val, row.variant)


def _name(row: Published) -> str:
    sizes = f" ({row.m_tr},{row.m_val})" if row.m_tr and row.m_val else ""
    no_actions = ", no actions" if row.method == "seq-JEPA" and not row.conditioning else ""
    return f"{row.method}{sizes}{no_actions}" + (f", {row.variant}" if row.variant else "")


def _scatter(title: str, plane: Plane, points: Sequence[Point]) -> str:
    def paint(axes: Axes) -> None:
        colours = _colours(points)
        for point, colour in zip(points, colours, strict=True):
            axes.errorbar(
                point.r2.value, point.top1.value, xerr=point.r2.std, yerr=point.top1.std,
                marker="^" if point.told else "o", markersize=7, linestyle="none", color=colour,
                markerfacecolor="none" if point.published else colour, elinewidth=1,
            )  # fmt: skip
        axes.margins(0.08)
        axes.grid(visible=True, axis="both")
        _label(axes, points, colours)
        axes.set_xlabel(plane.x_label)
        axes.set_ylabel("top-1, %")
        axes.xaxis.set_major_locator(MaxNLocator(nbins=4))

    said = "; ".join(f"{p.name} R² {p.r2.value:.2f}, {p.top1.value:.1f} %" for p in points)
    return draw(paint, f"{TITLE}, {title}: {said}.", size=(4.6, 4))


def _colours(points: Sequence[Point]) -> list[str]:
    ours = iter(range(len(points)))
    return [PUBLISHED if p.published else SERIES[next(ours) % len(SERIES)] for p in points]


def _label(axes: Axes, points: Sequence[Point], colours: Sequence[str]) -> None:
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


def _row(panel: str, point: Point) -> tuple[Datum, ...]:
    whose, kind = "paper" if point.published else "ours", "equivariant" if point.told else "invariant"
    seeds = None if point.published else point.top1.seeds
    return (panel, whose, point.name, kind, point.r2.value, point.r2.std, point.top1.value, point.top1.std, seeds)
