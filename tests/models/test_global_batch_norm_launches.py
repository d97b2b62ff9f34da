"""How many kernels a step of seq-JEPA launches with batch norm over all ranks, by the ops that torch dispatches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.distributed as dist
from native_batch_norm import register
from torch.testing._internal.distributed.fake_pg import FakeStore
from torch.utils._python_dispatch import TorchDispatchMode

from seqjepa.data.sequence import ViewSequence
from seqjepa.models.batch_norm import GlobalBatchNorm, convert_sync_batch_norm
from seqjepa.recipes import load_recipe
from seqjepa.training.checkpoint import initial_method

ONLY_METADATA = {"detach", "wait_tensor", "empty_like", "empty", "empty_strided", "_unsafe_view", "new_empty"}


class Launches(TorchDispatchMode):
    """Counts ops that compute or copy; views and memory that is only claimed launch nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.ops: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name.split("::")[1]
        returned = func._schema.returns
        view = any(r.alias_info is not None and not r.alias_info.is_write for r in returned)
        if not view and name not in ONLY_METADATA:
            self.ops[name] += 1
        return func(*args, **(kwargs or {}))


@pytest.fixture
def two_ranks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A group of two that sends nothing, and layers that take the way of CUDA."""
    kernels = register()
    monkeypatch.setattr(GlobalBatchNorm, "_takes_native_kernels", lambda self, x: self.momentum is not None)
    dist.init_process_group("fake", rank=0, world_size=2, store=FakeStore())
    yield
    dist.destroy_process_group()
    del kernels


def launches_of_a_step(everywhere: bool) -> Counter[str]:
    torch.manual_seed(0)
    method = initial_method(load_recipe("3die-rot-M3"), 4)
    if everywhere:
        convert_sync_batch_norm(method)
    views = torch.randn(4, 4, 3, 32, 32)
    seq = ViewSequence(views, torch.randn(4, 3, 4), torch.randn(4, 4, 4), torch.zeros(4, dtype=torch.int64), [""] * 4)
    for _ in range(2):  # what is made once and kept does not count
        method.zero_grad()
        with Launches() as counted:
            with torch.autocast("cpu", torch.bfloat16):
                output = method.step(seq)
            output.loss.backward()
    return counted.ops


def test_global_batch_norm_launches_at_most_1_3_times_as_much(two_ranks: None) -> None:
    plain, everywhere = launches_of_a_step(False), launches_of_a_step(True)
    assert plain["native_batch_norm"] == everywhere["batch_norm_elemt"] > 40
    assert "_local_scalar_dense" not in everywhere  # a value that the host waits for
    assert everywhere.total() <= 1.3 * plain.total(), (plain, everywhere)
