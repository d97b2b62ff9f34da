"""What the columns of one's own data mean: units, and the action that they make. `actions.toml`, or a preset by name.

    [units]                       # of a column, by default "1"; deg is converted to rad
    yaw = "deg"
    x = "m"
    [[action]]                    # a term, as recipes and dataset.json have it (shards/schema.py, ActionTerm)
    op = "difference"
    columns = ["x", "y"]

A vector column `pose` may be named as one; it stands for pose.0, pose.1 … in their order.
"""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.sources.mistakes import Mistakes
from shards.errors import FormatError, UsageError, reason_of
from shards.schema import PRESET_ACTIONS, ActionSpec, ActionTerm, ParamField

FILE = "actions.toml"
LARGEST_FILE = 1 << 20
TIMES = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
ANGLES = {
    **dict.fromkeys(("deg", "degree", "degrees", "°"), np.pi / 180),
    **dict.fromkeys(("rad", "radian", "radians"), 1.0),
    **dict.fromkeys(("turn", "turns"), 2 * np.pi),
    "mrad": 1e-3,
}
"""What a number in this unit, in any case, is multiplied by to be in rad."""
LONGEST_UNIT = 16
LONGEST_NAME, MOST_UNITS = 1000, 10_000
POSE_FORMS = {6: "euler_xyz", 7: "quaternion_xyzw", 12: "matrix", 16: "matrix"}
OWN_PRESETS = {
    "pose": [{"op": "relative_pose", "columns": ["pose"]}],
    "command": [{"op": "command", "columns": ["action"]}],
}
"""Beside those by name: of vectors that are called so."""
ORTHOGONAL = 1e-3  # how far RᵀR may be from 1
COARSE = 0.01  # error of a float32, of the usual change from row to row
TURN = re.compile("(?i)(?<![a-z])(q|quat|r|rot|rotvec)[._]?[wxyz]$")  # qw, rot_x
LARGEST_NUMBER = 1e30  # of a parameter: a float32 holds differences and sums of such


@dataclass(frozen=True)
class Declared:
    """terms   of the action, not yet checked; an empty list: no action; None: nothing was said of it
    units   of columns, by name
    where   what says so, for messages
    """

    terms: list[Any] | None = None
    units: dict[str, str] = field(default_factory=dict)
    where: str = ""


def read_declared(
    file: Path | None, preset: str | None, units: Sequence[str], mistakes: Mistakes, folder: Path | None = None
) -> Declared:
    """file: an actions.toml, by default that of `folder`, if there is one; preset: a name instead; units: "yaw=deg",
    which go before those of the file.

    UsageError: no such file, an unknown preset, a unit that is not NAME=UNIT. FormatError: the file is not TOML.
    """
    if file and not file.is_file():
        raise UsageError(f"--actions {file}: there is no such file")
    if not file and folder and os.path.lexists(folder / FILE):
        file = folder / FILE
        if not file.is_file():
            raise FormatError(f"{file} is no file: remove it, or give another with --actions FILE")
    found = _read_file(file, mistakes) if file else Declared()
    if preset is not None:
        found = Declared(_preset(preset), found.units, f"--action {preset}")
    own = {}
    for text in units:
        name, _, unit = text.rpartition("=")
        if not name or not unit:
            raise UsageError(f"--unit {text!r}: COLUMN=UNIT is needed, e.g. yaw=deg")
        if len(unit) > LONGEST_UNIT:
            raise UsageError(f"--unit {text!r:.80}: a unit has at most {LONGEST_UNIT} characters, e.g. yaw=deg")
        if own.setdefault(name, unit) != unit:
            raise UsageError(f"--unit {name} is {own[name]} and {unit}; give one of them")
    return Declared(found.terms, {**found.units, **own}, found.where)


def _preset(name: str) -> list[Any]:
    known = {name: action.to_json() for name, action in PRESET_ACTIONS.items()} | OWN_PRESETS
    if name not in known:
        raise UsageError(f"--action {name!r} is not known; allowed are {', '.join(known)}")
    return known[name]


