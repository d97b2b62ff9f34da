"""How a run sees a set of images: patches or augmentations as in training, and how their pixels are normalised.

What does not fit together is said here.

Patches at fixations for runs on augmented whole images, whose position R² stands in Table 3 beside that of runs on
patches ("SimCLR (augmentations)"): the frozen encoder sees pairs of patches, as it does for those runs.

The two banks that a run is judged by: which splits, and how many draws of their views.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import torch

from seqjepa.data.augment.parameters import stored_scaling
from seqjepa.data.augment.recipes import build_recipe
from seqjepa.data.draws import Purpose
from seqjepa.data.fixations import Fixating
from seqjepa.data.views import Augmented
from seqjepa.evaluate.config import Protocol
from seqjepa.evaluate.drawn_views import Augmentations, DrawnViews, Draws, Glances
from seqjepa.evaluate.encode import PixelStats, embed, encode_images, encode_views
from seqjepa.evaluate.features import Features
from seqjepa.evaluate.tasks import augmented_views_wanted, views_wanted
from seqjepa.paper.sets import NORMALISATIONS, explicit_normalisation
from seqjepa.training.checkpoint import LoadedRun
from seqjepa.training.data import pixel_stats
from shards.errors import ConfigError
from shards.reader import ImageIndex, ShardSet, SplitIndex
from shards.schema import ImageSpec, ViewSpec


def how_seen(loaded: LoadedRun, stored: ShardSet, index: ImageIndex, patch: int | None) -> Fixating | Augmented:
    """As in training, of patches with another size if `patch` is given. ConfigError where such views cannot be had."""
    spec = stored.info.spec
    assert isinstance(spec, ImageSpec), "other sets have no images"
    if loaded.data.augment != "none":
        return _augmenting(loaded, stored, index)
    return _fixating(loaded, stored, spec, patch)


def _augmenting(loaded: LoadedRun, stored: ShardSet, index: ImageIndex) -> Augmented:
    data = loaded.data
    found, wanted = (index.height, index.width), (data.image_height, data.image_width)
    if found != wanted:
        raise ConfigError(
            f"{stored.path} holds images of {found[0]}×{found[1]}, the run was trained on {wanted[0]}×{wanted[1]}; "
            "evaluate on shards of the same size"
        )
    scaling = "author" if loaded.config.fidelity == "author" else "zscore"
    return Augmented.of(index, build_recipe(data.augment), data.action, scaling)


def _fixating(loaded: LoadedRun, stored: ShardSet, spec: ImageSpec, patch: int | None) -> Fixating:
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


def usual_normalisation(stored: ShardSet, transfer: bool) -> str:
    """The run's constants on the images of its training, those of the set where it sees others (Figure 15)."""
    if not transfer:
        return "run"
    return "imagenet" if stored.info.name.startswith("imagenet") else "shards"


def statistics(loaded: LoadedRun, stored: ShardSet, name: str) -> PixelStats:
    """ "run", "shards" or a name in NORMALISATIONS → constants. ConfigError for other names."""
    if name == "run":
        return tuple(loaded.data.mean), tuple(loaded.data.std)
    name = explicit_normalisation(name, loaded.config.fidelity)
    if name not in (known := ("shards", *NORMALISATIONS)):
        raise ConfigError(f"normalisation is {name!r}; choose one of run, {', '.join(known)}")
    data = loaded.config.data.model_copy(update={"normalisation": name})
    return pixel_stats(stored.info, loaded.config.model_copy(update={"data": data}))


PAPER_PATCH = 32
"""Pixels a side of a patch on STL-10's images of 96 (§A.1)."""
PAIR = 2


@dataclass(frozen=True)
class PatchFeatures:
    """z of pairs of patches of both splits, and how these were taken."""

    train: Features
    val: Features
    how: Fixating

    def as_json(self) -> dict[str, Any]:
        """For the protocol."""
        return {**asdict(self.how), "train_draws": self.train.runs, "views_per_draw": PAIR}


def patches_for_position(loaded: LoadedRun, stored: ShardSet, patch: int | None) -> Fixating | None:
    """How patches are taken of the images that a run on augmentations is evaluated on; None where they cannot be.

    As the recipes of seq-JEPA on patches take them, with the run's fidelity. Without `patch` those of 32 pixels, where
    they fit. ConfigError: a `patch` that was asked for cannot be had.
    """
    spec = stored.info.spec
    assert isinstance(spec, ImageSpec), "other sets have no images"
    author = loaded.config.fidelity == "author"
    how = Fixating(patch or PAPER_PATCH, "square" if author else "disc", fidelity="author" if author else "paper")
    if spec.saliency == "none":
        if patch is not None:
            raise ConfigError(
                f"{stored.path} holds images without saliency maps, and --patch probes patches at fixations drawn from "
                "maps; build maps and shard the images with them, or leave out --patch"
            )
        return None
    try:
        how.check_size(spec.height, spec.width)
    except ConfigError:
        if patch is not None:
            raise
        return None
    return how


