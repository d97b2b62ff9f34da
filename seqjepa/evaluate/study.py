"""What a study is: numbers of a run that are not one probe's, such as retrieval or a map of the features."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from seqjepa.evaluate.banks import Banks
from seqjepa.evaluate.battery import Subject
from seqjepa.evaluate.fit_and_score import Bench
from seqjepa.evaluate.protocol import Protocol
from seqjepa.training.checkpoint import LoadedRun
from shards.reader import ShardSet


@dataclass(frozen=True)
class Case:
    """What a study is given: everything that the probes of the same evaluation saw. The model stays frozen.

    folder    for arrays that figures are drawn from (artefacts.py): RUN/evaluation/trained or …/untrained
    run       the run directory, None where there is none;  untrained: the case is about its initial weights
    ood       a second set of shards with rotations that training never saw, where one was named (paper §B.3)
    progress  whether to show bars on a terminal
    kept      what takes long to make and more than one study needs, by name
    """

    loaded: LoadedRun
    stored: ShardSet
    banks: Banks
    subject: Subject
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
    why_not: Callable[[Case], str]
    take: Callable[[Case], dict[str, Any]]
    rows: dict[str, str]
