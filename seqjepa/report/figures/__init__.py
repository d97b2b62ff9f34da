"""All figures of a report: the paper's, the maps together, then those that the paper does not have."""

from __future__ import annotations

from collections.abc import Sequence

from seqjepa.report.figures.accuracy import accuracy_vs_r2, heat_maps
from seqjepa.report.figures.drawing import Figure
from seqjepa.report.figures.features import retrieval_rows, umap_figures
from seqjepa.report.figures.runs import class_by_class, run_curves
from seqjepa.report.figures.views import path_figure, rollout_curve, scaling, transfer
from seqjepa.report.groups import groups_of
from seqjepa.report.runs import RunRecord


def build_figures(records: Sequence[RunRecord]) -> list[Figure]:
    """Figures 3 to 15, rollouts, accuracy class by class, and curves of training.

    Published values are drawn whatever runs there are. Raises FormatError for arrays beside a run that cannot be read.
    """
    groups = groups_of(records)
    return [
        accuracy_vs_r2(groups),
        retrieval_rows(groups),
        *umap_figures(groups),
        path_figure(groups),
        scaling(groups),
        *heat_maps(groups),
        transfer(groups),
        rollout_curve(groups),
        class_by_class(groups),
        *run_curves(groups),
    ]
