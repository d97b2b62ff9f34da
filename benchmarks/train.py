"""Views per second of a whole training step, beside the released code's way of training and the model alone.

    python benchmarks/train.py [--work DIR] [--rounds 3] [--no-compile] [--small | --no-small]

seq-JEPA (ResNet-18), M = 3, batch 512, 128 px on CUDA; on a CPU (`--small`) batch 16, 64 px. `ours` is loading,
copying, forward, backward, optimizer, EMA, online probes and meter, compiled on CUDA; `eager` is that uncompiled;
`limit` is the same update as `ours` on one batch that stays on the device; the peer is benchmarks/train_released.py.
Page cache hot. Medians over rounds, which take turns. Measured on the device beside them: the rates of a large product
and of a copy. `floor_ms` is the longer of a step's FLOPs at the one and the bytes that its eager operations read and
write at the other, `share_of_floor` that over the step's time. `gpu_hours_1000_epochs` is for 3DIEBench's 41,920
training objects (the paper: 15.1 h on an A100).
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402
from common import emit, versions  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402
from torch.utils._pytree import tree_leaves  # noqa: E402
from train_data import Data, prepare  # noqa: E402

from pipelines.saliency.speed import matmul_ceiling  # noqa: E402
from seqjepa.config import RunConfig  # noqa: E402
from seqjepa.cuda_graphs import WARM_UP  # noqa: E402
from seqjepa.data.device import feed  # noqa: E402
from seqjepa.devices import take_device  # noqa: E402
from seqjepa.methods.flops import count_macs  # noqa: E402
from seqjepa.recipes import load_recipe  # noqa: E402
from seqjepa.training.checkpoint import initial_method  # noqa: E402
from seqjepa.training.data import TrainingData, build_loader, open_training_data  # noqa: E402
from seqjepa.training.distributed import World  # noqa: E402
from seqjepa.training.learner import Learner, TrainingStep  # noqa: E402
from seqjepa.training.monitor import EpochMeter, OnlineProbes  # noqa: E402
from seqjepa.training.train import feature_widths  # noqa: E402

TRAIN_OBJECTS, PAPER_HOURS = 41_920, 15.1
COPIED = {"cuda": 1 << 30, "cpu": 1 << 26}  # bytes, beyond any cache
# Dense bf16 FLOP/s as their makers state them.
PEAKS = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "4090": 165e12}


def our_steps(
    source: TrainingData, config: RunConfig, device: torch.device, workers: int, resident: bool
) -> Iterator[object]:
    """Endless training steps of ours; `resident` uses one batch over and over that is on the device already."""
    world, method = World(), initial_method(config, source.data.action_size)
    widths = feature_widths(method, config, source)
    pixels = source.data.mean, source.data.std
    learner = Learner(method, config, world, device, pixels)
    probes = OnlineProbes(widths, source.classes, source.data.action_size, device)
    meter = EpochMeter(widths, source.data.action_size, device, config.train.compile)
    learn = TrainingStep(learner, probes, meter, config, world)
    with build_loader(source, config, world, workers, device) as loader:
        host = (seq for epoch in range(1 << 30) for seq in loader.epoch(epoch))
        batches = feed(host, device, *pixels, raw=True)
        seq = next(batches)
        for step in range(1 << 30):
            learn(seq, step, config.optim.lr, progress=0.1)
            yield None
            seq = seq if resident else next(batches)


def seconds_per_step(steps: Iterator[object], count: int, warm_up: int, device: torch.device) -> float:
    def wait() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter()

    for _ in range(warm_up):
        next(steps)
    began = wait()
    for _ in range(count):
        next(steps)
    return (wait() - began) / count


def copy_rate(device: torch.device) -> float:
    """Bytes a second that a large copy reads and writes."""
    source = torch.empty(COPIED[device.type], dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    copies = (target.copy_(source) for _ in range(1 << 30))
    return 2 * source.numel() / seconds_per_step(copies, 30, 5, device)


class Traffic(TorchDispatchMode):
    """Counts the bytes that operations read and write; views move nothing."""

    moved = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if not any(r.alias_info is not None and not r.alias_info.is_write for r in func._schema.returns):
            tensors = [t for t in tree_leaves((args, kwargs, out)) if isinstance(t, torch.Tensor)]
            self.moved += sum(t.numel() * t.itemsize for t in tensors)
        return out


def bytes_of_a_step(arguments: argparse.Namespace, source: TrainingData, config: RunConfig, device: Any) -> int:
    """Of an eager step on a batch that is on the device."""
    steps = our_steps(source, _compiling(config, False), device, arguments.workers, resident=True)
    next(steps)
    with Traffic() as traffic:
        next(steps)
    steps.close()  # type: ignore[attr-defined]
    return traffic.moved


def _compiling(config: RunConfig, compile: bool) -> RunConfig:
    return config.model_copy(update={"train": config.train.model_copy(update={"compile": compile})})


def peak(device: torch.device) -> float | None:
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    return next((flops for key, flops in PEAKS.items() if key in name), None)


def run_round(arguments: argparse.Namespace, data: Data, config: RunConfig, device: torch.device) -> dict[str, float]:
    """Seconds per step of each contender in turn; the peer first, because ours change CUDA's global settings."""
    from train_released import steps as released_steps

    author = config.model_copy(update={"fidelity": "author"})
    source = open_training_data(data.shards, config)
    precision, tuned = torch.get_float32_matmul_precision(), torch.backends.cudnn.benchmark
    contenders = {
        "released": lambda: released_steps(data, author, device, arguments.workers),
        "limit": lambda: our_steps(source, config, device, arguments.workers, resident=True),
        "ours": lambda: our_steps(source, config, device, arguments.workers, resident=False),
    }
    if device.type == "cuda" and config.train.compile:
        eager = _compiling(config, False)
        contenders["eager"] = lambda: our_steps(source, eager, device, arguments.workers, resident=False)
    found, warm_up = {}, max(WARM_UP + 1, arguments.steps // 3)  # the step that follows WARM_UP captures the graph
    for name, start in contenders.items():
        steps = start()
        found[name] = seconds_per_step(steps, arguments.steps, warm_up, device)
        steps.close()  # type: ignore[attr-defined]
    torch.set_float32_matmul_precision(precision)
    torch.backends.cudnn.benchmark = tuned
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "benchmark-train", help="folder for the data")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, help="measured per contender and round")
    parser.add_argument("--workers", type=int, default=min(16, len(os.sched_getaffinity(0))))
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True, help="ours, on CUDA")
    parser.add_argument("--small", action=argparse.BooleanOptionalAction, help="default: on a CPU")
    arguments = parser.parse_args()
    device = take_device(arguments.device)
    small = arguments.small if arguments.small is not None else device.type == "cpu"
    side, batch = (64, 16) if small else (128, 512)
    arguments.steps = arguments.steps or (6 if small else 30)
    data = Data(arguments.work, objects=4 * batch, side=side)
    prepare(data, arguments.workers)
    settings = [
        f"data.image_size={side}",
        f"optim.batch_size={batch}",
        f"train.compile={str(arguments.compile).lower()}",
    ]
    config = load_recipe("3die-rot-M3", settings)
    rounds = [run_round(arguments, data, config, device) for _ in range(arguments.rounds)]
    moved = bytes_of_a_step(arguments, open_training_data(data.shards, config), config, device)
    report(arguments, config, device, rounds, moved)


