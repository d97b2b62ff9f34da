"""The paper's tables with our numbers beside the published ones, and tables of the same form for other data.

A run stands beside a published value if it is that row's method, conditioning and M_tr (matching.py) and was trained
and evaluated on the paper's own data; at a scale that is not the paper's with a mark. Runs on other data never stand
beside one. A run that is no row of any table is in a table of other runs, so that each is seen somewhere.

A table, whatever it is rendered as, and how published values are arranged into one.

Which of several runs stands in a row: those nearest to the paper's scale.

Table 6: multiply–accumulates, as a run's evaluation counted them, else counted here on its networks.

Our numbers without published ones beside them: runs on other data in the paper's forms, and runs that are no row.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache

from seqjepa.evaluate.costs import macs_of_networks
from seqjepa.paper.metrics import PAPER_METRICS, Direction
from seqjepa.paper.published import Published, of_source
from seqjepa.paper.tables import HEADS, LAYOUTS, Layout
from seqjepa.recipes import load_recipe
from seqjepa.report.cells import Cell, beside_published, measured, of_runs, published_cell
from seqjepa.report.details import standardised
from seqjepa.report.groups import Group, at, by_data, conditioning, groups_of, label, resolution
from seqjepa.report.match import differences, has_networks_of_table_6, is_on_set_of, is_row_of, trained_samples
from seqjepa.report.measures import Measure, measure_of
from seqjepa.report.runs import RunRecord

__all__ = ["Cell", "Table", "build_tables"]


def build_tables(records: Sequence[RunRecord]) -> list[Table]:
    """Tables 1–12, the poster's, Figures 8–11 as tables, all whole; then those on other data, and of other runs."""
    groups = groups_of(record for record in records if record.trained)
    return [*(_published_table(layout, groups) for layout in LAYOUTS), *own_tables(groups)]


def _published_table(layout: Layout, groups: Sequence[Group]) -> Table:
    """Every published value of one table, and ours where there is a run of it."""

    def cell(row: Published) -> Cell:
        return counted_cell(row, groups) if row.source == COSTS_SOURCE else beside_published(row, beside(row, groups))

    return arrange(layout, of_source(layout.source), cell)


Labels = tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """labels of rows are text, one for each of `heads`; cells one for each of `columns`, in its unit.

    key      "table-1" …; unique in a report
    dataset  what ours was measured on, in a table without published values; "" beside those
    better   of each column, whether more or less is better; () if that is not said
    """

    key: str
    title: str
    heads: tuple[str, ...]
    columns: tuple[str, ...]
    units: tuple[str, ...]
    rows: tuple[tuple[Labels, tuple[Cell, ...]], ...]
    notes: tuple[str, ...] = ()
    dataset: str = ""
    better: tuple[Direction, ...] = ()

    @property
    def directions(self) -> tuple[Direction, ...]:
        """`better` of every column."""
        return self.better or ("",) * len(self.columns)

    @property
    def cells(self) -> tuple[Cell, ...]:
        """Of all rows, row by row."""
        return tuple(cell for _, cells in self.rows for cell in cells)


def arrange(
    layout: Layout, values: Iterable[Published], cell_of: Callable[[Published], Cell], *, sparse: bool = False
) -> Table:
    """Values in the form of a table. sparse: without the rows and columns in which nothing was measured."""
    found: dict[Labels, dict[str, Cell]] = {}
    units: dict[str, str] = {}
    directions: dict[str, Direction] = {}
    for value in values:
        cell = cell_of(value)
        if sparse and cell.empty:
            continue
        heading = layout.heading(value)
        units.setdefault(heading, PAPER_METRICS[value.metric][1])
        directions.setdefault(heading, measure_of(value).better)
        found.setdefault(layout.labels(value), {})[heading] = cell
    rows = tuple((labels, tuple(cells.get(column, Cell()) for column in units)) for labels, cells in found.items())
    heads = tuple(HEADS[field] for field in layout.rows)
    columns, shown = tuple(units), tuple(units.values())
    better = tuple(directions.values())
    return Table(layout.key, layout.title, heads, columns, shown, rows, layout.notes, better=better)


