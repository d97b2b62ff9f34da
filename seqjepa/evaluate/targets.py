"""What probes read of data whose actions are declared: each term, between two views and of one, and columns besides.

A target's values are encoded for a head, so that units play no part while it learns: numbers as z-scores, angles by
their sines and cosines, rotations as quaternions or in 6-D. Its errors are measured in the columns' own units.

Letters: n rows, R raw numbers of a target in its columns' units, D numbers of its encoding.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple

import numpy as np
from torch import Tensor

from seqjepa.data.actions import absolute_rotations, adds_up, columns, positions_of
from seqjepa.data.draws import Purpose
from seqjepa.evaluate.features import Features
from shards.schema import ActionSpec, ActionTerm, ParamField

Kind = Literal["numbers", "angles", "quaternion", "6d"]
ROTATIONS: tuple[Kind, ...] = ("quaternion", "6d")


class TargetPart(NamedTuple):
    """Some of the raw numbers of a target, one kind of them.

    kind   numbers: as they are;  angles: in rad;  quaternion, 6d: of one rotation
    raw    which of the R raw numbers
    units  of numbers, one each
    """

    kind: Kind
    raw: tuple[int, ...]
    units: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """How many of the D numbers of the encoding are its."""
        return len(self.raw) * (2 if self.kind == "angles" else 1)


@dataclass(frozen=True)
class Target:
    """One thing that a probe reads.

    key      its name in results.json after "r2_" or "top1_": "rel_term1", "indiv_term1", "indiv_state"
    columns  names and units of the parameters that it is made of
    op       of the terms; "column" for columns that no action uses
    parts    what its raw numbers are; none for classes
    terms    of an action between two views, one after the other; none: of one view alone
    term     whose columns are read of one view, if they are a term's
    values   that a column takes, of a classification
    mlp      whether an MLP reads what a linear head reads under another key
    mean, std  of its raw numbers in training, for the encoding; empty: not measured yet
    """

    key: str
    columns: tuple[ParamField, ...]
    op: str
    parts: tuple[TargetPart, ...] = ()
    terms: tuple[ActionTerm, ...] = ()
    term: ActionTerm | None = None
    values: tuple[float, ...] = ()
    mlp: bool = False
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    @property
    def between(self) -> bool:
        """Whether it is read from two views, not of one."""
        return bool(self.terms)

    @property
    def deep(self) -> bool:
        """Whether an MLP reads it: rotations (paper §A.2), and differences of angles. Their sine and cosine are made
        of products of the two views', which no linear head can form of [z₁; z₂]."""
        if self.mlp:
            return True
        turned = (*ROTATIONS, "angles") if self.between else ROTATIONS
        return any(part.kind in turned for part in self.parts)

    @property
    def size(self) -> int:
        """D."""
        return sum(part.size for part in self.parts)

    @property
    def unit(self) -> str:
        """That all its numbers have in common; "" where there are none, or of several units."""
        units = {unit for part in self.parts for unit in part.units}
        return units.pop() if len(units) == 1 else ""

    @property
    def slices(self) -> list[slice]:
        """Where each part is in the encoding."""
        ends = np.cumsum([part.size for part in self.parts])
        return [slice(int(end) - part.size, int(end)) for part, end in zip(self.parts, ends, strict=True)]

    @property
    def whole(self) -> tuple[int, ...]:
        """For each of the D numbers which number, angle or rotation it is of."""
        found: list[int] = []
        for part in self.parts:
            first = max(found, default=-1) + 1
            own = range(first, first + len(part.raw))
            found += [first] * part.size if part.kind in ROTATIONS else [*own] * (part.size // len(part.raw))
        return tuple(found)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.columns)

    def raw(self, features: Features, places: np.ndarray) -> np.ndarray:
        """float64 [n, R]: between the first and the second of places [n, 2], or of the one view [n, 1]."""
        if self.between:
            unscaled = tuple(replace(term, normalise="none", mean=(), std=()) for term in self.terms)
            return features.actions(places, ActionSpec(unscaled))[:, 0].double().cpu().numpy()
        params = features.params_of(places[:, :1])[:, 0].astype(np.float64)
        values = params[:, columns(features.param_names, self.names)]
        if self.term is None or self.term.op not in ("relative_rotation", "relative_pose"):
            return values
        rotation = absolute_rotations(values, self.term)
        pose = self.term.op == "relative_pose"
        return np.concatenate([rotation, positions_of(values, self.term)], axis=-1) if pose else rotation

    def encoded(self, features: Features, places: np.ndarray) -> Tensor:
        """What a head learns, where the features are: float32 [n, D], or classes int64 [n] of a classification."""
        raw = self.raw(features, places)
        if self.values:
            if not self.between:  # which of the values each number is, as float32 as params are
                raw = -np.abs(raw[:, :1].astype(np.float32) - np.array(self.values, np.float32))
            return features.on_device(raw.argmax(axis=-1)).long()
        scaled = (raw - np.array(self.mean)) / np.array(self.std) if self.mean else raw
        return features.on_device(encode(raw, self.parts, scaled))

    def measured(self, features: Features) -> Target:
        """With mean and deviation of its raw numbers in one draw of these features; 1 for those that do not vary."""
        if self.values:
            return self
        raw = self.raw(features, features.draw(0, 0, Purpose.PROBE, 2 if self.between else 1))
        std = np.where(np.ptp(raw, axis=0) > 0, raw.std(axis=0), 1.0)
        return replace(self, mean=tuple(raw.mean(axis=0).tolist()), std=tuple(std.tolist()))

    def as_json(self) -> dict[str, Any]:
        """For the protocol: what the key stands for; the unit is that of its root mean square error, if it has one."""
        unit = {"unit": self.unit} if self.unit else {}
        head = {"head": "mlp"} if self.mlp else {}
        head |= {"r2_of": "whole angles and rotations"} if len(set(self.whole)) < self.size else {}
        units = [column.unit for column in self.columns]
        return {"columns": list(self.names), "units": units, "op": self.op, **unit, **head}


