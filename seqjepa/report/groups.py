"""Runs that differ in nothing but their seed stand together: one name, mean ± sample standard deviation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import mean, stdev
from typing import Any

from seqjepa.config import RunConfig
from seqjepa.evaluate.protocol import measured_as
from seqjepa.paper.measures import Measure, value_at
from seqjepa.recipes import flatten
from seqjepa.report.labels import data_label, home, is_whole, label
from seqjepa.report.runs import RunRecord

TABLES_M_VAL = 5
SEEDLESS = ("name", "seed", "train.", "data.set")
"""Settings that may differ within a group."""


@dataclass(frozen=True)
class Mean:
    """Over seeds. std: of the sample; None for one seed."""

    value: float
    std: float | None
    seeds: int

    def times(self, factor: float) -> Mean:
        """In other units, such as percent."""
        return Mean(factor * self.value, None if self.std is None else factor * self.std, self.seeds)


@dataclass(frozen=True)
class Group:
    """Runs of one kind. label: what tells it from the other groups in the same figure.

    A copy of a run is no second seed: numbers are of the first run of each seed that has them.
    """

    label: str
    runs: tuple[RunRecord, ...]

    @property
    def config(self) -> RunConfig:
        return self.runs[0].config

    @property
    def data(self) -> str:
        return data_label(self.runs[0])

    @property
    def home(self) -> str:
        """The paper's data set whose published numbers these may stand among; "" for other data or resolution."""
        return home(self.runs[0])

    @property
    def seeds(self) -> int:
        return len({run.config.seed for run in self.runs})

    def first_of_each_seed(self, read: Callable[[RunRecord], float | None]) -> list[tuple[RunRecord, float]]:
        """Runs, one of each seed, with what is read from them; those from which nothing is read are passed over."""
        found: dict[int, tuple[RunRecord, float]] = {}
        for run in self.runs:
            if (value := read(run)) is not None:
                found.setdefault(run.config.seed, (run, value))
        return list(found.values())

    def mean_of(self, read: Callable[[RunRecord], float | None]) -> Mean | None:
        """Of what is read from the first run of each seed that has it; None if no run has it."""
        return mean_of(value for _, value in self.first_of_each_seed(read))

    def mean(self, key: str, weights: str = "trained") -> Mean | None:
        """Of the numbers under a dotted key of results.json."""
        return self.mean_of(lambda run: value_at(run.results, f"{weights}.{key}"))

    def measured(self, measure: Measure) -> list[RunRecord]:
        """Runs that have the number, one of each seed."""
        return [run for run, _ in self.first_of_each_seed(lambda run: measure.read(run.trained))]

    def curve(self, key: str, weights: str = "trained") -> dict[int, Mean]:
        """Scores by size ({"1": 0.5, …} under `key`), in order of size."""
        found = [value_at(run.results, f"{weights}.{key}") or {} for run in self.runs]
        sizes = sorted({int(size) for scores in found for size in scores})
        means = {m: self.mean(f"{key}.{m}", weights) for m in sizes}
        return {m: mean for m, mean in means.items() if mean}


def groups_of(records: Iterable[RunRecord]) -> list[Group]:
    """Groups in the order of their first run. Names that two would share are followed by the runs' own."""
    by_kind: dict[tuple[object, ...], list[RunRecord]] = {}
    for record in records:
        by_kind.setdefault(_kind(record), []).append(record)
    groups = [Group(label(runs[0].config), tuple(runs)) for runs in by_kind.values()]
    labels = [(group.label, group.data) for group in groups]
    return [
        replace(group, label=f"{group.label} ({group.runs[0].name})") if labels.count(key) > 1 else group
        for group, key in zip(groups, labels, strict=True)
    ]


def families(groups: Iterable[Group], *differing: str) -> list[list[Group]]:
    """seq-JEPA as published, without ablations: groups that differ in the settings `differing` alone ("data.context").

    They are told what is usual for their kind of data, unless "data.action" is one of `differing`.

    Of the same data, families of one member are left out where there is a larger one: those are ablations.
    """
    found: dict[tuple[object, ...], list[Group]] = {}
    for group in groups:
        if is_whole(group.config, whatever_told="data.action" in differing):
            found.setdefault(_kind(group.runs[0], *differing), []).append(group)
    largest: dict[str, int] = {}
    for family in found.values():
        largest[family[0].data] = max(len(family), largest.get(family[0].data, 0))
    return [family for family in found.values() if len(family) > 1 or largest[family[0].data] == 1]


def by_data(groups: Sequence[Group]) -> dict[str, list[Group]]:
    """Groups by the data that they were evaluated on."""
    found: dict[str, list[Group]] = {}
    for group in groups:
        found.setdefault(group.data, []).append(group)
    return found


def mean_of(values: Iterable[float]) -> Mean | None:
    found = list(values)
    return Mean(mean(found), stdev(found) if len(found) > 1 else None, len(found)) if found else None


def accuracy(group: Group, weights: str = "trained") -> tuple[int | None, Mean] | None:
    """Top-1 as the paper's tables choose it, with its M_val: of z_AGG at 5 views or the most below, else of z."""
    if curve := group.curve("top1_agg", weights):
        m_val = max((m for m in curve if m <= TABLES_M_VAL), default=min(curve))
        return m_val, curve[m_val]
    of_z = group.mean_of(lambda run: _top1_of_z(run.results.get(weights, {})))
    return (None, of_z) if of_z else None


def _top1_of_z(scores: Mapping[str, Any]) -> float | None:
    return scores.get("top1_z", scores.get("top1_z_image"))


def _kind(record: RunRecord, *differing: str) -> tuple[object, ...]:
    """What runs of a group share: their data, how far they were trained and how they were measured, and every setting
    except seeds, and except those named."""
    flat = flatten(record.config.model_dump())
    measured = (record.paper_set, record.epochs_done, measured_as(record.protocol))
    skipped = (*SEEDLESS, *differing)
    kept = tuple((key, str(value)) for key, value in sorted(flat.items()) if not key.startswith(skipped))
    return (data_label(record), *measured, *kept)