def beside(row: Published, groups: Iterable[Group]) -> Group | None:
    """The runs that stand beside a published value: on its data. None: there are none."""
    return nearest(row, (group for group in groups if is_on_set_of(group.runs[0], row)))


def nearest(row: Published, groups: Iterable[Group]) -> Group | None:
    """Of the runs that are that row, on whatever data, those nearest to the paper's scale. None: there are none."""
    measure = measure_of(row)
    fitting = [group for group in groups if is_row_of(group.runs[0], row) and measured(group, measure)]
    return max(fitting, key=lambda group: _scale(group, row), default=None)


def _scale(group: Group, row: Published) -> tuple[float, ...]:
    """For comparing: the paper's scale, its fidelity, then epochs done, samples, resolution, width, seeds."""
    run = group.runs[0]
    return (
        not differences(run, row),
        run.config.fidelity == "paper",
        run.epochs_done,
        trained_samples(run),
        resolution(run),
        run.config.model.width,
        len(group.runs),
    )


COSTS_SOURCE = "Table 6"


def counted_cell(row: Published, groups: Sequence[Group]) -> Cell:
    """A value of Table 6 with ours. MACs need no data: a run with the paper's networks, of which an evaluation counted
    them at some size, has them at every size."""
    if group := beside(row, groups):
        return beside_published(row, group)
    alone = published_cell(row)
    fitting = (g for g in groups if has_networks_of_table_6(g.runs[0]) and at(g.runs[0].trained, "costs", "macs_g"))
    group = next((g for g in fitting if row.m_val is None or g.config.method == "seq_jepa"), None)
    if group is None or row.resolution is None:
        return alone
    run = group.runs[0]
    said = f"the networks of run {run.name} ({group.label}), on views of {row.resolution} px whatever its data"
    value = _macs(row.resolution, row.m_val)
    return replace(alone, ours=value, seeds=1, features="counted, of one sample", run=said)


@cache
def _macs(pixels: int, m: int | None) -> float:
    """Of the networks of Table 6, which `has_networks_of_table_6` has compared; those of all such runs are alike."""
    return macs_of_networks(load_recipe("3die-rot-M3"), pixels, m)


ELSEWHERE = ("table-6", "table-11", "figure-11")
"""Not made anew: costs that depend on no data, other scales of the same rows, the same rows on another set."""
FORMS = tuple(layout for layout in LAYOUTS if layout.key not in ELSEWHERE)
REPEATED = "TinyImageNet"
"""Has the rows of CIFAR-100 once more."""
NOT_THE_PAPERS = "Not one of the paper's data sets, so no published values stand here."
SHOWN: tuple[tuple[str, str, Measure], ...] = (
    ("Top-1 of z", "%", Measure(("top1_z",), "z", percent=True)),
    ("Top-1 of z, whole image", "%", Measure(("top1_z_image",), "z of the whole image", percent=True)),
    *(
        (f"Top-1 of z_AGG, M_val {m}", "%", Measure(("top1_agg", str(m)), f"z_AGG, M_val {m}", percent=True))
        for m in (1, 3, 5)
    ),
    *(
        (f"R² {shown}", "R²", Measure((f"r2_{name}_avg",), "z, R² mean over dimensions (scikit-learn)"))
        for name, shown in {
            "rel_rot": "relative rotation", "indiv_rot": "individual rotation", "hue": "colour",
            "position": "position", "crop": "crop", "jitter": "jitter", "blur": "blur",
        }.items()
    ),
    ("MRR", "fraction", Measure(("retrieval", "mrr"), "val–val, context of one view")),
)  # fmt: skip
"""Columns of tables of other runs; those in which nothing was measured are left out."""


