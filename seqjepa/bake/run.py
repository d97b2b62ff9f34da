"""bake(): a set of images → a set of views, shard by shard, resumable."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import simplejpeg
import torch
from tqdm import tqdm

from seqjepa.bake.baking import Baking
from seqjepa.bake.ways import Way, way_of
from seqjepa.data.images import ImageBatch, ImageFeed
from seqjepa.data.order import Sampling
from shards.reader import ShardSet
from shards.sample import ViewSample, encode_raw
from shards.schema import DatasetInfo
from shards.writer import PixelStats, SetBuilder

if TYPE_CHECKING:
    from shards.reader import ImageIndex

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
