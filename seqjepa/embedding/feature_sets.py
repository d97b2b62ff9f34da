"""make_features(): a set of views → the same set with what a frozen encoder makes of each, by shards, resumable.

Slots, sequences, parameters, actions and labels are the source's; a set of whole images becomes one of single views.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn

from seqjepa.config import ModelConfig, RunConfig
from seqjepa.data.one_pass import decoding_threads, image_chunks, stored_views
from seqjepa.data.sampling import only_samples
from seqjepa.devices import to_device
from seqjepa.methods.base import Method
from seqjepa.models.embed import PixelStats, embed
from seqjepa.models.pretrained import build_encoder, weights_sha256
from seqjepa.precision import full_float32
from seqjepa.recipes import flatten
from seqjepa.training.checkpoint import load_run
from seqjepa.training.data import MADE_OF, pixel_stats, with_view_size
from shards.describe import command_line
from shards.engines.hand import Opens, ShardByShard, Write
from shards.engines.steps import Stage, build_set
from shards.errors import ConfigError
from shards.layout import number_of_shard, shard_name, split_of_shard
from shards.machine.files import sha256_of_bytes
from shards.reader import ImageIndex, ShardSet, SplitIndex
from shards.sample import ViewSample
from shards.schema import DatasetInfo, FeatureSpec, MapSpec, VectorDtype, ViewSpec
from shards.vectors import encode_vectors

_SHARD_BYTES = 64 << 20
_VIEWS_OF_A_SHARD = 16_384  # which is what is lost when a build is killed
_AT_ONCE = 256
_OWN_NAMES = {"views", "view_ids", "chunk"}  # of a sample, that those of its image must not hide


@dataclass(frozen=True)
class Encoder:
    """A frozen encoder [B, 3, H, W] → [B, D] with what it is made of and how its pixels are normalised.

    config  whose [model] builds it      name     in words, for provenance
    stats   mean and std of its pixels   options  of the command that takes it
    """

    net: nn.Module
    size: int
    config: ModelConfig
    stats: PixelStats
    name: str
    options: Mapping[str, Any]

    def embed(self, views: Tensor) -> Tensor:
        """As a method's."""
        return self.net(views)

    def weights(self) -> bytes:
        """Its state dict as safetensors."""
        return safetensors.torch.save({k: v.detach().cpu().contiguous() for k, v in self.net.state_dict().items()})

    def spec(self, dtype: VectorDtype, weights: bytes) -> FeatureSpec:
        default = ModelConfig()
        made_of = {key: getattr(self.config, key) for key in MADE_OF}
        kept = {k: v for k, v in made_of.items() if k == "backbone" or v != getattr(default, k)}
        mean, std = (tuple(map(float, values)) for values in self.stats)
        return FeatureSpec(self.size, dtype, kept, mean, std, weights_sha256(self.net), sha256_of_bytes(weights))


def encoder_of_config(config: RunConfig, source: ShardSet) -> Encoder:
    """That of a configuration's [model], at random weights of its seed where model.pretrained names none.

    ConfigError: it cannot be built, or does not take views of this size.
    """
    spec = source.info.spec
    assert not isinstance(spec, MapSpec), "refused before"
    config = with_view_size(config, spec.height, spec.width)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        net, size = build_encoder(config.model)
    model, weights = config.model, config.model.pretrained or f"random, seed {config.seed}"
    name, stats = f"{model.backbone} ({weights})", pixel_stats(source.info, config)
    return Encoder(net, size, model, stats, name, _options(config))


def _options(config: RunConfig) -> dict[str, Any]:
    """Of the command that takes a configuration's encoder."""
    own = {name: getattr(config.model, name) or None for name in ("backbone", "pretrained", "pool")}
    flat, default = flatten(config.model_dump()), flatten(RunConfig().model_dump())
    keys = ("data.normalisation", *(f"model.{key}" for key in MADE_OF if key not in own))
    settings = [f"{key}={flat[key]}" for key in keys if flat[key] != default[key]]
    return {**own, "set": settings, "seed": config.seed}


