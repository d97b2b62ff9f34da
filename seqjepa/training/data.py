"""The split that a run trains on and the loader of its batches, whatever the kind of the shards.

    views     stored views, decoded ahead by processes
    saliency  patches at fixations, cut in batches on the device
    image     augmented views, made in batches on the device (of saliency sets' images too)

Shards, settings and ranks that do not fit together are refused here, before anything is written.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from pydantic import ValidationError

from seqjepa.config import DataConfig, ModelConfig, RunConfig
from seqjepa.data.actions import OF_THE_SHARDS, PRESETS, action_name, action_of_shards, as_spec, is_augmentation
from seqjepa.data.augment.parameters import Scaling, stored_scaling
from seqjepa.data.augment.recipes import build_recipe
from seqjepa.data.augment.stored_views import augment_problem
from seqjepa.data.decode_ahead import Reading
from seqjepa.data.fixations import Fixating
from seqjepa.data.loader import Loader
from seqjepa.data.sampling import Sampling, long_enough, part_of
from seqjepa.data.shards_needed import folder_of, window_that_fits
from seqjepa.data.stored import StoredViews, order_problem
from seqjepa.data.views import Augmented, Patches, Views
from seqjepa.methods import METHODS, find_method
from seqjepa.methods.base import Method
from seqjepa.models.timm_encoder import is_timm, pixel_constants
from seqjepa.paper.sets import NORMALISATIONS, classes_sha256, explicit_normalisation
from seqjepa.training.distributed import World
from seqjepa.training.run import DataInfo
from shards.errors import ConfigError, FormatError
from shards.layout import Layout
from shards.reader import ImageIndex, ShardSet, SplitIndex
from shards.schema import ActionSpec, DatasetInfo, ImageSpec, MapSpec, ViewSpec, features_of
from shards.stores.cache import is_cached

logger = logging.getLogger(__name__)

BY_DEFAULT = ("unlabeled", "train")
"""Splits that are trained on where data.split says nothing: the first that there is."""
MADE_OF = ("backbone", "width", "stem", "pool", "patch_size", "input_size")
"""The settings of [model] that say which network an encoder is."""


@dataclass(frozen=True)
class TrainingData:
    """classes: how many. names: {"name": the set's, "split": its name, "train": fingerprint of that split}.

    index: of the whole split, or of data.fraction of it.
    scaling: the constants that come with a set of baked augmentations.
    config: of the run, its action as the shards have it.
    """

    config: RunConfig
    index: SplitIndex | ImageIndex
    data: DataInfo
    classes: int
    names: dict[str, str]
    scaling: Scaling | None = None


def open_training_data(shards: Path, config: RunConfig) -> TrainingData:
    """ConfigError or FormatError where the shards and the settings do not fit each other."""
    opened = ShardSet.open(shards)
    config = with_encoder_of(opened, config)
    if problems := list(incompatibilities(opened.info, config.data, config.method)):
        raise ConfigError(f"{opened.place} {'; '.join(problems)}")
    split = training_split(opened, config)
    index = (opened.split if isinstance(opened.info.spec, ViewSpec) else opened.images)(split, tars=False)
    names = {"name": opened.info.name, "split": split, "train": index.fingerprint()}
    names |= {"classes_sha256": classes_sha256(opened.info.classes)}
    index = part_of(index, config.data.fraction, config.seed)
    if isinstance(index, SplitIndex):
        index = long_enough(index, config.data.order, config.data.context + 1, config.data.stride)
        config = config.with_values("data", action=action_of_shards(config.data.action, index))
    config = with_view_size(config, index.height, index.width)
    data, classes = _data_info(opened.info, split, config), len(opened.info.classes)
    return TrainingData(config, index, data, classes, names, stored_scaling(opened.info))


def training_split(opened: ShardSet, config: RunConfig) -> str:
    """data.split, or "unlabeled" where the set has that (STL-10, as released), else "train". ConfigError: not there."""
    split = config.data.split or next((name for name in BY_DEFAULT if name in opened.splits), BY_DEFAULT[-1])
    if split not in opened.splits:
        raise ConfigError(
            f"{opened.place} has no split {split!r} to train on; set data.split to one of {', '.join(opened.splits)}"
        )
    return split


def fixating(config: RunConfig) -> Fixating | None:
    """How patches are taken; None where whole views are seen. ConfigError for what Fixating does not take."""
    data = config.data
    if not data.patch:
        return None
    return Fixating(data.patch, data.inhibition, data.fixations, data.fill, config.fidelity)


def pixel_stats(info: DatasetInfo, config: RunConfig) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel, for pixels in [0, 1]: the shards', published ones, or the encoder's."""
    if features := features_of(info.spec):
        return features.mean, features.std
    if config.data.normalisation == "encoder":
        return pixel_constants(config.model)
    if (name := explicit_normalisation(config.data.normalisation, config.fidelity)) in NORMALISATIONS:
        return NORMALISATIONS[name]
    return tuple(info.normalisation["mean"]), tuple(info.normalisation["std"])


def with_encoder_of(opened: ShardSet, config: RunConfig) -> RunConfig:
    """Of a set of features: with its encoder, frozen, in the place of the one that the configuration has."""
    features = features_of(opened.info.spec)
    if features is None:
        return config
    default = ModelConfig()
    own = {key: features.encoder.get(key, getattr(default, key)) for key in MADE_OF}
    own |= {"pretrained": str(Layout(opened.path).encoder), "freeze": True, "view_size": ()}
    try:
        model = ModelConfig.model_validate(config.model.model_dump() | own)
    except ValidationError as error:
        raise FormatError(f"{opened.place}: spec.features.encoder is no encoder: {error.errors()[0]['msg']}") from None
    return config.model_copy(update={"model": model})


def with_view_size(config: RunConfig, height: int, width: int) -> RunConfig:
    """With model.view_size: what an encoder of timm is built for, so that the configuration alone rebuilds it."""
    if not is_timm(config.model) or config.model.view_size:
        return config
    side = config.data.patch
    return config.with_values("model", view_size=(side, side) if side else (height, width))


def check_batches(source: TrainingData, config: RunConfig, world: World) -> None:
    """ConfigError where a loader could not be built: it looks at the views itself."""
    _check_shares(source, config, world)
    views = training_views(source, config)
    if isinstance(views, StoredViews) and isinstance(source.index, SplitIndex):
        views.check(source.index, config.data.context + 1)


def _check_shares(source: TrainingData, config: RunConfig, world: World) -> None:
    """ConfigError where a rank or a micro-batch gets fewer than two sequences."""
    samples, batch, accumulate = len(source.index), config.optim.batch_size, config.optim.accumulate
    if samples < 2:
        raise ConfigError(f"{samples} training samples; a batch takes 2 or more: shard more, or use fewer views")
    if (share := min(samples, batch) // world.size) < 2:
        raise ConfigError(
            f"{samples} training samples in batches of {batch} leave a rank (of {world.size}) fewer than 2 sequences; "
            "use a larger optim.batch_size, more samples or fewer ranks"
        )
    if share // accumulate < 2:
        raise ConfigError(
            f"optim.accumulate = {accumulate} splits the {share} sequences of a rank's batch into micro-batches of "
            f"fewer than 2; set at most {share // 2}"
        )


def build_loader(
    source: TrainingData, config: RunConfig, world: World, workers: int | None, device: torch.device
) -> Loader:
    """The run's loader. A last batch that leaves a rank one sequence is dropped: batch norm needs two."""
    _check_shares(source, config, world)
    samples, batch = len(source.index), config.optim.batch_size
    if batch > samples and world.main:
        logger.warning(
            "optim.batch_size is %d, but there are %d samples to train on: every step takes all %d; set at most %d",
            *(batch, samples, samples, samples),
        )
    resident = {"auto": None, "yes": True, "no": False}[config.train.resident]
    reading = Reading(device, workers, resident=resident, pin=config.train.pin_memory)
    return Loader(source.index, training_views(source, config), run_sampling(source, config, world), reading)


def run_sampling(source: TrainingData, config: RunConfig, world: World) -> Sampling:
    """Which samples the batches of a run hold."""
    samples, batch = len(source.index), config.optim.batch_size
    return Sampling(
        views=config.data.context + 1,
        batch_size=batch,
        seed=config.seed,
        rank=world.rank,
        world_size=world.size,
        drop_last=samples > batch and samples % batch // world.size < 2,
        window=config.data.shuffle_window,
    )


def with_shuffle_window(source: TrainingData, window: int) -> TrainingData:
    """With so many shards among which samples are shuffled, noted in the configuration."""
    return replace(source, config=source.config.with_values("data", shuffle_window=window))


def window_for(source: TrainingData, world: World) -> int:
    """data.shuffle_window; where that is 0 and the split larger than the cache, what fits. UsageError: nothing."""
    index, asked = source.index, source.config.data.shuffle_window
    if asked or not is_cached(folder_of(index)) or (isinstance(index, SplitIndex) and index.features):
        return asked
    return window_that_fits(index, run_sampling(source, source.config, world))


def training_views(source: TrainingData, config: RunConfig) -> Views:
    """What the run sees of its samples. ConfigError where the shards cannot give that."""
    data, scaling = config.data, "author" if config.fidelity == "author" else "zscore"
    if isinstance(source.index, SplitIndex):
        recipe = None if data.augment == "none" else build_recipe(data.augment)
        how = data.order, data.stride, recipe, config.train.compile
        return StoredViews(data.action, scaling, source.scaling, *how)
    if source.data.fixating:
        fixating = Fixating(**source.data.fixating)
        return Patches(fixating, tuple(source.data.mean), data.action, compile=config.train.compile)
    views = Augmented.of(source.index, build_recipe(data.augment), data.action, scaling)
    return replace(views, compile=config.train.compile)


def _data_info(info: DatasetInfo, split: str, config: RunConfig) -> DataInfo:
    spec, how = info.spec, fixating(config)
    assert not isinstance(spec, MapSpec), "incompatibilities() has refused sets of maps"
    mean, std = pixel_stats(info, config)
    whole = isinstance(spec, ViewSpec)
    return DataInfo(
        action=action_name(config.data.action),
        action_size=as_spec(config.data.action).size,
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


def incompatibilities(info: DatasetInfo, data: DataConfig, method: str = "") -> Iterator[str]:
    """Everything in which the set contradicts `data` or what the method needs, as ends of the sentence "SHARDS …"."""
    match info.spec:
        case MapSpec():
            yield "holds saliency maps without images; shard the images with them (`seqjepa-data shard --maps`)"
            return
        case ViewSpec():
            yield from _view_incompatibilities(info.spec, data)
            yield from _method_incompatibilities(info.spec, method)
        case ImageSpec():
            yield from _image_incompatibilities(info.spec, data)
    yield from _size_incompatibilities(info.spec, data.image_size)


def _view_incompatibilities(spec: ViewSpec, data: DataConfig) -> Iterator[str]:
    """Of presets the loader says which columns are missing."""
    if data.patch:
        yield (
            f"holds stored views, and data.patch = {data.patch} cuts patches out of whole images; set data.patch=0, or "
            "give shards of kind saliency"
        )
    action = (spec.actions or ActionSpec()) if data.action == OF_THE_SHARDS else as_spec(data.action)
    if problem := order_problem(spec, action, data.order, data.stride):
        yield problem
    if data.augment != "none" and (problem := augment_problem(spec, action, build_recipe(data.augment))):
        yield problem
    if data.action not in PRESETS and (problem := action.problem(spec.params)):
        yield f"holds views, and {problem}; set data.action to terms of these"


def _method_incompatibilities(spec: ViewSpec, method: str) -> Iterator[str]:
    found = find_method(method)
    if spec.features and found and found.embed is not Method.embed:
        yield f"holds features, and {method} makes its own of pixels; give the set that they were made of"
    needed = found.params_needed if found else ()
    if needed and spec.param_names != needed:
        held, wanted = ", ".join(spec.param_names) or "none", ", ".join(needed)
        without = ", ".join(name for name, other in METHODS.items() if not other.params_needed)
        yield f"holds views with the parameters {held}; {method} needs {wanted}; others need none: {without}"


def _image_incompatibilities(spec: ImageSpec, data: DataConfig) -> Iterator[str]:
    if not data.patch and data.augment == "none":
        patch = min(32, spec.height, spec.width)
        patches = f"data.patch={patch} and data.action=position (patches at fixations, as the stl-pls recipes)"
        augmented = "data.augment=equimod and data.action=augmentation (augmented images)"
        yield f"holds whole images of {spec.height}×{spec.width}; set {patches} or {augmented}"
    if data.patch and data.fixations == "saliency" and spec.saliency == "none":
        yield (
            "holds images without saliency maps; shard them with maps (`seqjepa-data build-saliency`, then "
            "`seqjepa-data shard --maps`), or set data.fixations=uniform"
        )
    if data.augment != "none" and data.action != "none" and not is_augmentation(data.action):
        allowed = ", ".join(name for name in PRESETS if is_augmentation(name))
        yield (
            f"holds whole images, of which data.augment = {data.augment!r} makes views with the actions {allowed}; set "
            f"data.action to one of these, not {action_name(data.action)!r}"
        )
    if data.order == "window":
        yield "holds images, of which views are made in no order; set data.order=random"
    if data.augment != "none" and spec.height != spec.width:
        yield f"holds images of {spec.height}×{spec.width}, and augmented views are square; shard them with --size"
    if data.patch > min(spec.height, spec.width):
        most = min(spec.height, spec.width)
        yield f"holds images of {spec.height}×{spec.width}, smaller than data.patch = {data.patch}; set at most {most}"


def _size_incompatibilities(spec: ViewSpec | ImageSpec, wanted: int) -> Iterator[str]:
    height, width = spec.height, spec.width
    if wanted and (height, width) != (wanted, wanted):
        things = "views" if isinstance(spec, ViewSpec) else "images"
        any_size = "" if height == width else " (0 for any size)"
        yield (
            f"holds {height}×{width} {things}, the recipe wants {wanted}×{wanted}: shard the data at --size {wanted}, "
            f"or accept these with --set data.image_size={height}{any_size}"
        )
