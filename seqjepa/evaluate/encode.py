"""Both splits of an evaluation through the encoder: which splits, how images are seen, and how many draws of views.

Images are seen as in training, in patches or augmented. Runs on augmented whole images see pairs of patches beside
them: their position R² stands in Table 3 beside that of runs on patches ("SimCLR (augmentations)").
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch

from seqjepa.config import EvalConfig
from seqjepa.data.actions import needs_order
from seqjepa.data.augment.parameters import stored_scaling
from seqjepa.data.augment.recipes import build_recipe
from seqjepa.data.fixations import Fixating, fixating_as
from seqjepa.data.one_pass import decoding_threads
from seqjepa.data.sampling import with_views, with_windows
from seqjepa.data.sequence import KindOfViews
from seqjepa.data.stored import StoredViews
from seqjepa.data.views import Augmented, ImageViews, Patches
from seqjepa.evaluate.features import Draws, Features, encode_images, encode_views
from seqjepa.methods.base import Method
from seqjepa.models.ema import MovingAverage
from seqjepa.models.embed import Embedding, PixelStats, embed
from seqjepa.models.pretrained import weights_sha256
from seqjepa.paper.sets import NORMALISATIONS, explicit_normalisation
from seqjepa.training.checkpoint import LoadedRun
from seqjepa.training.data import pixel_stats
from shards.errors import ConfigError
from shards.reader import ImageIndex, ShardSet, SplitIndex
from shards.reading.sequences import window_span
from shards.schema import ImageSpec, ViewSpec, features_of

CPU_TRAIN_DRAWS = 8
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


@dataclass(frozen=True)
class SplitFeatures:
    """Features of both splits, and how they came about.

    height         of the views or of the images that they are made of, in pixels
    normalisation  "run": the constants of training; else the name of others
    fingerprints   of both splits' shards: the same only for the same content
    views          how patches are taken or images augmented, None for stored views
    transfer       other images or patches than in training
    patches        of runs on augmented images, where the images have saliency maps
    """

    train: Features
    val: Features
    names: tuple[str, str]
    height: int
    normalisation: str
    fingerprints: tuple[str, ...] = ()
    views: ImageViews | None = None
    transfer: bool = False
    patches: PatchFeatures | None = None

    @property
    def kind(self) -> KindOfViews:
        """Of the views: "stored views", "patches" or "augmentations"."""
        return StoredViews.kind if self.views is None else self.views.kind


def encode_splits(
    loaded: LoadedRun, stored: ShardSet, config: EvalConfig, device: torch.device, progress: bool
) -> SplitFeatures:
    """ConfigError where run, shards and options do not fit each other; said before anything is encoded."""
    if isinstance(stored.info.spec, ViewSpec):
        return encode_stored_views(loaded, stored, stored.info.spec, config, device, progress)
    if isinstance(stored.info.spec, ImageSpec):
        return _encode_images(loaded, stored, stored.info.spec, config, device, progress)
    raise ConfigError(f"{stored.place} holds saliency maps without images: evaluate on the images that have them")


def encode_stored_views(
    loaded: LoadedRun,
    stored: ShardSet,
    spec: ViewSpec,
    config: EvalConfig,
    device: torch.device,
    progress: bool,
    embedding: Embedding | None = None,
) -> SplitFeatures:
    """What `embedding` makes of every view, the run's method where it is None. ConfigError as of encode_splits."""
    if config.patch is not None:
        raise ConfigError(f"{stored.place} holds whole views; --patch is for shards of images with saliency maps")
    _require_size(stored, "views", (spec.height, spec.width), (loaded.data.height, loaded.data.width))
    require_encoder(loaded, stored)
    names, indexes = _open_splits(stored, config, stored.split)
    normalisation = config.normalisation or "run"
    stats = statistics(loaded, stored, normalisation)
    scaling = None if loaded.config.fidelity == "author" else stored_scaling(stored.info)
    windows = [in_windows(loaded, index) for index in indexes]
    indexes = [index for index, _ in windows]
    train, val = (
        encode_views(
            embedding or loaded.method, index, stats, device,
            run_length=spec.sequence, scaling=scaling, stride=stride, threads=decoding_threads(), progress=progress,
        )
        for index, stride in windows
    )  # fmt: skip
    fingerprints = tuple(index.fingerprint() for index in indexes)
    return SplitFeatures(train, val, names, spec.height, normalisation, fingerprints)