def encode_patches(
    how: Fixating,
    protocol: Protocol,
    mean: Sequence[float],
    count: Callable[[DrawnViews], int],
    encode: Callable[[tuple[DrawnViews, DrawnViews]], tuple[Features, Features]],
) -> PatchFeatures:
    """count: how many training draws fit; encode: views of both splits → their banks. mean: what fill "mean" is."""

    def drawn(draws: int, purpose: Purpose) -> DrawnViews:
        return Glances(how, Draws(draws, PAIR, protocol.seed, purpose), mean)

    training = drawn(count(drawn(1, Purpose.PROBE)), Purpose.PROBE)
    train, val = encode((training, drawn(protocol.val_draws, Purpose.EVALUATION)))
    return PatchFeatures(train, val, how)


CPU_TRAIN_DRAWS = 8


@dataclass(frozen=True)
class SplitFeatures:
    """Features of both splits, and how they came about.

    height         of the views or of the images that they are made of, in pixels
    normalisation  "run": the constants of training; else the name of others
    fingerprints   of both splits' shards: the same only for the same content
    how            how patches are taken or images augmented, None for stored views
    transfer       other images or patches than in training
    patches        of runs on augmented images, where the images have saliency maps
    """

    train: Features
    val: Features
    splits: tuple[str, str]
    height: int
    normalisation: str
    fingerprints: tuple[str, ...] = ()
    how: Fixating | Augmented | None = None
    transfer: bool = False
    patches: PatchFeatures | None = None


def encode_splits(
    loaded: LoadedRun, stored: ShardSet, protocol: Protocol, device: torch.device, progress: bool
) -> SplitFeatures:
    """ConfigError where run, shards and options do not fit each other; said before anything is encoded."""
    if isinstance(stored.info.spec, ViewSpec):
        return _of_views(loaded, stored, stored.info.spec, protocol, device, progress)
    if isinstance(stored.info.spec, ImageSpec):
        return _of_images(loaded, stored, stored.info.spec, protocol, device, progress)
    raise ConfigError(f"{stored.path} holds saliency maps without images: evaluate on the images that have them")


def _of_views(
    loaded: LoadedRun, stored: ShardSet, spec: ViewSpec, protocol: Protocol, device: torch.device, progress: bool
) -> SplitFeatures:
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
    return SplitFeatures(train, val, splits, spec.height, name, _fingerprints(indexes))


def _of_images(
    loaded: LoadedRun, stored: ShardSet, spec: ImageSpec, protocol: Protocol, device: torch.device, progress: bool
) -> SplitFeatures:
    splits, indexes = _open_splits(stored, protocol, stored.images)
    how = how_seen(loaded, stored, indexes[0], protocol.patch)
    data = loaded.data
    side = how.patch if isinstance(how, Fixating) else 0
    transfer = (spec.height, spec.width, side) != (data.image_height, data.image_width, data.patch)
    name = protocol.normalisation or usual_normalisation(stored, transfer)
    stats = statistics(loaded, stored, name)
    seen_as = patches_for_position(loaded, stored, protocol.patch) if isinstance(how, Augmented) else None
    made = partial(_drawn_views, how, protocol, stats[0])

    def count(example: DrawnViews) -> int:
        return protocol.train_draws or _fitting_draws(loaded, len(indexes[0]), example, protocol, device)

    def encode(views: tuple[DrawnViews, DrawnViews]) -> tuple[Features, Features]:
        train, val = (
            encode_images(loaded.method, index, drawn, stats, device, threads=decoding_threads(), progress=progress)
            for index, drawn in zip(indexes, views, strict=True)
        )
        return train, val

    training = made(count(made(1, Purpose.PROBE)), Purpose.PROBE)
    train, val = encode((training, validation_views(how, protocol, stats[0])))
    patches = None if seen_as is None else encode_patches(seen_as, protocol, stats[0], count, encode)
    return SplitFeatures(train, val, splits, spec.height, name, _fingerprints(indexes), how, transfer, patches)


def _fingerprints(indexes: Sequence[SplitIndex | ImageIndex]) -> tuple[str, ...]:
    return tuple(index.fingerprint() for index in indexes)


def validation_views(how: Fixating | Augmented, protocol: Protocol, mean: tuple[float, ...]) -> DrawnViews:
    """The fixed views of the images that a run is scored on. mean: of the constants that pixels are normalised by."""
    return _drawn_views(how, protocol, mean, protocol.val_draws, Purpose.EVALUATION)


def _drawn_views(
    how: Fixating | Augmented, protocol: Protocol, mean: tuple[float, ...], count: int, purpose: Purpose
) -> DrawnViews:
    if isinstance(how, Augmented):
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
