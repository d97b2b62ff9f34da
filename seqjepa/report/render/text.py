"""Numbers of cells as text, alike in every form; and the notes under a table, which its cells refer to by letters."""

from __future__ import annotations

from dataclasses import dataclass
from string import ascii_lowercase

from seqjepa.paper.footnotes import FOOTNOTES, Footnote
from seqjepa.paper.metrics import ARROWS, Direction
from seqjepa.report.cells import Cell
from seqjepa.report.tables import Table

DIGITS = {"%": 2, "points": 2, "R²": 3, "fraction": 3, "h": 1, "GMAC": 2}
PRINTED = {"R²": 2}
"""Digits after the point that the paper prints at least, where that is fewer than ours."""
MARK = "†"
MARKED = f"{MARK} not at the paper's scale"
NOTHING = "–"
NOT_MEASURED = f"{NOTHING} not measured"
LEGEND = (
    "Ours: ± sample standard deviation over seeds; [ ] 95 % bootstrap interval over validation samples. "
    f"Δ: ours less the paper's. ↑ more is better, ↓ less. Untrained: the same of the weights that the run began with. "
    f"{MARKED}. {NOT_MEASURED}."
)


@dataclass(frozen=True)
class RunNote:
    """letter: as cells refer to it; text: what the runs are and what was read from them."""

    letter: str
    text: str


def number(value: float, unit: str, sign: str = "") -> str:
    """ "−0.198": with a true minus."""
    return f"{value:{sign}.{DIGITS[unit]}f}".replace("-", "−")


def published_text(cell: Cell, unit: str) -> str:
    """As printed: "86.14", "0.71 ± 0.02"; "" where nothing was."""
    if cell.published is None:
        return ""
    digits = 2 if unit == "R²" else 1
    spread = "" if cell.published_std is None else f" ± {_printed(cell.published_std, unit, least=digits)}"
    return _printed(cell.published, unit, cell.printed) + spread


def ours_text(cell: Cell, unit: str) -> str:
    """ "84.21 ± 0.30"; a dash where nothing was measured."""
    if cell.ours is None:
        return NOTHING
    return number(cell.ours, unit) + ("" if cell.std is None else f" ± {number(cell.std, unit)}")


def interval_text(cell: Cell, unit: str) -> str:
    """ "[83.90, 84.60]"; "" without one."""
    if cell.low is None or cell.high is None:
        return ""
    return f"[{number(cell.low, unit)}, {number(cell.high, unit)}]"


def difference_text(cell: Cell, unit: str) -> str:
    """ "+0.31"; "" where there is nothing to compare."""
    return "" if cell.difference is None else number(cell.difference, unit, "+")


def floor_text(cell: Cell, unit: str) -> str:
    """ "untrained 43.10"; "" where it was not measured."""
    return "" if cell.floor is None else f"untrained {number(cell.floor, unit)}"


def heading(column: str, unit: str, better: Direction = "") -> str:
    """A column's name with its unit where the name does not say it, and an arrow to what is better."""
    named = column if unit in ("R²", "fraction") else f"{column} ({unit})"
    return f"{named} {ARROWS[better]}".rstrip()


def is_measured(table: Table) -> bool:
    """Whether anything of ours is in it."""
    return any(cell.ours is not None for cell in table.cells)


def run_notes(table: Table) -> dict[tuple[str, str], RunNote]:
    """By run and mark of the cells, in the order in which they come."""
    read: dict[tuple[str, str], dict[str, None]] = {}
    for cell in table.cells:
        if cell.ours is not None:
            read.setdefault((cell.run, cell.mark), {})[cell.features] = None
    return {key: RunNote(_letter(k), _note(*key, list(features))) for k, (key, features) in enumerate(read.items())}


def footnotes_of(table: Table) -> list[Footnote]:
    """Those that its cells refer to."""
    there = {n for cell in table.cells for n in cell.footnotes}
    return [note for note in FOOTNOTES if note.number in there]


def _note(run: str, mark: str, features: list[str]) -> str:
    return f"{run}; read from {'; '.join(features)}." + (f" {MARKED}: {mark}." if mark else "")


def _letter(k: int) -> str:
    """a … z, aa, ab …"""
    first, last = divmod(k, 26)
    return (ascii_lowercase[first - 1] if first else "") + ascii_lowercase[last]


def _printed(value: float, unit: str, least: int | None = None) -> str:
    digits = len(repr(value).partition(".")[2])
    least = PRINTED.get(unit, DIGITS[unit]) if least is None else least
    return f"{value:.{max(digits, least)}f}".replace("-", "−")
