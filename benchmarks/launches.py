"""Kernels launched, bytes moved and waits of the host in a training step of every method, counted without a card.

    python benchmarks/launches.py [--methods seq_jepa,simclr …] [--batch 512] [--size 128] [--most 0]
                                  [--replayed] [--no-made] [--no-probes]

One JSON line for each method: `launches` of a step by its parts – update (forward, backward, clip, optimizer, moving
averages), probes, meter – `gigabytes` that they read and write, and `syncs`, how often the host waits for the device.
Steps are eager; a compiled one has fewer launches. `--replayed`: the fifth step, in which what can be is a CUDA graph
(learner.py; all of it where batches are small, as `--batch 64`), by kind of launch. Tensors are emulated
(tests/emulated_cuda.py) and hold no numbers: full batches take no memory. A fused optimizer counts as one launch,
attention too. `--most N` adds the N operations that are launched most. Two lines are of batches that are made on the
GPU, not compiled (compiled_launches.py --part has them compiled), and one is of the probes of the paper's Table 1:
kernels of a step of all of them, `alone` one after the other, and together as they learn, which is one launch of a CUDA
graph of `kernels`. Needs a C compiler, and pytest.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import gpu_emulated  # noqa: E402, F401  # before torch, whose CUDA it plays
import numpy as np  # noqa: E402
import torch  # noqa: E402
from common import emit, versions  # noqa: E402
from emulated_cuda import Emulation, emulated_cuda  # noqa: E402
from torch import nn  # noqa: E402

from seqjepa.config import RunConfig  # noqa: E402
from seqjepa.cuda_graphs import WARM_UP  # noqa: E402
from seqjepa.data.augment.parameters import constants_for  # noqa: E402
from seqjepa.data.augment.recipes import RECIPES  # noqa: E402
from seqjepa.data.draws import Draw  # noqa: E402
from seqjepa.data.fixations import Fixating  # noqa: E402
from seqjepa.data.images import ImageBatch  # noqa: E402
from seqjepa.data.sequence import ViewSequence  # noqa: E402
from seqjepa.data.views import Augmented, Patches  # noqa: E402
from seqjepa.evaluate.heads import (  # noqa: E402
    Fit,
    Job,
    StackedLinear,
    cross_entropy,
    fit_together,
    mlp,
    squared_error,
)
from seqjepa.methods import METHODS  # noqa: E402
from seqjepa.recipes import load_recipe  # noqa: E402
from seqjepa.training.checkpoint import initial_method  # noqa: E402
from seqjepa.training.distributed import World  # noqa: E402
from seqjepa.training.learner import Learner, TrainingStep  # noqa: E402
from seqjepa.training.monitor import EpochMeter, OnlineProbes  # noqa: E402

VIEWS = {"seq_jepa": 4, "conv_jepa": 4, "vicreg_traj": 3}
ACTION, CLASSES, PARAMS = 4, 55, 7


def config_of(name: str, compile: bool) -> RunConfig:
    """The method with a ResNet-18 at its full width, as on 3DIEBench."""
    action = "position" if name == "conv_jepa" else "rotation"
    settings = [f"method={name}", f"data.context={VIEWS.get(name, 2) - 1}", f"data.action={action}"]
    return load_recipe("", [*settings, "model.stem=standard", f"train.compile={str(compile).lower()}"])


def batch(name: str, rows: int, size: int, device: str) -> ViewSequence:
    """Views as a loader's, float32 and normalised."""
    views = VIEWS.get(name, 2)
    pixels = torch.zeros(rows, views, size, size, 3, device=device).permute(0, 1, 4, 2, 3)
    actions = torch.zeros(rows, views - 1, ACTION, device=device)
    params, labels = (
        torch.zeros(rows, views, PARAMS, device=device),
        torch.zeros(rows, dtype=torch.int64, device=device),
    )
    return ViewSequence(pixels, actions, params, labels, [""] * rows)


def counted(gpu: Emulation, name: str, rows: int, size: int, most: int, replayed: bool) -> dict[str, Any]:
    """The second step's counts: what is made once and kept is made in the first. replayed: the fifth's, of graphs."""
    config, device = config_of(name, replayed), torch.device("cuda", 0)
    method = initial_method(config, ACTION).eval()
    with torch.no_grad():
        widths = {key: value.shape for key, value in method.step(batch(name, 2, 32, "cpu")).features.items()}
    learner = Learner(method, config, World(), device)
    probes, meter = OnlineProbes(widths, CLASSES, ACTION, device), EpochMeter(widths, ACTION, device)
    learn = TrainingStep(learner, probes, meter, config, World())
    seq = batch(name, rows, size, "cuda")
    for number in range(WARM_UP + 2 if replayed else 2):
        gpu.reset()
        launches = replay(gpu, learn, seq, number) if replayed else by_parts(gpu, learn, seq, number)
    often = {"most": dict(gpu.launches.most_common(most))} if most else {}
    graphs = {"kernels_of_graphs": [graph.launches.total() for graph in gpu.graphs]} if replayed else {}
    waits = {f"{what}: {where}": count for (what, where), count in gpu.syncs.items()}
    moved = {"gigabytes": gpu.bytes / 1e9, "syncs": sum(waits.values()), "waits": waits}
    return {"launches": launches, **moved, **graphs, **often}


