"""One cell of a table: the published value, ours, and how ours came about."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import mean, stdev

from seqjepa.evaluate.results import differently_measured, few_objects, precision_of
from seqjepa.paper.footnotes import numbers_for
from seqjepa.paper.published import Published
from seqjepa.report.groups import Group, at, conditioning, resolution
from seqjepa.report.match import differences
from seqjepa.report.measures import Measure, measure_of
from seqjepa.report.runs import RunRecord

PRINTED = {"R2_indiv_rot_ood": 3}
"""Digits after the point, by metric; Figures 8 to 11 are read to one."""


@dataclass(frozen=True)
class Cell:
    """Numbers in the column's unit; None, 0 or "" for what was not published or not measured.

    std        of the sample of `seeds` runs; None for one
    low, high  95 % bootstrap interval over validation samples; None for several seeds, whose spread is std
    features   what ours was read from: z, z_AGG with M_val, which definition of R²
    run        of what: data, resolution, M_tr, epochs, fidelity, seeds, runs
    mark       in what ours is not at the paper's scale, beside a published value
    footnotes  numbers of the inconsistencies of the paper's own numbers that concern the published value
    floor      the same of the untrained weights of these runs, where it was measured as ours was
    printed    digits after the point that the paper prints at least; None: as many as are usual for the unit
    """

    published: float | None = None
    published_std: float | None = None
    ours: float | None = None
    std: float | None = None
    low: float | None = None
    high: float | None = None
    seeds: int = 0
    features: str = ""
    run: str = ""
    mark: str = ""
    footnotes: tuple[int, ...] = ()
    printed: int | None = None
    floor: float | None = None

    @property
    def difference(self) -> float | None:
        """Ours less the paper's."""
        return None if self.ours is None or self.published is None else self.ours - self.published

    @property
    def gain(self) -> float | None:
        """Ours less that of the untrained weights."""
        return None if self.ours is None or self.floor is None else self.ours - self.floor

    @property
    def protocol(self) -> str:
        """How ours came about, in one line."""
        scale = f"not at the paper's scale: {self.mark}" if self.mark else ""
        return "; ".join(part for part in (self.features, self.run, scale) if part)

    @property
    def empty(self) -> bool:
        return self.published is None and self.ours is None


def published_cell(row: Published) -> Cell:
    """Nothing of ours."""
    printed = 1 if row.source.startswith("Figure") else PRINTED.get(row.metric)
    return Cell(published=row.value, published_std=row.std, footnotes=numbers_for(row), printed=printed)


def beside_published(row: Published, group: Group | None) -> Cell:
    """A published value with the number of `group`, if it has that."""
    alone = published_cell(row)
    if group is None or not (runs := measured(group, measure_of(row))):
        return alone
    ours = of_runs(runs, measure_of(row))
    mark = "; ".join(dict.fromkeys(said for run in runs for said in differences(run, row)))
    return replace(
        ours, published=row.value, published_std=row.std, mark=mark, footnotes=alone.footnotes, printed=alone.printed
    )


def of_runs(runs: Sequence[RunRecord], measure: Measure, scale: str = "") -> Cell:
    """Ours alone: the mean over runs that all have the number. scale: what more is to be said of the runs."""
    values = [value for run in runs if (value := measure.read(run.trained)) is not None]
    several = len(values) > 1
    low, high = (None, None) if several else measure.interval(runs[0].trained) or (None, None)
    return Cell(
        ours=mean(values),
        std=stdev(values) if several else None,
        low=low,
        high=high,
        seeds=len(values),
        features=measure.what,
        run=_run_line(runs, measure, scale),
        floor=floor_of(runs, measure),
    )


def floor_of(runs: Sequence[RunRecord], measure: Measure) -> float | None:
    """The mean over the runs' untrained weights; None where none was measured as the trained ones were, and of costs,
    which are the same."""
    key = ".".join(measure.path)
    alike = [run for run in runs if not differently_measured(dict(run.results), key)]
    found = [value for run in alike if (value := measure.read(run.untrained)) is not None]
    return mean(found) if found and measure.path[0] != "costs" else None


def measured(group: Group, measure: Measure) -> list[RunRecord]:
    """Runs of a group that have the number, one of each seed."""
    by_seed: dict[int, RunRecord] = {}
    for run in group.runs:
        if measure.read(run.trained) is not None:
            by_seed.setdefault(run.config.seed, run)
    return list(by_seed.values())


def _run_line(runs: Sequence[RunRecord], measure: Measure, scale: str) -> str:
    """What runs are in one line, without what was read from them."""
    run, account, config = runs[0], runs[0].protocol, runs[0].config
    device = at(run.trained, "costs", "device") if measure.path[0] == "costs" else None
    pixels, plural = f"{resolution(run)} px", "s" if len(runs) > 1 else ""
    parts = [
        run.dataset,
        f"{pixels}, patches of {config.data.patch} px" if config.data.patch else pixels,
        f"M_tr {config.data.context}, conditioned on {conditioning(config) or 'nothing'}",
        f"{config.optim.epochs} epochs, fidelity {config.fidelity}",
        f"{account['val_samples']:,} validation samples" if "val_samples" in account else "",
        str(device or ""),
        f"OOD set {account['ood']}" if measure.path[0] == "ood" and "ood" in account else "",
        scale,
        *(_measurement(runs, measure) if measure.path[0] != "costs" else ()),
        f"seed{plural} {', '.join(str(run.config.seed) for run in runs)}",
        f"run{plural} {', '.join(run.name for run in runs)}",
    ]
    return "; ".join(part for part in parts if part)


def _measurement(runs: Sequence[RunRecord], measure: Measure) -> Iterator[str]:
    """What more is to be known of how a number was measured; "" for nothing."""
    yield precision_of(runs[0].protocol)
    yield few_objects(dict(runs[0].protocol))
    yield _no_floor(runs, measure)


def _no_floor(runs: Sequence[RunRecord], measure: Measure) -> str:
    """Why untrained weights that were measured stand beside nothing; "" where they stand or were not measured."""
    key, both = ".".join(measure.path), [run for run in runs if run.untrained]
    found = dict.fromkeys(part for run in both for part in differently_measured(dict(run.results), key))
    return f"untrained weights measured differently ({', '.join(found)})" if found else ""
