"""What decides which measures make sense for a run on a shard set, from what was encoded."""

from __future__ import annotations

import torch

from seqjepa.data.views import Augmented
from seqjepa.evaluate.config import Protocol
from seqjepa.evaluate.features import Features
from seqjepa.evaluate.splits import SplitFeatures
from seqjepa.evaluate.tasks import Capabilities, Seen
from seqjepa.training.checkpoint import LoadedRun
from shards.reader import ShardSet


def capabilities_of(
    loaded: LoadedRun, stored: ShardSet, banks: SplitFeatures, protocol: Protocol, device: torch.device
) -> Capabilities:
    both = (banks.train, banks.val)
    return Capabilities(
        method=loaded.method,
        action=loaded.data.action,
        classes=max(len(stored.info.classes), *(int(bank.labels.max()) + 1 for bank in both)),
        param_names=banks.train.param_names,
        most_views=min(bank.most_views for bank in both),
        labelled=all(int(bank.labels.min()) >= 0 for bank in both),
        seen=_seen(banks),
        maps=stored.info.kind == "saliency",
        constant=_constant(banks.val),
        author=loaded.config.fidelity == "author",
        no_path=_no_path(loaded, protocol, device),
        standardise=protocol.standardise,
        patches=banks.patches is not None,
    )


def _seen(banks: SplitFeatures) -> Seen:
    if banks.how is None:
        return "stored views"
    return "augmentations" if isinstance(banks.how, Augmented) else "patches"


def _constant(bank: Features) -> tuple[str, ...]:
    """Names of the parameters that are the same in all views."""
    low, high = bank.params.min(axis=(0, 1)), bank.params.max(axis=(0, 1))
    return tuple(name for name, same in zip(bank.param_names, low == high, strict=True) if same)


def _no_path(loaded: LoadedRun, protocol: Protocol, device: torch.device) -> str:
    """Why paths are not integrated; empty if they are."""
    if loaded.config.model.condition == "none":
        return "the method is given no actions"
    if protocol.path is False:
        return "not asked for"
    if protocol.path is None and loaded.data.action != "position" and device.type != "cuda":
        return "an MLP for each M and ablation: by default on a GPU only; ask for it with --path"
    return ""
