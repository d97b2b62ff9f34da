"""Table 6: multiply–accumulates, as a run's evaluation counted them, else counted here on its networks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache

from seqjepa.evaluate.costs import macs_of_networks
from seqjepa.recipes import load_recipe
from seqjepa.report.cells import Cell, beside_published, published_cell
from seqjepa.report.choice import beside
from seqjepa.report.matching import has_networks_of_table_6
from seqjepa.report.published import Published
from seqjepa.report.run_groups import Group, at

SOURCE = "Table 6"


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
