"""A build in three steps, by one process or by many: prepare, then any number of `work`, then finish.

build_set takes what a stage has to say (Stage) through the steps that STEP asks of this process. By default it does all
three, and helps whoever is at work on the same set already: they share its shards, and one of them finishes it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from shards.building.workers import OvertakenError, overtaken
from shards.errors import FailureError, UsageError, few
from shards.schema import DatasetInfo
from shards.writer import SetBuilder

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Step:
    """What of a build this process is to do.

    prepare  the folder is claimed, the listing saved; no shard is written
    work     shards are written until none is left that nobody has claimed; task i of n begins at the i-th of n parts.
             The set is finished too, where that was the last
    finish   nothing but that; every shard has to be there

    by_address: the command is kept in a store, where others may be able to write: it may start no shell
    """

    name: Literal["all", "prepare", "work", "finish"] = "all"
    task: int = 0
    tasks: int = 1
    by_address: bool = False

    @classmethod
    def asked(cls, name: Literal["work"], task: int | None, tasks: int | None) -> Step:
        """Of --task-index and --num-tasks. UsageError: one without the other, or out of range."""
        if task is None and tasks is None:
            return cls(name)
        if task is None or tasks is None:
            raise UsageError("--task-index and --num-tasks belong together; give both, or neither")
        if not 0 <= task < tasks:
            raise UsageError(f"--task-index {task} of --num-tasks {tasks}: 0 to {tasks - 1} is allowed")
        return cls(name, task, tasks)


STEP: ContextVar[Step] = ContextVar("step", default=Step())  # noqa: B039  it is frozen


class StepDone(Exception):  # noqa: N818  no error
    """The step is at its end, and the set is not: `finished` of `shards` shards are there."""

    def __init__(self, finished: int, shards: int) -> None:
        super().__init__(f"{finished} of {shards} shards are finished")
        self.finished, self.shards = finished, shards


@dataclass(frozen=True)
class Stage:
    """What turns a source into a set.

    identity    name, spec, classes and fingerprint, as SetBuilder takes them
    shards      names of all of them, e.g. "train-000003": known before anything is written
    work        writes the shards that it takes from the iterator, each of which is claimed as it is taken
    provenance  for finish(), with all shards there
    begin       what comes before, in each process: what is wrong with the source, what has to be forgotten
    """

    identity: dict[str, Any]
    shards: Sequence[str]
    work: Callable[[SetBuilder, Iterator[str]], None]
    provenance: Callable[[SetBuilder], dict[str, Any]]
    begin: Callable[[SetBuilder], None] = lambda builder: None


def build_set(stage: Stage, out: Path | str, overwrite: bool = False) -> DatasetInfo:
    """The finished set. Errors as SetBuilder, and whatever `stage` raises; StepDone after a step that is not the last.

    A builder that others took for dead begins again, which finds what they have done.
    """
    while True:
        try:
            with SetBuilder(out, overwrite=overwrite, **stage.identity) as builder:
                return builder.info or _unless_overtaken(stage, builder)
        except OvertakenError as error:
            log.info("%s: others have taken over (%s); looking again", out, error.__cause__ or error)
        overwrite = False


def _unless_overtaken(stage: Stage, builder: SetBuilder) -> DatasetInfo:
    """OvertakenError stands for whatever failed because others have taken over."""
    try:
        return _take_steps(stage, builder, STEP.get())
    except Exception as error:
        if isinstance(error, StepDone) or not builder.overtaken:
            raise
        raise overtaken(builder.layout) from error


def _take_steps(stage: Stage, builder: SetBuilder, step: Step) -> DatasetInfo:
    stage.begin(builder)
    if step.name in ("all", "work"):
        _work(stage, builder, step)
    done = builder.done()
    missing = [name for name in stage.shards if name not in done]
    if step.name == "prepare" or (step.name == "work" and missing):
        raise StepDone(len(done), len(stage.shards))
    if missing:
        place = builder.store.address if builder.store else builder.layout.root
        raise FailureError(
            f"{len(missing)} of {len(stage.shards)} shards of {place} are not written yet ({few(missing)}): run "
            f"`seqjepa-data build work {place}`, and then this again"
        )
    return builder.finish(stage.provenance(builder))


def _work(stage: Stage, builder: SetBuilder, step: Step) -> None:
    """Until all shards are there; in the step `work`, until all that are not are with others who live."""
    first = step.task * len(stage.shards) // step.tasks  # tasks that begin far from each other seldom want the same
    names = [*stage.shards[first:], *stage.shards[:first]]
    stage.work(builder, builder.claims(names))
    while not builder.done().issuperset(names):
        if not builder.others_at_work(names):
            stage.work(builder, builder.claims(names))
        elif step.name == "work" and builder.others_live(names):
            return
