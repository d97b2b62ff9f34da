"""The studies that there are, and the suites that they are asked for by (`seqjepa evaluate --suite`)."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

from seqjepa.evaluate.costs import COSTS
from seqjepa.evaluate.neighbours import NEIGHBOURS
from seqjepa.evaluate.odd_one_out import ODD_ONE_OUT
from seqjepa.evaluate.ood import OOD
from seqjepa.evaluate.retrieval import RETRIEVAL
from seqjepa.evaluate.rollouts import ROLLOUTS
from seqjepa.evaluate.studies import EvalContext, Study
from seqjepa.evaluate.umap import UMAP
from shards.errors import UsageError

logger = logging.getLogger(__name__)

STUDIES: tuple[Study, ...] = (RETRIEVAL, NEIGHBOURS, ROLLOUTS, OOD, ODD_ONE_OUT, UMAP, COSTS)
"""In the order in which they are taken. A new study is one line here, and its name in the suites it belongs to."""
ROWS = {key: label for study in STUDIES for key, label in study.rows.items()}
"""Labels of their numbers by dotted key, {} for a size."""


@dataclass(frozen=True)
class Suite:
    """studies: names of those that go with the probes. path: paths are integrated on a CPU too."""

    studies: tuple[str, ...]
    path: bool = False


DEFAULT = "probes"
SUITES: dict[str, Suite] = {
    DEFAULT: Suite(("costs",)),
    "3diebench": Suite(("retrieval", "neighbours", "rollout", "ood", "odd_one_out", "umap", "costs"), path=True),
    "stl10": Suite(("retrieval", "neighbours", "rollout", "umap", "costs"), path=True),
    "augmentations": Suite(("retrieval", "neighbours", "rollout", "umap", "costs")),
    "all": Suite(tuple(study.name for study in STUDIES), path=True),
}


def suite_named(name: str) -> Suite:
    """UsageError listing the suites for a name that is none."""
    if name not in SUITES:
        raise UsageError(f"--suite is {name!r}; choose one of {', '.join(SUITES)}")
    return SUITES[name]


def take_studies(case: EvalContext) -> tuple[dict[str, Any], dict[str, str]]:
    """Scores of the studies of the case's suite, nested by name, and for each that makes no sense here, why.

    Shards with other rotations ask for their study in every suite.
    """
    wanted = {*suite_named(case.protocol.suite).studies, *(("ood",) if case.ood else ())}
    scores: dict[str, Any] = {}
    skipped: dict[str, str] = {}
    for study in STUDIES:
        if study.name not in wanted:
            continue
        if reason := study.why_not(case):
            skipped[study.name] = reason
            continue
        found = study.take(case)
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
