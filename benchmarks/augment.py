"""Sequences of four augmented 32-px views and their parameters, beside torchvision and kornia; in views per second.

    python benchmarks/augment.py [--device cpu|cuda] [--rounds 5] [--seconds 4]

The recipe is "equimod": crop, flip, jitter, grayscale, blur, solarise, the last view from its own pipeline, batches of
512 sequences, images in memory. `ours` is our loader: draws, uint8 views, parameters and actions; `float32` is
`ours` with what `feed` does after it; `pixels` is augment() alone, `one_thread` is `ours` with one. torchvision's v2
functions work image by image in a DataLoader worker for each core, on PIL images or on tensors; kornia in batches, with
both of its ways to crop. All have all cores; each is measured in a process of its own, once a round, in turns.
`ratio_torchvision` and `ratio_kornia` are medians, over rounds, of the ratio to the faster of the two.
Kornia is left out (`missing`) where it is not installed; benchmarks/requirements.txt has it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from augment_data import BATCH, SIDE, VIEWS, images, index, prepare  # noqa: E402
from common import emit, surroundings, versions  # noqa: E402

OURS = ["ours", "float32", "pixels", "one_thread"]
TORCHVISION = ["torchvision v2, PIL images", "torchvision v2, tensors"]
KORNIA = ["kornia, slice", "kornia, resample"]


def batches(name: str, work: Path, device: str) -> Iterator[Any]:
    if name in TORCHVISION:
        from peers import augment_torchvision

        return augment_torchvision.batches(work, pil="PIL" in name)
    if name in KORNIA:
        from peers import augment_kornia

        return augment_kornia.batches(work, device, name.split(", ")[1])
    return pixels(work, device) if name == "pixels" else loaded(name, work, device)


def loaded(name: str, work: Path, device: str) -> Iterator[Any]:
    """Batches of augmented views, without end."""
    import torch

    from seqjepa.data.augment.recipes import RECIPES
    from seqjepa.data.decode_ahead import Reading
    from seqjepa.data.device import feed
    from seqjepa.data.loader import Loader
    from seqjepa.data.sampling import Sampling
    from seqjepa.data.views import Augmented

    if name == "one_thread":
        torch.set_num_threads(1)
    views = Augmented.of(index(work), RECIPES["equimod"])
    loader = Loader(index(work), views, Sampling(VIEWS, BATCH, 0), Reading(torch.device(device), resident=True))
    sequences = (seq for epoch in count() for seq in loader.epoch(epoch))
    return feed(sequences, torch.device(device), [0.5] * 3, [0.25] * 3) if name == "float32" else sequences


def pixels(work: Path, device: str) -> Iterator[Any]:
    """One batch with parameters drawn once, over and over."""
    import torch

    from seqjepa.data.augment.apply import augment
    from seqjepa.data.augment.parameters import draw_parameters
    from seqjepa.data.augment.recipes import RECIPES

    batch = torch.from_numpy(images(work)[:BATCH].copy()).permute(0, 3, 1, 2).to(device)
    params = draw_parameters(RECIPES["equimod"], range(BATCH), VIEWS, height=SIDE, width=SIDE, seed=0, epoch=0)
    while True:
        yield augment(batch, params, SIDE)


def rate(made: Iterator[Any], seconds: float, device: str) -> float:
    """Views a second, after a warm-up in which what was made ahead is used."""
    import torch

    finish = torch.cuda.synchronize if device.startswith("cuda") else lambda: None
    for _ in range(6):
        next(made)
    finish()
    start, taken = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        batch = next(made)
        taken += VIEWS * len(batch[0] if isinstance(batch, tuple | list) else batch)
    finish()
    return taken / (time.perf_counter() - start)


def run_apart(name: str, arguments: argparse.Namespace) -> float:
    options = ["--one", name, "--work", arguments.work, "--seconds", arguments.seconds, "--device", arguments.device]
    environment = surroundings(ROOT)
    command = [str(part) for part in (sys.executable, __file__, *options)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        sys.exit(f"{name} failed: {done.stderr.strip().splitlines()[-1:]}")
    return float(done.stdout.split()[-1])


def compare(arguments: argparse.Namespace) -> None:
    prepare(arguments.work)
    kornia = KORNIA if versions("kornia") else []
    peers, rounds = [*TORCHVISION, *kornia], []
    for number in range(arguments.rounds):
        rounds.append({name: run_apart(name, arguments) for name in [*OURS, *peers]})
        print(json.dumps({"round": number} | rounds[-1]), file=sys.stderr, flush=True)

    def ratio(top: str, bottom: list[str]) -> float | None:
        return median(r[top] / max(r[name] for name in bottom) for r in rounds) if bottom else None

    figures = {name: median(r[name] for r in rounds) for name in rounds[0]}
    emit(
        f"augmentations: {VIEWS} views of {SIDE} px, batch {BATCH}, {arguments.device}",
        "views/s",
        figures["ours"],
        {name: figures[name] for name in peers},
        ratio_best_peer=ratio("ours", peers),
        ratio_torchvision=ratio("ours", TORCHVISION),
        ratio_kornia=ratio("ours", kornia),
        also={name: figures[name] for name in OURS[1:]},
        rounds=len(rounds),
        missing=[name for name in KORNIA if name not in peers],
        versions=versions("torch", "torchvision", "kornia", "numpy", "pillow"),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "benchmark-augment", help="folder for the data")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0, help="measured per contender and round")
    parser.add_argument("--one", help=argparse.SUPPRESS)  # measure one contender in this process
    arguments = parser.parse_args()
    if arguments.one:
        print(rate(batches(arguments.one, arguments.work, arguments.device), arguments.seconds, arguments.device))
        sys.stdout.flush()
        os._exit(0)  # DataLoader workers must not keep us
    compare(arguments)


if __name__ == "__main__":
    main()
