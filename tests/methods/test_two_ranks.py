"""Two gloo processes against one on the same global batch: loss, gradients and running statistics of every baseline.

The two put views in one call, which the one calls one by one; by our arithmetic and by the way that CUDA takes, with
torch's CUDA kernels written out in native_batch_norm.py.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import small_backbone
import torch
import torch.distributed as dist
from forked_ranks import RunRanks
from methods_lab import BASELINES, noise, rows_of, shaken, small, views_of
from native_batch_norm import register
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from seqjepa.models.batch_norm import GlobalBatchNorm
from seqjepa.models.distributed import all_rows

RANKS, ROWS = 2, (slice(0, 3), slice(3, 6))
KINDS = {False: ("mlp", "transformer"), True: ("mlp",)}
"""By whether kernels are native: those are of batch norms, of which projectors that are transformers have none."""


def step(name: str, kind: str, rows: slice, spread: bool) -> dict[str, Tensor]:
    method = shaken(small(name, kind, backbone=small_backbone.small.__name__))
    seq = rows_of(noise(views_of(name), dtype=torch.float64), rows)
    module = method
    if spread:
        method.normalise_globally()
        method.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        norm = next(m for m in method.encoder.modules() if isinstance(m, GlobalBatchNorm))
        calls: list[int] = []
        norm.register_forward_hook(lambda _module, inputs, _output: calls.append(len(inputs[0])))
        module = DistributedDataParallel(module, broadcast_buffers=False)
    loss = module(seq).loss
    loss.backward()
    assert not spread or len(calls) == 1
    grads = {f"grad {k}": p.grad for k, p in method.named_parameters() if p.grad is not None}
    return {"loss": loss.detach(), **grads, **dict(method.named_buffers())}


def gathered(rank: int) -> dict[str, Tensor]:
    """Rank r holds rows 10 r + (0, 1) of one tensor and the same plus 100 of another."""
    a = (10.0 * rank + torch.arange(2.0)).unsqueeze(1).requires_grad_()
    first, second = all_rows(a, a + 100)
    # A rank weighs with its own number, so that the sum over ranks shows.
    ((rank + 1) * (first * torch.tensor([[1.0], [2.0], [3.0], [4.0]])).sum()).backward()
    return {"first": first.detach(), "second": second.detach(), "grad": a.grad}  # type: ignore[dict-item]


def run_rank(rank: int, folder: str, native: bool) -> None:
    kernels = register() if native else None
    GlobalBatchNorm._takes_native_kernels = lambda self, x: native  # type: ignore[method-assign]
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=RANKS)
    torch.set_num_threads(1)
    cases = [(name, kind) for name in BASELINES for kind in KINDS[native]]
    results = {f"{name} {kind}": step(name, kind, ROWS[rank], spread=True) for name, kind in cases}
    torch.save(results | {"gathered": gathered(rank)}, f"{folder}/{rank}.pt")
    dist.destroy_process_group()
    del kernels


@pytest.fixture(scope="module", params=[False, True], ids=["arithmetic", "native kernels"])
def ranks(
    run_ranks: RunRanks, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> list[dict[str, dict[str, Tensor]]]:
    folder: Path = tmp_path_factory.mktemp("ranks")
    done = run_ranks(run_rank, str(folder), request.param)
    assert [code for code, _ in done] == [0] * RANKS, done
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(RANKS)]


@pytest.mark.parametrize("name", BASELINES)
def test_two_ranks_equal_one_process(ranks: list[dict[str, dict[str, Tensor]]], name: str) -> None:
    kinds = [kind for kind in KINDS[False] if f"{name} {kind}" in ranks[0]]
    assert kinds
    for kind in kinds:
        expected = step(name, kind, slice(0, 6), spread=False)
        found = [results[f"{name} {kind}"] for results in ranks]
        for key, wanted in expected.items():
            # The loss of a mean over pairs is each rank's own; that of rows against rows is the whole batch's on each.
            values = [sum(rank[key] for rank in found) / RANKS] if key == "loss" else [rank[key] for rank in found]
            for value in values:
                said = f"{kind}, {key}"
                torch.testing.assert_close(value, wanted, rtol=1e-5, atol=1e-6, msg=lambda m, k=said: f"{k}: {m}")


def test_gathered_rows_stay_in_pairs_and_their_gradients_are_summed(
    ranks: list[dict[str, dict[str, Tensor]]],
) -> None:
    for rank, weights in ((0, [1.0, 2.0]), (1, [3.0, 4.0])):
        found = ranks[rank]["gathered"]
        assert found["first"].squeeze(1).tolist() == [0, 1, 10, 11]
        assert found["second"].squeeze(1).tolist() == [100, 101, 110, 111]
        assert found["grad"].squeeze(1).tolist() == [3 * w for w in weights]  # (1 + 2) w


def test_alone_a_tensor_is_handed_back() -> None:
    x = torch.ones(2, 3)
    assert all_rows(x)[0] is x
