"""Sets of sequences for tests: frames whose pixels and parameters tell their sequence and step."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from shards.pixels import encode_raw
from shards.reader import ShardSet
from shards.sample import ViewSample
from shards.schema import ActionSpec, ActionTerm, ParamField, ViewSpec
from shards.stats import PixelStats
from shards.writer import SetBuilder

PARAMS = (ParamField("torque", "N m"), ParamField("x", "m"), ParamField("yaw", "rad"))
COMMAND = ActionSpec((ActionTerm("command", ("torque",), over="sum"), ActionTerm("difference", ("x",))))


def torque(sequence: int, step: int) -> float:
    return np.sin(sequence + 0.7 * step)


def write_walks(
    folder: Path,
    lengths: dict[str, Sequence[int]],
    *,
    actions: ActionSpec | None = COMMAND,
    per_sample: int = 4,
    side: int = 16,
    labels: int = 2,
    ordered: bool = True,
) -> ShardSet:
    """A chunked, ordered set: frame `step` of sequence q has torque(q, step) and x = 10 q + step; its red channel is
    8 q + 2, its green one 4 · step."""
    spec = ViewSpec(
        per_sample,
        side,
        side,
        "raw",
        PARAMS,
        actions=actions,
        ordered=ordered,
        chunked=max(map(max, lengths.values())) > per_sample,
    )
    classes = tuple(f"c{label}" for label in range(labels))
    with SetBuilder(folder, name="walks", spec=spec, classes=classes, fingerprint={}) as builder:
        for split, many in lengths.items():
            chunks = [
                (number, range(start, min(start + per_sample, length)))
                for number, length in enumerate(many)
                for start in range(0, length, per_sample)
            ]
            for shard, start in enumerate(range(0, len(chunks), 5)):
                with builder.open_shard(split, shard) as writer:
                    for number, steps in chunks[start : start + 5]:
                        writer.add(*_sample(number, steps, per_sample, side, number % labels if labels else -1))
        builder.finish({})
    return ShardSet.open(folder)


def _sample(number: int, steps: range, per_sample: int, side: int, label: int) -> tuple[ViewSample, PixelStats]:
    pixels = np.zeros((len(steps), side, side, 3), np.uint8)
    pixels[..., 0] = 8 * number + 2
    pixels[..., 1] = 4 * np.array(steps)[:, None, None]
    pixels[..., 2] = np.random.default_rng(number).integers(0, 256, (len(steps), side, side))
    params = [[torque(number, step), 10 * number + step, 0.1 * step] for step in steps]
    chunk, views = steps.start // per_sample, list(map(encode_raw, pixels))
    key, values = f"w{number:03d}-{chunk:03d}", np.array(params, np.float32)
    return ViewSample(key, views, list(steps), values, label, {"walk": number}, chunk), PixelStats.of(pixels)
