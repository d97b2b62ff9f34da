"""Training steps per second from cached features, beside the same training from images with the same frozen encoder.

    python benchmarks/features.py [--contexts 3 16 64] [--width 1] [--rounds 3] [--seconds 3] [--device cpu] [--profile]

seq-JEPA of the recipe synth-tiny (batch 32) on noise images of 48 px, ResNet-18 at random weights (512 features, or
`--width` times that), float16 features. `ours` is the step of the first context: gathering, forward, backward,
optimizer, online probes, meter; `limit` is the same update on one batch over and over, so that `ratio_limit` is what
loading leaves. `arithmetic` is how many steps a second the products of matrices alone would allow: the operations of a
step that torch counts, over the rate of a large product on this device. `all tokens` are steps as they were while the
aggregator's last layer computed the outputs of all tokens. `by_context` has all of it for every M, and which part of a
step products are (`arithmetic_share`), and what the loader takes (`loader_share`). On one thread of a CPU
seconds are CPU seconds, decoding included, so that others on the machine matter less. Page cache hot; medians over
rounds, which take turns. `--profile` prints instead what the operations of the first context's steps take.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any
from unittest import mock

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
import simplejpeg  # noqa: E402
import torch  # noqa: E402
from common import emit, versions  # noqa: E402
from torch.profiler import profile  # noqa: E402
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402
from train import our_steps  # noqa: E402

from seqjepa.devices import take_device  # noqa: E402
from seqjepa.embedding.feature_sets import encoder_of_config, make_features  # noqa: E402
from seqjepa.methods.flops import all_outputs  # noqa: E402
from seqjepa.models.aggregator import Aggregator  # noqa: E402
from seqjepa.recipes import load_recipe  # noqa: E402
from seqjepa.training.data import TrainingData, build_loader, open_training_data  # noqa: E402
from seqjepa.training.distributed import World  # noqa: E402
from shards.reader import ShardSet  # noqa: E402
from shards.sample import ViewSample  # noqa: E402
from shards.schema import THREE_DIEBENCH_PARAMS, ViewSpec  # noqa: E402
from shards.writer import PixelStats, SetBuilder  # noqa: E402

VIEWS, SIDE, OBJECTS, BATCH, SQUARE = 66, 48, 128, 32, 1024


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--work", type=Path, default=Path("/tmp/seqjepa-bench-features"))
    parser.add_argument("--contexts", type=int, nargs="+", default=[3, 16, 64])
    parser.add_argument("--width", type=float, default=1.0, help="of the encoder: times 512 features")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0, help="of a measurement, about")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--profile", action="store_true")
    asked = parser.parse_args()
    device = take_device(asked.device)
    images, features = asked.work / "images", asked.work / f"features-{asked.width:g}"
    write_images(images)
    source = ShardSet.open(images)
    encoder = encoder_of_config(load_recipe("", ["model.backbone=resnet18", f"model.width={asked.width:g}"]), source)
    make_features(source, features, encoder, device=device)
    if asked.profile:
        print_profile(features, asked, device)
        return
    by_context = {m: measure(images, features, m, asked, device) for m in asked.contexts}
    first = by_context[asked.contexts[0]]
    emit(
        "features",
        "steps/s",
        first["features"],
        {"images, the same frozen encoder": first["images"]},
        limit=first["resident batch"],
        arithmetic=first["arithmetic"],
        features=encoder.size,
        by_context={str(m): found for m, found in by_context.items()},
        device=str(device),
        threads=torch.get_num_threads(),
        versions=versions("torch", "numpy", "simplejpeg"),
    )


def measure(images: Path, features: Path, context: int, asked: Any, device: torch.device) -> dict[str, float]:
    """Steps a second of each way, and the share of a step from features that its loader takes."""
    opened = {
        "images": opened_for(images, features, context, asked),
        "features": opened_for(features, features, context, asked),
    }
    ways = {name: our_steps(data, data.config, device, 0, resident=False) for name, data in opened.items()}
    data = opened["features"]
    ways["resident batch"] = our_steps(data, data.config, device, 0, resident=True)
    ways["all tokens"] = by_all_tokens(our_steps(data, data.config, device, 0, resident=False))
    ways["loader"] = batches(data, device)
    ways["product"] = products(device)
    flops = operations(ways["resident batch"])
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    counts = {name: fitting(steps, asked.seconds, device) for name, steps in ways.items()}
    for _ in range(asked.rounds):
        for name, steps in ways.items():
            seconds[name].append(seconds_of(steps, counts[name], 1, device))
    taken = {name: median(values) for name, values in seconds.items()}
    taken["arithmetic"] = taken.pop("product") * flops / (2 * SQUARE**3)
    rates = {name: 1 / value for name, value in taken.items() if name != "loader"}
    ratio = median(a / b for a, b in zip(seconds["images"], seconds["features"], strict=True))
    shares = {f"{name}_share": taken[name] / taken["features"] for name in ("loader", "arithmetic")}
    return {**rates, "ratio": ratio, "mflop_per_step": flops / 1e6, **shares}


def by_all_tokens(steps: Iterator[object]) -> Iterator[object]:
    """The same with a last layer of the aggregator that computes the outputs of all tokens."""
    while True:
        with mock.patch.object(Aggregator, "forward", all_outputs):
            found = next(steps)
        yield found


def products(device: torch.device) -> Iterator[object]:
    """Endless large products of float32, 2 · SQUARE³ operations each."""
    a = torch.randn(SQUARE, SQUARE, device=device)
    while True:
        yield a @ a


def operations(steps: Iterator[object]) -> int:
    """Floating-point operations of the products in one step, backward and online probes included."""
    next(steps)
    with FlopCounterMode(display=False) as counter:
        next(steps)
    return counter.get_total_flops()


def seconds_of(steps: Iterator[object], count: int, warm_up: int, device: torch.device) -> float:
    """Of one step: by the clock, or CPU seconds of the process where it computes on one thread."""
    one_thread = device.type == "cpu" and torch.get_num_threads() == 1

    def now() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.process_time() if one_thread else time.perf_counter()

    for _ in range(warm_up):
        next(steps)
    began = now()
    for _ in range(count):
        next(steps)
    return (now() - began) / count


def fitting(steps: Iterator[object], seconds: float, device: torch.device) -> int:
    """How many steps make about so many seconds."""
    return max(2, round(seconds / seconds_of(steps, 2, 2, device)))


def print_profile(features: Path, asked: Any, device: torch.device) -> None:
    data = opened_for(features, features, asked.contexts[0], asked)
    steps = our_steps(data, data.config, device, 0, resident=False)
    for _ in range(10):
        next(steps)
    with profile() as found:
        for _ in range(30):
            next(steps)
    print(found.key_averages().table(sort_by=f"self_{device.type}_time_total", row_limit=30))


def opened_for(shards: Path, features: Path, context: int, asked: Any) -> TrainingData:
    settings = [
        f"data.context={context}",
        "data.image_size=0",
        "model.backbone=resnet18",
        f"model.width={asked.width:g}",
    ]
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