def require_encoder(loaded: LoadedRun, stored: ShardSet) -> None:
    """ConfigError where a set holds features that are not this run's encoder's, or not its target's."""
    features = features_of(stored.info.spec)
    if features is None:
        return
    method, advice = loaded.method, "evaluate on the set of pixels, or on features that `--run` makes with it"
    if type(method).embed is not Method.embed or weights_sha256(method.encoder) != features.weights_sha256:
        raise ConfigError(
            f"{stored.place} holds features of another encoder ({features.backbone}) than the run's; {advice}"
        )
    if isinstance(method, MovingAverage) and not method.freezes_encoder:
        raise ConfigError(
            f"{stored.place} holds features of the run's encoder, and its targets are another encoder's, the moving "
            "average; evaluate on the set of pixels"
        )
    known, seen = (features.mean, features.std), (tuple(loaded.data.mean), tuple(loaded.data.std))
    if not np.allclose(known, seen, rtol=0, atol=1e-6):
        raise ConfigError(
            f"{stored.place} holds features of pixels normalised with mean {features.mean} and std {features.std}, the "
            f"run was trained on mean {seen[0]} and std {seen[1]}; make features with `--run`"
        )


def in_windows(loaded: LoadedRun, index: SplitIndex) -> tuple[SplitIndex, int]:
    """The split and the steps from a view to the next, 0 for views in random order, as the run was trained.

    Without sequences that are too short for a window of training; in random order without those of a single view, with
    which nothing that lies between views would be measured of any. ConfigError: there are no others in windows, or
    views that have no order and the run's action or data.order needs one.
    """
    data = loaded.config.data
    commands = needs_order(loaded.action)
    if index.sequence or (data.order == "random" and not commands):
        return with_views(index, min(2, int(index.sequences.counts.max()))), 0
    if not index.ordered:
        why = "was told commands, which lead to the view recorded next" if commands else "was trained on windows"
        raise ConfigError(
            f"split {index.name!r} holds views in no order, and the run {why}; evaluate on shards of sequences"
        )
    return with_windows(index, window_span(data.context + 1, data.stride)), data.stride


def _encode_images(
    loaded: LoadedRun, stored: ShardSet, spec: ImageSpec, config: EvalConfig, device: torch.device, progress: bool
) -> SplitFeatures:
    names, indexes = _open_splits(stored, config, stored.images)
    views, data = views_of_run(loaded, stored, indexes[0], config.patch), loaded.data
    side = views.side if views.kind == Patches.kind else 0
    transfer = (spec.height, spec.width, side) != (data.image_height, data.image_width, data.patch)
    normalisation = config.normalisation or usual_normalisation(loaded, stored, transfer)
    stats = statistics(loaded, stored, normalisation)
    views = replace(views, mean=stats[0]) if isinstance(views, Patches) else views
    beside = patches_for_position(loaded, stored, config.patch) if views.kind == Augmented.kind else None

    def encode(seen: ImageViews, count: int) -> tuple[Features, Features]:
        one = Draws(seen, 1, count, config.seed, "probe")
        draws = config.train_draws or _fitting_draws(loaded, len(indexes[0]), one, config, device)
        both = replace(one, count=draws), replace(one, count=config.val_draws, purpose="evaluation")
        train, val = (
            encode_images(loaded.method, index, of_split, stats, device, threads=decoding_threads(), progress=progress)
            for index, of_split in zip(indexes, both, strict=True)
        )
        return train, val

    train, val = encode(views, views_to_draw(views, config))
    patches = None
    if beside is not None:
        patches = PatchFeatures(*encode(Patches(beside, stats[0]), PAIR), beside)
    fingerprints = tuple(index.fingerprint() for index in indexes)
    return SplitFeatures(train, val, names, spec.height, normalisation, fingerprints, views, transfer, patches)


def views_to_draw(views: ImageViews, config: EvalConfig) -> int:
    """V, the views of a draw that probes need."""
    return config.augmented_views if views.kind == Augmented.kind else config.views


def views_of_run(loaded: LoadedRun, stored: ShardSet, index: ImageIndex, patch: int | None) -> ImageViews:
    """As in training, of patches with another size if `patch` is given. ConfigError where such views cannot be had."""
    spec, data = stored.info.spec, loaded.data
    assert isinstance(spec, ImageSpec), "other sets have no images"
    if data.augment != "none" and data.kind != "views":
        _require_size(stored, "images", (index.height, index.width), (data.image_height, data.image_width))
        scaling = "author" if loaded.config.fidelity == "author" else "zscore"
        return Augmented.of(index, build_recipe(data.augment), data.action, scaling)
    return Patches(_as_fixated(loaded, stored, spec, patch))


def _require_size(stored: ShardSet, what: str, found: tuple[int, int], wanted: tuple[int, int]) -> None:
    """ConfigError: the shards hold views or images of another height and width than the run was trained on."""
    if found != wanted:
        raise ConfigError(
            f"{stored.place} holds {what} of {found[0]}×{found[1]}, the run was trained on {wanted[0]}×{wanted[1]}; "
            "evaluate on shards of the same size"
        )


