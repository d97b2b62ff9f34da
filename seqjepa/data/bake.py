"""bake(): a set of images → a set of views (patches at fixations, or augmentations), shard by shard, resumable.

Of a set of views it writes the sequences that training would draw, the stored bytes unchanged.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import simplejpeg
import torch

from seqjepa.data.actions import OF_THE_SHARDS, action_of_shards, every_stride
from seqjepa.data.augment.recipes import Recipe
from seqjepa.data.decode_ahead import Reading
from seqjepa.data.draws import Draw
from seqjepa.data.fixations import Fixating
from seqjepa.data.images import ImageBatch, ImageReader
from seqjepa.data.sampling import Sampling, long_enough
from seqjepa.data.stored import Order, StoredViews, usual_order
from seqjepa.data.views import Augmented, ImageViews, Patches
from shards.describe import command_line
from shards.engines.hand import Opens, ShardByShard, Write
from shards.engines.steps import Stage, build_set
from shards.errors import ConfigError
from shards.layout import number_of_shard, shard_name, split_of_shard
from shards.reader import ShardSet, SplitIndex
from shards.reading.split_index import ImageIndex
from shards.sample import ViewSample, encode_raw
from shards.schema import MAX_VIEWS, DatasetInfo, MapSpec, ViewSpec
from shards.writer import PixelStats, SetBuilder

_SHARD_BYTES = 64 << 20
_MOST_IN_A_SHARD = 256  # which is also what is read and made at once
_OWN_NAMES = {"views", "view_ids"}  # of a baked sample, that those of its image must not hide

OPTIONS = (
    *("sequences", "views", "augment", "patch", "inhibition", "fixations", "fill", "fidelity"),
    *("order", "stride", "encoding", "split", "seed"),
)
"""Of the command, as far as they settle the bytes."""


@dataclass(frozen=True)
class OfStored:
    """Sequences of stored views: in which order and with which stride (data.order, data.stride)."""

    order: Order | None = None  # None: usual_order
    stride: int = 1


@dataclass(frozen=True)
class Baking:
    """What is made of each sample: E = `sequences` of T = `views` views, drawn from `seed` as `how` says.

    how       Fixating: patches at fixations. Recipe: augmentations, the last view by the target pipeline. OfStored: the
              views of a set of views
    encoding  raw: bit-equal to what the loader makes. jpeg: smaller, quality 95 without chroma subsampling. Stored
              views keep theirs

    Raises ConfigError for more views than a set can hold.
    """

    sequences: int
    views: int
    how: Fixating | Recipe | OfStored
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

    def drawn_of(self, source: ShardSet, indices: Sequence[ImageIndex]) -> ImageViews:
        """The views of these splits' images. ConfigError where they cannot be had, or not be stored in 8 bits."""
        assert not isinstance(self.how, OfStored), "bake() goes another way"
        if isinstance(self.how, Recipe):
            return Augmented.of(indices[0], self.how)
        if (self.how.fidelity, self.how.fill) == ("author", "mean"):
            raise ConfigError(
                "the released patches over the mean are fractions, which a set of 8-bit views cannot hold; "
                "use fill black, or fidelity paper"
            )
        views = Patches(self.how, tuple(source.info.normalisation["mean"]))
        for index in indices:
            views.check(index)
        return views


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
    Where `baking.how` is OfStored, of a `views` set.

    What is outside an image is, with fill "mean", the source's mean colour. Of augmentations, the constants that scale
    their parameters are noted with the set (augment.parameters.stored_scaling). Interrupted, the same call goes on from
    the last finished shard; calls on several machines share the shards. Raises ConfigError and FormatError before
    anything is written; see SetBuilder for the rest.
    """
    source = ShardSet.open(shards)
    names = list(dict.fromkeys(splits)) or list(source.splits)
    if isinstance(source.info.spec, MapSpec):
        raise ConfigError(
            f"{source.place} holds saliency maps without images; shard the images with them (`seqjepa-data shard "
            "… --maps`) and bake those"
        )
    if isinstance(baking.how, OfStored):
        return _bake_stored(source, names, out, baking, baking.how, overwrite)
    indices = [source.images(name) for name in names]
    views = baking.drawn_of(source, indices)
    record: dict[str, Any] = {name: getattr(baking, name) for name in ("sequences", "views", "seed", "encoding")}
    record |= views.record()
    record |= {"source": source.info.name, "source_splits": {index.name: index.fingerprint() for index in indices}}
    spec = ViewSpec(baking.total, views.side, views.side, baking.encoding, views.params, sequence=baking.views)
    reading = Reading(torch.device(device), workers, resident=False)
    in_a_shard = max(1, min(_MOST_IN_A_SHARD, _SHARD_BYTES // (baking.total * views.side**2 * 3)))
    by_shard = ShardByShard(
        make=partial(_of_images, source.path, names, baking, views, in_a_shard, reading),
        sizes=_sizes(indices, [in_a_shard] * len(indices)),
        text="bake",
        unit="image",
        gpus=int(reading.device.type == "cuda"),
    )
    return _build(out, source, spec, record, by_shard, ("torch", "numpy", "simplejpeg"), overwrite)


def _build(
    out: Path,
    source: ShardSet,
    spec: ViewSpec,
    record: dict[str, Any],
    by_shard: ShardByShard,
    packages: Sequence[str],
    overwrite: bool,
) -> DatasetInfo:
    """packages: whose versions are noted."""
    identity = {"name": f"{source.info.name}-baked"[:64], "spec": spec, "classes": source.info.classes}
    versions = {name: version(name) for name in packages}
    provenance = {"command": _command(source, record), "baked": record, "versions": versions}

    def begin(builder: SetBuilder) -> None:
        if spec.features:
            builder.put_encoder(source.read_encoder())

    stage = Stage({**identity, "fingerprint": record}, list(by_shard.sizes), by_shard.work, lambda _: provenance, begin)
    return build_set(stage, out, overwrite)


def _command(source: ShardSet, record: dict[str, Any]) -> str:
    """The one that gives the same bytes, the folder reduced to its name."""
    splits, augment = list(record["source_splits"]), record.get("augmenting", {}).get("recipe")
    given = {**record, **record.get("fixating", {}), "augment": augment}
    given["split"] = splits if splits != [*source.splits] else None
    return command_line("bake", Path(source.place).name, {name: given.get(name) for name in OPTIONS})


def _sizes(indices: Sequence[ImageIndex] | Sequence[SplitIndex], most: Sequence[int]) -> dict[str, int]:
    """Samples of each shard, by its name. most: in a shard of each split."""
    sizes: dict[str, int] = {}
    for index, in_a_shard in zip(indices, most, strict=True):
        for number, start in enumerate(range(0, len(index), in_a_shard)):
            sizes[shard_name(index.name, number)] = min(in_a_shard, len(index) - start)
    return sizes


def _bake_stored(
    source: ShardSet, names: Sequence[str], out: Path, baking: Baking, how: OfStored, overwrite: bool
) -> DatasetInfo:
    """The sequences of stored views, with commands as they are between the views that are left of a stride."""
    first, spec = source.split(names[0]), source.info.spec
    assert isinstance(spec, ViewSpec), "split() has refused other kinds"
    order = how.order or usual_order(spec)
    how = replace(how, order=order)
    views = StoredViews(action_of_shards(OF_THE_SHARDS, first), order=order, stride=how.stride)
    indices = _open_stored(source, names, baking, views)
    for index in indices:
        views.check(index, baking.views)
    record = {"sequences": baking.sequences, "views": baking.views, "seed": baking.seed, **asdict(how)}
    record |= {"source": source.info.name, "source_splits": {index.name: index.fingerprint() for index in indices}}
    baked = replace(spec, views=baking.total, sequence=baking.views, ordered=False, chunked=False)
    most = [_samples_in_a_shard(index, baking) for index in indices]
    by_shard = ShardByShard(
        make=partial(_of_stored, source.path, names, baking, views, most),
        sizes=_sizes(indices, most),
        text="bake",
        unit="sample",
    )
    return _build(out, source, baked, record, by_shard, ("numpy",), overwrite)


def _open_stored(source: ShardSet, names: Sequence[str], baking: Baking, views: StoredViews) -> list[SplitIndex]:
    indices = [source.split(name) for name in names]
    return [long_enough(index, views.order, baking.views, views.stride) for index in indices]


def _samples_in_a_shard(index: SplitIndex, baking: Baking) -> int:
    """Of some 64 MiB."""
    of_sample = baking.total * max(1, int(index.lengths.mean()))
    return max(1, min(_MOST_IN_A_SHARD, _SHARD_BYTES // of_sample))


@contextlib.contextmanager
def _of_stored(
    path: Path, names: Sequence[str], baking: Baking, views: StoredViews, most: Sequence[int]
) -> Iterator[Write]:
    """path: of the set, which is opened where it is read. most: samples of a shard of each split."""
    indices = _open_stored(ShardSet.open(path), names, baking, views)
    by_name = {index.name: (index, in_a_shard) for index, in_a_shard in zip(indices, most, strict=True)}

    def write(builder: Opens, name: str) -> None:
        (index, in_a_shard), number = by_name[split_of_shard(name)], number_of_shard(name)
        with builder.open_shard(index.name, number) as writer:
            for row in range(number * in_a_shard, min((number + 1) * in_a_shard, len(index))):
                writer.add(*_stored_sample(index, row, baking, views))

    yield write


def _stored_sample(index: SplitIndex, row: int, baking: Baking, views: StoredViews) -> tuple[ViewSample, PixelStats]:
    stored, params = [], []
    for epoch in range(baking.sequences):
        samples, slots = views.places(index, np.array([row]), Draw(baking.views, baking.seed, epoch))
        params.append(every_stride(index.params[samples, slots], index.param_names, views.action, views.stride)[0])
        places = zip(samples[0, :: views.stride].tolist(), slots[0, :: views.stride].tolist(), strict=True)
        stored += [index.read_bytes(sample, slot) for sample, slot in places]
    views_stored = np.stack([index.decode(data) for data in stored])
    meta = {name: values[row] for name, values in index.meta.items() if name not in _OWN_NAMES}
    label, ids = int(index.labels[row]), range(len(stored))
    sample = ViewSample(index.keys[row], stored, ids, np.concatenate(params), label, meta)
    return sample, PixelStats() if index.features else PixelStats.of(views_stored)


@contextlib.contextmanager
def _of_images(
    path: Path, names: Sequence[str], baking: Baking, views: ImageViews, in_a_shard: int, reading: Reading
) -> Iterator[Write]:
    """Images of the set at `path` are read ahead, of one split at a time."""
    sampling, source = Sampling(baking.views, in_a_shard, baking.seed, shuffle=False), ShardSet.open(path)
    by_name, opened = {name: source.images(name) for name in names}, dict[str, ImageReader]()

    def write(builder: Opens, name: str) -> None:
        split, number = split_of_shard(name), number_of_shard(name)
        if split not in opened:
            while opened:
                opened.popitem()[1].close()
            opened[split] = ImageReader(by_name[split], sampling, reading, maps=views.needs_maps)
        _bake_shard(builder, number, opened[split].batch(0, number), by_name[split], baking, views)

    try:
        yield write
    finally:
        for reader in opened.values():
            reader.close()


def _bake_shard(
    builder: Opens, number: int, images: ImageBatch, index: ImageIndex, baking: Baking, views: ImageViews
) -> None:
    draws = [Draw(baking.views, baking.seed, epoch) for epoch in range(baking.sequences)]
    made = [views.make(images, draw) for draw in draws]
    pixels = torch.cat([drawn.views for drawn in made], 1).permute(0, 1, 3, 4, 2).cpu().numpy()
    params = torch.cat([drawn.params for drawn in made], 1).cpu().numpy()
    with builder.open_shard(index.name, number) as writer:
        for position, row in enumerate(images.rows.tolist()):
            stored, stats = _encode(pixels[position], baking.encoding)
            sample = ViewSample(
                key=index.keys[row],
                views=stored,
                view_ids=range(len(stored)),
                params=params[position],
                label=int(index.labels[row]),
                meta={name: values[row] for name, values in index.meta.items() if name not in _OWN_NAMES},
            )
            writer.add(sample, stats)


def _encode(views: np.ndarray, encoding: str) -> tuple[list[bytes], PixelStats]:
    """uint8 [N, s, s, 3] → what is stored of each, and the sums over what reading it gives back."""
    if encoding == "raw":
        return [encode_raw(view) for view in views], PixelStats.of(views)
    stored = [simplejpeg.encode_jpeg(np.ascontiguousarray(v), quality=95, colorsubsampling="444") for v in views]
    decoded = np.stack([simplejpeg.decode_jpeg(data) for data in stored])
    return stored, PixelStats.of(decoded, reference=views)
