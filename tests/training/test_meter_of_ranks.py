"""Two gloo ranks bring an epoch's sums and moments together as one process has them, in two messages."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import torch
import torch.distributed as dist
from forked_ranks import RunRanks

from seqjepa.methods.base import StepOutput
from seqjepa.training.distributed import World
from seqjepa.training.monitor import EpochMeter

WIDTHS = {"z": torch.Size((2, 3, 6)), "z_agg": torch.Size((2, 8))}
STEPS = 3


def meter_of(ranks: list[int]) -> EpochMeter:
    """What was seen by these ranks, batch by batch; of different sizes, and far from zero."""
    meter = EpochMeter(WIDTHS, 4, "cpu")
    for step in range(STEPS):
        for rank in ranks:
            generator, rows = torch.Generator().manual_seed(10 * step + rank), 4 + rank + step
            features = {name: 2 + torch.randn(rows, *shape[1:], generator=generator) for name, shape in WIDTHS.items()}
            sizes = {"labelled": (), "correct": (), "sq_err": (4,), "y": (4,), "y_sq": (4,)}
            sums = {name: torch.rand(size, generator=generator) for name, size in sizes.items()}
            meter.update(StepOutput(torch.tensor(0.5 + rank), features=features), sums, rows)
    return meter


def run_rank(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    torch.set_num_threads(1)
    meter = meter_of([rank])
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        meter.collect(World(rank, 2))
    sent = {event.key: event.count for event in profile.key_averages() if event.key.startswith("c10d::")}
    torch.save({"meter": meter.state_dict(), "sent": sent}, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_two_ranks_sum_up_what_one_process_does(run_ranks: RunRanks, tmp_path: Path) -> None:
    done = run_ranks(run_rank, str(tmp_path))
    assert [code for code, _ in done] == [0, 0], done
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    torch.testing.assert_close(first["meter"], meter_of([0, 1]).state_dict(), rtol=1e-6, atol=1e-9)
    assert first["sent"] == second["sent"] == Counter({"c10d::allreduce_": 1, "c10d::allgather_": 1})
    assert second["meter"]["sums"]["rows"] == 0
    assert second["meter"]["moments"]["z"]["count"] == 0