def report(
    arguments: argparse.Namespace, config: RunConfig, device: torch.device, rounds: list[dict[str, float]], moved: int
) -> None:
    side, batch, views = config.data.image_size, config.optim.batch_size, config.data.context + 1
    took = {name: median(r[name] for r in rounds) for name in rounds[0]}
    rate = {name: batch * views / seconds for name, seconds in took.items()}
    flops = 2 * count_macs(initial_method(config, 4), 4, side, config.data.context).training
    achieved, stated = flops * batch / took["ours"], peak(device)
    product, copy = matmul_ceiling(device, "bf16" if device.type == "cuda" else "fp32"), copy_rate(device)
    floor = max(flops * batch / product, moved / copy)
    emit(
        f"train: {side} px, M={views - 1}, batch {batch}",
        "views/s",
        rate["ours"],
        {"released style (fp32, eager, PIL)": rate["released"]},
        rate["limit"],
        ratio_best_peer=median(r["released"] / r["ours"] for r in rounds),
        ratio_limit=median(r["limit"] / r["ours"] for r in rounds),
        step_ms={name: 1000 * seconds for name, seconds in took.items()},
        model_flops_per_sequence=flops,
        model_flops_per_s=achieved,
        mfu=achieved / stated if stated else None,
        share_of_matmul_rate=achieved / product,
        bytes_per_s={name: moved / took[name] for name in ("ours", "eager", "limit") if name in took},
        ceilings={"flops_per_s": product, "bytes_per_s": copy},
        bytes_per_step=moved,
        floor_ms=1000 * floor,
        share_of_floor={name: floor / seconds for name, seconds in took.items()},
        gpu_hours_1000_epochs=1000 * TRAIN_OBJECTS * views / rate["ours"] / 3600 if device.type == "cuda" else None,
        gpu_hours_1000_epochs_paper_a100=PAPER_HOURS,
        device=str(device),
        compiled=arguments.compile and device.type == "cuda",
        rounds=len(rounds),
        workers=arguments.workers,
        versions=versions("torch", "torchvision", "numpy", "simplejpeg", "pillow", "scipy"),
    )


if __name__ == "__main__":
    main()
