"""Values in the names of files: `{object}/{name}_{azimuth:deg}.png`.

A group in braces stands for a part of a name within one folder. `{sequence}` (or `{object}`) says which pictures belong
together, `{step}` their order, `{label}` the class, `{split}` the split; a group with a unit is a parameter:

    {azimuth:deg}  degrees, stored in rad      {yaw:rad}  rad      {x:float}  a number      {k:int}  a whole number

Any other group stands for any text, and is not kept. A group that recurs must have the same text.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipelines.archives import OTHER_NAME, LeftOut, printable
from pipelines.sources.declared_actions import LARGEST_NUMBER
from pipelines.sources.mistakes import Mistakes
from pipelines.sources.split_folders import split_of
from shards.errors import UsageError
from shards.schema import MAX_PARAMS, ActionSpec, ActionTerm, ParamField

UNITS = {"deg": "rad", "rad": "rad", "float": "1", "int": "1"}
FLOAT = r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?"
SHAPES = {"deg": FLOAT, "rad": FLOAT, "float": FLOAT, "int": r"[+-]?\d+"}
TEXT = "[^/]+?"
ROLES = ("sequence", "step", "label", "split")
ALIASES = {"object": "sequence"}
GROUP = re.compile(r"\{([^{}]*)\}")
GROUP_WORDS = re.compile(r"([A-Za-z][A-Za-z0-9_]*)(?::([a-z]+))?")
LAST_STEP = 2**31 - 1
LONGEST = 1000  # characters of a pattern
EXAMPLE = "'{object}/{name}_{azimuth:deg}.png'"


@dataclass(frozen=True)
class Pattern:
    """A compiled pattern. `units`: of each parameter, in the order of the groups, one of UNITS."""

    text: str
    regex: re.Pattern[str]
    units: dict[str, str]

    @property
    def fields(self) -> tuple[ParamField, ...]:
        return tuple(ParamField(name, UNITS[unit]) for name, unit in self.units.items())

    @property
    def actions(self) -> ActionSpec:
        """What the units imply: angles go the shorter way round, other numbers are subtracted."""
        angles = tuple(name for name, unit in self.units.items() if UNITS[unit] == "rad")
        numbers = tuple(name for name in self.units if name not in angles)
        terms = [ActionTerm("angle_difference", angles)] if angles else []
        return ActionSpec((*terms, ActionTerm("difference", numbers)) if numbers else tuple(terms))

    def has(self, role: str) -> bool:
        return role in self.regex.groupindex

    def numbers_left_out(self, name: str) -> list[str]:
        """Groups that hold a number in a name that matches, and are text to the pattern."""
        match, kept = self.regex.fullmatch(name), (*ROLES, *self.units, "name")
        return (
            [g for g, text in match.groupdict().items() if g not in kept and re.fullmatch(FLOAT, text)] if match else []
        )


@dataclass(frozen=True)
class PatternRows:
    """What the names say: R pictures of Q sequences, sorted by (sequence, step).

    entries    int64 [R], positions in the names that were given
    sequences  [Q], ascending: "object", or "label/object", for objects of two classes are two
    of         int32 [R], the rank of each picture's sequence
    labels, splits  [Q]; None where the pattern has no such group
    steps      int64 [R]; where the pattern has none, ranks within the sequence by the parameters, then by name
    params     float64 [R, P], angles in rad
    """

    entries: np.ndarray
    sequences: list[str]
    of: np.ndarray
    labels: list[str | None]
    splits: list[str | None]
    steps: np.ndarray
    params: np.ndarray


def compile_pattern(text: str) -> Pattern:
    """UsageError, one line: braces that do not fit, an unknown unit, no group that says what belongs together."""
    if not text or len(text) > LONGEST or "\0" in text:
        raise _wrong(text, f"1 to {LONGEST} characters are needed")
    parts: list[str] = []
    units: dict[str, str] = {}
    seen: set[str] = set()
    for i, piece in enumerate(GROUP.split(text.removeprefix("./"))):
        if i % 2 == 0:
            if "{" in piece or "}" in piece:
                raise _wrong(text, "its braces do not fit")
            parts.append(re.escape(piece))
            continue
        name, unit = _group(text, piece)
        if name in seen:
            if units.get(name) != unit:
                raise _wrong(text, f"{name!r} occurs twice, with different units")
            parts.append(f"(?P={name})")
            continue
        seen.add(name)
        shape = SHAPES["int"] if name == "step" else SHAPES[unit] if unit else TEXT
        parts.append(f"(?P<{name}>{shape})")
        if unit and name not in ROLES:
            units[name] = unit
    if "sequence" not in seen:
        raise _wrong(text, "it needs {object} or {sequence}, which says what belongs together")
    if len(units) > MAX_PARAMS:
        raise _wrong(text, f"at most {MAX_PARAMS} parameters are possible")
    return Pattern(text, re.compile("".join(parts)), units)


def _group(text: str, piece: str) -> tuple[str, str | None]:
    """(name, unit or None)"""
    match = GROUP_WORDS.fullmatch(piece)
    if match is None:
        raise _wrong(text, f"{{{piece}}} is not {{name}} or {{name:unit}}")
    name, unit = ALIASES.get(match[1], match[1]), match[2]
    if unit is not None and unit not in UNITS:
        raise _wrong(text, f"{{{piece}}} has no unit of {', '.join(UNITS)}")
    if name in ROLES and unit is not None and (name, unit) != ("step", "int"):
        raise _wrong(text, f"{{{piece}}} takes no unit")
    return name, None if name == "step" else unit


def _wrong(text: str, why: str) -> UsageError:
    return UsageError(f"--pattern {printable(text[:200])!r}: {why}; an example is {EXAMPLE}")


def read_names(pattern: Pattern, names: Sequence[str], others: LeftOut, mistakes: Mistakes) -> PatternRows:
    """What `names` (below the source, with "/", ascending) say. Those that do not match are counted in `others`.

    Adds to `mistakes`: a split that is none, a sequence in two splits, two pictures at one step. UsageError: none of
    the names match.
    """
    found: dict[tuple[str, str | None], int] = {}  # (name, label) of each sequence → its number
    splits: list[str | None] = []
    entries, numbers, steps, params = array("q"), array("i"), array("q"), array("d")
    for position, name in enumerate(names):
        if (match := pattern.regex.fullmatch(name)) is None:
            others.add(OTHER_NAME, name)
            continue
        groups = match.groupdict()
        split = None if (text := groups.get("split")) is None else split_of(text)
        if text is not None and split is None:
            mistakes.add(f"{printable(name)}: {text!r} is no split; splits are train, val, test", "split")
        label = groups.get("label")
        sequence = groups["sequence"] if label is None else f"{label}/{groups['sequence']}"
        number = found.setdefault((sequence, label), len(found))
        if number == len(splits):
            splits.append(split)
        elif (other := splits[number]) != split:
            mistakes.add(f"{printable(name)}: {sequence!r} is in {split} and in {other}; it must be in one", "splits")
        entries.append(position)
        numbers.append(number)
        steps.append(_step(groups.get("step"), name, mistakes))
        params.extend(_number(groups[column], column, name, mistakes) for column in pattern.units)
    if not entries:
        shown = ", ".join(printable(name) for name in names[:3])
        raise UsageError(
            f"--pattern {printable(pattern.text)!r} matches none of {len(names)} pictures ({shown}, …); it must match "
            f"the whole name below the source, as {EXAMPLE} does"
        )
    rows = _sorted(pattern, found, splits, np.array(entries), np.array(numbers), np.array(steps), np.array(params))
    for i in (1 + np.flatnonzero((np.diff(rows.of) == 0) & (np.diff(rows.steps) == 0))).tolist():
        first, second = (printable(names[int(rows.entries[row])]) for row in (i - 1, i))
        mistakes.add(f"{second}: step {rows.steps[i]} of {rows.sequences[rows.of[i]]!r} is {first} already", "steps")
    return rows


def _number(text: str, column: str, name: str, mistakes: Mistakes) -> float:
    value = float(text)
    if not abs(value) < LARGEST_NUMBER:
        mistakes.add(f"{printable(name)}: {column} {text[:40]} is too large", f"large {column}")
        return 0.0
    return value


def _step(text: str | None, name: str, mistakes: Mistakes) -> int:
    if text is None:
        return 0
    step = int(text) if len(text) < 12 else -1
    if not 0 <= step <= LAST_STEP:
        mistakes.add(f"{printable(name)}: step {text[:40]} is not between 0 and {LAST_STEP}", "step")
        return 0
    return step


def _sorted(
    pattern: Pattern,
    found: dict[tuple[str, str | None], int],
    splits: list[str | None],
    entries: np.ndarray,
    numbers: np.ndarray,
    steps: np.ndarray,
    params: np.ndarray,
) -> PatternRows:
    """Sequences and pictures in their order, with ranks for steps where the names have none."""
    ascending = sorted(found, key=lambda sequence: sequence[0])
    ranks = np.empty(len(found), np.int32)
    ranks[[found[sequence] for sequence in ascending]] = np.arange(len(found), dtype=np.int32)
    params = params.reshape(len(entries), len(pattern.units))
    degrees = [i for i, unit in enumerate(pattern.units.values()) if unit == "deg"]
    params[:, degrees] = np.deg2rad(params[:, degrees])
    order = np.lexsort([entries, *params.T[::-1], steps, ranks[numbers]])
    of, steps = ranks[numbers][order], steps[order]
    if not pattern.has("step"):
        steps = np.arange(len(of)) - np.searchsorted(of, of)
    return PatternRows(
        entries[order],
        [name for name, _ in ascending],
        of,
        [label for _, label in ascending],
        [splits[found[sequence]] for sequence in ascending],
        steps,
        params[order],
    )
