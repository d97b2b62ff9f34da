"""The rows of a LeRobot data set: which features become parameters and commands, and their values, every n-th frame.

Row t of an episode has what was observed at t and the action that was taken then, on the way to row t + 1: as a command
is stored here, beside the view that it leads away from. With a stride, the commands of all rows up to the next kept one
are one command: the last, the sum or the mean of them. The last row's leads nowhere; it is kept as it was recorded.

Letters: E episodes, R kept rows, P parameters.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from tqdm import tqdm

from pipelines.sources.declared_actions import LARGEST_NUMBER, coarse, in_stored
from pipelines.sources.lerobot.meta import OF_EVERY_SET, Episodes, Feature, LeRobotMeta
from pipelines.sources.mistakes import Mistakes
from pipelines.sources.parquet import numbers_of, read_parquet
from shards.errors import FormatError, UsageError
from shards.schema import MAX_PARAMS, ActionSpec, ActionTerm, ParamField

Over = Literal["last", "sum", "mean"]
FLOATS = ("float16", "float32", "float64")
NUMBERS = (*FLOATS, "bool", *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)))
log = logging.getLogger(__name__)

NONE = "none"


@dataclass(frozen=True)
class FeatureChoice:
    """What is taken of each row: `states`, then `commands`; P is the number of all their components.

    units  unit of a feature or of a component by name, "1" where it says nothing; "deg" is stored as "rad"
    """

    states: tuple[Feature, ...]
    commands: tuple[Feature, ...]
    over: Over = "last"
    units: Mapping[str, str] = field(default_factory=dict)

    @property
    def features(self) -> tuple[Feature, ...]:
        return self.states + self.commands

    @property
    def fields(self) -> tuple[ParamField, ...]:
        return tuple(ParamField(name, in_stored(unit)[0]) for name, unit in self.recorded_units.items())

    @property
    def factors(self) -> np.ndarray:
        """float64 [P], by which what is recorded is multiplied."""
        return np.array([in_stored(unit)[1] for unit in self.recorded_units.values()])

    @property
    def actions(self) -> ActionSpec:
        columns = tuple(name for feature in self.commands for name in feature.components)
        return ActionSpec((ActionTerm("command", columns, over=self.over),) if columns else ())

    def components(self, name: str) -> list[str]:
        """Of a feature; or the component itself."""
        return next((list(feature.components) for feature in self.features if feature.key == name), [name])

    @property
    def recorded_units(self) -> dict[str, str]:
        """Of each component."""
        names = [(feature.key, name) for feature in self.features for name in feature.components]
        return {name: self.units.get(name, self.units.get(key, "1")) for key, name in names}


def choose(
    meta: LeRobotMeta, states: str | None, commands: str | None, over: Over, units: Mapping[str, str]
) -> FeatureChoice:
    """`states`, `commands`: keys with commas, "none", or None: all features of floats, and `action` (or action.*).

    UsageError: a feature that is not there or holds no numbers, more than MAX_PARAMS of them, a unit of none.
    """
    plain = {k: f for k, f in meta.features.items() if k not in OF_EVERY_SET and f.dtype in NUMBERS and f.size > 0}
    default = ["action"] if "action" in plain else [key for key in plain if key.startswith("action.")]
    acted = _named(meta, plain, "command", commands, default)
    known = {feature.key for feature in acted} | set(default)
    default = [key for key, feature in plain.items() if feature.dtype in FLOATS and key not in known]
    observed = _named(meta, plain, "state", states, default)
    if twice := {feature.key for feature in observed} & {feature.key for feature in acted}:
        raise UsageError(f"--state and --command both name {', '.join(sorted(twice))}; each feature is taken once")
    choice = FeatureChoice(tuple(observed), tuple(acted), over, units)
    _check_size(choice)
    _check_names(choice)
    return choice


def _named(
    meta: LeRobotMeta, plain: Mapping[str, Feature], option: str, asked: str | None, default: Sequence[str]
) -> list[Feature]:
    keys = default if asked is None else [] if asked == NONE else [key.strip() for key in asked.split(",")]
    for key in keys:
        if key not in plain:
            what = f"is {meta.features[key].dtype}, not numbers" if key in meta.features else "is no feature"
            raise UsageError(f"--{option} {key}: it {what} of {meta.root}; there are {', '.join(plain) or 'none'}")
    return [plain[key] for key in dict.fromkeys(keys)]


def _check_size(choice: FeatureChoice) -> None:
    total = sum(feature.size for feature in choice.features)
    if total <= MAX_PARAMS:
        return
    sizes = ", ".join(f"{feature.key} ({feature.size})" for feature in choice.features)
    room, kept = MAX_PARAMS - sum(feature.size for feature in choice.commands), []
    for feature in choice.states:
        if feature.size <= room:
            kept.append(feature.key)
            room -= feature.size
    advice = "choose fewer with --command" if room < 0 else f"e.g. --state {','.join(kept) or NONE}"
    raise UsageError(f"{total} columns, at most {MAX_PARAMS} are allowed: {sizes}; leave some out, {advice}")


def _check_names(choice: FeatureChoice) -> None:
    names = [name for feature in choice.features for name in feature.components]
    if twice := [name for name in names if names.count(name) > 1]:
        raise UsageError(f"two components are both called {twice[0]}; leave one of their features out (--state)")
    known = [feature.key for feature in choice.features] + names
    if unknown := [name for name in choice.units if name not in known]:
        raise UsageError(f"a unit for {unknown[0]}: nothing of that name is taken; there are {', '.join(known)}")


@dataclass(frozen=True)
class EpisodeRows:
    """R kept rows, by ascending episode and frame.

    of     int32 [R], rank of the episode among those that were asked for
    steps  int32 [R], 0, 1 … within an episode
    params float32 [R, P]
    times  float64 [R], seconds since the episode began
    places int64 [R], row in the file of the data
    tasks  int64 [E], task of each episode; −1 where it has several
    """

    of: np.ndarray
    steps: np.ndarray
    params: np.ndarray
    times: np.ndarray
    places: np.ndarray
    tasks: np.ndarray


def read_rows(root: Path, listed: Episodes, kept: np.ndarray, choice: FeatureChoice, stride: int) -> EpisodeRows:
    """Every `stride`-th row of those of the `listed` episodes that are `kept`, bool [E].

    FormatError: a file that is missing or damaged, rows that disagree with meta/; values that are not finite, the first
    twenty of them at once.
    """
    by_file: dict[str, list[int]] = {}
    for place, name in enumerate(listed.data):
        by_file.setdefault(name, []).append(place)
    asked = {name: places for name, places in by_file.items() if kept[places].any()}
    rank, mistakes = np.cumsum(kept) - 1, Mistakes()
    tasks = np.full(int(kept.sum()), -1, np.int64)
    parts, names, told = [], [param.name for param in choice.fields], {}
    for name, places in tqdm(asked.items(), "reading data", unit="file", disable=None, leave=False):
        file = _File(root / name, choice)
        for place, start, stop in file.episodes({int(listed.numbers[p]): (p, int(listed.lengths[p])) for p in places}):
            if kept[place]:
                values, *rest = file.rows(start, stop, stride, mistakes)
                for line in coarse(names, values, np.zeros(len(values))):
                    told.setdefault(line.partition(" ")[0], line)
                with np.errstate(over="ignore"):  # of what was just noted
                    parts.append((rank[place], values.astype(np.float32), *rest))
                tasks[rank[place]] = file.task(start, stop)
    mistakes.raise_any(f"{root}, values that are not finite, or too large")
    for line in told.values():
        log.warning("%s: %s", root, line)
    parts.sort(key=lambda part: part[0])
    counts = [len(part[1]) for part in parts]
    of = np.repeat(np.array([part[0] for part in parts], np.int32), counts)
    steps = np.concatenate([np.arange(count, dtype=np.int32) for count in counts])
    params, times, places = (np.concatenate([part[i] for part in parts]) for i in (1, 2, 3))
    return EpisodeRows(of, steps, params, times, places, tasks)


class _File:
    """One file of data, its wanted columns in memory."""

    def __init__(self, path: Path, choice: FeatureChoice):
        self.path, self.choice = path, choice
        keys = [feature.key for feature in choice.features]
        table = read_parquet(path, ["episode_index", "frame_index", "timestamp", "task_index", *keys])
        self.number, self.frame, self.tasks = (
            numbers_of(table, name, path)[:, 0] for name in ("episode_index", "frame_index", "task_index")
        )
        self.times = numbers_of(table, "timestamp", path)[:, 0].astype(np.float64)
        values = [numbers_of(table, feature.key, path, feature.size) for feature in choice.features]
        self.values = np.concatenate([*values, np.empty((len(table), 0))], axis=1, dtype=np.float64)

    def episodes(self, listed: Mapping[int, tuple[int, int]]) -> Iterator[tuple[int, int, int]]:
        """(place in the listing, first row, row after the last) of each episode of the file.

        listed: episode's number → its place, its length
        """
        edges = [0, *(np.flatnonzero(np.diff(self.number)) + 1).tolist(), len(self.number)]
        found = {}
        for start, stop in itertools.pairwise(edges):
            if stop > start:
                number = int(self.number[start])
                if number in found or number not in listed:
                    why = "in two places" if number in found else "and meta/ says nothing of it"
                    raise FormatError(f"{self.path} has rows of episode {number}, {why}")
                found[number] = (start, stop)
        for number, (place, length) in listed.items():
            start, stop = found.get(number, (0, 0))
            if stop - start != length:
                raise FormatError(
                    f"{self.path} has {stop - start} rows of episode {number}, and meta/ says {length}: the set is "
                    "not complete; copy it again"
                )
            if length:
                yield place, start, stop

    def task(self, start: int, stop: int) -> int:
        tasks = self.tasks[start:stop]
        return int(tasks[0]) if (tasks == tasks[0]).all() else -1

    def rows(self, start: int, stop: int, stride: int, mistakes: Mistakes) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(float64 [n, P], times, places in the file) of the kept rows of an episode; what is not finite is noted."""
        number = int(self.number[start])
        if (self.frame[start:stop] != np.arange(stop - start)).any():
            raise FormatError(f"{self.path}: frame_index of episode {number} is not 0, 1, 2 …")
        if not np.isfinite(self.times[start:stop]).all():
            raise FormatError(f"{self.path}: episode {number} has a timestamp that is not finite")
        values, kept = self.values[start:stop], np.arange(0, stop - start, stride)
        self._check(values, number, mistakes)
        states = sum(feature.size for feature in self.choice.states)
        with np.errstate(over="ignore", invalid="ignore"):  # of what was just noted
            commands = combined(values[:, states:], stride, self.choice.over)
            row = np.concatenate([values[kept, :states], commands], axis=1) * self.choice.factors
            return row, self.times[start + kept], start + kept

    def _check(self, values: np.ndarray, number: int, mistakes: Mistakes) -> None:
        names, bad = [param.name for param in self.choice.fields], ~(np.abs(values) < LARGEST_NUMBER)
        line = "episode {}, frame {}: {} is {:g}".format
        mistakes.add_each(
            np.argwhere(bad).tolist(), lambda at: line(number, at[0], names[at[1]], values[at[0], at[1]]), ""
        )


def combined(commands: np.ndarray, stride: int, over: Over) -> np.ndarray:
    """Commands of all L steps [L, n] → of every stride-th, with those up to the next [⌈L / stride⌉, n].

    The last may be of fewer steps than `stride`.
    """
    starts = np.arange(0, len(commands), stride)
    stops = np.minimum(starts + stride, len(commands))
    if over == "last":
        return commands[stops - 1]
    sums = np.add.reduceat(commands, starts, axis=0)
    return sums if over == "sum" else sums / (stops - starts)[:, None]
