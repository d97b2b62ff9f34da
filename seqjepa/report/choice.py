"""Which of several runs stands in a row: those nearest to the paper's scale."""

from __future__ import annotations

from collections.abc import Iterable

from seqjepa.report.cells import measured
from seqjepa.report.matching import differences, is_on_set_of, is_row_of, trained_samples
from seqjepa.report.measures import measure_of
from seqjepa.report.published import Published
from seqjepa.report.run_groups import Group, resolution


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
