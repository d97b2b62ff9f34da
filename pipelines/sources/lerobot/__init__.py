"""LeRobot data sets (v3.0, v2.1) as a source of views: frames of one camera, states, and actions as commands.

An episode is a sequence, its task the label. Read with pyarrow and PyAV, without LeRobot: meta.py says what
lies where, rows.py reads the numbers, video/ and parquet.py the frames.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

import numpy as np

from pipelines.sources.declared_actions import Declared, action_of, read_declared, refuse_values
from pipelines.sources.lerobot.meta import Episodes, Feature, LeRobotMeta
from pipelines.sources.lerobot.rows import EpisodeRows, FeatureChoice, Over, choose, read_rows
from pipelines.sources.mistakes import Mistakes
from pipelines.sources.parquet import ParquetPictures
from pipelines.sources.split_folders import say_own_splits, split_of
from pipelines.sources.subset import train_or_val
from pipelines.sources.table import Pictures, TableSource, ViewTable
from pipelines.sources.video.pictures import TOLERANCE_S, VideoPictures
from shards.errors import FormatError, UsageError, few
from shards.layout import SPLIT_NAME
from shards.schema import ActionSpec
from shards.stores.hub import HubFolder, is_hub_address, open_hub

log = logging.getLogger(__name__)

OF_ALL = "train"


@dataclass(frozen=True)
class LeRobotOptions:
    """What of a set is asked for.

    camera     feature of its images; None: the only one
    stride     every so many frames; the commands of those between are one, the last, sum or mean of them (`over`)
    state      features that become parameters, with commas; "none"; None: all floats but the commands
    command    features that are what was done; None: `action`, or all that begin with "action."
    unit       "action=deg" …, of a feature or a component; what is in degrees is stored in "rad"
    actions    actions.toml: units, and terms of the action instead of the commands
    episodes   "0:50,73", as in the splits of info.json; None: all
    val_fraction  share of the episodes of each task that become validation
    tolerance  s, how far a frame of the video may be from its row's time
    """

    camera: str | None = None
    stride: int = 1
    state: str | None = None
    command: str | None = None
    over: Over = "last"
    unit: tuple[str, ...] = ()
    actions: Path | None = None
    episodes: str | None = None
    val_fraction: float | None = None
    tolerance: float = TOLERANCE_S

    def __post_init__(self) -> None:
        """UsageError: a value out of range."""
        if self.stride < 1:
            raise UsageError(f"--stride {self.stride}: 1 or more is allowed")
        if not 0 < self.tolerance < 1:
            raise UsageError(f"--tolerance {self.tolerance}: more than 0 and less than 1 s is allowed")
        if self.over not in get_args(Over):
            raise UsageError(f"--over {self.over!r:.40} is not known; allowed are {', '.join(get_args(Over))}")

    def given(self) -> dict[str, Any]:
        """Options of the command line that are not at their default."""
        values = {**vars(self), "over": self.over if self.over != "last" else None}
        values["unit"] = list(self.unit) or None
        values["actions"] = self.actions.name if self.actions else None
        values["stride"] = self.stride if self.stride > 1 else None
        values["tolerance"] = self.tolerance if self.tolerance != TOLERANCE_S else None
        return {name: value for name, value in values.items() if value is not None}


class LeRobotSource(TableSource):
    """`source`: folder of a set, or its hf:// address. Errors as LeRobotMeta, read_rows and open_hub."""

    def __init__(self, source: str | Path, asked: LeRobotOptions, *, views_per_sample: int | None = None):
        self.hub = open_hub(str(source), ["meta/*"]) if is_hub_address(str(source)) else None
        self.meta = LeRobotMeta(self.hub.root if self.hub else Path(source))
        asked = replace(asked, camera=self.meta.camera(asked.camera).key)
        address = {"source": f"{self.hub.address}@{self.hub.commit}"} if self.hub else {}
        table = lerobot_table(self.meta, asked, self.hub)
        options = {**address, **asked.given()}
        super().__init__(self.meta.root, table, name="lerobot", options=options, views_per_sample=views_per_sample)

    @cached_property
    def identity(self) -> dict[str, Any]:
        name = {"name": self.hub.repo.partition("/")[2]} if self.hub else {}
        told = {"codebase_version": self.meta.version, "fps": self.meta.fps, "robot_type": self.meta.robot}
        return {**super().identity, **name, **{key: value for key, value in told.items() if value != ""}}


