"""The compiled step on two gloo ranks: one graph with the messages of batch norms and losses in it, which finds what
eager ranks do. Inductor writes its programs for a CPU; the graph that it is given is a GPU's.
"""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from forked_ranks import RunRanks
from test_compiled import tiny_batch, tiny_step
from torch import Tensor, nn
from torch._dynamo.backends.registry import lookup_backend
from torch._dynamo.utils import counters
from train_helpers import tiny_config

from seqjepa.data.sequence import ViewSequence
from seqjepa.methods.base import Method
from seqjepa.methods.simclr import SimCLR
from seqjepa.training.compiled import Compiled, compiled
from seqjepa.training.distributed import World
from seqjepa.training.learner import Learner

pytestmark = pytest.mark.slow
RANKS, CPU, STEPS = 2, torch.device("cpu"), 4
WIDE = 512
"""A layer as wide as it is long has a megabyte, after which torch cuts the graph for DDP's buckets."""


class Small(SimCLR):
    """With an encoder of two layers; two views in one call of each network, and a loss of all ranks' rows."""

    def __init__(self) -> None:
        config = tiny_config("method=simclr", "data.context=1")
        Method.__init__(self, config, 4)
        norms = nn.BatchNorm2d(4), nn.BatchNorm1d(WIDE)
        self.encoder = nn.Sequential(nn.Conv2d(3, 4, 3), norms[0], nn.ReLU(), nn.Flatten(), nn.Linear(64, 8))
        self.projector = nn.Sequential(nn.Linear(8, WIDE), norms[1], nn.ReLU(), nn.Linear(WIDE, WIDE, bias=False))


class OnCpu(Learner):
    """Which compiles there too."""

    def _wrapped(self, forward: nn.Module, world: World, compile: bool) -> nn.Module:
        return super()._wrapped(compiled(forward, world, self.device) if compile else forward, world, False)


def batch(rank: int, number: int) -> ViewSequence:
    """A rank's half; the third one is an epoch's last, which is not compiled."""
    rows, generator = 4 if number == 2 else 6, torch.Generator().manual_seed(RANKS * number + rank)
    views = torch.randn(rows, 2, 3, 6, 6, generator=generator, dtype=torch.float64)
    return ViewSequence(views, torch.zeros(rows, 1, 4), torch.zeros(rows, 2, 0), torch.zeros(rows), [""] * rows)


def learned(rank: int, compile: bool) -> dict[str, Tensor]:
    """Losses, weights and running statistics."""
    torch.manual_seed(0)
    config = tiny_config("method=simclr", "data.context=1", f"train.compile={str(compile).lower()}")
    learner = OnCpu(Small().double(), config, World(rank, RANKS, rank), CPU)
    losses = [learner.update(batch(rank, number), number, 1e-2, 0.0).loss for number in range(STEPS)]
    return {"losses": torch.stack(losses), **learner.method.state_dict()}


def untranslated(graph: torch.fx.GraphModule, inputs: list[Tensor], **_: Any) -> Any:
    """A backend that keeps the graphs, forward and backward, that Inductor would translate."""
    return lookup_backend("aot_eager")(graph, inputs)


def run_rank(rank: int, folder: str, translate: bool) -> None:
    if not translate:
        torch.compile = functools.partial(torch.compile, backend=untranslated)
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = f"{folder}/cache"  # of both ranks, as on a machine
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=RANKS)
    torch.set_num_threads(1)
    eager = learned(rank, False)
    counters.clear()
    made = learned(rank, True)
    counts = {"captured": counters["stats"]["unique_graphs"], "breaks": counters["graph_break"].total()}
    counts |= {"compiled": counters["aot_autograd"]["ok"]}
    torch.save({"eager": eager, "compiled": made, "counts": counts}, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.parametrize("translate", [False, True], ids=["the graphs", "inductor"])
def test_two_ranks_that_compile_learn_what_eager_ones_do(run_ranks: RunRanks, tmp_path: Path, translate: bool) -> None:
    done = run_ranks(run_rank, str(tmp_path), translate)
    assert [code for code, _ in done] == [0] * RANKS, done
    assert not any("not compiled" in said for _, said in done), done
    found = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(RANKS)]
    for rank in found:
        # The trial of the compiler, and one step, which is cut in two.
        assert rank["counts"] == {"captured": 2, "breaks": 0, "compiled": 3}
        torch.testing.assert_close(rank["compiled"], rank["eager"], rtol=1e-8, atol=1e-9)
        torch.testing.assert_close(rank["compiled"], found[0]["compiled"], rtol=1e-12, atol=1e-12)


def compile_on_rank_0_alone(rank: int, folder: str) -> None:
    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor], **_: Any) -> Any:
        if rank:
            raise RuntimeError("no kernel for that")
        return graph.forward

    torch.compile = functools.partial(torch.compile, backend=backend)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=RANKS)
    try:
        Compiled(tiny_step(), World(rank, RANKS, rank))(tiny_batch(6))  # which sends nothing
    finally:
        dist.destroy_process_group()


def test_a_rank_that_cannot_compile_ends_all_that_can(run_ranks: RunRanks, tmp_path: Path) -> None:
    """Compiled ranks and eager ones would wait for each other's messages."""
    for code, said in run_ranks(compile_on_rank_0_alone, str(tmp_path)):
        assert code == 1
        assert said.endswith("the step of some ranks is compiled and that of others is not; set train.compile=false\n")
