"""bake(): a set of images → a set of views (patches at fixations, or augmentations), shard by shard, resumable."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import simplejpeg
import torch
from torch import Tensor
from tqdm import tqdm

from seqjepa.data.actions import AUGMENTATION_FIELDS
from seqjepa.data.augment.recipes import RECIPES, Recipe
from seqjepa.data.fixations import POSITION_NAMES, Fixating
from seqjepa.data.images import ImageBatch, ImageFeed
from seqjepa.data.sampling import Sampling
from seqjepa.data.views import Augmenting, augmented, check_fixating, look
from shards.errors import ConfigError
from shards.reader import ShardSet
from shards.sample import ViewSample, encode_raw
from shards.schema import MAX_VIEWS, DatasetInfo, ParamField, ViewSpec
from shards.writer import PixelStats, SetBuilder

if TYPE_CHECKING:
    from shards.reader import ImageIndex, ShardSet


_SHARD_BYTES = 64 << 20
_MOST_IN_A_SHARD = 256  # which is also what is read and made at once


@dataclass(frozen=True)
class Baking:
    """What is made of each image: E = `sequences` of T = `views` views, drawn from `seed` as `how` says.

    how       Fixating: patches at fixations. Recipe: augmentations, the last view by the target pipeline
    encoding  raw: bit-equal to what the loader makes. jpeg: smaller, quality 95 without chroma subsampling

    Raises ConfigError for more views than a set can hold.
    """

    sequences: int
    views: int
    how: Fixating | Recipe
    seed: int = 0
    encoding: Literal["raw", "jpeg"] = "raw"

    def __post_init__(self) -> None:
        if self.sequences < 1 or self.views < 1 or self.total > MAX_VIEWS:
            raise ConfigError(
                f"{self.sequences} sequences of {self.views} views; allowed are 1 or more of each, and at most "
                f"{MAX_VIEWS} views in all"
            )
        if self.encoding not in ("raw", "jpeg"):
            raise ConfigError(f"encoding is {self.encoding!r}; allowed are raw, jpeg")

    @property
    def total(self) -> int:
        """Views of a sample."""
        return self.sequences * self.views

    def spec(self, way: Way) -> ViewSpec:
        return ViewSpec(self.total, way.side, way.side, self.encoding, way.params, sequence=self.views)

    def samples_per_shard(self, way: Way) -> int:
        """Some 64 MiB of raw pixels."""
        return max(1, min(_MOST_IN_A_SHARD, _SHARD_BYTES // (self.total * way.side**2 * 3)))

    def make(self, batch: ImageBatch, way: Way) -> tuple[np.ndarray, np.ndarray]:
        """Views uint8 [B, E·T, s, s, 3] and parameters float32 [B, E·T, P] of images."""
        made = [way.make(batch, self.views, self.seed, epoch) for epoch in range(self.sequences)]
        views, params = (torch.cat(parts, 1) for parts in zip(*made, strict=True))
        return views.permute(0, 1, 3, 4, 2).cpu().numpy(), params.cpu().numpy()

    def record(self, way: Way) -> dict[str, Any]:
        """What determines the content besides the images, as JSON values."""
        plain = {name: getattr(self, name) for name in ("sequences", "views", "seed", "encoding")}
        return plain | way.record()


class Way(Protocol):
    """How the images of one set become sequences of views."""

    @property
    def side(self) -> int:
        """Pixels a side of a view."""
        ...

    @property
    def params(self) -> tuple[ParamField, ...]:
        """The P parameters of a view."""
        ...

    @property
    def maps(self) -> bool:
        """Whether saliency maps are read."""
        ...

    def make(self, batch: ImageBatch, views: int, seed: int, epoch: int) -> tuple[Tensor, Tensor]:
        """What the loader makes in one epoch: uint8 [B, T, 3, s, s] and float32 [B, T, P], T = `views`."""
        ...

    def record(self) -> dict[str, Any]:
        """What determines the views, and what training on them needs to know: JSON values without nulls."""
        ...


def way_of(how: Fixating | Recipe, source: ShardSet, indices: Sequence[ImageIndex]) -> Way:
    """ConfigError where the images (of `source`, the splits `indices`) cannot be seen that way."""
    if isinstance(how, Recipe):
        return _Augmented(Augmenting.of(indices[0], how, "augmentation"))
    if (how.fidelity, how.fill) == ("author", "mean"):
        raise ConfigError(
            "the released patches over the mean are fractions, which a set of 8-bit views cannot hold; "
            "use fill black, or fidelity paper"
        )
    for index in indices:
        check_fixating(index, how)
    return _Fixated(how, tuple(source.info.normalisation["mean"]))


@dataclass(frozen=True)
class _Fixated:
    """mean  per channel, in [0, 1]: what is outside the image where fixating.fill is "mean"."""

    fixating: Fixating
    mean: tuple[float, ...]
    params = tuple(ParamField(name, "1") for name in POSITION_NAMES)

    @property
    def side(self) -> int:
        return self.fixating.patch

    @property
    def maps(self) -> bool:
        return self.fixating.fixations == "saliency"

    def make(self, batch: ImageBatch, views: int, seed: int, epoch: int) -> tuple[Tensor, Tensor]:
        return look(batch, self.fixating, views, seed, epoch, self.mean)

    def record(self) -> dict[str, Any]:
        return {"fixating": asdict(self.fixating)}


@dataclass(frozen=True)
class _Augmented:
    augmenting: Augmenting
    params = AUGMENTATION_FIELDS
    maps = False

    @property
    def side(self) -> int:
        return self.augmenting.size

    def make(self, batch: ImageBatch, views: int, seed: int, epoch: int) -> tuple[Tensor, Tensor]:
        made = augmented(batch, self.augmenting, views, seed, epoch)
        return made.views, made.params

    def record(self) -> dict[str, Any]:
        recipe, scaling = self.augmenting.recipe, self.augmenting.scaling
        assert scaling is not None, "Augmenting.of() gives z-scores their constants"
        name = next((name for name, known in RECIPES.items() if known == recipe), "custom")
        pipelines = {
            which: {field: value for field, value in values.items() if value is not None}
            for which, values in asdict(recipe).items()
        }
        return {"augmenting": {"recipe": name, **pipelines, "scaling": scaling.as_json()}}


_TAKEN = {"views", "view_ids"}  # names of a baked sample's own, that those of its image must not hide


def bake(
    shards: Path,
    out: Path,
    baking: Baking,
    *,
    splits: Sequence[str] = (),
    device: torch.device | str = "cpu",
    workers: int | None = None,
    overwrite: bool = False,
) -> DatasetInfo:
    """Bake splits (default: all) of an `image` or `saliency` set into `out`; fixations by saliency need the latter.

    What is outside an image is, with fill "mean", the source's mean colour. Of augmentations, the constants that scale
    their parameters are noted with the set (augment.scaling.stored_scaling). Interrupted, the same call goes on from
    the last finished shard. Raises ConfigError and FormatError before anything is written; see SetBuilder for the rest.
    """
    source = ShardSet.open(shards)
    names = list(dict.fromkeys(splits)) or list(source.splits)
    indices = [source.images(name) for name in names]
    oven = _Oven(baking, way_of(baking.how, source, indices), torch.device(device), workers)
    record = {
        **baking.record(oven.way),
        "source": source.info.name,
        "source_splits": {index.name: index.fingerprint() for index in indices},
    }
    with SetBuilder(
        out,
        name=f"{source.info.name}-baked"[:64],
        spec=baking.spec(oven.way),
        classes=source.info.classes,
        fingerprint=record,
        overwrite=overwrite,
    ) as builder:
        if not builder.complete:
            for index in indices:
                _bake_split(builder, index, oven)
            builder.finish({"command": "seqjepa-data bake", "baked": record, "versions": _versions()})
        assert builder.info is not None, "finish() has set it"
        return builder.info


@dataclass(frozen=True)
class _Oven:
    """What is made, and where."""

    baking: Baking
    way: Way
    device: torch.device
    workers: int | None


def _bake_split(builder: SetBuilder, index: ImageIndex, oven: _Oven) -> None:
    baking, way, done = oven.baking, oven.way, builder.done()
    sampling = Sampling(baking.views, "position", baking.samples_per_shard(way), baking.seed, shuffle=False)
    feed = ImageFeed(index, sampling, device=oven.device, maps=way.maps, workers=oven.workers, resident=False)
    try:
        with tqdm(total=len(index), desc=f"bake {index.name}", unit="image", disable=None) as bar:
            for number in range(feed.order.steps):
                if f"{index.name}-{number:06d}" not in done:
                    _bake_shard(builder, number, feed.batch(0, number), index, oven)
                bar.update(feed.order.size(number))
    finally:
        feed.close()


def _bake_shard(builder: SetBuilder, number: int, batch: ImageBatch, index: ImageIndex, oven: _Oven) -> None:
    views, params = oven.baking.make(batch, oven.way)
    with builder.open_shard(index.name, number) as writer:
        for position, row in enumerate(batch.rows.tolist()):
            stored, stats = _encode(views[position], oven.baking.encoding)
            sample = ViewSample(
                key=index.keys[row],
                views=stored,
                view_ids=range(len(stored)),
                params=params[position],
                label=int(index.labels[row]),
                meta={name: values[row] for name, values in index.meta.items() if name not in _TAKEN},
            )
            writer.add(sample, stats)


def _encode(views: np.ndarray, encoding: str) -> tuple[list[bytes], PixelStats]:
    """uint8 [N, s, s, 3] → what is stored of each, and the sums over what reading it gives back."""
    if encoding == "raw":
        return [encode_raw(view) for view in views], PixelStats.of(views)
    stored = [simplejpeg.encode_jpeg(np.ascontiguousarray(v), quality=95, colorsubsampling="444") for v in views]
    decoded = np.stack([simplejpeg.decode_jpeg(data) for data in stored])
    return stored, PixelStats.of(decoded, reference=views)


def _versions() -> dict[str, str]:
    return {name: version(name) for name in ("torch", "numpy", "simplejpeg")}