def lerobot_table(meta: LeRobotMeta, asked: LeRobotOptions, hub: HubFolder | None = None) -> ViewTable:
    """The chosen episodes' kept frames. `hub`: where missing files are loaded from."""
    camera = meta.camera(asked.camera)
    mistakes = Mistakes()
    declared = read_declared(asked.actions, None, asked.unit, mistakes)
    choice = choose(meta, asked.state, asked.command, asked.over, declared.units)
    actions = actions_of(declared, choice, asked.stride, mistakes)
    if not actions.terms and asked.command is None and declared.terms is None:
        log.warning(
            "%s has no feature `action`, so its views have no actions; --command KEYS names what was done", meta.root
        )
    listed = meta.episodes(camera)
    splits = splits_of(meta, listed, asked)
    kept = np.array([split is not None for split in splits])
    chosen = listed.at(np.flatnonzero(kept))
    if hub:
        hub.fetch([*chosen.data, *chosen.videos])
    tasks = meta.tasks()
    rows = read_rows(meta.root, listed, kept, choice, asked.stride)

    def frame_of(row: int) -> str:
        return f"episode {chosen.numbers[rows.of[row]]}, frame {rows.steps[row] * asked.stride}"

    refuse_values(actions, [field.name for field in choice.fields], rows.params, mistakes, frame_of)
    mistakes.raise_any(str(meta.root))
    names = [f"episode_{number:06d}" for number in chosen.numbers.tolist()]
    labels, of_split = _labels(rows, tasks, names), [split for split in splits if split is not None]
    return ViewTable(
        sequences=names,
        of=rows.of,
        steps=rows.steps,
        ordered=True,
        params=rows.params,
        fields=choice.fields,
        splits=of_split if asked.val_fraction is None else train_or_val(names, labels, asked.val_fraction),
        labels=labels,
        pictures=_pictures(meta, camera, listed, chosen, rows, asked.tolerance),
        actions=actions,
        settled={name: value for name, value in asked.given().items() if name != "tolerance"},
        where=lambda row: f"{chosen.data[rows.of[row]]}, row {rows.places[row]}",
    )


def actions_of(declared: Declared, choice: FeatureChoice, stride: int, mistakes: Mistakes) -> ActionSpec:
    """The commands, or the terms of a file; a feature that these name stands for its components.

    FormatError, with all that is wrong with the terms, also where they combine commands otherwise than the stride does.
    """
    if declared.terms is None:
        return choice.actions
    terms = []
    for term in declared.terms:
        columns = term.get("columns") if isinstance(term, dict) else None
        if isinstance(columns, list):
            term = {**term, "columns": [part for name in columns for part in choice.components(name)]}
        terms.append(term)
    declared = replace(declared, terms=terms, units=choice.recorded_units)
    actions = action_of(declared, choice.fields, mistakes) or ActionSpec()
    for term in actions.terms:
        if term.op == "command" and term.over != choice.over and stride > 1:
            mistakes.add(f"{declared.where}: commands are over {term.over}, and --over is {choice.over}; give the same")
    mistakes.raise_any(declared.where)
    return actions


def _pictures(
    meta: LeRobotMeta, camera: Feature, listed: Episodes, chosen: Episodes, rows: EpisodeRows, tolerance: float
) -> Pictures:
    if camera.dtype == "image":
        return ParquetPictures(meta.root, camera.key, chosen.data, rows.of, rows.places)
    names = list(dict.fromkeys(chosen.videos))
    rank = {name: number for number, name in enumerate(names)}
    video = np.array([rank[name] for name in chosen.videos])[rows.of]

    def where(row: int) -> str:
        return f"{chosen.data[rows.of[row]]}, row {rows.places[row]}"

    if (still := 1 + np.flatnonzero((np.diff(rows.of) == 0) & (np.diff(rows.times) <= 0))).size:
        row = int(still[0])
        raise FormatError(
            f"{where(row)}: timestamp {rows.times[row]:g} is not after {rows.times[row - 1]:g}, of the row before"
        )
    times, mistakes = chosen.begins[rows.of] + rows.times, Mistakes()
    found = VideoPictures.by_time(meta.root, names, video, times, where, mistakes, tolerance)
    advice = " (repair the times, or give a larger --tolerance)" if "times" in mistakes.by_kind else ""
    mistakes.raise_any(f"{meta.root}{advice}")
    assert found is not None
    order = np.lexsort((rows.of, found.numbers, video))
    same = (np.diff(video[order]) == 0) & (np.diff(found.numbers[order]) == 0)
    if (twice := order[1:][same & (np.diff(rows.of[order]) != 0)]).size:
        row = int(twice.min())
        raise FormatError(
            f"{where(row)}: {found.name(row)} is of another episode too ({len(twice)} such rows): from_timestamp of "
            f"{meta.root}/meta is wrong, or a file lies in the place of another; copy them again"
        )
    _say_spare_frames(found, listed)
    return found


