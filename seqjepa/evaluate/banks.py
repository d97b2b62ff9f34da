"""The two banks that a run is judged by: which splits, pixels and fixations, and what does not fit together."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from seqjepa.data.draws import Purpose
from seqjepa.data.fixations import Fixating
from seqjepa.evaluate.bank import FeatureBank
from seqjepa.evaluate.battery import views_wanted
from seqjepa.evaluate.encode import PixelStats, embed
from seqjepa.evaluate.protocol import Protocol
from seqjepa.evaluate.saccade_bank import Glances, encode_glances
from seqjepa.evaluate.view_bank import encode_views
from seqjepa.training.checkpoint import LoadedRun
from seqjepa.training.data import NORMALISATIONS, pixel_stats
from shards.errors import ConfigError
from shards.reader import ImageIndex, ShardSet, SplitIndex
from shards.schema import ImageSpec, ViewSpec

CPU_FIXATION_DRAWS = 8


@dataclass(frozen=True)
class Banks:
    """Features of both splits, and how they came about.

    height         of the views or of the images that patches are cut from, in pixels
    normalisation  "run": the constants of training; else the name of others
    how            how patches are taken, None for stored views;  transfer  other images or patches than in training
    """

    train: FeatureBank
    val: FeatureBank
    splits: tuple[str, str]
    height: int
    normalisation: str
    how: Fixating | None = None
    transfer: bool = False


def encode_banks(
    loaded: LoadedRun, stored: ShardSet, protocol: Protocol, device: torch.device, progress: bool
) -> Banks:
    """ConfigError where run, shards and options do not fit each other; said before anything is encoded."""
    if isinstance(stored.info.spec, ViewSpec):
        return _of_views(loaded, stored, stored.info.spec, protocol, device, progress)
    if isinstance(stored.info.spec, ImageSpec):
        return _of_glances(loaded, stored, stored.info.spec, protocol, device, progress)
    raise ConfigError(f"{stored.path} holds saliency maps without images: evaluate on the images that have them")


def _of_views(
    loaded: LoadedRun, stored: ShardSet, spec: ViewSpec, protocol: Protocol, device: torch.device, progress: bool
) -> Banks:
    found, wanted = (spec.height, spec.width), (loaded.data.height, loaded.data.width)
    if protocol.patch is not None:
        raise ConfigError(f"{stored.path} holds whole views; --patch is for shards of images with saliency maps")
    if found != wanted:
        raise ConfigError(
            f"{stored.path} holds views of {found[0]}×{found[1]}, the run was trained on {wanted[0]}×{wanted[1]}; "
            "evaluate on shards of the same size"
        )
    splits, indexes = _open_splits(stored, protocol, stored.split)
    name = protocol.normalisation or "run"
    train, val = (
        encode_views(
            loaded.method,
            index,
            _statistics(loaded, stored, name),
            device,
            run_length=spec.sequence,
            threads=_threads(),
            progress=progress,
        )
        for index in indexes
    )
    return Banks(train, val, splits, spec.height, name)


def _of_glances(
    loaded: LoadedRun, stored: ShardSet, spec: ImageSpec, protocol: Protocol, device: torch.device, progress: bool
) -> Banks:
    how = _fixating(loaded, stored, spec, protocol.patch)
    splits, indexes = _open_splits(stored, protocol, stored.images)
    data = loaded.data
    transfer = (spec.height, spec.width, how.patch) != (data.image_height, data.image_width, data.patch)
    name = protocol.normalisation or _usual_normalisation(stored, transfer)
    statistics = _statistics(loaded, stored, name)
    draws = protocol.fixation_draws or _fitting_draws(loaded, indexes[0], how, protocol, statistics, device)
    train, val = (
        encode_glances(
            loaded.method,
            index,
            Glances(how, count, views_wanted(protocol.m_val), protocol.seed, purpose),
            statistics,
            device,
            threads=_threads(),
            progress=progress,
        )
        for index, count, purpose in zip(
            indexes, (draws, protocol.val_draws), (Purpose.PROBE, Purpose.EVALUATION), strict=True
        )
    )
    return Banks(train, val, splits, spec.height, name, how, transfer)


def _fixating(loaded: LoadedRun, stored: ShardSet, spec: ImageSpec, patch: int | None) -> Fixating:
    """As in training, with another patch size if protocol. ConfigError where patches cannot be had."""
    data = loaded.data
    if data.action != "position" or not (data.patch or patch):
        raise ConfigError(
            f"{stored.path} holds whole images, the run was trained on stored views with actions of kind "
            f"{data.action!r}; evaluate on `views` shards"
            + (", or give the side of its patches with --patch" if data.action == "position" else "")
        )
    how = Fixating(**data.fixating)
    how = replace(how, patch=patch) if patch is not None else how
    how.check_size(spec.height, spec.width)
    if spec.saliency == "none" and how.fixations == "saliency":
        raise ConfigError(
            f"{stored.path} holds images without saliency maps, the run's fixations are drawn from maps; "
            "build maps and shard the images with them"
        )
    return how


def _open_splits(
    stored: ShardSet, protocol: Protocol, open_split: Callable[[str], SplitIndex | ImageIndex]
) -> tuple[tuple[str, str], list]:
    """Names and indexes of the split to train probes on and the one to score them on.

    By default "train", and "val" or, in sets without one (STL-10), "test". ConfigError: no such split, or one where
    only some samples have labels.
    """
    train, val = protocol.train_split, protocol.val_split
    names = (train or "train", val or ("val" if "val" in stored.splits or "test" not in stored.splits else "test"))
    indexes = [open_split(name) for name in names]
    for index in indexes:
        unlabelled = int((index.labels < 0).sum())
        if stored.info.classes and unlabelled:
            raise ConfigError(
                f"{unlabelled} of {len(index)} samples in split {index.name!r} of {stored.path} have no label; "
                f"probe on labelled splits (there are: {', '.join(stored.splits)})"
            )
    return names, indexes


def _usual_normalisation(stored: ShardSet, transfer: bool) -> str:
    """The run's constants on the images of its training, those of the set where it sees others (SPEC D.11)."""
    if not transfer:
        return "run"
    return "imagenet" if stored.info.name.startswith("imagenet") else "shards"


def _statistics(loaded: LoadedRun, stored: ShardSet, name: str) -> PixelStats:
    if name == "run":
        return tuple(loaded.data.mean), tuple(loaded.data.std)
    if name not in (known := ("shards", *NORMALISATIONS)):
        raise ConfigError(f"normalisation is {name!r}; choose one of run, {', '.join(known)}")
    data = loaded.config.data.model_copy(update={"normalisation": name})
    return pixel_stats(stored.info, loaded.config.model_copy(update={"data": data}))


def _fitting_draws(
    loaded: LoadedRun,
    index: ImageIndex,
    how: Fixating,
    protocol: Protocol,
    statistics: PixelStats,
    device: torch.device,
) -> int:
    """How many draws of fixations to encode: one for each epoch, as the paper has it, if a quarter of the free GPU
    memory holds as many; eight on a CPU."""
    if device.type != "cuda":
        return min(CPU_FIXATION_DRAWS, protocol.lengths.epochs)
    example = torch.zeros(1, 3, how.patch, how.patch, dtype=torch.uint8, device=device)
    half_precision = 2 * len(index) * views_wanted(protocol.m_val) * embed(loaded.method, example, statistics).shape[-1]
    return max(1, min(protocol.lengths.epochs, torch.cuda.mem_get_info(device)[0] // 4 // half_precision))


def _threads() -> int:
    return min(16, len(os.sched_getaffinity(0)))
