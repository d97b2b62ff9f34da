"""Batches of every kind on an emulated GPU: the model's stream never waits, and the host only for copies made ahead."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from loaders import augmented_loader, patch_loader, stored_loader
from noise_shards import noise_shards

from seqjepa.data.augment.recipes import RECIPES
from seqjepa.data.device import feed
from seqjepa.data.fixations import Fixating
from seqjepa.data.loader import Loader
from seqjepa.data.sequence import ViewSequence
from shards.reader import ShardSet
from shards.saliency_map import encode_map
from shards.sample import ImageSample, encode_raw
from shards.schema import ImageSpec
from shards.stats import PixelStats
from shards.writer import SetBuilder

pytestmark = pytest.mark.emulated
SIDE, BATCH = 32, 8
SETTINGS: dict[str, Any] = {"batch_size": BATCH, "seed": 0, "workers": 0}


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    """48 images of noise with maps."""
    out, rng = tmp_path_factory.mktemp("emulated") / "images", np.random.default_rng(0)
    spec = ImageSpec(SIDE, SIDE, "raw", "float16")
    with SetBuilder(out, name="images", spec=spec, classes=("a", "b"), fingerprint={}) as builder:
        with builder.open_shard("train", 0) as writer:
            for number in range(48):
                pixels = rng.integers(0, 256, (SIDE, SIDE, 3), np.uint8)
                maps = encode_map(rng.gamma(0.2, size=(SIDE, SIDE)), "float16")
                sample = ImageSample(f"i{number:03d}", encode_raw(pixels), maps, number % 2, {})
                writer.add(sample, PixelStats.of(pixels))
        builder.finish({"command": "test"})
    return out


@pytest.fixture(scope="module")
def views(tmp_path_factory) -> Path:
    return noise_shards(tmp_path_factory.mktemp("emulated") / "views", 48)


def loader_of(kind: str, images: Path, views: Path, device: str) -> Loader:
    if kind.startswith("stored"):
        resident = kind == "stored resident" and device == "cuda"
        settings = {**SETTINGS, "views": 3, "resident": resident, "device": device}
        return stored_loader(ShardSet.open(views).split("train"), action="rotation", **settings)
    index = ShardSet.open(images).images("train")
    what, how, where = kind.split(" ")
    settings = {**SETTINGS, "views": 3, "resident": where == "resident", "device": device}
    if what == "patches":
        named = {"paper": {}, "author": {"fidelity": "author"}, "mean": {"fill": "mean", "fixations": "uniform"}}
        fixating = Fixating(patch=8, **named[how.removesuffix("-fused")])
        return patch_loader(index, fixating, mean=(0.4, 0.5, 0.6), compile=how.endswith("-fused"), **settings)
    recipe = RECIPES[how.removesuffix("-fused")]
    return augmented_loader(index, recipe, action="augmentation", compile=how.endswith("-fused"), **settings)


def batches(loader: Loader, device: str) -> Iterator[ViewSequence]:
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
    return feed((seq for epoch in range(4) for seq in loader.epoch(epoch)), torch.device(device), mean, std)


KINDS = ["stored streamed", "stored resident"] + [
    f"{what} {where}"
    for what in (
        *(f"patches {how}" for how in ("paper", "author", "mean", "paper-fused", "mean-fused")),
        *(f"augmented {name}{how}" for name in RECIPES for how in ("", "-fused")),
    )
    for where in ("resident", "streamed")
]


@pytest.mark.parametrize("kind", KINDS)
def test_the_host_waits_for_one_copy_a_batch(gpu, images: Path, views: Path, kind: str):
    with loader_of(kind, images, views, "cuda") as there, loader_of(kind, images, views, "cpu") as here:
        made, expected = batches(there, "cuda"), batches(here, "cpu")
        for number, (found, right) in enumerate(zip(made, expected, strict=True)):
            assert found.views.is_cuda
            torch.testing.assert_close(found.views.cpu(), right.views, atol=1e-4, rtol=1e-4)
            torch.testing.assert_close(found.actions.cpu(), right.actions, atol=1e-5, rtol=1e-5)
            if number >= 2:  # what is kept has been made
                assert not [place for place in gpu.syncs if place[0] != "a copy to the host"], gpu.syncs
                # A slot of the ring goes back when it has been copied; what is made on the device is not waited for.
                assert gpu.waits.total() <= (1 if kind == "stored streamed" else 0), gpu.waits
            gpu.reset()
