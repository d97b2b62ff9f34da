"""Two gloo processes with an unequal split against one process on the same global batch.

By our arithmetic, and by the way that CUDA takes, with torch's CUDA kernels written out in native_batch_norm.py.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from forked_ranks import RunRanks
from native_batch_norm import register
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from seqjepa.config import ModelConfig, RunConfig
from seqjepa.data.sequence import ViewSequence
from seqjepa.methods.seq_jepa import SeqJEPA
from seqjepa.models import batch_norm
from seqjepa.models.batch_norm import GlobalBatchNorm, convert_sync_batch_norm, of_each

RANKS = 2
SPLIT = (slice(0, 5), slice(5, 8))
TOLERANCES = {torch.float32: 1e-5, torch.float64: 1e-9}
EVEN_SPLIT = (slice(0, 4), slice(4, 8))


def small_net(dtype: torch.dtype) -> nn.Module:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 6, 3),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(6 * 16, 10),
        nn.BatchNorm1d(10, affine=False, momentum=None),
    )
    nn.init.normal_(net[1].weight)
    return net.to(dtype)


def batch(dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    # In float64 the mean is one that E[x²] − E[x]² would feel; float32 could not hold the gradients before it.
    images = (50.0 if dtype == torch.float64 else 0.5) + torch.randn(8, 3, 6, 6, generator=generator, dtype=dtype)
    return images, torch.randn(8, 10, generator=generator, dtype=dtype)


def train_and_test(net: nn.Module, images: Tensor, goal: Tensor, scale: float) -> dict[str, Tensor]:
    """Two training passes, gradients of the second one, then an eval pass."""
    images = images.clone().requires_grad_()
    net.train()(images)
    out = net(images)
    (scale * ((out - goal) ** 2).sum() / 80).backward()
    found = {"out": out.detach(), "input_grad": images.grad, "eval": net.eval()(images).detach()}
    inner = net.module if isinstance(net, DistributedDataParallel) else net
    found |= {f"grad {k}": p.grad for k, p in inner.named_parameters()}
    return found | inner.state_dict()


def seq_jepa_step(method: SeqJEPA, rows: slice) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(2)
    views = torch.randn(8, 3, 3, 32, 32, generator=generator, dtype=torch.float64)[rows]
    actions = torch.randn(8, 2, 4, generator=generator, dtype=torch.float64)[rows]
    labels = torch.zeros(len(views), dtype=torch.long)
    out = method.step(ViewSequence(views, actions, actions, labels, [""] * len(views)))
    out.loss.backward()
    grads = {f"grad {k}": p.grad for k, p in method.named_parameters() if p.grad is not None}
    return {"loss": out.loss.detach(), **grads, **dict(method.named_buffers())}


def small_method() -> SeqJEPA:
    torch.manual_seed(3)
    return SeqJEPA(RunConfig(model=ModelConfig(width=0.125, action_dim=16, layers=1, dropout=0.0)), 4).double()


def net_on_rank(rank: int, dtype: torch.dtype) -> dict[str, Tensor]:
    images, goal = batch(dtype)
    net = DistributedDataParallel(convert_sync_batch_norm(small_net(dtype)))
    # DDP averages over ranks, so each rank's share of the global sum counts RANKS times.
    return train_and_test(net, images[SPLIT[rank]], goal[SPLIT[rank]], scale=RANKS)


def run_rank(rank: int, folder: str, native: bool) -> None:
    kernels = register() if native else None
    if native:
        GlobalBatchNorm._takes_native_kernels = lambda self, x: self.momentum is not None  # type: ignore[method-assign]
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=RANKS)
    torch.set_num_threads(1)
    results = {str(dtype): net_on_rank(rank, dtype) for dtype in TOLERANCES}
    method = convert_sync_batch_norm(small_method())
    assert isinstance(method, SeqJEPA)
    results["method"] = seq_jepa_step(method, EVEN_SPLIT[rank])
    torch.save(results, f"{folder}/{rank}.pt")
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


@pytest.mark.parametrize("dtype", TOLERANCES)
def test_unequal_ranks_equal_one_process(ranks: list[dict[str, dict[str, Tensor]]], dtype: torch.dtype) -> None:
    expected = train_and_test(small_net(dtype), *batch(dtype), scale=1.0)
    allowed = {"rtol": TOLERANCES[dtype], "atol": TOLERANCES[dtype]}
    per_sample = ("out", "input_grad", "eval")
    for rank, results in enumerate(ranks):
        found = results[str(dtype)]
        assert found.keys() == expected.keys()
        for name, value in found.items():
            value = value / RANKS if name == "input_grad" else value
            wanted = expected[name][SPLIT[rank]] if name in per_sample else expected[name]
            torch.testing.assert_close(value, wanted, **allowed, msg=lambda m, n=name: f"{n}: {m}")


def test_seq_jepa_on_two_ranks_equals_one_process(ranks: list[dict[str, dict[str, Tensor]]]) -> None:
    expected = seq_jepa_step(small_method(), slice(0, 8))
    for name, wanted in expected.items():
        values = [results["method"][name] for results in ranks]
        if name == "loss" or name.startswith("grad "):
            values = [sum(values) / RANKS]
        for value in values:
            torch.testing.assert_close(value, wanted, rtol=1e-5, atol=1e-7, msg=lambda m, n=name: f"{n}: {m}")


def test_one_process_finds_what_torchs_batch_norm_finds() -> None:
    found, expected = (
        train_and_test(net, *batch(torch.float32), scale=1.0)
        for net in (convert_sync_batch_norm(small_net(torch.float32)), small_net(torch.float32))
    )
    for name in ("1.running_mean", "1.running_var", "1.num_batches_tracked"):
        assert torch.equal(found[name], expected[name]), name
    # Averages over all batches (momentum None) come by our arithmetic.
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.gpu
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_one_gpu_finds_what_torchs_batch_norm_finds(
    tmp_path: Path, affine: bool, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernels themselves, in a world of one over NCCL; half of the values are channels-last, all in two groups."""
    monkeypatch.setattr(batch_norm, "several_ranks", lambda: True)
    dist.init_process_group("nccl", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
    try:
        for layout in (torch.contiguous_format, torch.channels_last):
            norms = [nn.BatchNorm2d(16, affine=affine).cuda() for _ in range(2)]
            norms[1] = GlobalBatchNorm(norms[1])  # type: ignore[call-overload]
            x = torch.randn(8, 16, 5, 7, device="cuda", dtype=dtype).to(memory_format=layout)
            inputs = [x.clone().requires_grad_() for _ in norms]
            outputs = [
                torch.cat([norms[0](part) for part in inputs[0].chunk(2)]),
                torch.cat(of_each(norms[1], *inputs[1].chunk(2))),
            ]
            slope = torch.randn_like(outputs[0])
            for output in outputs:
                output.backward(slope)
            close = 1e-4 if dtype == torch.float32 else 2e-2
            torch.testing.assert_close(outputs[1], outputs[0], rtol=close, atol=close)
            torch.testing.assert_close(inputs[1].grad, inputs[0].grad, rtol=close, atol=close)
            torch.testing.assert_close(norms[1].state_dict(), norms[0].state_dict(), rtol=1e-4, atol=1e-5)
            if affine:
                torch.testing.assert_close(norms[1].weight.grad, norms[0].weight.grad, rtol=1e-2, atol=1e-2)
    finally:
        dist.destroy_process_group()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_compiled_norm_has_all_its_gradients(dtype: torch.dtype) -> None:
    """torch 2.11 gave zeros for a function that ends with a `to` of the dtype that it has."""
    given = [torch.randn(6, 3, 4, 4, dtype=dtype), torch.rand(3, dtype=dtype), torch.rand(3, dtype=dtype)]
    weights, found = torch.randn(6, 3, 4, 4, dtype=dtype), []

    def normalised(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return batch_norm._GlobalBatchNormFunction.apply(x, weight, bias, 1e-5, 2)[0]

    torch._dynamo.reset()
    for function in (normalised, torch.compile(normalised, backend="eager", fullgraph=True, dynamic=False)):
        leaves = [value.clone().requires_grad_() for value in given]
        found.append(torch.autograd.grad((function(*leaves) * weights).sum(), leaves))
    for compiled, eager in zip(*found[::-1], strict=True):
        torch.testing.assert_close(compiled, eager)