def encoder_of_run(run: Path, source: ShardSet) -> Encoder:
    """The trained encoder of a run. ConfigError: trained on views of another size, or its method encodes otherwise."""
    loaded, spec = load_run(run), source.info.spec
    assert not isinstance(spec, MapSpec), "refused before"
    found, wanted = (spec.height, spec.width), (loaded.data.height, loaded.data.width)
    if found != wanted:
        raise ConfigError(
            f"{source.place} holds views of {found[0]}×{found[1]}, {run} was trained on {wanted[0]}×{wanted[1]}; "
            "give shards of that size"
        )
    if type(loaded.method).embed is not Method.embed:
        raise ConfigError(f"{run}: {loaded.config.method} has features of its own making; give another run")
    with torch.no_grad():
        size = loaded.method.encoder(torch.zeros(1, 3, *wanted)).shape[-1]
    stats: PixelStats = tuple(loaded.data.mean), tuple(loaded.data.std)
    return Encoder(
        loaded.method.encoder,
        size,
        loaded.config.model,
        stats,
        f"run {loaded.config.name}",
        {"run": run.resolve().name},
    )


def require_views(source: ShardSet) -> None:
    """ConfigError: maps without images, or features already."""
    spec = source.info.spec
    if isinstance(spec, MapSpec):
        raise ConfigError(f"{source.place} holds saliency maps without images; features are made of images")
    if isinstance(spec, ViewSpec) and spec.features:
        raise ConfigError(f"{source.place} holds features already, of {spec.features.backbone}; give the set of pixels")


def make_features(
    source: ShardSet,
    out: Path,
    encoder: Encoder,
    *,
    dtype: VectorDtype = "float16",
    splits: Sequence[str] = (),
    device: torch.device | str = "cpu",
    overwrite: bool = False,
) -> DatasetInfo:
    """Write `out`: splits (default: all) of `source` with vectors in the place of pixels.

    Interrupted, the same call goes on from the last finished shard; calls on several machines share the shards. Batches
    do not depend on who makes which, so on equal machines the bytes are the same. ConfigError and FormatError before
    anything is written, but for features that `dtype` cannot hold; see SetBuilder for the rest.
    """
    require_views(source)
    names = list(dict.fromkeys(splits)) or list(source.splits)
    indices = [_opened(source, name) for name in names]
    weights, spec = encoder.weights(), source.info.spec
    features = encoder.spec(dtype, weights)
    if isinstance(spec, ViewSpec):
        made = replace(spec, encoding="features", features=features)
    else:
        assert not isinstance(spec, MapSpec), "refused above"
        made = ViewSpec(1, spec.height, spec.width, "features", (), features=features)
    record: dict[str, Any] = {"source": source.info.name}
    record |= {"source_splits": {index.name: index.fingerprint() for index in indices}}
    record |= {key: source.info.fingerprint[key] for key in ("augmenting",) if key in source.info.fingerprint}
    rows, sizes = dict[str, np.ndarray](), dict[str, int]()
    for index in indices:
        for name, part in _shards_of(index, features):
            rows[name], sizes[name] = part, _views(index, part)
    writing = _Writing(features, torch.device(device), rows)
    by_shard = ShardByShard(
        make=partial(writing.of, encoder, source.path, names),
        sizes=sizes,
        text="features",
        unit="view",
        gpus=int(writing.device.type == "cuda"),
    )
    versions = {name: version(name) for name in ("torch", "numpy", "simplejpeg")}
    options = {**encoder.options, "dtype": dtype, "split": names if names != [*source.splits] else None}
    command = command_line("features", Path(source.place).name, options)
    provenance = {"command": command, "encoder": encoder.name, "versions": versions}
    identity = {"name": f"{source.info.name}-features"[:64], "spec": made, "classes": source.info.classes}
    stage = Stage(
        {**identity, "fingerprint": record},
        list(rows),
        by_shard.work,
        lambda _: provenance,
        begin=lambda builder: builder.put_encoder(weights),
    )
    return build_set(stage, out, overwrite)


