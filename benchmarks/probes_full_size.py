"""Seconds of one 300-epoch probe at the size of 3DIEBench: 41,920 + 10,552 objects × 50 views, from cached features.

    python benchmarks/probes_full_size.py [--device auto] [--rotation-epochs 10] [--objects 41920] [--rounds 0]

Features are random float16 numbers around a centre for each class, as large as those of a ResNet-18 (2.1 GB): how long
a probe learns does not depend on what they mean. Top-1 on z learns all its epochs; the MLP for relative rotations
`--rotation-epochs` of them on a CPU, scaled to all (`rotation_scaled_by`), and all of them on a GPU.
`--rounds N` measures instead what learning together saves, N times in turn: seconds of the processor (of the clock on a
GPU) of linear probes, and of those with the two MLPs for rotations, `alone` one after the other and together.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Mapping
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1])]

import numpy as np  # noqa: E402
import torch  # noqa: E402
from common import emit, versions  # noqa: E402

from seqjepa.config import PAPER_PROBE_EPOCHS  # noqa: E402
from seqjepa.data.actions import PRESETS, ROTATION_COLUMNS  # noqa: E402
from seqjepa.devices import take_device  # noqa: E402
from seqjepa.evaluate.features import Features  # noqa: E402
from seqjepa.evaluate.inputs import action_between, label_of_view, rotation_of_view  # noqa: E402
from seqjepa.evaluate.probe_training import fit_and_score, score_tasks  # noqa: E402
from seqjepa.evaluate.probes import Bench, ProbeTask, Scores, classification, regression  # noqa: E402

VIEWS, WIDTH, CLASSES = 50, 512, 55
OBJECTS_AT_ONCE = 1024


def random_bank(objects: int, seed: int, device: torch.device) -> Features:
    """z float16 [objects, 50, 512] around centres of 55 classes that all seeds share; rotations within ±90°."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(CLASSES, (objects,), generator=generator)
    centres = 0.2 * torch.randn(CLASSES, WIDTH, generator=torch.Generator().manual_seed(0))
    z = torch.empty(objects, VIEWS, WIDTH, dtype=torch.float16)
    for part, of in zip(z.split(OBJECTS_AT_ONCE), labels.split(OBJECTS_AT_ONCE), strict=True):
        part.copy_(torch.randn(part.shape, generator=generator) + centres[of, None])
    angles = np.pi * (torch.rand(objects, VIEWS, 3, generator=generator).numpy() - 0.5)
    n_views = np.full(objects, VIEWS)
    return Features(z.to(device), n_views, angles.astype(np.float32), ROTATION_COLUMNS, labels.to(device))


def seconds(measure: ProbeTask, bench: Bench) -> tuple[float, Mapping[str, float]]:
    """Of the whole probe with its ten checks on the validation split; and its scores."""
    began = time.perf_counter()
    scores = fit_and_score(measure, bench).last  # numbers on the host: the device has nothing left to do
    return time.perf_counter() - began, scores


def together(bench: Bench, epochs: int, rounds: int) -> None:
    """Classifier, plain and standardised regressor; then two MLPs for a quarter of their epochs too."""
    between, rotation = action_between(PRESETS["rotation"]), rotation_of_view(PRESETS["rotation"].terms[0])
    top1 = classification("top1_z", label_of_view, CLASSES, epochs)
    linear = [top1, *(regression(f"r2_{s}", between, 2, 4, epochs, deep=False, standardise=s) for s in (True, False))]
    of_one = regression("r2_indiv_rot", rotation, 1, 4, max(1, epochs // 4), deep=True)
    deep = [regression("r2_rel_rot", between, 2, 4, max(1, epochs // 4), deep=True), of_one]
    clock = time.perf_counter if bench.device.type == "cuda" else time.process_time
    for name, tasks in (("linear probes", linear), ("linear probes and two MLPs", [*linear, *deep])):
        taken: tuple[list[float], list[float]] = ([], [])
        for _ in range(rounds):
            began, scores = clock(), Scores()
            for task in tasks:
                scores = scores.joined(fit_and_score(task, bench))
            between_both = clock()
            same = score_tasks(tasks, bench, progress=False).last == scores.last
            for seconds, value in zip(taken, (between_both - began, clock() - between_both), strict=True):
                seconds.append(value)
            alone, joint = map(statistics.median, taken)
        what = f"{name} of {len(bench.train):,} objects together, {epochs} epochs"
        emit(what, "s", joint, {"alone": alone}, equal=same, rounds=rounds, versions=versions("torch", "numpy"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--objects", type=int, default=41_920, help="training objects; a quarter as many to score on")
    parser.add_argument("--rotation-epochs", type=int, default=10, help="of the MLP, on a CPU")
    parser.add_argument("--epochs", type=int, default=PAPER_PROBE_EPOCHS)
    parser.add_argument("--rounds", type=int, default=0, help="of probes alone and together")
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()
    device, epochs = take_device(arguments.device), arguments.epochs
    val_objects = round(arguments.objects * 10_552 / 41_920)
    bench = Bench(random_bank(arguments.objects, 1, device), random_bank(val_objects, 2, device), device, seed=0)
    if arguments.rounds:
        together(bench, epochs, arguments.rounds)
        return
    rotation_epochs = epochs if device.type == "cuda" else min(epochs, arguments.rotation_epochs)
    between = action_between(PRESETS["rotation"])
    top1, scores = seconds(classification("top1_z", label_of_view, CLASSES, epochs), bench)
    rotation, _ = seconds(regression("r2_rel_rot", between, 2, 4, rotation_epochs, deep=True), bench)
    emit(
        f"probes of {arguments.objects:,} + {val_objects:,} objects × {VIEWS} views, {epochs} epochs",
        "s for top-1 on z",
        top1,
        {},
        rotation_s=rotation * epochs / rotation_epochs,
        rotation_scaled_by=epochs / rotation_epochs,
        scores=scores,
        device=str(device),
        versions=versions("torch", "numpy"),
    )


if __name__ == "__main__":
    main()
