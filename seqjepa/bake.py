"""Bake: what SaccadeLoader makes on the fly, written once as a `views` set that any code base can train on.

A sample of the baked set holds E sequences of T patches of its image, with their positions; the e-th is what the loader
makes of the image in epoch e. So ViewLoader on the baked set gives the batches of SaccadeLoader on the source, of the
same seed, for E epochs, and then starts over.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import simplejpeg
import torch
from tqdm import tqdm

from seqjepa.data.fixations import Fixating
from seqjepa.data.images import ImageBatch, ImageFeed
from seqjepa.data.order import Sampling
from seqjepa.data.patches import POSITION_NAMES
from seqjepa.data.saccades import check_fixating, look
from shards.errors import ConfigError
from shards.reader import ShardSet
from shards.sample import ViewSample, encode_raw
from shards.schema import MAX_VIEWS, DatasetInfo, ParamField, ViewSpec
from shards.writer import PixelStats, SetBuilder

if TYPE_CHECKING:
    from shards.reader import ImageIndex

_SHARD_BYTES = 64 << 20
_MOST_IN_A_SHARD = 256  # which is also what is read and cut at once
_TAKEN = {"views", "view_ids"}  # names of a baked sample's own, that those of its image must not hide


@dataclass(frozen=True)
class Baking:
    """What is made of each image: E = `sequences` of T = `views` patches, drawn from `seed` as `fixating` says.

    encoding  raw: bit-equal to what the loader makes. jpeg: smaller, quality 95 without chroma subsampling

    Raises ConfigError for more views than a set can hold, and for patches that are not whole numbers.
    """

    sequences: int
    views: int
    fixating: Fixating
    seed: int = 0
    encoding: Literal["raw", "jpeg"] = "raw"

    def __post_init__(self) -> None:
        if self.sequences < 1 or self.views < 1 or self.total > MAX_VIEWS:
            raise ConfigError(
                f"{self.sequences} sequences of {self.views} views; allowed are 1 or more of each, and at most "
                f"{MAX_VIEWS} views in all"
            )
        if (self.fixating.fidelity, self.fixating.fill) == ("author", "mean"):
            raise ConfigError(
                "the released patches over the mean are fractions, which a set of 8-bit views cannot hold; "
                "use fill black, or fidelity paper"
            )

    @property
    def total(self) -> int:
        """Views of a sample."""
        return self.sequences * self.views

    @property
    def spec(self) -> ViewSpec:
        params = tuple(ParamField(name, "1") for name in POSITION_NAMES)
        side = self.fixating.patch
        return ViewSpec(self.total, side, side, self.encoding, params, sequence=self.views)

    @property
    def samples_per_shard(self) -> int:
        """Some 64 MiB of raw pixels."""
        return max(1, min(_MOST_IN_A_SHARD, _SHARD_BYTES // (self.total * self.fixating.patch**2 * 3)))

    def of(self, batch: ImageBatch, mean: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
        """Views uint8 [B, E·T, p, p, 3] and positions float32 [B, E·T, 2] of images."""
        made = [look(batch, self.fixating, self.views, self.seed, epoch, mean) for epoch in range(self.sequences)]
        views, params = (torch.cat(parts, 1) for parts in zip(*made, strict=True))
        return views.permute(0, 1, 3, 4, 2).cpu().numpy(), params.cpu().numpy()


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
    """Bake splits (default: all) of a `saliency` set, or of an `image` set with uniform fixations, into `out`.

    What is outside an image is, with fill "mean", the source's mean colour. Interrupted, the same call goes on from the
    last finished shard. Raises ConfigError and FormatError before anything is written; see SetBuilder for the folder.
    """
    source = ShardSet.open(shards)
    names = list(dict.fromkeys(splits)) or list(source.splits)
    indices = [source.images(name) for name in names]
    for index in indices:
        check_fixating(index, baking.fixating)
    mean = source.info.normalisation["mean"]
    record = _record(baking, source.info, indices)
    with SetBuilder(
        out,
        name=f"{source.info.name}-baked"[:64],
        spec=baking.spec,
        classes=source.info.classes,
        fingerprint=record,
        overwrite=overwrite,
    ) as builder:
        if not builder.complete:
            for index in indices:
                _bake_split(builder, index, baking, mean, torch.device(device), workers)
            builder.finish({"command": "seqjepa-data bake", "baked": record, "versions": _versions()})
        assert builder.info is not None, "finish() has set it"
        return builder.info


def _bake_split(
    builder: SetBuilder,
    index: ImageIndex,
    baking: Baking,
    mean: Sequence[float],
    device: torch.device,
    workers: int | None,
) -> None:
    sampling = Sampling(baking.views, "position", baking.samples_per_shard, baking.seed, shuffle=False)
    maps, done = baking.fixating.fixations == "saliency", builder.done()
    feed = ImageFeed(index, sampling, device=device, maps=maps, workers=workers, resident=False)
    try:
        with tqdm(total=len(index), desc=f"bake {index.name}", unit="image", disable=None) as bar:
            for number in range(feed.order.steps):
                if f"{index.name}-{number:06d}" not in done:
                    _bake_shard(builder, number, feed.batch(0, number), index, baking, mean)
                bar.update(feed.order.size(number))
    finally:
        feed.close()


def _bake_shard(
    builder: SetBuilder, number: int, batch: ImageBatch, index: ImageIndex, baking: Baking, mean: Sequence[float]
) -> None:
    views, params = baking.of(batch, mean)
    with builder.open_shard(index.name, number) as writer:
        for position, row in enumerate(batch.rows.tolist()):
            stored, stats = _encode(views[position], baking.encoding)
            sample = ViewSample(
                key=index.keys[row],
                views=stored,
                view_ids=range(baking.total),
                params=params[position],
                label=int(index.labels[row]),
                meta={name: values[row] for name, values in index.meta.items() if name not in _TAKEN},
            )
            writer.add(sample, stats)


def _encode(views: np.ndarray, encoding: str) -> tuple[list[bytes], PixelStats]:
    """uint8 [N, p, p, 3] → what is stored of each, and the sums over what reading it gives back."""
    if encoding == "raw":
        return [encode_raw(view) for view in views], PixelStats.of(views)
    stored = [simplejpeg.encode_jpeg(np.ascontiguousarray(v), quality=95, colorsubsampling="444") for v in views]
    decoded = np.stack([simplejpeg.decode_jpeg(data) for data in stored])
    return stored, PixelStats.of(decoded, reference=views)


def _record(baking: Baking, source: DatasetInfo, indices: Sequence[ImageIndex]) -> dict[str, Any]:
    """What determines the content, as JSON values."""
    return {
        **asdict(baking),
        "source": source.name,
        "source_splits": {index.name: index.fingerprint() for index in indices},
    }


def _versions() -> dict[str, str]:
    return {name: version(name) for name in ("torch", "numpy", "simplejpeg")}
