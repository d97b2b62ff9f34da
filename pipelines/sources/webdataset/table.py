"""webdataset tars → the table that TableSource builds a `views` set from: sequences, their frames, where those lie."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.archives import printable
from pipelines.sources.declared_actions import (
    Declared,
    action_of,
    coarse,
    commands_alone,
    fields_of,
    read_declared,
    refuse_values,
    scale_of,
)
from pipelines.sources.leaks import refuse_leaks
from pipelines.sources.mistakes import Mistakes
from pipelines.sources.subset import RULE, train_or_val
from pipelines.sources.table import LARGEST_STEP, ViewTable, divided_steps
from pipelines.sources.webdataset.columns import ADVICE, Labels
from pipelines.sources.webdataset.options import TarOptions, no_samples
from pipelines.sources.webdataset.samples import TarSamples
from pipelines.sources.webdataset.sequences import FrameWalk, SequenceOptions, TarPictures
from pipelines.sources.webdataset.spool import Spool
from shards.errors import FormatError, UsageError, few
from shards.schema import ActionSpec, ParamField, ViewSpec

log = logging.getLogger(__name__)

OWN_PARAMS = "params"  # name of the member that holds them in our own sets


@dataclass(frozen=True)
class Meaning:
    """actions  an actions.toml; None: the one beside the tars      action  a preset's name instead
    units    "yaw=deg" …
    allow_repeats  the same pixels in two splits are said, not refused
    """

    actions: Path | None = None
    action: str | None = None
    units: tuple[str, ...] = ()
    allow_repeats: bool = False

    @property
    def asked(self) -> bool:
        return any((self.actions, self.action, self.units))

    def to_json(self) -> dict[str, Any]:
        given = {"action": self.action, "unit": list(self.units) or None, "allow_repeats": self.allow_repeats or None}
        return {"actions": self.actions.name if self.actions else None, **given}

    def read(self, asked: TarOptions, mistakes: Mistakes) -> Declared:
        """UsageError: the file is not there, an unknown preset or unit. FormatError: the file is not TOML."""
        folder = None if asked.tars[0].is_stream else asked.path
        return read_declared(self.actions, self.action, self.units, mistakes, folder)


def wants_views(asked: TarOptions, how: SequenceOptions, spool: Spool) -> bool:
    """Whether options ask for sequences, or the first sample has several images. FormatError: there is none."""
    if how.asked:
        return True
    mistakes = Mistakes()
    for tar in asked.tars:  # img2dataset leaves an empty one where every download failed
        for sample in TarSamples([tar], spool.plain([tar]), asked.image).read(mistakes):
            return sample.views[0].number is not None
        mistakes.raise_any(str(asked.path))
    raise no_samples(asked)


def tar_table(asked: TarOptions, how: SequenceOptions, spool: Spool, meaning: Meaning) -> ViewTable:
    """Reads all samples once. FormatError: a tar that is cut or damaged; the first 20 mistakes of samples."""
    own = asked.own
    spec = own.spec if own and isinstance(own.spec, ViewSpec) else None
    if spec is not None:
        chunks = "sequence" if spec.chunked and not how.sequence and not how.key else how.sequence
        how = replace(how, columns=(OWN_PARAMS,), ordered=spec.ordered, sequence=chunks)
    samples = TarSamples(asked.tars, spool.plain(asked.tars), asked.image)
    labels = Labels(asked.label, asked.known_classes)
    walk = FrameWalk(samples, how, labels)
    walk.run()
    frames = walk.frames
    if not frames.of:
        walk.mistakes.raise_any(str(asked.path))
        raise no_samples(asked)
    order = np.lexsort((np.asarray(frames.steps), np.asarray(frames.of)))
    _refuse_twice(walk, order)
    steps = _steps(walk, order, how.ordered)
    classes = labels.classes(frames.labels, walk.mistakes)
    names = [classes[label] if isinstance(label, int) else label for label in frames.labels]
    fields, params, actions = _meant(walk, spec, meaning.read(asked, walk.mistakes), how.ordered)
    walk.mistakes.raise_any(str(asked.path))
    samples.others.warn(asked.path)
    table = ViewTable(
        sequences=_sequence_names(frames.names, asked, how),
        of=np.asarray(frames.of, np.int32)[order],
        steps=steps.astype(np.int32),
        ordered=how.ordered,
        params=params[order],
        fields=fields,
        splits=train_or_val(frames.names, names, asked.val_fraction) if asked.val_fraction else frames.splits,
        labels=names,
        pictures=TarPictures(samples, frames, order),
        actions=actions,
        settled={**how.to_json(), **({} if asked.val_fraction is None else {"val_fraction_rule": RULE})},
        where=lambda row: walk.where(int(order[row])),
    )
    _check_whole(table, asked, walk, order, meaning)
    return table


def _sequence_names(names: list[str], asked: TarOptions, how: SequenceOptions) -> list[str]:
    """Of samples that are sequences of their own the keys, where all differ."""
    if how.sequence is not None or how.key is not None:
        return names
    keys = [name.partition("/")[2] for name in names]
    if all(re.fullmatch("[0-9]{10}", key) for key in keys):
        words = "%s: keys end at the first dot; if %s is the seconds of a time, name files without a dot in it"
        log.warning(words, printable(str(asked.path)), keys[0])
    return keys if len(set(keys)) == len(keys) else names


def _check_whole(table: ViewTable, asked: TarOptions, walk: FrameWalk, order: np.ndarray, meaning: Meaning) -> None:
    """What is told of all frames together: a line for each doubt. FormatError: images that two splits share."""
    passed_over = [printable(name) for name in walk.columns.left_out]
    notes = [f"fields that hold no numbers are left out: {few(passed_over)}"] if passed_over else []
    exact = np.asarray(walk.frames.params, np.float64).reshape(table.params.shape)
    notes.extend(coarse(table.names, exact[order], table.of))
    refuse_leaks(table, walk.mistakes, notes, allow_repeats=meaning.allow_repeats)
    walk.mistakes.raise_any(str(asked.path))
    for note in notes:
        log.warning("%s: %s", printable(str(asked.path)), note)


def _meant(
    walk: FrameWalk, spec: ViewSpec | None, declared: Declared, ordered: bool
) -> tuple[tuple[ParamField, ...], np.ndarray, ActionSpec | None]:
    """(columns, float32 [R, P] in stored units, action). Of a set of ours, columns and action are what it says."""
    names, mistakes = walk.columns.names, walk.mistakes
    found = np.asarray(walk.frames.params, np.float64).reshape(len(walk.frames.of), len(names))
    if spec is not None and not mistakes.count:
        if len(spec.params) != len(names):
            raise FormatError(
                f"{walk.columns.first}: {len(names)} parameters, its dataset.json says {len(spec.params)}"
            )
        if declared.units:
            raise UsageError("a set of ours says its units itself; leave --unit, or [units], out")
        fields, action = spec.params, spec.actions
    else:
        fields, found, action = fields_of(names, declared, mistakes), found * scale_of(names, declared), None
    action = action_of(declared, fields, mistakes) if declared.terms is not None else action
    if action and not ordered and any(term.op == "command" for term in action.terms):
        mistakes.add("a command leads from a frame to the next: order them with --step, or say --ordered", "actions")
    found = _filled(walk, found, fields, action)
    refuse_values(action, [field.name for field in fields], found, mistakes, walk.where)
    return fields, found.astype(np.float32), action


def _filled(walk: FrameWalk, found: np.ndarray, fields: Sequence[ParamField], action: ActionSpec | None) -> np.ndarray:
    """0 for the command of a sequence's last frame, which leads nowhere. Other missing numbers are mistakes."""
    commands, of = commands_alone(action), np.asarray(walk.frames.of)
    order = np.lexsort((np.asarray(walk.frames.steps), of))
    ends = np.zeros(len(found), bool)
    ends[order[np.append(np.diff(of[order]) != 0, True)]] = True
    missing = np.isnan(found)
    for i, field in enumerate(fields):
        command = field.name in commands
        advice = f"; {'the last frame' if command else 'only a command of the last frame'} of a sequence may have none"
        advice += "" if command else ADVICE
        words = f"no number {printable(field.name)}, which the first sample has{advice}"
        bad = missing[:, i] & ~(ends & command)
        walk.tell(np.flatnonzero(bad), lambda _, told=words: told, f"missing {field.name}")
    return np.where(missing, 0, found)


def _refuse_twice(walk: FrameWalk, order: np.ndarray) -> None:
    frames = walk.frames
    of, steps = np.asarray(frames.of)[order], np.asarray(frames.steps)[order]
    again = np.flatnonzero((np.diff(of) == 0) & (np.diff(steps) == 0))
    before = dict(zip(order[again + 1].tolist(), order[again].tolist(), strict=True))

    def words(row: int) -> str:
        sequence, step = printable(frames.names[frames.of[row]]), frames.steps[row]
        return f"its sequence {sequence} has step {step} already ({walk.where(before[row])})"

    walk.tell(order[again + 1], words, "step")


def _steps(walk: FrameWalk, order: np.ndarray, ordered: bool) -> np.ndarray:
    """int64 [R]; what no set can hold is a mistake."""
    steps = np.asarray(walk.frames.steps, np.int64)[order]
    if ordered:
        steps = divided_steps(steps, np.asarray(walk.frames.of)[order])[0]
    walk.tell(order[steps > LARGEST_STEP], lambda _: "its step is too far from its sequence's first", "far")
    return steps
