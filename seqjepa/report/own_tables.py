"""Our numbers without published ones beside them: runs on other data in the paper's forms, and runs that are no row."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from seqjepa.evaluate.direction import Direction
from seqjepa.report.cells import Cell, measured, of_runs
from seqjepa.report.choice import beside, nearest
from seqjepa.report.layouts import LAYOUTS, Layout
from seqjepa.report.matching import differences, is_row_of
from seqjepa.report.measures import Measure, measure_of
from seqjepa.report.numbers_table import standardised
from seqjepa.report.published import Published, of_source
from seqjepa.report.run_groups import Group, by_data, conditioning, label
from seqjepa.report.table import Table, arrange

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
    rows = tuple((_labels(group), tuple(_cell(group, column[2]) for column in shown)) for group in groups)
    notes = ("Runs that are no row of the tables above, or of which another is nearer to the paper's scale.",)
    heads = ("Run", "Method", "Conditioned on", "Epochs")
    columns, units = tuple(column[0] for column in shown), tuple(column[1] for column in shown)
    better: tuple[Direction, ...] = tuple(column[2].better for column in shown)
    title = f"Other runs on {data}"
    return Table(f"{_slug(data)}-other", title, heads, columns, units, rows, notes, dataset=data, better=better)


def _labels(group: Group) -> tuple[str, ...]:
    config = group.config
    names = ", ".join(run.name for run in group.runs)
    return names, label(config), conditioning(config) or "nothing", str(config.optim.epochs)


def _cell(group: Group, measure: Measure) -> Cell:
    runs = measured(group, measure)
    if not runs:
        return Cell()
    model = f"backbone {group.config.model.backbone} × {group.config.model.width:g}"
    not_plain = ".".join(measure.path) in standardised(runs[0].trained)
    return of_runs(runs, measure, f"{model}; linear regressors standardised (paper plain)" if not_plain else model)


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