ONE_VIEW = "needs 2 views, a sample has 1"


@dataclass(frozen=True)
class DeclaredTargets:
    """What a set declares, beside the paper's kinds, and so what is read of it.

    spec     the action's terms, none where columns are all there is
    targets  in the order in which they are listed
    way      what adds up along a path of the run's actions; None: nothing does
    unread   why terms and columns are not read, by names as results.json has them
    """

    spec: ActionSpec
    targets: tuple[Target, ...]
    way: Target | None = None
    unread: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        spec: ActionSpec,
        told: ActionSpec,
        fields: Sequence[ParamField],
        features: Features,
        constant: Sequence[str] = (),
        most_views: int = 2,
    ) -> DeclaredTargets:
        """told: the run's action; features: of training, whose draws fix the encoding; constant: columns; most_views:
        that every sample can give, of which two are needed for what lies between them."""
        found, paired = declared_targets(spec, fields, constant), most_views > 1
        targets = [target.measured(features) for target in found if paired or not target.between]
        way = way_target(told, fields) if paired else None
        single = {f"r2_{target.key}": ONE_VIEW for target in found if not paired and target.between}
        return cls(spec, tuple(targets), way and way.measured(features), unread(spec, fields, constant) | single)

    def as_json(self) -> dict[str, Any]:
        """For the protocol: columns, units and operation of every key."""
        every = (*self.targets, *([self.way] if self.way else []))
        return {target.key: target.as_json() for target in every}


def declared_targets(spec: ActionSpec, fields: Sequence[ParamField], constant: Sequence[str] = ()) -> list[Target]:
    """What is read of views with parameters `fields`: each term between two views and of one, and columns that no
    term uses, those of a vector ("state.0", "state.1" …) together, without those that are `constant`.

    Angles of one view are read twice, by a linear head and by an MLP. Each object's angle may count from a place of its
    own, and a linear head has the same directions for all of them."""
    found: list[Target] = []
    units = {column.name: column for column in fields}
    for number, term in enumerate(spec.terms, 1):
        if all(name in units for name in term.columns):
            own = tuple(units[name] for name in term.columns)
            found += [_between(f"rel_term{number}", (term,), own), _of_one_view(f"indiv_term{number}", term, own)]
    taken = {target.key for target in found}
    for name, group in _unused(spec, fields).items():
        if kept := tuple(column for column in group if column.name not in constant):
            key = _free(f"indiv_{_key_of(name)}", taken)
            taken.add(key)
            found.append(Target(key, kept, "column", _of_columns(kept)))
    return [reading for target in found for reading in _readings(target, taken | {target.key for target in found})]


def _readings(target: Target, taken: set[str]) -> list[Target]:
    """The target, and what an MLP reads of its angles where a linear head does."""
    angles = any(part.kind == "angles" for part in target.parts)
    if target.between or target.deep or not angles:
        return [target]
    return [target, replace(target, key=_free(f"{target.key}_mlp", taken), mlp=True)]


def unread(spec: ActionSpec, fields: Sequence[ParamField], constant: Sequence[str]) -> dict[str, str]:
    """Why terms, and columns that no term uses, are not read, by names as results.json has them."""
    names = {column.name for column in fields}
    found: dict[str, str] = {}
    for number, term in enumerate(spec.terms, 1):
        if missing := [name for name in term.columns if name not in names]:
            found[f"r2_rel_term{number}"] = f"the shards have no {', '.join(missing)}"
    for name, group in _unused(spec, fields).items():
        if still := [column.name for column in group if column.name in constant]:
            part = "" if len(still) == len(group) else f", {', '.join(still)}"
            found[f"r2_indiv_{_key_of(name)}{part}"] = "constant: the same in all views"
    return found


