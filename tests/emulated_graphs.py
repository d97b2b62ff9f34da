"""CUDA graphs where CUDA is emulated: kernels are recorded with the addresses that they read and write, and run again.

What a capture computes is taken back, as on a card, where it computes nothing; so a graph that misses an input, or
reads one that has been made anew since, gives wrong numbers here too. What waits must not be captured.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

if TYPE_CHECKING:
    from emulated_cuda import Emulation


UNTOLD = ("running_mean", "running_var")
"""What batch norm writes without a word in its schema."""


class Graph:
    """torch.cuda.CUDAGraph. launches: kernels of one replay by name; bytes: that they read and write."""

    def __init__(self, emulation: Emulation) -> None:
        self.emulation = emulation
        self.kernels: list[tuple[Any, Any, Any, Any]] = []
        self.launches: Counter[str] = Counter()
        self.bytes = 0
        self.uses: list[tuple[list[Tensor], list[Tensor]]] = []  # what each kernel reads and writes
        self.refused = False
        self._before: list[tuple[Tensor, Tensor]] = []

    def record(self, func: Any, args: Any, kwargs: Any) -> Any:
        """func's output; what it is going to overwrite is kept until the capture ends."""
        for given, argument in zip(args, func._schema.arguments, strict=False):
            written = argument.alias_info is not None and argument.alias_info.is_write
            if written or (func._schema.name == "aten::native_batch_norm" and argument.name in UNTOLD):
                self._before += [(x, x.clone()) for x in tree_leaves(given) if isinstance(x, Tensor)]
        out = func(*args, **kwargs)
        self.kernels.append((func, args, kwargs, out))
        return out

    def take_back(self) -> None:
        for changed, before in reversed(self._before):
            changed.copy_(before)
        self._before.clear()

    @torch.no_grad()
    def replay(self) -> None:
        """As one launch; its kernels are in `launches` of the graph."""
        self.emulation.launches["replay"] += 1
        self.emulation.bytes += self.bytes
        runtime = self.emulation.runtime
        for reads, writes in self.uses:
            runtime.order.ran(runtime.current, reads, writes, "a graph")
        for func, args, kwargs, out in self.kernels if self.emulation.numbers else ():
            for old, new in zip(tree_leaves(out), tree_leaves(func(*args, **kwargs)), strict=True):
                if isinstance(old, Tensor) and old.untyped_storage().data_ptr() != new.untyped_storage().data_ptr():
                    old.copy_(new)


@contextmanager
def capture(graph: Graph, **_: Any) -> Iterator[None]:
    """torch.cuda.graph. What must not be captured ends it with an error of its own, on its own stream, as on a card."""
    emulation, runtime = graph.emulation, graph.emulation.runtime
    assert emulation.capturing is None, "a capture within a capture"
    before, runtime.current = runtime.current, runtime.new_stream()
    launches, moved, drawn = Counter(emulation.launches), emulation.bytes, torch.get_rng_state()
    emulation.capturing = graph
    try:
        yield
    finally:
        emulation.capturing = None
        graph.take_back()
        torch.set_rng_state(drawn)  # a graph draws when it runs
        graph.launches, graph.bytes = emulation.launches - launches, emulation.bytes - moved
        emulation.launches, emulation.bytes = launches, moved
        if graph.refused:
            raise RuntimeError("CUDA error: operation failed due to a previous error during capture")
        runtime.current = before