def own_tables(groups: Sequence[Group]) -> list[Table]:
    """For each set that is not the paper's its tables, then other runs; for the paper's own sets other runs alone."""
    tables: list[Table] = []
    for data, here in by_data(groups).items():
        if not here[0].runs[0].paper_set:
            own = [table for layout in FORMS if (table := _own_table(layout, data, here)).rows]
            tables += own
            shown = [group for group in here if _is_shown(group, here)]
        else:
            shown = [group for group in here if _is_beside_published(group, groups)]
        if rest := [group for group in here if group not in shown]:
            tables.append(_other_runs(data, rest))
    return tables


def _own_table(layout: Layout, data: str, groups: Sequence[Group]) -> Table:
    """The paper's form, filled by runs on `data`; without rows if none is of it."""

    def cell(row: Published) -> Cell:
        return _own_cell(row, nearest(row, groups))

    unnamed = replace(layout, rows=_but_dataset(layout.rows), columns=_but_dataset(layout.columns))
    table = arrange(unnamed, _rows_of(layout), cell, sparse=True)
    key, title = f"{_slug(data)}-{layout.key}", f"Ours on {data}, in the form of {layout.source}"
    return replace(table, key=key, title=title, notes=(NOT_THE_PAPERS, *layout.own_notes), dataset=data)


def _but_dataset(fields: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(field for field in fields if field != "dataset")


def _rows_of(layout: Layout) -> list[Published]:
    return [row for row in of_source(layout.source) if row.dataset != REPEATED]


def _own_cell(row: Published, group: Group | None) -> Cell:
    if group is None:
        return Cell()
    measure = measure_of(row)
    scale = "; ".join(differences(group.runs[0], row))
    return of_runs(measured(group, measure), measure, f"not the recipe's: {scale}" if scale else "")


def _is_shown(group: Group, here: Sequence[Group]) -> bool:
    """Whether a table of the paper's form shows it; a map over M_tr and M_val alone does not say enough."""
    rows = (row for layout in FORMS if not layout.key.startswith("figure") for row in _rows_of(layout))
    return any(is_row_of(group.runs[0], row) and nearest(row, here) is group for row in rows)


def _is_beside_published(group: Group, groups: Sequence[Group]) -> bool:
    layouts = (layout for layout in LAYOUTS if not layout.key.startswith(("figure", "table-6")))
    rows = (row for layout in layouts for row in of_source(layout.source))
    return any(is_row_of(group.runs[0], row) and beside(row, groups) is group for row in rows)


def _other_runs(data: str, groups: Sequence[Group]) -> Table:
    """What was measured of runs that are no row of a table, or not the one nearest to the paper's scale."""
    shown = [column for column in SHOWN if any(measured(group, column[2]) for group in groups)]
    rows = tuple((_other_labels(group), tuple(_other_cell(group, column[2]) for column in shown)) for group in groups)
    notes = ("Runs that are no row of the tables above, or of which another is nearer to the paper's scale.",)
    heads = ("Run", "Method", "Conditioned on", "Epochs")
    columns, units = tuple(column[0] for column in shown), tuple(column[1] for column in shown)
    better: tuple[Direction, ...] = tuple(column[2].better for column in shown)
    title = f"Other runs on {data}"
    return Table(f"{_slug(data)}-other", title, heads, columns, units, rows, notes, dataset=data, better=better)


def _other_labels(group: Group) -> tuple[str, ...]:
    config = group.config
    names = ", ".join(run.name for run in group.runs)
    return names, label(config), conditioning(config) or "nothing", str(config.optim.epochs)


def _other_cell(group: Group, measure: Measure) -> Cell:
    runs = measured(group, measure)
    if not runs:
        return Cell()
    model = f"backbone {group.config.model.backbone} × {group.config.model.width:g}"
    not_plain = ".".join(measure.path) in standardised(runs[0].trained)
    return of_runs(runs, measure, f"{model}; linear regressors standardised (paper plain)" if not_plain else model)


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
