"""The paper's tables with our numbers beside the published ones, and tables of our numbers alone.

A run stands beside a published value if it is that row's method, conditioning and M_tr (match.py) and was trained and
evaluated on the paper's own data; at a scale that is not the paper's with a mark. Runs on other data never stand
beside one: they have tables of the same form. A run that is no row of any table is in a table of other runs, so that
each is seen somewhere. Metrics that the paper does not have are in a table of their own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from string import ascii_lowercase

from seqjepa.evaluate.results import keyed_rows
from seqjepa.methods.flops import macs_of_networks
from seqjepa.models.timm_encoder import is_timm
from seqjepa.paper.measures import Measure, measure_of, value_at
from seqjepa.paper.metrics import ARROWS, METRICS, Direction, Metric, declared_metric
from seqjepa.paper.published import FOOTNOTES, Footnote, Published, of_source
from seqjepa.paper.tables import HEADS, LAYOUTS, PAPER_METRICS, TableLayout
from seqjepa.report.cells import NOTHING, Cell, beside_published, of_runs, published_cell
from seqjepa.report.groups import Group, Mean, aggregates, by_data, conditioning, encoder_words, groups_of, label
from seqjepa.report.match import (
    beside,
    has_networks_of_table_6,
    is_row_of,
    nearest_group,
    recipe_config,
    scale_differences,
)
from seqjepa.report.overview import standardised
from seqjepa.report.runs import RunRecord

MARK = "†"
MARKED = f"{MARK} not at the paper's scale"
LEGEND = (
    "Ours: ± sample standard deviation over seeds; [ ] 95 % bootstrap interval over validation samples. "
    f"Δ: ours less the paper's. ↑ more is better, ↓ less. Untrained: the same of the weights that the run began with. "
    f"{MARKED}. {NOTHING} not measured."
)
ELSEWHERE = ("table-6", "table-11", "figure-11")
"""Not made anew: costs that depend on no data, other scales of the same rows, the same rows on another set."""
FORMS = tuple(layout for layout in LAYOUTS if layout.key not in ELSEWHERE)
REPEATED = "TinyImageNet"
"""Has the rows of CIFAR-100 once more."""
NOT_THE_PAPERS = "Not one of the paper's data sets, so no published values stand here."
OTHER_RUNS = "Runs that are no row of the tables above, or of which another is nearer to the paper's scale."
OWN_LEGEND = (
    "± sample standard deviation over seeds; [ ] 95 % bootstrap interval over validation samples or sequences. ↑ more "
    "is better, ↓ less. Untrained: the same of the weights that the run began with. Blind: heads that are shown no "
    f"view and say the best constant. {NOTHING} not measured."
)
OWN_CURVES = ("r2_path.both", "rollout.mrr")
"""Numbers by size that tables of own data have beside those that have a column everywhere."""
COLUMN_SIZES = (1, 3, 5)
"""Views of which our own tables show numbers that are measured by size."""

Labels = tuple[str, ...]


@dataclass(frozen=True)
class TableColumn:
    """better: whether more or less is better; "" if that is not said."""

    name: str
    unit: str
    better: Direction = ""

    @property
    def heading(self) -> str:
        """The name with its unit where the name does not say it."""
        return self.name if self.unit in ("R²", "fraction", "") else f"{self.name} ({self.unit})"

    @property
    def marked_heading(self) -> str:
        """The heading with an arrow to what is better."""
        return f"{self.heading} {ARROWS[self.better]}".rstrip()


@dataclass(frozen=True)
class RunNote:
    """letter: as cells refer to it; text: what the runs are and what was read from them."""

    letter: str
    text: str


@dataclass(frozen=True)
class Table:
    """labels of rows are text, one for each of `heads`; cells one for each of `columns`, in its unit.

    key      "table-1" …; unique in a report
    dataset  what ours was measured on, in a table without published values; "" beside those
    """

    key: str
    title: str
    heads: tuple[str, ...]
    columns: tuple[TableColumn, ...]
    rows: tuple[tuple[Labels, tuple[Cell, ...]], ...]
    notes: tuple[str, ...] = ()
    dataset: str = ""

    @property
    def cells(self) -> tuple[Cell, ...]:
        """Of all rows, row by row."""
        return tuple(cell for _, cells in self.rows for cell in cells)

    @property
    def is_measured(self) -> bool:
        """Whether anything of ours is in it."""
        return any(cell.ours is not None for cell in self.cells)

    @property
    def run_notes(self) -> dict[tuple[str, str], RunNote]:
        """By run and mark of the cells, in the order in which they come."""
        read: dict[tuple[str, str], dict[str, None]] = {}
        for cell in self.cells:
            if cell.ours is not None:
                read.setdefault((cell.run, cell.mark), {})[cell.features] = None
        return {
            (run, mark): RunNote(_letter(k), _note(run, mark, features))
            for k, ((run, mark), features) in enumerate(read.items())
        }

    @property
    def footnotes(self) -> list[Footnote]:
        """Those that its cells refer to."""
        there = {n for cell in self.cells for n in cell.footnotes}
        return [note for note in FOOTNOTES if note.number in there]


def _note(run: str, mark: str, features: Iterable[str]) -> str:
    return f"{run}; read from {'; '.join(features)}." + (f" {MARKED}: {mark}." if mark else "")


def _letter(k: int) -> str:
    """a … z, aa, ab …"""
    first, last = divmod(k, 26)
    return (ascii_lowercase[first - 1] if first else "") + ascii_lowercase[last]


def build_tables(records: Sequence[RunRecord]) -> list[Table]:
    """Tables 1–12, the poster's, Figures 8–11 as tables, all whole; then those on other data, and of other runs.

    Of runs on own data alone: one for each set, and nothing of the paper.
    """
    groups = groups_of(record for record in records if record.trained)
    if groups and all(group.is_own for group in groups):
        return own_tables(groups)
    return [*(_published_table(layout, groups) for layout in LAYOUTS), *own_tables(groups)]


def arrange(
    layout: TableLayout, values: Iterable[Published], cell_of: Callable[[Published], Cell], *, sparse: bool = False
) -> Table:
    """Values in the form of a table. sparse: without the rows and columns in which nothing was measured."""
    found: dict[Labels, dict[str, Cell]] = {}
    columns: dict[str, TableColumn] = {}
    for value in values:
        cell = cell_of(value)
        if sparse and cell.empty:
            continue
        heading = layout.heading(value)
        columns.setdefault(heading, TableColumn(heading, PAPER_METRICS[value.metric][1], measure_of(value).better))
        found.setdefault(layout.labels(value), {})[heading] = cell
    rows = tuple((labels, tuple(cells.get(column, Cell()) for column in columns)) for labels, cells in found.items())
    heads = tuple(HEADS[field] for field in layout.rows)
    return Table(layout.key, layout.title, heads, tuple(columns.values()), rows, layout.notes)


def _published_table(layout: TableLayout, groups: Sequence[Group]) -> Table:
    """Every published value of one table, and ours where there is a run of it."""

    def cell(row: Published) -> Cell:
        group = beside(row, groups)
        return _counted_cell(row, groups) if group is None and not row.dataset else beside_published(row, group)

    return arrange(layout, of_source(layout.source), cell)


def _counted_cell(row: Published, groups: Sequence[Group]) -> Cell:
    """A value of Table 6 that no evaluation counted. MACs need no data: a run with the paper's networks, of which an
    evaluation counted them at some size, has them at every size."""
    alone = published_cell(row)
    fitting = (g for g in groups if has_networks_of_table_6(g.runs[0]) and value_at(g.runs[0].trained, "costs.macs_g"))
    group = next((g for g in fitting if row.m_val is None or aggregates(g.config)), None)
    if group is None or row.resolution is None:
        return alone
    run = f"the networks of run {group.runs[0].name} ({group.label}), on views of {row.resolution} px whatever its data"
    return replace(alone, ours=_macs(row.resolution, row.m_val), seeds=1, features=measure_of(row).what, run=run)


@cache
def _macs(pixels: int, m: int | None) -> float:
    """10⁹ MACs of the networks of Table 6, which are those of every run that `has_networks_of_table_6`."""
    return macs_of_networks(recipe_config("3die-rot-M3"), pixels, m)


def own_tables(groups: Sequence[Group]) -> list[Table]:
    """For each set that is not the paper's its tables, then other runs; for the paper's own sets other runs alone.

    For every set last the metrics that the paper does not have, of all its runs.
    """
    tables: list[Table] = []
    for data, everyone in by_data(groups).items():
        tables += _tables_of_own_data(data, [group for group in everyone if group.is_own])
        if not (here := [group for group in everyone if not group.is_own]):
            continue
        if not here[0].runs[0].paper_set:
            tables += [table for layout in FORMS if (table := _own_table(layout, data, here)).rows]
            shown = [group for group in here if _is_shown(group, here)]
        else:
            shown = [group for group in here if _is_beside_published(group, groups)]
        if rest := [group for group in here if group not in shown]:
            title = f"Other runs on {data}"
            tables.append(_table_of_runs("other", title, data, rest, _own_columns(own_table=False), OTHER_RUNS))
        title = f"Metrics that the paper does not have, on {data}"
        more = _table_of_runs("more", title, data, here, _own_columns(own_table=True), "")
        tables += [more] if more.columns else []
    return tables


def _tables_of_own_data(data: str, groups: Sequence[Group]) -> list[Table]:
    """All that was measured of runs on data of none of the paper's kinds; last, what heads reach that see no view."""
    if not groups:
        return []
    columns = _columns_of_own_data(groups)
    table = _table_of_runs("runs", f"Runs on {data}", data, groups, columns, "")
    blind = {measure.key: group.mean(measure.key, "trained.blind") for group in groups for _, measure in columns}
    shown = [measure for column, measure in columns if column in table.columns]
    if not any(blind.get(measure.key) for measure in shown):
        return [table]
    cells = tuple(_blind_cell(measure, blind.get(measure.key)) for measure in shown)
    row = ("blind", "heads that are shown no view", NOTHING, NOTHING)
    return [replace(table, rows=(*table.rows, (row, cells)))]


