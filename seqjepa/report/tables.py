"""The paper's tables with our numbers beside the published ones, and tables of the same form for other data.

A run stands beside a published value if it is that row's method, conditioning and M_tr (matching.py) and was trained
and evaluated on the paper's own data; at a scale that is not the paper's with a mark. Runs on other data never stand
beside one. A run that is no row of any table is in a table of other runs, so that each is seen somewhere.
"""

from __future__ import annotations

from collections.abc import Sequence

from seqjepa.report.cells import Cell, beside_published
from seqjepa.report.choice import beside
from seqjepa.report.counted import SOURCE, counted_cell
from seqjepa.report.layouts import LAYOUTS, Layout
from seqjepa.report.own_tables import own_tables
from seqjepa.report.published import Published, of_source
from seqjepa.report.records import RunRecord
from seqjepa.report.run_groups import Group, groups_of
from seqjepa.report.table import Table, arrange

__all__ = ["Cell", "Table", "build_tables"]


def build_tables(records: Sequence[RunRecord]) -> list[Table]:
    """Tables 1–12, the poster's, Figures 8–11 as tables, all whole; then those on other data, and of other runs."""
    groups = groups_of(record for record in records if record.trained)
    return [*(_published_table(layout, groups) for layout in LAYOUTS), *own_tables(groups)]


def _published_table(layout: Layout, groups: Sequence[Group]) -> Table:
    """Every published value of one table, and ours where there is a run of it."""

    def cell(row: Published) -> Cell:
        return counted_cell(row, groups) if row.source == SOURCE else beside_published(row, beside(row, groups))

    return arrange(layout, of_source(layout.source), cell)
