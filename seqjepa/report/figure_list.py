"""All figures of a report: the paper's, the maps together, then those that the paper does not have."""

from __future__ import annotations

from collections.abc import Sequence

from seqjepa.report.accuracy_vs_r2 import accuracy_vs_r2
from seqjepa.report.class_by_class import class_by_class
from seqjepa.report.figure import Figure
from seqjepa.report.heat_maps import heat_maps
from seqjepa.report.path_figure import path_figure
from seqjepa.report.records import RunRecord
from seqjepa.report.retrieval_rows import retrieval_rows
from seqjepa.report.rollout_curve import rollout_curve
from seqjepa.report.run_curves import run_curves
from seqjepa.report.run_groups import groups_of
from seqjepa.report.scaling import scaling
from seqjepa.report.transfer import transfer
from seqjepa.report.umap_figures import umap_figures


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