def _blind_cell(measure: Measure, mean: Mean | None) -> Cell:
    if mean is None:
        return Cell()
    return Cell(
        ours=mean.times(measure.factor).value, seeds=1, features="constants of training", run="no view is shown"
    )


def _columns_of_own_data(groups: Sequence[Group]) -> list[tuple[TableColumn, Measure]]:
    """Accuracies, every declared term and column, paths, retrieval and rollouts, then features by themselves."""
    found = _by_size(metric for metric in METRICS.values() if metric.column)
    declared = {metric.key: metric for group in groups for metric in _declared_metrics(group)}
    accuracies = sum(measure.key.startswith("top1") for _, measure in found)
    found[accuracies:accuracies] = [_own_column(metric, "") for metric in declared.values() if metric.column]
    found += [_own_column(METRICS[key], str(size)) for key in OWN_CURVES for size in COLUMN_SIZES]
    return found


def _declared_metrics(group: Group) -> Iterator[Metric]:
    run = group.runs[0]
    for key, _, _ in keyed_rows({"trained": dict(run.trained)}):
        if metric := declared_metric(key, run.protocol.get("targets")):
            yield metric


def _own_table(layout: TableLayout, data: str, groups: Sequence[Group]) -> Table:
    """The paper's form, filled by runs on `data`; without rows if none is of it."""

    def cell(row: Published) -> Cell:
        group, measure = nearest_group(row, groups), measure_of(row)
        if group is None:
            return Cell()
        scale = "; ".join(scale_differences(group.runs[0], row))
        return of_runs(group.measured(measure), measure, f"not the recipe's: {scale}" if scale else "")

    unnamed = replace(layout, rows=_but_dataset(layout.rows), columns=_but_dataset(layout.columns))
    table = arrange(unnamed, _rows_of(layout), cell, sparse=True)
    key, title = f"{_slug(data)}-{layout.key}", f"Ours on {data}, in the form of {layout.source}"
    return replace(table, key=key, title=title, notes=(NOT_THE_PAPERS, *layout.own_notes), dataset=data)


