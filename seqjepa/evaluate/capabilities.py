"""What a run and a shard set allow to measure, from what was encoded. tasks.py asks it which probes make sense."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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
from seqjepa.evaluate.targets import DeclaredTargets, Target
from seqjepa.methods.base import Method
from seqjepa.training.checkpoint import LoadedRun
from shards.reader import ShardSet
from shards.schema import ActionSpec, ViewSpec


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
    return Capabilities(
        method=loaded.method,
        action=loaded.action,
        classes=max(len(stored.info.classes), *(int(features.labels.max()) + 1 for features in both)),
        param_names=splits.train.param_names,
        most_views=min(features.most_views for features in both),
        labelled=all(int(features.labels.min()) >= 0 for features in both),
        seen=splits.kind,
        maps=stored.info.kind == "saliency",
        constant=constant,
        author=loaded.config.fidelity == "author",
        no_path=_why_no_path(loaded, config, device),
        patches=splits.patches is not None,
        ordered=bool(splits.train.stride) or (bool(splits.train.run_length) and needs_order(loaded.action)),
        declared=_declared(loaded, stored, splits.train, constant),
    )


def _declared(loaded: LoadedRun, stored: ShardSet, train: Features, constant: Sequence[str]) -> DeclaredTargets | None:
    """By the run's action or else the set's, if it is no preset; or where columns are none that a preset takes."""
    spec = stored.info.spec
    if not isinstance(spec, ViewSpec) or are_augmented(spec.param_names):
        return None
    own = next((a for a in (loaded.action, spec.actions) if a and action_name(a) == DECLARED), None)
    if own is None and not _is_the_papers(loaded.action, spec):
        own = ActionSpec()
    return None if own is None else DeclaredTargets.of(own, loaded.action, spec.params, train, constant)


def _is_the_papers(action: ActionSpec, spec: ViewSpec) -> bool:
    """Whether the paper's probes have something to read: actions of a preset, or its columns."""
    return bool(action.terms or spec.actions) or implied_action(spec.param_names) != "none"


def _constant(features: Features) -> tuple[str, ...]:
    """Names of the parameters that are the same in all views."""
    low, high = features.params.min(axis=(0, 1)), features.params.max(axis=(0, 1))
    return tuple(name for name, same in zip(features.param_names, low == high, strict=True) if same)


def _why_no_path(loaded: LoadedRun, config: EvalConfig, device: torch.device) -> str:
    """Why paths are not integrated; empty if they are."""
    if loaded.config.model.condition == "none":
        return "the method is given no actions"
    if config.path is False:
        return "not asked for"
    if config.path is None and rotation_term(path_of(loaded.action)) and device.type != "cuda":
        return "an MLP for each M and ablation: by default on a GPU only; ask for it with --path"
    return ""
