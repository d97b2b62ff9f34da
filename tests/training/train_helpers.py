"""Tiny shard sets and tiny runs for the trainer's tests."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
import torch
from safetensors.torch import load_file
from small_backbone import SMALL

from seqjepa.config import RunConfig
from seqjepa.recipes import load_recipe
from seqjepa.training.learner import Learner
from seqjepa.training.metrics_log import TIMING
from seqjepa.training.train import train
from shards.errors import SeqJepaError
from shards.saliency_map import encode_map
from shards.sample import ImageSample, ViewSample, encode_raw
from shards.schema import ImageSpec, ParamField, ViewSpec
from shards.stats import PixelStats
from shards.writer import SetBuilder

PARAMS = ("rot_x", "rot_y", "rot_z", "floor_hue", "light_theta", "light_phi", "light_hue")
UNITS = ("rad", "rad", "rad", "1", "rad", "rad", "1")


def make_shards(
    out: Path, objects: int = 22, views: int = 5, size: int = 32, seed: int = 0, split: str = "train"
) -> Path:
    """Noise images of three classes whose brightness is the class; rotations uniform."""
    rng = np.random.default_rng(seed)
    params = tuple(ParamField(name, unit) for name, unit in zip(PARAMS, UNITS, strict=True))
    spec = ViewSpec(views=views, height=size, width=size, encoding="jpeg", params=params)
    builder = SetBuilder(out, name="tiny", spec=spec, classes=("a", "b", "c"), fingerprint={"seed": seed})
    with builder.open_shard(split, 0) as shard:
        for number in range(objects):
            label = number % 3
            pixels = rng.integers(0, 100, (views, size, size, 3)) + 60 * label
            stats = PixelStats.of(pixels.astype(np.uint8)) if hasattr(PixelStats, "of") else None
            jpegs = [simplejpeg.encode_jpeg(np.ascontiguousarray(p, np.uint8), quality=90) for p in pixels]
            values = rng.uniform(-1.5, 1.5, (views, len(PARAMS))).astype(np.float32)
            shard.add(ViewSample(f"o{number:03d}", jpegs, list(range(views)), values, label, {}), stats)
    builder.finish({"made": "by a test"})
    return out


def make_saliency_shards(
    out: Path, images: int = 22, size: int = 24, splits: tuple[str, ...] = ("unlabeled", "train"), maps: bool = True
) -> Path:
    """Noise images with a few bright spots, which is where their maps have most of their mass; `maps`: with those."""
    rng = np.random.default_rng(0)
    spec = ImageSpec(size, size, "raw", "float16" if maps else "none")
    builder = SetBuilder(out, name="tiny-images", spec=spec, classes=("a", "b"), fingerprint={"images": images})
    for split in splits:
        with builder.open_shard(split, 0) as shard:
            for number in range(images):
                pixels = rng.integers(0, 120, (size, size, 3), dtype=np.uint8)
                mass = np.full((size, size), 0.01)
                spots = rng.integers(0, size, (4, 2))
                pixels[spots[:, 0], spots[:, 1]] = 250
                mass[spots[:, 0], spots[:, 1]] = 1.0
                saliency = encode_map(mass / mass.sum(), "float16") if maps else ()
                label = -1 if split == "unlabeled" else number % 2
                sample = ImageSample(f"i{number:03d}", encode_raw(pixels), saliency, label, {})
                shard.add(sample, PixelStats.of(pixels))
    builder.finish({"made": "by a test"})
    return out


SACCADES = ["data.patch=8", "data.action=position", "data.image_size=24"]


def tiny_config(*overrides: str) -> RunConfig:
    small = [
        SMALL, "model.width=0.125", "model.layers=1", "model.ff_mult=1", "model.action_dim=16",
        "model.predictor_hidden=32", "data.context=2", "optim.epochs=3", "optim.batch_size=8",
        "optim.warmup_epochs=1", "name=tiny",
    ]  # fmt: skip
    return load_recipe("", [*small, *overrides])


def metrics(run: Path) -> list[dict[str, object]]:
    """metrics.jsonl without the keys that are timings."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in TIMING} for line in lines]


class Killed(BaseException):
    pass


def killed_at(monkeypatch: pytest.MonkeyPatch, *steps: int) -> None:
    """Training ends without any clean-up of ours, as by SIGKILL, before each of these steps, once each."""
    update, left = Learner.update, set(steps)

    def dying(self: Learner, seq, step: int, *rest: float):
        if step in left:
            left.discard(step)
            raise Killed
        return update(self, seq, step, *rest)

    monkeypatch.setattr(Learner, "update", dying)


def train_killed_at(step: int, config: RunConfig, shards: Path, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Train until the given step, where the process dies as if by SIGKILL, and then to the end."""
    killed_at(monkeypatch, step)
    with pytest.raises(Killed):
        train(config, shards, run, workers=0, progress=False)
    train(config, shards, run, workers=0, progress=False)


def assert_same_end(run: Path, whole: Path) -> None:
    """The same metrics and, bit for bit, the same weights."""
    assert metrics(run) == metrics(whole)
    ours, expected = (load_file(folder / "model.safetensors") for folder in (run, whole))
    assert ours.keys() == expected.keys()
    assert all(torch.equal(ours[name], value) for name, value in expected.items())


def train_rank(rank: int, shards: str, out: str, stop_at: int, *settings: str) -> None:
    """What a process of torchrun does; before step `stop_at` rank 1 gets a SIGTERM."""
    update = Learner.update

    def hit(self: Learner, seq, step: int, *rest: float):
        if step == stop_at and rank == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return update(self, seq, step, *rest)

    Learner.update = hit
    torch.set_num_threads(1)
    try:
        train(tiny_config(*settings), Path(shards), Path(out), workers=0, progress=False)
    except SeqJepaError as error:
        sys.stdout.write(f"{error}\n")
        sys.exit(error.exit_code)
