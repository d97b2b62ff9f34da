"""Messages between ranks in a training step of every method, counted on two gloo ranks of this machine.

    python benchmarks/collectives.py [--methods seq_jepa,simclr …] [--size 32] [--batch 4] [--set key=value …]

One JSON line for each method, of the third step by torch's profiler: messages by kind of the parts `update` (batch
norms, losses that compare rows, gradients in DDP's buckets), `probes`, and `epoch`, the sums that ranks bring together
at an epoch's end. `norms`: calls of global batch norms, each of which needs one message forward; one backward where
there is a gradient. Gradients, of `gradients_mb`, go in DDP's buckets of 25 MB. The size of images changes nothing.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

import torch  # noqa: E402
import torch.distributed as dist  # noqa: E402
from common import emit, versions  # noqa: E402
from torch.multiprocessing.spawn import spawn  # noqa: E402

from seqjepa.config import RunConfig  # noqa: E402
from seqjepa.data.sequence import ViewSequence  # noqa: E402
from seqjepa.methods import METHODS  # noqa: E402
from seqjepa.models.batch_norm import GlobalBatchNorm  # noqa: E402
from seqjepa.recipes import load_recipe  # noqa: E402
from seqjepa.training.checkpoint import initial_method  # noqa: E402
from seqjepa.training.distributed import World  # noqa: E402
from seqjepa.training.learner import Learner  # noqa: E402
from seqjepa.training.monitor import EpochMeter, OnlineProbes  # noqa: E402

RANKS, ACTION, CLASSES, PARAMS = 2, 4, 55, 7
VIEWS = {"seq_jepa": 4, "conv_jepa": 4, "vicreg_traj": 3}
COLLECTIVES = ("c10d::allgather_", "c10d::allreduce_", "c10d::broadcast_", "c10d::allgather_into_tensor_coalesced_")


def config_of(name: str, settings: list[str]) -> RunConfig:
    action = "position" if name == "conv_jepa" else "rotation"
    own = [f"method={name}", f"data.context={VIEWS.get(name, 2) - 1}", f"data.action={action}"]
    return load_recipe("", [*own, "train.precision=fp32", "model.stem=standard", *settings])


def batch(name: str, rows: int, size: int) -> ViewSequence:
    views = VIEWS.get(name, 2)
    actions, params = torch.randn(rows, views - 1, ACTION), torch.randn(rows, views, PARAMS)
    return ViewSequence(torch.randn(rows, views, 3, size, size), actions, params, torch.arange(rows), [""] * rows)


def messages(work: Any) -> tuple[dict[str, int], Any]:
    """Of work(), by kind, and what it returns."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        made = work()
    found = Counter({event.key: event.count for event in profile.key_averages() if event.key in COLLECTIVES})
    return {key.removeprefix("c10d::").strip("_"): count for key, count in sorted(found.items())}, made


def counted(name: str, rank: int, asked: argparse.Namespace) -> dict[str, Any]:
    config, world, device = config_of(name, asked.settings), World(rank, RANKS), torch.device("cpu")
    method, seq = initial_method(config, ACTION).eval(), batch(name, asked.batch, asked.size)
    with torch.no_grad():
        widths = {key: value.shape for key, value in method.step(seq).features.items()}
    learner, norms = Learner(method, config, world, device), [0]
    for layer in method.modules():
        if isinstance(layer, GlobalBatchNorm):
            layer.register_forward_hook(lambda *_: norms.append(1))
    probes, meter = OnlineProbes(widths, CLASSES, ACTION), EpochMeter(widths, ACTION, device)
    for number in range(3):  # DDP orders its buckets after the first
        norms.clear()
        update, output = messages(lambda number=number: learner.update(seq, number, 1e-3, 0.1))
        probed, sums = messages(lambda output=output: probes.learn(output.features, seq, world))
        meter.update(output, sums, len(seq))
    epoch, _ = messages(lambda: meter.collect(world))
    trained = 4e-6 * sum(p.numel() for p in method.parameters() if p.requires_grad)
    return {"update": update, "probes": probed, "epoch": epoch, "norms": len(norms), "gradients_mb": trained}


def run_rank(rank: int, folder: str, asked: argparse.Namespace) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=RANKS)
    torch.set_num_threads(1)
    for name in asked.methods.split(","):
        found = counted(name, rank, asked)
        if rank == 0:
            total = sum(found["update"].values()) + sum(found["probes"].values())
            emit("collectives", "messages/step", total, {}, versions=versions("torch"), method=name, **found)
    dist.destroy_process_group()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", default=",".join(METHODS), help="separated by commas")
    parser.add_argument("--batch", type=int, default=4, help="sequences of a rank")
    parser.add_argument("--size", type=int, default=32, help="pixels a side")
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="KEY=VALUE")
    with tempfile.TemporaryDirectory() as folder:
        spawn(run_rank, args=(folder, parser.parse_args()), nprocs=RANKS)


if __name__ == "__main__":
    main()
