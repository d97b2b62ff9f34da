"""Studies: numbers of a run that are not one probe's, such as retrieval or a map of the features; and the suites that
they are asked for by (`seqjepa evaluate --suite`). The list of all studies is in run.py."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from seqjepa.config import EvalConfig
from seqjepa.evaluate.capabilities import Capabilities
from seqjepa.evaluate.encode import SplitFeatures
from seqjepa.evaluate.probes import Bench
from seqjepa.training.checkpoint import LoadedRun
from shards.errors import UsageError
from shards.reader import ShardSet

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class EvalContext:
    """What a study is given: everything that the probes of the same evaluation saw. The model stays frozen.

    folder    for arrays that figures are drawn from: RUN/evaluation/trained or …/untrained
    run       the run directory, None where there is none
    ood       a second set of shards with rotations that training never saw, where one was named (paper §B.3)
    progress  whether to show bars on a terminal
    protocol  what results.json says of how the numbers came about
    kept      what takes long to make and more than one study needs, by name
    """

    loaded: LoadedRun
    stored: ShardSet
    splits: SplitFeatures
    can: Capabilities
    config: EvalConfig
    bench: Bench
    folder: Path
    run: Path | None = None
    ood: ShardSet | None = None
    progress: bool = True
    protocol: Mapping[str, Any] = field(default_factory=dict)
    kept: dict[str, Any] = field(default_factory=dict)


class Study(NamedTuple):
    """One study. The labels of its numbers are in seqjepa.paper.metrics.

    name     as --suite and "skipped" in results.json name it
    why_not  "" if it makes sense here, else the reason in a few words ("the method has no predictor")
    take     scores, nested as in results.json: {"retrieval": {"mrr": 0.41, …}}; nothing but numbers
    """

    name: str
    why_not: Callable[[EvalContext], str]
    take: Callable[[EvalContext], dict[str, Any]]


class Suite(NamedTuple):
    """studies: names of those that go with the probes. path: paths are integrated on a CPU too."""

    studies: tuple[str, ...]
    path: bool = False


IN_SEQUENCES = "views belong to longer sequences, not to objects with a few"
"""Why studies of 3DIEBench's kind are not taken of videos and episodes."""
OF_OBJECTS = ("representation", "retrieval", "neighbours", "rollout", "ood", "odd_one_out", "umap", "costs")
OF_IMAGES = ("representation", "retrieval", "neighbours", "rollout", "umap", "costs")
DEFAULT = "probes"
SUITES: dict[str, Suite] = {
    DEFAULT: Suite(("representation", "costs")),
    "3diebench": Suite(OF_OBJECTS, path=True),
    "stl10": Suite(OF_IMAGES, path=True),
    "augmentations": Suite(OF_IMAGES),
    "retrieval": Suite(("representation", "retrieval", "costs")),
    "all": Suite((*OF_OBJECTS, "unpooled"), path=True),
}


def suite_named(name: str) -> Suite:
    """UsageError listing the suites for a name that is none."""
    if name not in SUITES:
        raise UsageError(f"--suite is {name!r}; choose one of {', '.join(SUITES)}")
    return SUITES[name]


def take_studies(studies: Sequence[Study], ctx: EvalContext) -> tuple[dict[str, Any], dict[str, str]]:
    """Scores of those studies that the suite names, nested by name, and for each that makes no sense here, why.

    Shards with other rotations ask for their study in every suite, and config.unpooled for its own.
    """
    asked = {"ood": bool(ctx.ood), "unpooled": ctx.config.unpooled}
    wanted = {*suite_named(ctx.config.suite).studies, *(name for name, wished in asked.items() if wished)}
    scores: dict[str, Any] = {}
    skipped: dict[str, str] = {}
    for study in studies:
        if study.name not in wanted:
            continue
        if reason := study.why_not(ctx):
            skipped[study.name] = reason
            continue
        found = study.take(ctx)
        logger.info("%s: %s", study.name, found)
        scores = merged(scores, found)
    return scores, skipped


def merged(scores: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    """Both, level by level. ValueError where both have a number of the same name."""
    both = dict(scores)
    for key, value in more.items():
        if isinstance(both.get(key), dict) and isinstance(value, dict):
            both[key] = merged(both[key], value)
        elif key in both:
            raise ValueError(f"two numbers are named {key!r}")
        else:
            both[key] = value
    return both