def _say_spare_frames(found: VideoPictures, listed: Episodes) -> None:
    """Videos that are longer than the episodes that lie in them: they may be those of other episodes."""
    counts = Counter[str]()
    for name, length in zip(listed.videos, listed.lengths.tolist(), strict=True):
        counts[name] += length
    pairs = zip(found.names, found.indexes, strict=True)
    spare = [f"{name} has {len(index)}, {counts[name]} rows" for name, index in pairs if len(index) > counts[name]]
    if spare:
        what = "have frames beyond the rows of their episodes, which are left out; are they of other episodes?"
        log.warning("%d videos %s %s", len(spare), what, few(spare))


def _labels(rows: EpisodeRows, tasks: Mapping[int, str], names: Sequence[str]) -> list[str | None]:
    """The task of each episode; none where it has several."""
    several = [name for name, task in zip(names, rows.tasks.tolist(), strict=True) if task < 0]
    if several:
        log.warning("%d episodes have several tasks and no label, e.g. %s", len(several), several[0])
    if unknown := [task for task in rows.tasks.tolist() if task >= 0 and task not in tasks]:
        raise FormatError(f"task_index {unknown[0]} is not among the {len(tasks)} tasks of meta/")
    return [tasks.get(task, "").strip() or None for task in rows.tasks.tolist()]


def splits_of(meta: LeRobotMeta, listed: Episodes, asked: LeRobotOptions) -> list[str | None]:
    """Split of each listed episode, as info.json says, or "train"; None: not asked for, empty, or in no split.

    UsageError: no episode is left, or --val-fraction where there are other splits; FormatError: one is in two splits.
    """
    found: list[str | None] = [None if meta.splits else OF_ALL] * len(listed.numbers)
    for name, ranges in meta.splits.items():
        split = split_of(name) or name
        if not SPLIT_NAME.fullmatch(split):
            raise FormatError(f"{meta.where}: split {name!r:.60} needs a name of a-z, 0-9 and _")
        for place in np.flatnonzero(within(ranges, listed.numbers, f"{meta.where}: split {name}")).tolist():
            if found[place] not in (None, split):
                raise FormatError(f"{meta.where}: episode {listed.numbers[place]} is in {found[place]} and in {split}")
            found[place] = split
    if asked.val_fraction is not None and (others := sorted({s for s in found if s} - {OF_ALL})):
        raise UsageError(f"--val-fraction: {meta.where} has splits of its own, train and {', '.join(others)}")
    kept = listed.lengths > 0
    if asked.episodes is not None:
        kept &= within(asked.episodes, listed.numbers, "--episodes")
        alone = {int(part) for part in asked.episodes.split(",") if part.strip().isdecimal()}
        if lost := sorted(alone - set(listed.numbers.tolist())):
            raise UsageError(f"--episodes {asked.episodes}: there is no episode {lost[0]} in {meta.root}")
    result = [split if keep else None for split, keep in zip(found, kept.tolist(), strict=True)]
    if not any(result):
        asked_for = f"--episodes {asked.episodes}: " if asked.episodes is not None else ""
        there = f"{listed.numbers[0]} to {listed.numbers[-1]}"
        raise UsageError(f"{asked_for}no episode of {meta.root} is left; those with frames are among {there}")
    say_own_splits({split for split in result if split}, lambda line: log.warning("%s: %s", meta.where, line))
    if lost := int(kept.sum()) - sum(split is not None for split in result):
        log.warning("%d episodes are in no split of %s and are left out", lost, meta.where)
    return result


def within(ranges: str, numbers: np.ndarray, where: str) -> np.ndarray:
    """bool [E]: which of these numbers of episodes "0:50,73,80:" names; stops are exclusive, as in Python.

    UsageError: it is no such text.
    """
    kept = np.zeros(len(numbers), bool)
    for part in ranges.split(","):
        found = re.fullmatch(r"\s*(\d{0,9})\s*(:?)\s*(\d{0,9})\s*", part)
        if not found or not (found[1] or found[2]) or (found[3] and not found[2]):
            raise UsageError(f"{where} {ranges!r:.60}: ranges of episodes are needed, e.g. 0:50 or 3,5,10:20")
        start = int(found[1] or 0)
        stop = start + 1 if not found[2] else int(found[3] or 2**31)
        kept |= (numbers >= start) & (numbers < stop)
    return kept
