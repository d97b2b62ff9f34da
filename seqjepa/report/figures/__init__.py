"""All figures of a report: the paper's, the maps together, then those that the paper does not have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from seqjepa.paper.figures import HEAT_MAPS, UMAP_CASES
from seqjepa.report.figures.accuracy import accuracy_vs_r2, heat_map
from seqjepa.report.figures.drawing import Figure
from seqjepa.report.figures.features import neighbours, umap_figure
from seqjepa.report.figures.runs import checkpoint_curves, class_by_class, run_curves
from seqjepa.report.figures.views import own_paths, path_figure, rollout_curve, scaling, transfer
from seqjepa.report.groups import Group, groups_of
from seqjepa.report.runs import RunRecord


def build_figures(records: Sequence[RunRecord]) -> list[Figure]:
    """Figures 3 to 15, rollouts, accuracy class by class, scores over steps, and curves of
    training.

    Published values are drawn whatever runs there are, but for runs on own data alone. Raises FormatError for arrays
    beside a run that cannot be read.
    """
    groups = groups_of(records)
    own = [group for group in groups if group.is_own]
    others = [group for group in groups if not group.is_own]
    ours = [rollout_curve(groups), class_by_class(groups), checkpoint_curves(groups), *run_curves(groups)]
    if own and not others:
        return [*_of_own_data(own), *map(_without_the_paper, ours)]
    return [
        accuracy_vs_r2(others),
        neighbours("figure-4", others),
        *(umap_figure(case, others) for case in UMAP_CASES),
        path_figure(others),
        scaling(others),
        *(heat_map(spec, others) for spec in HEAT_MAPS),
        transfer(others),
        *_of_own_data(own),
        *ours,
    ]


def _of_own_data(groups: Sequence[Group]) -> list[Figure]:
    """Paths and nearest neighbours of runs on data of none of the paper's kinds, where there are any."""
    return [figure for figure in (own_paths(groups), neighbours("neighbours", groups)) if figure.panels]


def _without_the_paper(figure: Figure) -> Figure:
    """Grey lines, which elsewhere are the paper's, are what chance gives."""
    rows = [tuple("chance" if value == "paper" else value for value in row) for row in figure.rows]
    return replace(figure, caption=figure.caption.replace(" The paper has no such figure.", ""), rows=rows)
