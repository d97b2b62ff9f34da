"""Figures 8–11: accuracy of z_AGG over M_tr and M_val, published and ours side by side."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from seqjepa.report.figure import Datum, Figure, Panel
from seqjepa.report.page import scrolling
from seqjepa.report.published import of_source
from seqjepa.report.run_groups import Group, Mean, conditioning, families, seen

MAPS = {
    "heat-map-8": ("Figure 8", "3DIEBench", ("rotation",)),
    "heat-map-9": ("Figure 9", "STL-10", ("position",)),
    "heat-map-10": ("Figure 10", "CIFAR100", ("crop+jitter+blur", "crop", "jitter", "blur")),
    "heat-map-11": ("Figure 11", "TinyImageNet", ("crop+jitter+blur", "crop", "jitter", "blur")),
}
COLUMNS = ("panel", "whose", "conditioning", "M_tr", "M_val", "top-1, %", "±", "seeds")
CAPTION = (
    "Top-1 accuracy of z_AGG, percent, over context views in training (M_tr, across) and in evaluation (M_val, down). "
    "The more colour, the higher within its own map; every map has its own scale."
)
Grid = dict[tuple[str, int, int], Mean]
"""(conditioning, M_tr, M_val) → percent."""


def heat_maps(groups: Sequence[Group]) -> list[Figure]:
    """Four figures. Ours on the paper's data stand in that data's figure, other data of the same kind in the first."""
    return [_figure(groups, key, *spec) for key, spec in MAPS.items()]


def _figure(groups: Sequence[Group], key: str, source: str, dataset: str, conditions: Sequence[str]) -> Figure:
    grids = {f"published, {dataset}": _published(source)}
    for family in families(groups, "data.context", "data.action"):
        fitting = [g for g in family if _belongs(g, dataset, conditions)]
        if fitting:
            name = f"ours, {fitting[0].data}, {fitting[0].config.optim.epochs} epochs"
            taken = name in grids
            grids[f"{name} ({fitting[0].runs[0].name} …)" if taken else name] = _ours(fitting)
    panels = [Panel(title, _table(title, grid, conditions), wide=len(conditions) > 1) for title, grid in grids.items()]
    rows = [_row(title, *at, mean) for title, grid in grids.items() for at, mean in grid.items()]
    missing = "" if len(grids) > 1 else f"no seq-JEPA run of this kind ({', '.join(conditions)}) has z_AGG accuracies"
    title = f"{source}: accuracy over M_tr and M_val, {dataset}"
    return Figure(key, title, CAPTION, tuple(panels), COLUMNS, tuple(rows), missing)


def _belongs(group: Group, dataset: str, conditions: Sequence[str]) -> bool:
    """Whether it is told what the figure's runs are, on that data set or, for data of no paper, on its kind of data."""
    elsewhere = {"rotation": "3DIEBench", "position": "STL-10", "augmentation": "CIFAR100"}[seen(group.config)]
    at_home = dataset == (group.runs[0].paper_set or elsewhere)
    return at_home and conditioning(group.config) in conditions and bool(group.curve("top1_agg"))


def _published(source: str) -> Grid:
    rows = of_source(source)
    return {(r.conditioning, r.m_tr or 0, r.m_val or 0): Mean(r.value, r.std, r.seeds or 1) for r in rows}


def _ours(family: Sequence[Group]) -> Grid:
    return {
        (conditioning(group.config), group.config.data.context, m): score.times(100)
        for group in family
        for m, score in group.curve("top1_agg").items()
    }


def _table(title: str, grid: Grid, conditions: Sequence[str]) -> str:
    """A heat map that is a table: its numbers can be read, copied and spoken."""
    columns = sorted({(told, m_tr) for told, m_tr, _ in grid}, key=lambda at: (conditions.index(at[0]), at[1]))
    sizes = sorted({m_val for _, _, m_val in grid})
    low, high = min(m.value for m in grid.values()), max(m.value for m in grid.values())
    heads = "".join(f"<th scope=col>{_head(told, m_tr, len(conditions) > 1)}</th>" for told, m_tr in columns)
    body = "\n".join(
        f"<tr><th scope=row>{m_val}</th>{''.join(_cell(grid.get((*c, m_val)), low, high) for c in columns)}</tr>"
        for m_val in sizes
    )
    caption = f"<caption class=hidden>{escape(title)}: top-1 in percent, rows M_val, columns M_tr</caption>"
    corner = "<th scope=col><small>M_val ↓ M_tr →</small></th>"
    table = f"<table class=heat>{caption}\n<thead><tr>{corner}{heads}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>"
    return scrolling(title, table)


def _head(told: str, m_tr: int, several: bool) -> str:
    short = "all" if told == "crop+jitter+blur" else told
    return f"<small>{escape(short)}</small> {m_tr}" if several else str(m_tr)


def _cell(mean: Mean | None, low: float, high: float) -> str:
    if mean is None:
        return "<td class=none>–</td>"
    heat = 6 + 44 * (mean.value - low) / (high - low) if high > low else 25
    spread = f"<small> ±{mean.std:.1f}</small>" if mean.std is not None else ""
    return f'<td style="--warmth:{heat:.0f}%">{mean.value:.1f}{spread}</td>'


def _row(title: str, told: str, m_tr: int, m_val: int, mean: Mean) -> tuple[Datum, ...]:
    whose, _, _ = title.partition(",")
    return (title, "paper" if whose == "published" else "ours", told, m_tr, m_val, mean.value, mean.std, mean.seeds)