def by_parts(gpu: Emulation, learn: TrainingStep, seq: ViewSequence, number: int) -> dict[str, int]:
    output = learn.learner.update(seq, number, 1e-3, 0.1)
    update = gpu.launches.total()
    sums = learn.probes.learn(output.features, seq, World())
    probed = gpu.launches.total()
    learn.meter.update(output, sums, len(seq))
    return {"update": update, "probes": probed - update, "meter": gpu.launches.total() - probed}


def replay(gpu: Emulation, learn: TrainingStep, seq: ViewSequence, number: int) -> dict[str, int]:
    learn(seq, number, 1e-3, 0.1)
    return dict(gpu.launches)


def probes(gpu: Emulation) -> dict[str, Any]:
    """Table 1's: class from z and from z_AGG of five sizes, two rotations by an MLP, hue; minibatches of 256."""
    device, rows = torch.device("cuda", 0), 1280
    z, agg, two = (torch.zeros(rows, *shape, device=device) for shape in ((512,), (5, 512), (1024,)))
    labels, y = torch.zeros(rows, dtype=torch.int64, device=device), torch.zeros(rows, 4, device=device)
    shown = {
        "top1_z": (z, labels, cross_entropy, lambda: nn.Linear(512, CLASSES)),
        "top1_agg": (agg, labels, cross_entropy, lambda: StackedLinear(5, 512, CLASSES)),
        "r2_rel_rot": (two, y, squared_error, lambda: mlp(1024, 4)),
        "r2_indiv_rot": (z, y, squared_error, lambda: mlp(512, 4)),
        "r2_hue": (two, y[:, :2], squared_error, lambda: nn.Linear(1024, 2)),
    }
    jobs = [Job(build, lambda _, x=x, y=y: lambda r: (x[r], y[r]), loss, 2) for x, y, loss, build in shown.values()]
    for group in (*([job] for job in jobs), jobs):
        fit_together(group, rows, Fit(0, 0), device=device)
    *alone, together = (graph.launches.total() for graph in gpu.graphs)
    return {"alone": dict(zip(shown, alone, strict=True)), "kernels": together}


def made_on_the_gpu(gpu: Emulation, rows: int) -> dict[str, int]:
    """Launches that make a batch of `rows` images of 96 px: two augmented views each, five patches of 32 px each."""
    device, counts = torch.device("cuda", 0), {}
    images = torch.zeros(rows, 96, 96, 3, dtype=torch.uint8, device=device).permute(0, 3, 1, 2)
    batch = ImageBatch(np.arange(rows), images, torch.ones(rows, 96, 96, device=device))
    augmented = Augmented(RECIPES["equimod"], "augmentation", 96, constants_for(RECIPES["equimod"], 96, 96))
    for name, views, count in (("augmentation", augmented, 2), ("patches", Patches(Fixating()), 5)):
        for epoch in range(2):  # what is made once and kept is made in the first
            gpu.reset()
            views.make(batch, Draw(count, 0, epoch))
        counts[name] = gpu.launches.total()
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", default=",".join(METHODS), help="separated by commas")
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--size", type=int, default=128, help="pixels a side")
    parser.add_argument("--most", type=int, default=0, help="operations to list, those launched most")
    parser.add_argument("--replayed", action="store_true", help="the fifth step, of CUDA graphs where there are any")
    parser.add_argument("--no-made", dest="made", action="store_false")
    parser.add_argument("--no-probes", dest="probes", action="store_false")
    asked = parser.parse_args()
    for name in filter(None, asked.methods.split(",")):
        with emulated_cuda(numbers=False) as gpu:
            found = counted(gpu, name, asked.batch, asked.size, asked.most, asked.replayed)
            what = {"method": name, "batch": asked.batch, "size": asked.size}
            total = sum(found["launches"].values())
            emit("launches", "launches/step", total, {}, versions=versions("torch"), **what, **found)
    if asked.made:
        with emulated_cuda(numbers=False) as gpu:
            for name, count in made_on_the_gpu(gpu, asked.batch).items():
                emit(f"launches: {name}", "launches/batch", count, {}, versions=versions("torch"), batch=asked.batch)
    if asked.probes:
        with emulated_cuda(numbers=False) as gpu:
            found = probes(gpu)
            alone = {"alone": float(sum(found["alone"].values()))}
            emit("launches: probes of Table 1", "launches/step", 1, alone, versions=versions("torch"), **found)


if __name__ == "__main__":
    main()