def _read_file(file: Path, mistakes: Mistakes) -> Declared:
    try:
        if file.stat().st_size > LARGEST_FILE:
            raise FormatError(f"{file} has {file.stat().st_size} bytes; at most {LARGEST_FILE} are read")
        record = tomllib.loads(file.read_bytes().decode("utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise FormatError(f"{file} is not readable TOML ({reason_of(error)})") from error
    if unknown := sorted(set(record) - {"units", "action"}):
        mistakes.add(f"{file.name} has {', '.join(unknown)}; [units] and [[action]] are allowed", "actions")
    units, terms = record.get("units", {}), record.get("action")
    if not isinstance(units, dict):
        mistakes.add(f'{file.name}: units must be a table, yaw = "deg"', "actions")
        units = {}
    if not isinstance(terms, list | None):
        mistakes.add(f"{file.name}: an action is a list of terms; each begins with [[action]]", "actions")
        terms = []
    units = _dotted(units)
    for name, unit in units.items():
        if not isinstance(unit, str) or not 0 < len(unit) <= LONGEST_UNIT:
            mistakes.add(
                f'{file.name}: the unit of {name:.80} must be a short text such as "m", found {unit!r:.40}', "unit"
            )
    return Declared(terms, {name: unit for name, unit in units.items() if isinstance(unit, str)}, file.name)


def _dotted(units: dict[str, Any]) -> dict[str, Any]:
    """By the names of columns: of state.yaw = "deg", which is a table in a table to TOML, "state.yaw"."""
    found, left = {}, list(reversed(units.items()))
    while left and len(found) < MOST_UNITS:  # no recursion: files may nest deeper than Python calls
        name, unit = left.pop()
        if isinstance(unit, dict) and len(name) < LONGEST_NAME:
            left += [(f"{name}.{inner}", value) for inner, value in reversed(unit.items())]
        else:
            found[name] = {} if isinstance(unit, dict) else unit  # {}: a name too long, whose depth no repr survives
    return found


def as_key(name: str) -> str:
    """As TOML takes it: yaw, state.yaw, "yaw (deg)"."""
    return name if re.fullmatch("[A-Za-z0-9_.-]+", name) else json.dumps(name, ensure_ascii=False)


def components(name: str, columns: Sequence[str]) -> list[str]:
    """Columns that `name` stands for: itself, or name.0, name.1 …; none where there is neither."""
    if name in columns:
        return [name]
    numbered = {int(m[1]): c for c in columns if (m := re.fullmatch(rf"{re.escape(name)}\.([0-9]{{1,4}})", c))}
    whole = set(numbered) == set(range(len(numbered)))
    return [numbered[i] for i in range(len(numbered))] if whole else []


def fields_of(names: Sequence[str], declared: Declared, mistakes: Mistakes) -> tuple[ParamField, ...]:
    """Units as they are stored, which values have to be converted to (scale_of)."""
    for name in declared.units:
        if not components(name, names):
            mistakes.add(
                f"{declared.where or '--unit'}: a unit for {name}, which is no column of numbers; "
                f"there are {', '.join(names[:20]) or 'none'}",
                "unit",
            )
    angles: set[str] = set()  # columns of presets that are in rad by what the preset means
    if declared.where.startswith("--action"):
        rotations = (term for term in declared.terms or () if term["op"] == "relative_rotation")
        angles = {name for term in rotations for name in term["columns"]}
    units = [_unit(name, declared, angles) for name in names]
    return tuple(ParamField(name, in_stored(unit)[0]) for name, unit in zip(names, units, strict=True))


def scale_of(names: Sequence[str], declared: Declared) -> np.ndarray:
    """float64 [P]: what each column is multiplied by to have its stored unit."""
    return np.array([in_stored(_unit(name, declared, set()))[1] for name in names])


def in_stored(unit: str) -> tuple[str, float]:
    """(the unit that is stored, what a number is multiplied by to have it): angles become rad."""
    return ("rad", ANGLES[unit.lower()]) if unit.lower() in ANGLES else (unit, 1.0)


def _unit(name: str, declared: Declared, angles: set[str]) -> str:
    return declared.units.get(name) or declared.units.get(name.rpartition(".")[0]) or ("rad" if name in angles else "1")


def coarse(names: Sequence[str], values: np.ndarray, of: np.ndarray) -> Iterator[str]:
    """A line for each column whose changes within a sequence are lost when it is stored in float32, as those of UTM
    coordinates are: 4649776.22 m is 4649776 there, and a step of 0.1 m is 0 or 0.5.

    values: float64 [R, P], rows in the order of their sequences, NaN where there is none; of: int [R], the sequence
    """
    same = np.diff(of) == 0
    for name, column in zip(names, values.T, strict=True):
        with np.errstate(over="ignore", invalid="ignore"):
            change, error = np.abs(np.diff(column)[same]), np.abs(column.astype(np.float32) - column)
        change = change[np.isfinite(change) & (change > 0)]
        error[~np.isfinite(error)] = 0
        if len(change) and error.max() > COARSE * (usual := float(np.median(change))):
            at = int(error.argmax())
            yield (
                f"{name} is stored in float32, where {column[at]:.12g} is off by {error[at]:.2g}, and changes by "
                f"{usual:.2g} from row to row: subtract an origin that all rows have in common"
            )


def action_of(declared: Declared, fields: Sequence[ParamField], mistakes: Mistakes) -> ActionSpec | None:
    """The action of these columns; None where none was declared. `mistakes` gets all that is wrong with its terms."""
    if declared.terms is None:
        return None
    names, terms = [field.name for field in fields], []
    for number, record in enumerate(declared.terms, 1):
        where = f"{declared.where}, action {number}"
        expanded = _expanded(record, names, where, mistakes)
        if expanded is None:
            continue
        try:
            term = ActionTerm.from_json(expanded)
        except FormatError as error:
            mistakes.add(f"{where}: {error}", "actions")
            continue
        term = _in_stored_units(term, declared)
        if problem := ActionSpec((term,)).problem(fields):
            advice = f'declare it, in [units] of {FILE} or with --unit: {as_key(term.columns[-1])} = "deg" or "rad"'
            mistakes.add(f"{where}: {problem}; {advice}", "actions")
        if problem := _other_order(term):
            mistakes.add(f"{where}: {problem}", "actions")
        terms.append(term)
    return ActionSpec(tuple(terms))


def _other_order(term: ActionTerm) -> str | None:
    """That columns of a rotation are called by their axes, in another order than they are taken in, or stand before
    those of the position."""
    if term.op == "relative_pose" and term.form != "matrix" and any(map(TURN.search, term.columns[:3])):
        return (
            f"{', '.join(term.columns[:3])} are a rotation by their names; name the position first, then the rotation"
        )
    letters, how = {
        "quaternion_xyzw": ("xyzw", ""),
        "euler_xyz": ("xyz", ": turns about the fixed axes x, then y, then z"),
    }.get(term.form, ("", ""))
    named = term.columns[-len(letters) :] if letters and term.op in ("relative_rotation", "relative_pose") else ()
    order = "".join(name[-1].lower() for name in named)
    if order == letters or sorted(order) != sorted(letters):
        return None
    return f"{', '.join(named)} are {order} by their names; name them as {letters}{how}"


def _in_stored_units(term: ActionTerm, declared: Declared) -> ActionTerm:
    """Its values, means and deviations, which are given in the units of their columns, as those are stored."""
    scale = scale_of(term.columns, declared).tolist()
    mean, std = (tuple(a * b for a, b in zip(given, scale, strict=False)) for given in (term.mean, term.std))
    return replace(term, values=tuple(value * scale[0] for value in term.values), mean=mean, std=std)


def _expanded(record: Any, names: Sequence[str], where: str, mistakes: Mistakes) -> Any:
    """The term with vectors as their components, and with the form that so many columns have to have; None: wrong."""
    columns = record.get("columns") if isinstance(record, dict) else None
    if not isinstance(columns, list) or not all(isinstance(name, str) for name in columns):
        return record  # from_json says what is wrong
    missing = [name for name in columns if not components(name, names)]
    if missing:
        there = ", ".join(names[:20]) or "none"
        advice = "; number the values of a text (0, 1 …)" if record.get("op") == "categorical" else ""
        mistakes.add(f"{where} needs {', '.join(missing)}; the columns of numbers are {there}{advice}", "actions")
        return None
    found = [part for name in columns for part in components(name, names)]
    form = {}
    if record.get("op") == "relative_pose" and "from" not in record and len(found) in POSE_FORMS:
        form = {"from": POSE_FORMS[len(found)]}
    return {**record, "columns": found, **form}


def refuse_values(
    action: ActionSpec | None,
    names: Sequence[str],
    params: np.ndarray,
    mistakes: Mistakes,
    where: Callable[[int], str],
    known: np.ndarray | None = None,
) -> None:
    """A mistake for each row that a term cannot be made of: a rotation that is none, a value that is not a term's.

    params: float [R, P], columns called `names`, in stored units; where: row → "metadata.csv, row 17"; known: bool [R],
    the rows that are looked at, None: all
    """
    for term in action.terms if action else ():
        bad, what = _value_problems(term, params[:, [names.index(name) for name in term.columns]].astype(np.float64))
        named = " … ".join(dict.fromkeys((term.columns[0], term.columns[-1])))
        rows = np.flatnonzero(bad if known is None else bad & known).tolist()
        line = f"{named} {what}"
        mistakes.add_each(rows, lambda row, told=line: f"{where(row)}: {told}", f"{term.op} {named}")


def _value_problems(term: ActionTerm, values: np.ndarray) -> tuple[np.ndarray, str]:
    """(bool [R]: rows whose values, float64 [R, n], the term cannot be made of; what is wrong with them)."""
    if term.op == "categorical":
        allowed = ", ".join(f"{value:g}" for value in term.values)
        return ~np.isin(values[:, 0].astype(np.float32), np.array(term.values, np.float32)), f"is none of {allowed}"
    if term.op in ("relative_rotation", "relative_pose") and term.form == "quaternion_xyzw":
        return np.linalg.norm(values[:, -4:], axis=1) <= 1e-6, "is a quaternion of zeros"
    if term.op in ("relative_rotation", "relative_pose") and term.form == "matrix":
        return no_rotation(values), "is no rotation: its matrix is not orthogonal, or mirrors"
    return np.zeros(len(values), bool), ""


def no_rotation(values: np.ndarray) -> np.ndarray:
    """bool [R]: which of float64 [R, 9, 12 or 16], a matrix [R] or [R | t] row by row, are scaled or mirrored."""
    matrices = rotations_of(values)
    bad = (np.abs(matrices @ matrices.swapaxes(1, 2) - np.eye(3)) > ORTHOGONAL).any((1, 2))
    bad |= np.linalg.det(matrices) <= 0
    if values.shape[1] == 16:
        bad |= (np.abs(values[:, 12:] - [0, 0, 0, 1]) > ORTHOGONAL).any(1)
    return bad


def rotations_of(values: np.ndarray) -> np.ndarray:
    """R [R, 3, 3] of float [R, 9, 12 or 16], as no_rotation has them."""
    return (values if values.shape[1] == 9 else values[:, [0, 1, 2, 4, 5, 6, 8, 9, 10]]).reshape(-1, 3, 3)


def commands_alone(action: ActionSpec | None) -> set[str]:
    """Columns that are commands and nothing else: where a sequence ends they lead nowhere, and may be missing."""
    terms = action.terms if action else ()
    commands = {name for term in terms if term.op == "command" for name in term.columns}
    return commands - {name for term in terms if term.op != "command" for name in term.columns}


def unused(fields: Sequence[ParamField], action: ActionSpec | None) -> list[str]:
    """Columns that no term of the action is made of."""
    used = action.columns if action else ()
    return [field.name for field in fields if field.name not in used]
