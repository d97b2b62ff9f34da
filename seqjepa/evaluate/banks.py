"""The two banks that a run is judged by: which splits, and how many draws of their views."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch

from seqjepa.data.augment.scaling import stored_scaling
from seqjepa.data.augmented import Augmenting
from seqjepa.data.draws import Purpose
from seqjepa.data.fixations import Fixating
from seqjepa.evaluate.bank import FeatureBank
from seqjepa.evaluate.battery import augmented_views_wanted, views_wanted
from seqjepa.evaluate.drawn_views import Augmentations, DrawnViews, Draws, Glances
from seqjepa.evaluate.encode import embed
from seqjepa.evaluate.image_bank import encode_images
from seqjepa.evaluate.position_patches import PatchBanks, encode_patches, patches_for_position
from seqjepa.evaluate.protocol import Protocol
from seqjepa.evaluate.seeing import how_seen, statistics, usual_normalisation
from seqjepa.evaluate.view_bank import encode_views
from seqjepa.training.checkpoint import LoadedRun
from shards.errors import ConfigError
from shards.reader import ImageIndex, ShardSet, SplitIndex
from shards.schema import ImageSpec, ViewSpec

CPU_TRAIN_DRAWS = 8


@dataclass(frozen=True)
class Banks:
    """Features of both splits, and how they came about.

    height         of the views or of the images that they are made of, in pixels
    normalisation  "run": the constants of training; else the name of others
    fingerprints   of both splits' shards: the same only for the same content
    how            how patches are taken or images augmented, None for stored views
    transfer       other images or patches than in training
    patches        of runs on augmented images, where the images have saliency maps
    """

    train: FeatureBank
    val: FeatureBank
    splits: tuple[str, str]
    height: int
    normalisation: str
    fingerprints: tuple[str, ...] = ()
    how: Fixating | Augmenting | None = None
    transfer: bool = False
    patches: PatchBanks | None = None


def encode_banks(
    loaded: LoadedRun, stored: ShardSet, protocol: Protocol, device: torch.device, progress: bool
) -> Banks:
    """ConfigError where run, shards and options do not fit each other; said before anything is encoded."""
    if isinstance(stored.info.spec, ViewSpec):
        return _of_views(loaded, stored, stored.info.spec, protocol, device, progress)
    if isinstance(stored.info.spec, ImageSpec):
        return _of_images(loaded, stored, stored.info.spec, protocol, device, progress)
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
            statistics(loaded, stored, name),
            device,
            run_length=spec.sequence,
            scaling=None if loaded.config.fidelity == "author" else stored_scaling(stored.info),
            threads=decoding_threads(),
            progress=progress,
        )
        for index in indexes
    )
    return Banks(train, val, splits, spec.height, name, _fingerprints(indexes))


def _of_images(
    loaded: LoadedRun, stored: ShardSet, spec: ImageSpec, protocol: Protocol, device: torch.device, progress: bool
) -> Banks:
    splits, indexes = _open_splits(stored, protocol, stored.images)
    how = how_seen(loaded, stored, indexes[0], protocol.patch)
    data = loaded.data
    side = how.patch if isinstance(how, Fixating) else 0
    transfer = (spec.height, spec.width, side) != (data.image_height, data.image_width, data.patch)
    name = protocol.normalisation or usual_normalisation(stored, transfer)
    stats = statistics(loaded, stored, name)
    seen_as = patches_for_position(loaded, stored, protocol.patch) if isinstance(how, Augmenting) else None
    made = partial(_drawn_views, how, protocol, stats[0])

    def count(example: DrawnViews) -> int:
        return protocol.train_draws or _fitting_draws(loaded, len(indexes[0]), example, protocol, device)

    def encode(views: tuple[DrawnViews, DrawnViews]) -> tuple[FeatureBank, FeatureBank]:
        train, val = (
            encode_images(loaded.method, index, drawn, stats, device, threads=decoding_threads(), progress=progress)
            for index, drawn in zip(indexes, views, strict=True)
        )
        return train, val

    training = made(count(made(1, Purpose.PROBE)), Purpose.PROBE)
    train, val = encode((training, validation_views(how, protocol, stats[0])))
    patches = None if seen_as is None else encode_patches(seen_as, protocol, stats[0], count, encode)
    return Banks(train, val, splits, spec.height, name, _fingerprints(indexes), how, transfer, patches)


def _fingerprints(indexes: Sequence[SplitIndex | ImageIndex]) -> tuple[str, ...]:
    return tuple(index.fingerprint() for index in indexes)


def validation_views(how: Fixating | Augmenting, protocol: Protocol, mean: tuple[float, ...]) -> DrawnViews:
    """The fixed views of the images that a run is scored on. mean: of the constants that pixels are normalised by."""
    return _drawn_views(how, protocol, mean, protocol.val_draws, Purpose.EVALUATION)


def _drawn_views(
    how: Fixating | Augmenting, protocol: Protocol, mean: tuple[float, ...], count: int, purpose: Purpose
) -> DrawnViews:
    if isinstance(how, Augmenting):
        return Augmentations(how, Draws(count, augmented_views_wanted(protocol.m_val), protocol.seed, purpose))
    return Glances(how, Draws(count, views_wanted(protocol.m_val), protocol.seed, purpose), mean)


def _open_splits(
    stored: ShardSet, protocol: Protocol, open_split: Callable[[str], SplitIndex | ImageIndex]
) -> tuple[tuple[str, str], list]:
    """Names and indexes of the split to train probes on and the one to score them on.

    By default "train", and "val" or, in sets without one (CIFAR-100, STL-10), "test". ConfigError: no such split, or
    one where only some samples have labels.
    """
    train, val = protocol.train_split, protocol.val_split
    names = (train or "train", val or ("val" if "val" in stored.splits or "test" not in stored.splits else "test"))
    if names[0] == names[1]:
        raise ConfigError(
            f"probes would learn from split {names[0]!r} and be scored on it; choose another --train-split "
            f"or --val-split (there are: {', '.join(stored.splits)})"
        )
    indexes = [open_split(name) for name in names]
    for index in indexes:
        unlabelled = int((index.labels < 0).sum())
        if stored.info.classes and unlabelled:
            raise ConfigError(
                f"{unlabelled} of {len(index)} samples in split {index.name!r} of {stored.path} have no label; "
                f"probe on labelled splits (there are: {', '.join(stored.splits)})"
            )
    return names, indexes


def _fitting_draws(loaded: LoadedRun, images: int, drawn: DrawnViews, protocol: Protocol, device: torch.device) -> int:
    """How many draws to encode: one for each epoch, as the paper has it, if a quarter of the free GPU memory holds as
    many; eight on a CPU."""
    if device.type != "cuda":
        return min(CPU_TRAIN_DRAWS, protocol.lengths.epochs)
    example = torch.zeros(1, 3, drawn.side, drawn.side, dtype=torch.uint8, device=device)
    features = embed(loaded.method, example, ((0.5,) * 3, (1.0,) * 3)).shape[-1]
    half_precision = 2 * images * drawn.draws.views * features
    return max(1, min(protocol.lengths.epochs, torch.cuda.mem_get_info(device)[0] // 4 // half_precision))


def decoding_threads() -> int:
    return min(16, len(os.sched_getaffinity(0)))