def way_target(spec: ActionSpec, fields: Sequence[ParamField]) -> Target | None:
    """The way from a view to a later one: all terms whose actions add up along a path. None: there are none."""
    units = {column.name: column for column in fields}
    terms = tuple(term for term in spec.terms if adds_up(term) and set(term.columns) <= set(units))
    own = dict.fromkeys(name for term in terms for name in term.columns)
    return _between("path", terms, tuple(units[name] for name in own)) if terms else None


def _unused(spec: ActionSpec, fields: Sequence[ParamField]) -> dict[str, list[ParamField]]:
    """Columns that no term uses, by their own name or that of their vector."""
    groups: dict[str, list[ParamField]] = {}
    for column in fields:
        if column.name not in spec.columns:
            groups.setdefault(re.sub(r"\.\d+$", "", column.name), []).append(column)
    return groups


def _key_of(name: str) -> str:
    return re.sub(r"\W+", "_", name, flags=re.ASCII).strip("_") or "column"


def _free(key: str, taken: set[str]) -> str:
    """The key, or with a number behind it where another column or a term has it."""
    names: Iterator[str] = (f"{key}_{k}" for k in range(2, len(taken) + 3))
    return next(names) if key in taken or re.fullmatch(r"indiv_term\d+", key) else key


def _between(key: str, terms: tuple[ActionTerm, ...], columns: tuple[ParamField, ...]) -> Target:
    if len(terms) == 1 and terms[0].op == "categorical":
        return Target(key, columns, "categorical", terms=terms, values=terms[0].values)
    parts = parts_between(terms, {column.name: column.unit for column in columns})
    return Target(key, columns, ", ".join(dict.fromkeys(term.op for term in terms)), parts, terms)


def parts_between(terms: Sequence[ActionTerm], units: Mapping[str, str]) -> tuple[TargetPart, ...]:
    """Parts of the action between two views; units: of its columns."""
    parts: list[TargetPart] = []
    for term in terms:
        parts += _parts_of(term, [units[name] for name in term.columns], sum(len(part.raw) for part in parts))
    return tuple(parts)


def encode(raw: np.ndarray, parts: Sequence[TargetPart], scaled: np.ndarray) -> np.ndarray:
    """What a head learns of raw numbers [n, R]: [n, D]. scaled: the same as z-scores, where parts are numbers."""
    found = []
    for part in parts:
        own = (scaled if part.kind == "numbers" else raw)[:, part.raw]
        found += [np.sin(own), np.cos(own)] if part.kind == "angles" else [own]
    return np.concatenate(found, axis=-1)


def _parts_of(term: ActionTerm, units: list[str], at: int = 0) -> tuple[TargetPart, ...]:
    """Parts of what `actions_between` gives for a term, whose first number is at place `at`."""
    if term.op == "angle_difference":
        return (TargetPart("angles", tuple(range(at, at + term.size))),)
    if term.op not in ("relative_rotation", "relative_pose"):
        return (TargetPart("numbers", tuple(range(at, at + term.size)), tuple(units)),)
    turned = 6 if term.result == "6d" else 4
    rotation = TargetPart("quaternion" if turned == 4 else "6d", tuple(range(at, at + turned)))
    if term.op == "relative_rotation":
        return (rotation,)
    of_position = tuple(units[k] for k in ((3, 7, 11) if term.form == "matrix" else (0, 1, 2)))
    return rotation, TargetPart("numbers", tuple(range(at + turned, at + turned + 3)), of_position)


def _of_one_view(key: str, term: ActionTerm, columns: tuple[ParamField, ...]) -> Target:
    """The same columns of one view; a rotation is a quaternion, as `absolute_rotations` gives it."""
    if term.op == "categorical":
        return Target(key, columns, term.op, term=term, values=term.values)
    if term.op == "difference":
        parts = _of_columns(columns)
    else:
        parts = _parts_of(replace(term, result="quaternion"), [column.unit for column in columns])
    return Target(key, columns, term.op, parts, term=term)


def _of_columns(columns: Sequence[ParamField]) -> tuple[TargetPart, ...]:
    """Columns in rad by sine and cosine, all others as numbers."""
    angles = tuple(k for k, column in enumerate(columns) if column.unit == "rad")
    rest = tuple(k for k, column in enumerate(columns) if column.unit != "rad")
    numbers = TargetPart("numbers", rest, tuple(columns[k].unit for k in rest))
    return tuple(part for part in (numbers, TargetPart("angles", angles)) if part.raw)
