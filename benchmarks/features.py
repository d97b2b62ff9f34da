"""Training steps per second from cached features, beside the same training from images with the same frozen encoder.

    python benchmarks/features.py [--work DIR] [--contexts 3 16 64] [--rounds 3] [--seconds 3] [--device cpu]

seq-JEPA of the recipe synth-tiny (batch 32) on noise images of 48 px, ResNet-18 at random weights, float16 features.
`ours` is the step of the first context: gathering, forward, backward, optimizer, online probes, meter; `limit` is the
same update on one batch over and over, so that `ratio_limit` is what loading leaves. `by_context` has the same for
every M, and `loader_share`, the part of a step that the loader alone takes. Page cache hot; medians over rounds, which
take turns.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
import simplejpeg  # noqa: E402
import torch  # noqa: E402
from common import emit, versions  # noqa: E402
from train import our_steps, seconds_per_step  # noqa: E402

from seqjepa.data.feature_sets import encoder_of_config, make_features  # noqa: E402
from seqjepa.devices import take_device  # noqa: E402
from seqjepa.recipes import load_recipe  # noqa: E402
from seqjepa.training.data import TrainingData, build_loader, open_training_data  # noqa: E402
from seqjepa.training.distributed import World  # noqa: E402
from shards.reader import ShardSet  # noqa: E402
from shards.sample import ViewSample  # noqa: E402
from shards.schema import THREE_DIEBENCH_PARAMS, ViewSpec  # noqa: E402
from shards.writer import PixelStats, SetBuilder  # noqa: E402

VIEWS, SIDE, OBJECTS, BATCH = 66, 48, 128, 32


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--work", type=Path, default=Path("/tmp/seqjepa-bench-features"))
    parser.add_argument("--contexts", type=int, nargs="+", default=[3, 16, 64])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0, help="of a measurement, about")
    parser.add_argument("--device", default="cpu")
    asked = parser.parse_args()
    device = take_device(asked.device)
    images, features = asked.work / "images", asked.work / "features"
    write_images(images)
    source = ShardSet.open(images)
    encoder = encoder_of_config(load_recipe("", ["model.backbone=resnet18"]), source)
    make_features(source, features, encoder, device=device)
    by_context = {m: measure(images, features, m, asked, device) for m in asked.contexts}
    first = by_context[asked.contexts[0]]
    emit(
        "features",
        "steps/s",
        first["features"],
        {"images, the same frozen encoder": first["images"]},
        limit=first["resident batch"],
        by_context={str(m): found for m, found in by_context.items()},
        device=str(device),
        threads=torch.get_num_threads(),
        versions=versions("torch", "numpy", "simplejpeg"),
    )


def measure(images: Path, features: Path, context: int, asked: Any, device: torch.device) -> dict[str, float]:
    """Steps a second of each way, and the share of a step from features that its loader takes."""
    opened = {"images": opened_for(images, features, context), "features": opened_for(features, features, context)}
    ways = {name: our_steps(data, data.config, device, 2, resident=False) for name, data in opened.items()}
    data = opened["features"]
    ways["resident batch"] = our_steps(data, data.config, device, 0, resident=True)
    ways["loader"] = batches(data, device)
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    counts = {name: fitting(steps, asked.seconds, device) for name, steps in ways.items()}
    for _ in range(asked.rounds):
        for name, steps in ways.items():
            seconds[name].append(seconds_per_step(steps, counts[name], 1, device))
    taken = {name: median(values) for name, values in seconds.items()}
    rates = {name: 1 / value for name, value in taken.items() if name != "loader"}
    ratio = median(a / b for a, b in zip(seconds["images"], seconds["features"], strict=True))
    return {**rates, "ratio": ratio, "loader_share": taken["loader"] / taken["features"]}


def fitting(steps: Iterator[object], seconds: float, device: torch.device) -> int:
    """How many steps make about so many seconds."""
    return max(2, round(seconds / seconds_per_step(steps, 2, 2, device)))


def opened_for(shards: Path, features: Path, context: int) -> TrainingData:
    settings = [f"data.context={context}", "data.image_size=0", "model.backbone=resnet18", "model.width=1"]
    settings += ["model.stem=standard", "model.freeze=true", f"optim.batch_size={BATCH}"]
    settings += [f"model.pretrained={features / '_meta' / 'encoder.safetensors'}"]
    return open_training_data(shards, load_recipe("synth-tiny", settings))


def batches(data: TrainingData, device: torch.device) -> Iterator[object]:
    with build_loader(data, data.config, World(), 0, device) as loader:
        for epoch in range(1 << 30):
            yield from loader.epoch(epoch)


def write_images(out: Path) -> None:
    """Objects of 66 views of blocky noise, JPEGs."""
    rng, spec = np.random.default_rng(0), ViewSpec(VIEWS, SIDE, SIDE, "jpeg", THREE_DIEBENCH_PARAMS)
    with SetBuilder(out, name="noise", spec=spec, classes=("a", "b"), fingerprint={"objects": OBJECTS}) as builder:
        if builder.complete:
            return
        with builder.open_shard("train", 0) as writer:
            for number in range(OBJECTS):
                blocks = rng.integers(0, 256, (VIEWS, 8, 8, 3), np.uint8)
                pixels = blocks.repeat(SIDE // 8, 1).repeat(SIDE // 8, 2)
                views = [simplejpeg.encode_jpeg(np.ascontiguousarray(view), quality=90) for view in pixels]
                params = rng.uniform(-1.5, 1.5, (VIEWS, 7)).astype(np.float32)
                sample = ViewSample(f"{number:04d}", views, range(VIEWS), params, number % 2)
                writer.add(sample, PixelStats.of(pixels))
        builder.finish({"command": "benchmarks/features.py"})


if __name__ == "__main__":
    began = time.perf_counter()
    main()
    print(f"{time.perf_counter() - began:.0f} s", file=sys.stderr)