def _opened(source: ShardSet, name: str) -> SplitIndex | ImageIndex:
    return source.split(name) if isinstance(source.info.spec, ViewSpec) else source.images(name)


def _shards_of(index: SplitIndex | ImageIndex, features: FeatureSpec) -> Iterator[tuple[str, np.ndarray]]:
    """Names and rows of shards of some 64 MiB, and of no more views than a minute or so makes."""
    slots = index.offsets.shape[1] if isinstance(index, SplitIndex) else 1
    of_sample = slots * (512 + -(-(128 + features.size * np.dtype(features.dtype).itemsize) // 512) * 512)
    in_a_shard = max(1, min(_SHARD_BYTES // of_sample, _VIEWS_OF_A_SHARD // slots))
    for number, start in enumerate(range(0, len(index), in_a_shard)):
        yield shard_name(index.name, number), np.arange(start, min(start + in_a_shard, len(index)))


def _views(index: SplitIndex | ImageIndex, rows: np.ndarray) -> int:
    return int(index.n_views[rows].sum()) if isinstance(index, SplitIndex) else len(rows)


@dataclass(frozen=True)
class _Writing:
    """Writes shards. rows: of each, by its name."""

    features: FeatureSpec
    device: torch.device
    rows: dict[str, np.ndarray]

    @contextlib.contextmanager
    def of(self, encoder: Encoder, path: Path, names: Sequence[str]) -> Iterator[Write]:
        """path: of the set, which is opened where it is read."""
        encoder.net.to(self.device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
        source = ShardSet.open(path)
        by_name = {name: _opened(source, name) for name in names}

        def write(builder: Opens, name: str) -> None:
            self._write(builder, name, by_name[split_of_shard(name)], encoder)

        yield write

    def _write(self, builder: Opens, name: str, index: SplitIndex | ImageIndex, encoder: Encoder) -> None:
        rows = self.rows[name]
        views = index.n_views[rows].astype(int) if isinstance(index, SplitIndex) else np.ones(len(rows), int)
        made = np.concatenate(list(_encoded(index, rows, encoder, self.device)))
        vectors = np.split(made, np.cumsum(views)[:-1])
        with builder.open_shard(index.name, number_of_shard(name)) as writer:
            for row, of_row in zip(rows.tolist(), vectors, strict=True):
                writer.add(_sample(index, row, encode_vectors(of_row, self.features)))


def _encoded(
    index: SplitIndex | ImageIndex, rows: np.ndarray, encoder: Encoder, device: torch.device
) -> Iterator[np.ndarray]:
    """Vectors float32 [b, D] of all distinct views of these samples, in stored order."""
    some, threads = only_samples(index, rows), decoding_threads()
    if isinstance(some, SplitIndex):
        batches = (pixels for _, _, pixels in stored_views(some, _AT_ONCE, threads))
    else:
        batches = (pixels for _, pixels, _ in image_chunks(some, _AT_ONCE, threads, maps=False))
    for pixels in batches:
        views = to_device(torch.from_numpy(pixels), device).permute(0, 3, 1, 2)
        with full_float32():
            yield embed(encoder, views, encoder.stats).cpu().numpy()


def _sample(index: SplitIndex | ImageIndex, row: int, stored: list[bytes]) -> ViewSample:
    meta = {name: values[row] for name, values in index.meta.items() if name not in _OWN_NAMES}
    key, label = index.keys[row], int(index.labels[row])
    if isinstance(index, ImageIndex):
        return ViewSample(key, stored, [0], np.empty((1, 0), np.float32), label, meta)
    ids, params = index.view_ids[row, : len(stored)].tolist(), index.params[row, : len(stored)]
    return ViewSample(key, stored, ids, params, label, meta, int(index.chunk[row]))