def _as_fixated(loaded: LoadedRun, stored: ShardSet, spec: ImageSpec, patch: int | None) -> Fixating:
    data = loaded.data
    if data.action != "position" or not (data.patch or patch):
        raise ConfigError(
            f"{stored.place} holds whole images, the run was trained on stored views (data.action = {data.action!r}); "
            "evaluate on `views` shards"
            + (", or give the side of its patches with --patch" if data.action == "position" else "")
        )
    how = Fixating(**data.fixating)
    how = replace(how, patch=patch) if patch is not None else how
    how.check_size(spec.height, spec.width)
    if spec.saliency == "none" and how.fixations == "saliency":
        raise ConfigError(
            f"{stored.place} holds images without saliency maps, the run's fixations are drawn from maps; "
            "build maps and shard the images with them"
        )
    return how


def usual_normalisation(loaded: LoadedRun, stored: ShardSet, transfer: bool) -> str:
    """The run's constants on the images of its training, those of the set where it sees others (Figure 15).

    Always the run's where they are those of its encoder's weights.
    """
    if not transfer or loaded.config.data.normalisation == "encoder":
        return "run"
    return "imagenet" if stored.info.name.startswith("imagenet") else "shards"


def statistics(loaded: LoadedRun, stored: ShardSet, name: str) -> PixelStats:
    """ "run", "shards", "encoder" or a name in NORMALISATIONS → constants. ConfigError for other names."""
    if name == "run":
        return tuple(loaded.data.mean), tuple(loaded.data.std)
    name = explicit_normalisation(name, loaded.config.fidelity)
    if name not in (known := ("shards", "encoder", *NORMALISATIONS)):
        raise ConfigError(f"normalisation is {name!r}; allowed are run, {', '.join(known)}")
    return pixel_stats(stored.info, loaded.config.with_values("data", normalisation=name))


def patches_for_position(loaded: LoadedRun, stored: ShardSet, patch: int | None) -> Fixating | None:
    """How patches are taken of the images that a run on augmentations is evaluated on; None where they cannot be.

    As the recipes of seq-JEPA on patches take them, with the run's fidelity. Without `patch` those of 32 pixels, where
    they fit. ConfigError: a `patch` that was asked for cannot be had.
    """
    spec = stored.info.spec
    assert isinstance(spec, ImageSpec), "other sets have no images"
    how = fixating_as(loaded.config.fidelity, patch=patch or PAPER_PATCH)
    if spec.saliency == "none":
        if patch is not None:
            raise ConfigError(
                f"{stored.place} holds images without saliency maps, and --patch probes patches at fixations drawn "
                "from maps; build maps and shard the images with them, or leave out --patch"
            )
        return None
    try:
        how.check_size(spec.height, spec.width)
    except ConfigError:
        if patch is not None:
            raise
        return None
    return how


def _open_splits(
    stored: ShardSet, config: EvalConfig, open_split: Callable[[str], SplitIndex | ImageIndex]
) -> tuple[tuple[str, str], list]:
    """Names and indexes of the split to train probes on and the one to score them on.

    By default "train", and "val" or, in sets without one (CIFAR-100, STL-10), "test". ConfigError: no such split, or
    one without labels in a set that has classes. Where some samples have none, classes are not measured (tasks.py).
    """
    train, val = config.train_split, config.val_split
    names = (train or "train", val or ("val" if "val" in stored.splits or "test" not in stored.splits else "test"))
    if names[0] == names[1]:
        raise ConfigError(
            f"probes would learn from split {names[0]!r} and be scored on it; choose another --train-split "
            f"or --val-split (there are: {', '.join(stored.splits)})"
        )
    indexes = [open_split(name) for name in names]
    for index in indexes:
        if stored.info.classes and bool((index.labels < 0).all()):
            raise ConfigError(
                f"the samples in split {index.name!r} of {stored.place} have no label; "
                f"probe on labelled splits (there are: {', '.join(stored.splits)})"
            )
    return names, indexes


def _fitting_draws(loaded: LoadedRun, images: int, drawn: Draws, config: EvalConfig, device: torch.device) -> int:
    """How many draws to encode: one for each epoch, as the paper has it, if a quarter of the free GPU memory holds as
    many; eight on a CPU."""
    if device.type != "cuda":
        return min(CPU_TRAIN_DRAWS, config.epochs)
    example = torch.zeros(1, 3, drawn.of.side, drawn.of.side, dtype=torch.uint8, device=device)
    features = embed(loaded.method, example, ((0.5,) * 3, (1.0,) * 3)).shape[-1]
    half_precision = 2 * images * drawn.views * features
    return max(1, min(config.epochs, torch.cuda.mem_get_info(device)[0] // 4 // half_precision))
