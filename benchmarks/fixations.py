"""Sequences of five 32-px patches at fixations in 96-px images, per second, beside the released way.

    python benchmarks/fixations.py [--rounds 5] [--seconds 4] [--device cuda]

`ours` is our loader with the images in memory, on `--device`: saliency sampling with inhibition of return and cutting,
uint8 patches, positions and actions of whole batches. `streamed` has the images read from shards by worker processes
in every epoch; `float32` is `ours` with what `feed` does after it, so that it ends with what the released way ends
with; `author` has the released inhibition and patches. `sampling` and `cutting` are the two parts alone. The peer works
image by image in two DataLoader workers, on the CPU. All have the same cores; each is measured in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from common import emit, surroundings, versions  # noqa: E402
from fixations_data import BATCH, IMAGES, PATCH, VIEWS, arrays, index, prepare  # noqa: E402

RELEASED = "released (DataLoader, image by image)"
OURS = ["ours", "streamed", "float32", "author", "sampling", "cutting"]
_MEAN, _STD = (0.4467, 0.4398, 0.4066), (0.2241, 0.2215, 0.2239)


def batches(name: str, work: Path, device: str) -> Iterator[Any]:
    if name == RELEASED:
        from peers import released_patches

        return released_patches.batches(work)
    return parts(name, work, device) if name in ("sampling", "cutting") else loaded(name, work, device)


def loaded(name: str, work: Path, device: str) -> Iterator[Any]:
    """Batches of patches, without end."""
    import torch

    from seqjepa.data.decode_ahead import Reading
    from seqjepa.data.device import feed
    from seqjepa.data.fixations import Fixating
    from seqjepa.data.loader import Loader
    from seqjepa.data.sampling import Sampling
    from seqjepa.data.views import Patches

    how = Fixating(PATCH, inhibition="square", fidelity="author") if name == "author" else Fixating(PATCH)
    reading = Reading(torch.device(device), resident=name != "streamed")
    loader = Loader(index(work), Patches(how), Sampling(VIEWS, BATCH, 0), reading)
    sequences = (seq for epoch in range(1 << 30) for seq in loader.epoch(epoch))
    return feed(sequences, torch.device(device), _MEAN, _STD) if name == "float32" else sequences


def parts(name: str, work: Path, device: str) -> Iterator[Any]:
    """Fixations or patches of one batch, over and over."""
    import numpy as np
    import torch

    from seqjepa.data.fixations import Fixating, cut_patches, fixation_numbers, sample_fixations

    images, maps = (torch.from_numpy(array[:BATCH].copy()).to(device) for array in arrays(work))
    images, maps = images.permute(0, 3, 1, 2), (maps * maps[0].numel()).half()
    for epoch in range(1 << 30):
        numbers = fixation_numbers(0, epoch if name == "sampling" else 0, np.arange(BATCH), VIEWS).to(device)
        if name == "sampling" or epoch == 0:
            fixations = sample_fixations(maps, numbers, Fixating(PATCH))
        yield fixations if name == "sampling" else cut_patches(images, fixations, Fixating(PATCH))


def rate(made: Iterator[Any], seconds: float, device: str) -> float:
    """Sequences a second, after a warm-up of an epoch or more."""
    import torch

    finish = torch.cuda.synchronize if device.startswith("cuda") else lambda: None
    for _ in range(IMAGES // BATCH + 1):
        next(made)
    finish()
    start, count = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        batch = next(made)
        count += len(batch[0] if isinstance(batch, list) else batch)
    finish()
    return count / (time.perf_counter() - start)


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
    rounds = []
    for number in range(arguments.rounds):
        rounds.append({name: run_apart(name, arguments) for name in [RELEASED, *OURS]})
        print(json.dumps({"round": number} | rounds[-1]), file=sys.stderr, flush=True)
    figures = {name: median(r[name] for r in rounds) for name in rounds[0]}
    ratios = {name: median(r[name] / r[RELEASED] for r in rounds) for name in OURS}
    emit(
        f"fixations: {VIEWS} patches of {PATCH} px from 96 px, batch {BATCH}, {arguments.device}",
        "sequences/s",
        figures["ours"],
        {RELEASED: figures[RELEASED]},
        ratio_best_peer=ratios["ours"],
        also={name: figures[name] for name in OURS[1:]},
        ratio_released=ratios,
        rounds=len(rounds),
        versions=versions("torch", "torchvision", "numpy", "pillow"),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "benchmark-fixations", help="folder for the data")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0, help="measured per contender and round")
    parser.add_argument("--one", choices=[RELEASED, *OURS], help=argparse.SUPPRESS)  # one contender, in this process
    arguments = parser.parse_args()
    if arguments.one:
        made = batches(arguments.one, arguments.work, arguments.device)
        print(rate(made, arguments.seconds, arguments.device), flush=True)
        os._exit(0)  # other people's workers must not keep us
    compare(arguments)


if __name__ == "__main__":
    main()
