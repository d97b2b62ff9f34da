"""One cell of a table: the published value, ours, how ours came about, and all of them as text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from seqjepa.evaluate.results import differently_measured, few_objects, few_steps, precision_of
from seqjepa.paper.measures import Measure, measure_of, value_at
from seqjepa.paper.published import Published, numbers_for
from seqjepa.report.groups import Group, Mean, conditioning, resolution
from seqjepa.report.match import scale_differences
from seqjepa.report.runs import RunRecord

NOTHING = "–"
DIGITS = {"%": 2, "points": 2, "R²": 3, "fraction": 3, "h": 1, "GMAC": 2}
"""Digits after the point of our numbers, by unit; of units that are not listed 3."""
LEAST_DIGITS = {"R²": 2}
"""Digits that the paper prints at least, where that is fewer than ours."""
LEAST_DIGITS_OF = {"R2_indiv_rot_ood": 3}
"""Likewise by metric; values of Figures 8 to 11 are read to one digit."""


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
    floored    of how many of the seeds that is
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
    floored: int = 0

    @property
    def difference(self) -> float | None:
        """Ours less the paper's."""
        return None if self.ours is None or self.published is None else self.ours - self.published

    @property
    def gain(self) -> float | None:
        """Ours less that of the untrained weights; None where that is of fewer seeds."""
        if self.ours is None or self.floor is None or self.floored < self.seeds:
            return None
        return self.ours - self.floor

    @property
    def protocol(self) -> str:
        """How ours came about, in one line."""
        scale = f"not at the paper's scale: {self.mark}" if self.mark else ""
        return "; ".join(part for part in (self.features, self.run, scale) if part)

    @property
    def empty(self) -> bool:
        return self.published is None and self.ours is None

    def text(self, unit: str) -> CellText:
        """The numbers as they are shown, alike in every form; `unit` is the column's."""
        digits = DIGITS.get(unit, 3)
        several = "" if self.std is None else f" ± {signed(self.std, digits)}"
        interval = self.low is not None and self.high is not None
        untrained = f"untrained {signed(self.floor, digits)}{some_of(self.floored, self.seeds)}"
        return CellText(
            ours=signed(self.ours, digits) + several or NOTHING,
            interval=f"[{signed(self.low, digits)}, {signed(self.high, digits)}]" if interval else "",
            published=self._published_text(unit, digits),
            difference=signed(self.difference, digits, "+"),
            floor="" if self.floor is None else untrained,
            gain=signed(self.gain, digits, "+"),
        )

    def _published_text(self, unit: str, digits: int) -> str:
        """As printed, and to no fewer digits than are usual."""
        if self.published is None:
            return ""
        usual = LEAST_DIGITS.get(unit, digits) if self.printed is None else self.printed
        spread = ""
        if self.published_std is not None:
            spread = f" ± {_printed(self.published_std, 2 if unit == 'R²' else 1)}"
        return _printed(self.published, usual) + spread


@dataclass(frozen=True)
class CellText:
    """Numbers of a cell as text; "" where there is none.

    ours        "84.21 ± 0.30"; a dash where nothing was measured
    interval    "[83.90, 84.60]"
    published   as printed: "86.14", "0.71 ± 0.02"
    difference  "+0.31"
    floor       "untrained 43.10";  gain: "+41.11"
    """

    ours: str
    interval: str
    published: str
    difference: str
    floor: str
    gain: str


def signed(value: float | None, digits: int, sign: str = "") -> str:
    """ "−0.25", with a true minus; "" for None."""
    return "" if value is None else f"{value:{sign}.{digits}f}".replace("-", "−")


def published_cell(row: Published) -> Cell:
    """Nothing of ours."""
    printed = 1 if row.source.startswith("Figure") else LEAST_DIGITS_OF.get(row.metric)
    return Cell(published=row.value, published_std=row.std, footnotes=numbers_for(row), printed=printed)


def beside_published(row: Published, group: Group | None) -> Cell:
    """A published value with the number of `group`, if it has that."""
    alone, measure = published_cell(row), measure_of(row)
    if group is None or not (runs := group.measured(measure)):
        return alone
    mark = "; ".join(dict.fromkeys(text for run in runs for text in scale_differences(run, row)))
    theirs = {name: getattr(alone, name) for name in ("published", "published_std", "footnotes", "printed")}
    return replace(of_runs(runs, measure), mark=mark, **theirs)


def of_runs(runs: Sequence[RunRecord], measure: Measure, scale: str = "") -> Cell:
    """Ours alone: the mean over runs that all have the number. scale: what else there is to know of the runs."""
    ours = Mean.of([value for run in runs if (value := measure.read(run.trained)) is not None])
    assert ours is not None, "asked for where runs have the number"
    # Of untrained weights that were measured as the trained ones were; none of costs, which are the same.
    alike = [] if measure.is_cost else [run for run in runs if not differently_measured(dict(run.results), measure.key)]
    floor = Mean.of([value for run in alike if (value := measure.read(run.untrained)) is not None])
    low, high = (None, None) if ours.seeds > 1 else measure.interval(runs[0].trained) or (None, None)
    return Cell(
        ours=ours.value,
        std=ours.std,
        low=low,
        high=high,
        seeds=ours.seeds,
        features=measure.what,
        run=_run_line(runs, measure, scale),
        floor=floor and floor.value,
        floored=floor.seeds if floor else 0,
    )


def some_of(seeds: int, many: int) -> str:
    """ " (1 of 3 seeds)" behind a mean that stands beside one of `many`; "" where it is of all of them."""
    return f" ({seeds} of {many} seeds)" if seeds < many else ""


def _run_line(runs: Sequence[RunRecord], measure: Measure, scale: str) -> str:
    """What runs are in one line, without what was read from them."""
    run, protocol, config = runs[0], runs[0].protocol, runs[0].config
    plain = run.is_own and config.fidelity == "paper"
    pixels, plural = f"{resolution(run)} px", "s" if len(runs) > 1 else ""
    parts = [
        run.dataset,
        f"{pixels}, patches of {config.data.patch} px" if config.data.patch else pixels,
        f"M_tr {config.data.context}, conditioned on {conditioning(config) or 'nothing'}",
        f"{run.epochs_said} epochs" + ("" if plain else f", fidelity {config.fidelity}"),
        f"{protocol['val_samples']:,} validation samples" if "val_samples" in protocol else "",
        str(value_at(run.trained, "costs.device") or "") if measure.is_cost else "",
        f"OOD set {protocol['ood']}" if measure.key.startswith("ood.") and "ood" in protocol else "",
        scale,
        *(_measurement(runs, measure) if not measure.is_cost else ()),
        f"seed{plural} {', '.join(str(run.config.seed) for run in runs)}",
        f"run{plural} {', '.join(run.name for run in runs)}",
    ]
    return "; ".join(part for part in parts if part)


def _measurement(runs: Sequence[RunRecord], measure: Measure) -> Iterator[str]:
    """Precision, a warning of few objects, and why untrained weights that were measured stand beside nothing; "" for
    what is as usual."""
    yield precision_of(runs[0].protocol)
    yield few_objects(dict(runs[0].protocol))
    yield few_steps(dict(runs[0].protocol))
    both = [run for run in runs if run.untrained]
    found = dict.fromkeys(part for run in both for part in differently_measured(dict(run.results), measure.key))
    yield f"untrained weights measured differently ({', '.join(found)})" if found else ""


def _printed(value: float, least: int) -> str:
    """As many digits as the value has, and at least `least`."""
    digits = len(repr(value).partition(".")[2])
    return signed(value, max(digits, least))
