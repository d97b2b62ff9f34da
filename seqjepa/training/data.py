"""The split that a run trains on and the loader of its batches, whatever kind the shards are.

    views     stored views, decoded ahead by processes               data/loader.py
    saliency  patches at fixations, cut in batches on the device     data/saccades.py
    image     augmented views, made in batches on the device         data/augmented.py (of saliency sets' images too)

What does not fit together – shards, settings, ranks – is said here, before anything is written.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, Self

import torch

from seqjepa.config import RunConfig
from seqjepa.data.actions import action_size
from seqjepa.data.augment.recipes import build_recipe
from seqjepa.data.augment.scaling import Scaling, ScalingMode, stored_scaling
from seqjepa.data.augmented import AugmentedLoader
from seqjepa.data.fixations import Fixating
from seqjepa.data.known_sets import classes_sha256
from seqjepa.data.loader import ViewLoader
from seqjepa.data.normalisation import NORMALISATIONS, explicit
from seqjepa.data.saccades import SaccadeLoader
from seqjepa.data.sequence import ViewSequence
from seqjepa.data.subset import part_of
from seqjepa.training.checkpoint import DataInfo
from seqjepa.training.distributed import World
from seqjepa.training.misfits import misfits
from shards.errors import ConfigError
from shards.reader import ImageIndex, ShardSet, SplitIndex
from shards.schema import DatasetInfo, MapSpec, ViewSpec

logger = logging.getLogger(__name__)


class BatchLoader(Protocol):
    """What the trainer needs of a loader: batches that are a function of (seed, epoch, step, rank) alone."""

    def __len__(self) -> int:
        """Batches per epoch, the same on every rank."""
        ...

    def epoch(self, epoch: int, start_step: int = 0) -> Iterator[ViewSequence]:
        """The batches of an epoch from start_step on, uint8 views on the host or the device."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...


@dataclass(frozen=True)
class TrainingData:
    """classes: how many. names: {"name": the set's, "split": its name, "train": fingerprint of that split}.

    index: of the whole split, or of data.fraction of it.
    scaling: the constants that come with a set of baked augmentations.
    """

    index: SplitIndex | ImageIndex
    data: DataInfo
    classes: int
    names: dict[str, str]
    scaling: Scaling | None = None


def open_training_data(shards: Path, config: RunConfig) -> TrainingData:
    """ConfigError or FormatError where the shards and the settings do not fit each other."""
    opened = ShardSet.open(shards)
    if problems := list(misfits(opened.info, config.data, config.method)):
        raise ConfigError(f"{shards} {'; '.join(problems)}")
    split = training_split(opened, config)
    index = opened.split(split) if isinstance(opened.info.spec, ViewSpec) else opened.images(split)
    names = {"name": opened.info.name, "split": split, "train": index.fingerprint()}
    names |= {"classes_sha256": classes_sha256(opened.info.classes)}
    data, classes = _data_info(opened.info, split, config), len(opened.info.classes)
    index = part_of(index, config.data.fraction, config.seed)
    return TrainingData(index, data, classes, names, stored_scaling(opened.info))


def training_split(opened: ShardSet, config: RunConfig) -> str:
    """data.split, or "unlabeled" where the set has that (STL-10, as released), else "train". ConfigError: not there."""
    split = config.data.split or ("unlabeled" if "unlabeled" in opened.splits else "train")
    if split not in opened.splits:
        raise ConfigError(
            f"{opened.path} has no split {split!r} to train on; set data.split to one of {', '.join(opened.splits)}"
        )
    return split


def fixating(config: RunConfig) -> Fixating | None:
    """How patches are taken; None where whole views are seen. ConfigError for what Fixating does not take."""
    data = config.data
    if not data.patch:
        return None
    return Fixating(data.patch, data.inhibition, data.fixations, data.fill, config.fidelity)


def pixel_stats(info: DatasetInfo, config: RunConfig) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel, for pixels in [0, 1]: the shards' own, or published constants."""
    if (name := explicit(config.data.normalisation, config.fidelity)) in NORMALISATIONS:
        return NORMALISATIONS[name]
    return tuple(info.normalisation["mean"]), tuple(info.normalisation["std"])


def build_loader(
    source: TrainingData, config: RunConfig, world: World, workers: int | None, device: torch.device
) -> BatchLoader:
    """The run's loader. A last batch that leaves a rank one sequence is dropped: batch norm needs two."""
    samples, batch = len(source.index), config.optim.batch_size
    if min(samples, batch) // world.size < 2:
        raise ConfigError(
            f"{samples} training samples in batches of {batch} leave a rank (of {world.size}) fewer than 2 sequences; "
            "use a larger optim.batch_size, more samples or fewer ranks"
        )
    if batch > samples and world.main:
        logger.warning(
            "optim.batch_size is %d, but there are %d samples to train on: every step takes all %d; set at most %d",
            *(batch, samples, samples, samples),
        )
    common: dict[str, Any] = {
        "views": config.data.context + 1,
        "action": config.data.action,
        "batch_size": batch,
        "seed": config.seed,
        "workers": workers,
        "rank": world.rank,
        "world_size": world.size,
        "drop_last": samples > batch and samples % batch // world.size < 2,
    }
    scaling: ScalingMode = "author" if config.fidelity == "author" else "zscore"
    if isinstance(source.index, SplitIndex):
        pin = device.type == "cuda"
        return ViewLoader(source.index, pin=pin, normalisation=scaling, scaling=source.scaling, **common)
    if source.data.fixating:
        how = Fixating(**source.data.fixating)
        return SaccadeLoader(source.index, how, device=device, mean=tuple(source.data.mean), **common)
    recipe = build_recipe(config.data.augment)
    return AugmentedLoader(source.index, recipe, normalisation=scaling, device=device, **common)


def _data_info(info: DatasetInfo, split: str, config: RunConfig) -> DataInfo:
    spec, how = info.spec, fixating(config)
    assert not isinstance(spec, MapSpec), "misfits() has refused sets of maps"
    mean, std = pixel_stats(info, config)
    whole = isinstance(spec, ViewSpec)
    return DataInfo(
        action=config.data.action,
        action_size=action_size(config.data.action),
        mean=mean,
        std=std,
        height=how.patch if how else spec.height,
        width=how.patch if how else spec.width,
        kind=spec.kind,
        split=split,
        fixating=asdict(how) if how else {},
        image_height=0 if whole else spec.height,
        image_width=0 if whole else spec.width,
        augment=config.data.augment,
    )
