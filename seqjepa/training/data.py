"""The training split and what a run has to know of it, checked before anything is written."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from seqjepa.config import RunConfig
from seqjepa.data.actions import action_size
from seqjepa.data.loader import ViewLoader
from seqjepa.training.checkpoint import DataInfo
from seqjepa.training.distributed import World
from shards.errors import ConfigError
from shards.reader import ShardSet, SplitIndex
from shards.schema import DatasetInfo

# The released code's constants (SPEC C.1), for pixels in [0, 1].
THREE_DIEBENCH = ((0.5016, 0.5037, 0.5060), (0.1030, 0.0999, 0.0969))
SPLIT = "train"


@dataclass(frozen=True)
class TrainingData:
    """classes: how many. names: {"name": the set's, "train": fingerprint of the split}."""

    index: SplitIndex
    data: DataInfo
    classes: int
    names: dict[str, str]


def open_training_data(shards: Path, config: RunConfig) -> TrainingData:
    """ConfigError or FormatError where the shards and the settings do not fit each other."""
    opened = ShardSet.open(shards)
    info = opened.info
    _check_image_size(info, config.data.image_size)
    index = opened.split(SPLIT)
    mean, std = pixel_stats(info, config)
    data = DataInfo(
        action=config.data.action,
        action_size=action_size(config.data.action),
        mean=mean,
        std=std,
        height=info.spec.height,
        width=info.spec.width,
    )
    return TrainingData(index, data, len(info.classes), {"name": info.name, SPLIT: index.fingerprint()})


def pixel_stats(info: DatasetInfo, config: RunConfig) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel, for pixels in [0, 1]: the shards' own, or 3DIEBench's published ones."""
    if config.data.normalisation == "3diebench":
        return THREE_DIEBENCH
    return tuple(info.normalisation["mean"]), tuple(info.normalisation["std"])


def build_loader(source: TrainingData, config: RunConfig, world: World, workers: int | None, pin: bool) -> ViewLoader:
    """The run's loader. A last batch that leaves a rank one sequence is dropped: batch norm needs two."""
    samples, batch = len(source.index), config.optim.batch_size
    if min(samples, batch) // world.size < 2:
        raise ConfigError(
            f"{samples} training samples in batches of {batch} leave a rank (of {world.size}) fewer than 2 sequences; "
            "use a larger optim.batch_size, more samples or fewer ranks"
        )
    return ViewLoader(
        source.index,
        views=config.data.context + 1,
        action=config.data.action,
        batch_size=batch,
        seed=config.seed,
        workers=workers,
        rank=world.rank,
        world_size=world.size,
        drop_last=samples > batch and samples % batch // world.size < 2,
        pin=pin,
    )


def _check_image_size(info: DatasetInfo, wanted: int) -> None:
    height, width = info.spec.height, info.spec.width
    if wanted and (height, width) != (wanted, wanted):
        raise ConfigError(
            f"the shards hold {height}×{width} views, the recipe wants {wanted}×{wanted}: "
            f"shard the data at --size {wanted}, or accept these with --set data.image_size={height}"
            + ("" if height == width else " (0 for any size)")
        )
