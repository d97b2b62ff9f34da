"""What a study is: numbers of a run that are not one probe's, such as retrieval or a map of the features."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from seqjepa.evaluate.config import Protocol
from seqjepa.evaluate.probes import Bench
from seqjepa.evaluate.splits import SplitFeatures
from seqjepa.evaluate.tasks import Capabilities
from seqjepa.training.checkpoint import LoadedRun
from shards.reader import ShardSet


@dataclass(frozen=True)
class EvalContext:
    """What a study is given: everything that the probes of the same evaluation saw. The model stays frozen.

    folder    for arrays that figures are drawn from (artefacts.py): RUN/evaluation/trained or …/untrained
    run       the run directory, None where there is none;  untrained: the case is about its initial weights
    ood       a second set of shards with rotations that training never saw, where one was named (paper §B.3)
    progress  whether to show bars on a terminal
    kept      what takes long to make and more than one study needs, by name
    """

    loaded: LoadedRun
    stored: ShardSet
    banks: SplitFeatures
    subject: Capabilities
    protocol: Protocol
    bench: Bench
    folder: Path
    run: Path | None = None
    untrained: bool = False
    ood: ShardSet | None = None
    progress: bool = True
    kept: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Study:
    """One study.

    name     as --suite and "skipped" in results.json name it
    why_not  "" if it makes sense for a case, else the reason in a few words ("the method has no predictor")
    take     scores, nested as in results.json: {"retrieval": {"mrr": 0.41, …}}; nothing but numbers
    rows     labels of these scores by dotted key, as in results.ROWS ({} for a size)
    """

    name: str
    why_not: Callable[[EvalContext], str]
    take: Callable[[EvalContext], dict[str, Any]]
    rows: dict[str, str]