def _but_dataset(fields: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(field for field in fields if field != "dataset")


def _rows_of(layout: TableLayout) -> list[Published]:
    return [row for row in of_source(layout.source) if row.dataset != REPEATED]


def _is_shown(group: Group, here: Sequence[Group]) -> bool:
    """Whether a table of the paper's form shows it; a map over M_tr and M_val alone does not say enough."""
    rows = (row for layout in FORMS if not layout.key.startswith("figure") for row in _rows_of(layout))
    return any(is_row_of(group.runs[0], row) and nearest_group(row, here) is group for row in rows)


def _is_beside_published(group: Group, groups: Sequence[Group]) -> bool:
    layouts = (layout for layout in LAYOUTS if not layout.key.startswith(("figure", "table-6")))
    rows = (row for layout in layouts for row in of_source(layout.source))
    return any(is_row_of(group.runs[0], row) and beside(row, groups) is group for row in rows)


def _own_columns(*, own_table: bool) -> list[tuple[TableColumn, Measure]]:
    """Columns of our own tables, as the registry of metrics has them, with what stands in them."""
    return _by_size(metric for metric in METRICS.values() if metric.column and metric.own_table == own_table)


def _by_size(metrics: Iterable[Metric]) -> list[tuple[TableColumn, Measure]]:
    return [_own_column(metric, str(size)) for metric in metrics for size in (COLUMN_SIZES if metric.by_size else [""])]


def legend_of(tables: Sequence[Table]) -> str:
    """LEGEND, or what is of it where no table is the paper's or of its form."""
    own = tables and all(table.title.startswith("Runs on ") for table in tables)
    return OWN_LEGEND if own else LEGEND


def _own_column(metric: Metric, size: str) -> tuple[TableColumn, Measure]:
    measure = Measure(f"{metric.key}.{size}".rstrip("."), metric.features.format(size))
    name = metric.column.format(size) if metric.column else metric.label.format(size)
    return TableColumn(name, metric.scale.unit, metric.scale.better), measure


def _table_of_runs(
    key: str, title: str, data: str, groups: Sequence[Group], columns: list[tuple[TableColumn, Measure]], note: str
) -> Table:
    """A row for each group, without the columns in which nothing was measured."""
    shown = [(column, measure) for column, measure in columns if any(group.measured(measure) for group in groups)]
    rows = tuple((_run_labels(group), tuple(_own_cell(group, measure) for _, measure in shown)) for group in groups)
    heads, notes = ("Run", "Method", "Conditioned on", "Epochs"), (note,) if note else ()
    return Table(f"{_slug(data)}-{key}", title, heads, tuple(column for column, _ in shown), rows, notes, data)


def _run_labels(group: Group) -> Labels:
    config = group.config
    names = ", ".join(run.name for run in group.runs)
    return names, label(config), conditioning(config) or "nothing", group.runs[0].epochs_said


def _own_cell(group: Group, measure: Measure) -> Cell:
    runs = group.measured(measure)
    if not runs:
        return Cell()
    own = group.config.model
    model = f"backbone {', '.join(encoder_words(own)) if is_timm(own) else f'{own.backbone} × {own.width:g}'}"
    not_plain = measure.key in standardised(runs[0].trained)
    return of_runs(runs, measure, f"{model}; linear regressors standardised (paper plain)" if not_plain else model)


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
