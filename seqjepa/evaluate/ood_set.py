"""A second set of shards, seen as the one that a run is evaluated on: which split, and the same classes by name."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from seqjepa.data.actions import AUGMENTATION_PARTS, ROTATION_COLUMNS, actions_between
from seqjepa.evaluate.bank import FeatureBank
from seqjepa.evaluate.encode import PixelStats
from seqjepa.evaluate.view_bank import encode_views
from seqjepa.methods.base import Method
from shards.errors import ConfigError
from shards.reader import ShardSet, SplitIndex
from shards.schema import ViewSpec

SPLIT = "ood"


def open_ood(stored: ShardSet, ood: ShardSet, action: str = "rotation") -> SplitIndex:
    """The OOD split of `ood`: "ood", or the only one there is.

    ConfigError: views of another size than those of `stored`, no rotations or nothing that an `action` of the run is
    made of, no such split. Cheap; ask before encoding.
    """
    here, there = _rendered(stored), _rendered(ood)
    if (there.height, there.width) != (here.height, here.width):
        raise ConfigError(
            f"{ood.path} holds views of {there.height}×{there.width}, {stored.path} of {here.height}×{here.width}; "
            "build both at the same size"
        )
    index = ood.split(_split_of(ood))
    if absent := [name for name in ROTATION_COLUMNS if name not in index.param_names]:
        raise ConfigError(f"{ood.path} has no {', '.join(absent)}; --ood is a set of views whose rotations are known")
    if action not in AUGMENTATION_PARTS:
        actions_between(np.zeros((1, 2, len(index.param_names))), index.param_names, action)
    labels_by_name(index.labels, ood, stored)
    return index


def _rendered(stored: ShardSet) -> ViewSpec:
    spec = stored.info.spec
    if not isinstance(spec, ViewSpec):
        raise ConfigError(f"{stored.path} holds {spec.kind} shards; --ood compares two sets of rendered views")
    return spec


def _split_of(ood: ShardSet) -> str:
    names = ood.splits
    if SPLIT not in names and len(names) != 1:
        raise ConfigError(f"{ood.path} has the splits {', '.join(names)}; an OOD set has one, or one named {SPLIT!r}")
    return SPLIT if SPLIT in names else next(iter(names))


def labels_by_name(labels: np.ndarray, ood: ShardSet, stored: ShardSet) -> np.ndarray:
    """Labels int64 [S] of `ood`, numbered as in `stored`: the class of the same name. −1 (none) stays.

    ConfigError: a class with samples in `ood` that `stored` does not name.
    """
    names, known = ood.info.classes, {name: number for number, name in enumerate(stored.info.classes)}
    used = [names[label] if label < len(names) else f"number {label}" for label in np.unique(labels[labels >= 0])]
    if unknown := [name for name in used if name not in known]:
        more = f" and {len(unknown) - 3} more" if len(unknown) > 3 else ""
        raise ConfigError(
            f"{ood.path} has classes that {stored.path} has not ({', '.join(unknown[:3])}{more}); "
            "classes are matched by name: build both sets with the same names"
        )
    table = np.full(len(names) + 1, -1, np.int64)  # the last entry is where −1 points
    table[: len(names)] = [known.get(name, -1) for name in names]
    return table[labels]


def encode_ood(
    method: Method,
    stored: ShardSet,
    ood: ShardSet,
    pixel_stats: PixelStats,
    device: torch.device,
    *,
    threads: int,
    progress: bool,
) -> FeatureBank:
    """Every view of the OOD split through the same frozen encoder, labels numbered as in `stored`. Errors: open_ood."""
    index = open_ood(stored, ood)
    bank = encode_views(method, index, pixel_stats, device, threads=threads, progress=progress)
    labels = labels_by_name(np.asarray(index.labels, np.int64), ood, stored)
    return replace(bank, labels=torch.from_numpy(labels).to(bank.labels.device))
