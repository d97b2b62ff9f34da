"""What an evaluation has at hand, what can be measured of it, and the studies and suites that are asked for.

Studies are numbers that are not one probe's, such as retrieval or a map of the features; a suite names some of them
(`seqjepa evaluate --suite`). The list of all studies is in run.py; tasks.py asks Capabilities which probes make sense.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from seqjepa.config import EvalConfig
from seqjepa.data.actions import (
    DECLARED,
    ActionTarget,
    action_name,
    are_augmented,
    implied_action,
    needs_order,
    path_of,
    probe_targets,
    rotation_term,
)
from seqjepa.data.sequence import KindOfViews
from seqjepa.evaluate.encode import SplitFeatures
from seqjepa.evaluate.features import Features
from seqjepa.evaluate.probes import Bench
from seqjepa.evaluate.targets import DeclaredTargets, Target
from seqjepa.methods.base import Method
from seqjepa.training.checkpoint import LoadedRun
from shards.errors import UsageError
from shards.reader import ShardSet
from shards.schema import ActionSpec, ViewSpec

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class EvalContext:
    """What a study is given: everything that the probes of the same evaluation saw. The model stays frozen.

    run       the run directory, None where there is none
    ood       a second set of shards with rotations that training never saw, where one was named (paper §B.3)
    progress  whether to show bars on a terminal
    protocol  what results.json says of how the numbers came about
    kept      what takes long to make and more than one study needs, by name
    arrays    that figures are drawn from, by the name of their file: written with the numbers (results.merge_results)
    """

    loaded: LoadedRun
    stored: ShardSet
    splits: SplitFeatures
    can: Capabilities
    config: EvalConfig
    bench: Bench
    run: Path | None = None
    ood: ShardSet | None = None
    progress: bool = True
    protocol: Mapping[str, Any] = field(default_factory=dict)
    kept: dict[str, Any] = field(default_factory=dict)
    arrays: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)


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
AFTER_CONTEXT = "its views are probed after a context"
"""Why some studies are not taken of methods that encode in context."""
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
        raise UsageError(f"--suite is {name!r}; allowed are {', '.join(SUITES)}")
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


@dataclass(frozen=True)
class Capabilities:
    """The splits at hand and the method.

    declared    what probes read of a set whose actions are none of the paper's; None: what the paper reads
    ordered     views come in the order in which they were recorded
    most_views  the longest sequence that every sample can give
    seen        what views are; of patches and augmentations the splits also hold z of the images that they are made of
    maps        the set has saliency maps
    constant    parameters that are the same in all views
    author      fidelity: which pairs of augmented views are compared, see tasks.augmentation_between
    no_path     why not to integrate paths where it could be done; empty: do
    patches     position R² is read from patches that stand beside the augmented images
    """

    method: Method
    action: ActionSpec
    classes: int
    param_names: tuple[str, ...]
    most_views: int
    labelled: bool
    seen: KindOfViews = "stored views"
    maps: bool = False
    constant: tuple[str, ...] = ()
    author: bool = False
    no_path: str = ""
    patches: bool = False
    declared: DeclaredTargets | None = None
    ordered: bool = False

    @property
    def targets(self) -> tuple[ActionTarget, ...]:
        """What the paper reads of views, beside their class."""
        return probe_targets(self.action, self.param_names)

    @property
    def way(self) -> Target | None:
        """What adds up along paths of declared actions."""
        return self.declared and self.declared.way

    @property
    def augmented(self) -> bool:
        """Whether views are augmented images, made here or baked: then the last view of a sequence is the target."""
        return are_augmented(self.param_names)

    @property
    def most_context(self) -> int:
        """The most views that a z_AGG can be of: the target view of augmentations plays no part in it."""
        return self.most_views - self.augmented


def capabilities_of(
    loaded: LoadedRun, stored: ShardSet, splits: SplitFeatures, config: EvalConfig, device: torch.device
) -> Capabilities:
    both, constant = (splits.train, splits.val), _constant(splits.val)
    most_views = min(features.most_views for features in both)
    return Capabilities(
        method=loaded.method,
        action=loaded.action,
        classes=max(len(stored.info.classes), *(int(features.labels.max()) + 1 for features in both)),
        param_names=splits.train.param_names,
        most_views=most_views,
        labelled=all(int(features.labels.min()) >= 0 for features in both),
        seen=splits.kind,
        maps=stored.info.kind == "saliency",
        constant=constant,
        author=loaded.config.fidelity == "author",
        no_path=_why_no_path(loaded, config, device),
        patches=splits.patches is not None,
        ordered=bool(splits.train.stride) or (bool(splits.train.run_length) and needs_order(loaded.action)),
        declared=_declared(loaded, stored, splits.train, constant, most_views),
    )


def _declared(
    loaded: LoadedRun, stored: ShardSet, train: Features, constant: Sequence[str], most_views: int
) -> DeclaredTargets | None:
    """By the run's action or else the set's, if it is no preset; or where columns are none that a preset takes."""
    spec = stored.info.spec
    if not isinstance(spec, ViewSpec) or are_augmented(spec.param_names):
        return None
    own = next((a for a in (loaded.action, spec.actions) if a and action_name(a) == DECLARED), None)
    if own is None:
        if loaded.action.terms or spec.actions or implied_action(spec.param_names) != "none":
            return None  # the paper's probes have something to read: actions of a preset, or its columns
        own = ActionSpec()
    return DeclaredTargets.of(own, loaded.action, spec.params, train, constant, most_views)


def _constant(features: Features) -> tuple[str, ...]:
    """Names of the parameters that are the same in all views."""
    low, high = features.params.min(axis=(0, 1)), features.params.max(axis=(0, 1))
    return tuple(name for name, same in zip(features.param_names, low == high, strict=True) if same)


def _why_no_path(loaded: LoadedRun, config: EvalConfig, device: torch.device) -> str:
    if loaded.config.model.condition == "none":
        return "the method is given no actions"
    if config.path is False:
        return "not asked for"
    if config.path is None and rotation_term(path_of(loaded.action)) and device.type != "cuda":
        return "an MLP for each M and ablation: by default on a GPU only; ask for it with --path"
    return ""
