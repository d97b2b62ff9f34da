"""What the tests of evaluation are run on: tiny shard sets, and run directories with random weights."""

from __future__ import annotations

import io
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from small_backbone import small

from seqjepa.config import DataConfig, Fidelity, ModelConfig, RunConfig
from seqjepa.data.actions import as_spec
from seqjepa.data.fixations import Fixating
from seqjepa.methods.base import Method
from seqjepa.recipes import to_toml
from seqjepa.training.checkpoint import initial_method, save_weights
from seqjepa.training.run import DataInfo
from shards.saliency_map import encode_map
from shards.sample import ImageSample, ViewSample, encode_raw
from shards.schema import ImageSpec
from shards.stats import PixelStats
from shards.writer import SetBuilder

SIZE, VIEWS, CLASSES = 16, 6, ("blue", "green", "red")
IMAGE, PATCH = 40, 8
RESNET = ModelConfig(width=0.125, layers=1, ff_mult=1, action_dim=8, predictor_hidden=16)
TINY = RESNET.model_copy(update={"backbone": small.__name__})
PROJECTED = TINY.model_copy(update={"projector": (16, 16)})
"""Of methods with a projector, whose own is of millions of weights."""
FEWEST = 4


def jpeg(rng: np.random.Generator, label: int, hue: float) -> tuple[bytes, np.ndarray]:
    """Noise, brighter in the label's channel; the floor hue sets how bright the lower half is."""
    pixels = rng.integers(0, 120, (SIZE, SIZE, 3))
    pixels[..., 2 - label] += 60
    pixels[SIZE // 2 :] += int(70 * hue)
    pixels = pixels.astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=95)
    return buffer.getvalue(), pixels


def sample(number: int, rng: np.random.Generator) -> tuple[ViewSample, PixelStats]:
    views = VIEWS - number % (VIEWS - FEWEST + 1)
    label = number % len(CLASSES)
    params = rng.uniform(0, 1, (views, 7)).astype(np.float32)
    encoded, pixels = zip(*(jpeg(rng, label, row[3]) for row in params), strict=True)
    stats = PixelStats.of(np.stack(pixels))
    return ViewSample(f"object_{number:04d}", encoded, range(views), params, label), stats


def image_sample(number: int, label: int, rng: np.random.Generator, size: int) -> tuple[ImageSample, PixelStats]:
    """Noise with a bright square of the label's colour; the map is highest on it."""
    pixels = rng.integers(0, 120, (size, size, 3)).astype(np.uint8)
    row, col = rng.integers(0, size - 8, 2)
    pixels[row : row + 8, col : col + 8, number % len(CLASSES)] = 255
    saliency = np.full((size, size), 0.1)
    saliency[row : row + 8, col : col + 8] = 1
    parts = encode_map(saliency / saliency.sum(), "float16")
    return ImageSample(f"image-{number:05d}", encode_raw(pixels), parts, label, {}), PixelStats.of(pixels[None])


def build_images(
    out: Path, splits: dict[str, int], size: int = IMAGE, name: str = "bright-squares", maps: str = "float16"
) -> Path:
    """A saliency set of `splits` images; those of "unlabeled" have no label."""
    rng = np.random.default_rng(1)
    spec = ImageSpec(size, size, "raw", maps)
    with SetBuilder(out, name=name, spec=spec, classes=CLASSES, fingerprint={"by": "test"}) as builder:
        for split, count in splits.items():
            with builder.open_shard(split, 0) as writer:
                for number in range(count):
                    label = -1 if split == "unlabeled" else number % len(CLASSES)
                    drawn, stats = image_sample(number, label, rng, size)
                    writer.add(drawn if maps != "none" else replace(drawn, saliency=()), stats)
        builder.finish({"command": "test"})
    return out


def saccade_run_of(out: Path, fidelity: Fidelity = "paper", fixations: str = "saliency", **settings: Any) -> Path:
    """A run on patches; settings are those of RunConfig."""
    how = Fixating(patch=PATCH, fixations=fixations, fidelity=fidelity)
    data = DataInfo(
        *("position", 2, (0.4, 0.4, 0.4), (0.2, 0.2, 0.2), PATCH, PATCH),
        kind="saliency", split="unlabeled", fixating=asdict(how), image_height=IMAGE, image_width=IMAGE,
    )  # fmt: skip
    config = RunConfig(
        name="tiny-saccades",
        data=DataConfig(action="position", patch=PATCH),
        **{"model": TINY, "fidelity": fidelity} | settings,
    )
    return run_directory(out, config, data)


_METHODS: dict[tuple[str, int], Method] = {}
"""Those of run directories by config and size of action: most tests ask for the same ones."""


def run_directory(out: Path, config: RunConfig, data: DataInfo) -> Path:
    out.mkdir()
    (out / "config.toml").write_text(to_toml(config))
    identity = {"kind": "seqjepa-run", "format": 1, "data": {**data._asdict(), "fixating": dict(data.fixating)}}
    (out / "run.json").write_text(json.dumps(identity))
    other = config.model_copy(update={"seed": 1})
    key = to_toml(other), data.action_size
    if key not in _METHODS:
        _METHODS[key] = initial_method(other, data.action_size)
    save_weights(_METHODS[key], out / "model.safetensors")
    return out


def augmented_run_of(
    out: Path,
    fidelity: Fidelity = "paper",
    action: str = "augmentation",
    augment: str = "equimod",
    context: int = 3,
    **settings: Any,
) -> Path:
    """A run on augmented images of IMAGE pixels; settings are those of RunConfig."""
    data = DataInfo(
        *(action, as_spec(action).size, (0.4, 0.4, 0.4), (0.2, 0.2, 0.2), IMAGE, IMAGE),
        kind="image", split="train", image_height=IMAGE, image_width=IMAGE, augment=augment,
    )  # fmt: skip
    config = RunConfig(
        name="tiny-augmented",
        data=DataConfig(action=action, augment=augment, context=context),
        **{"model": TINY, "fidelity": fidelity} | settings,
    )
    return run_directory(out, config, data)
