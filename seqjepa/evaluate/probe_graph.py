"""Steps of probes on a GPU as one CUDA graph: a launch for each step, not one for each of its hundred kernels.

A graph reads and writes fixed addresses. So minibatches of a block of rows are gathered one after the other into
buffers, and the graph takes its own from there by a place that it moves on itself: the host does nothing but start it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from shards.errors import reason_of

logger = logging.getLogger(__name__)
Gather = Callable[[Tensor], tuple[Tensor, Tensor]]
"""rows int64 [b] → (inputs [b, …], targets [b, …]): one minibatch of an epoch whose views are drawn."""
Step = Callable[[Sequence[tuple[Tensor, Tensor]]], None]
"""(inputs [b, …], targets [b, …]) of each head → nothing; all heads have learned from them."""
FALLBACK = "probes learn without a CUDA graph, and slower for it (%s)"
STEPS_AT_ONCE = 64
ROWS_AT_ONCE = 4096
"""Of which inputs are gathered at once: some cost a forward pass."""
WARM_UP = 3
"""Steps before the graph: what libraries make at their first calls must not be a part of it."""


class StepGraph:
    """`step`, which moves `optimizer`, on minibatches of `batch` rows on the current GPU.

    The first steps, and short minibatches, run as they are; all where no graph can be had, which a line says.
    """

    def __init__(self, step: Step, optimizer: torch.optim.Optimizer, batch: int) -> None:
        self._step, self._optimizer, self._batch = step, optimizer, batch
        self._buffers: list[tuple[Tensor, Tensor]] = []
        self._place = self._offsets = torch.empty(0)
        self._graph: torch.cuda.CUDAGraph | None = None
        self._left = WARM_UP
        self._refused = False

    def run(self, gathers: Sequence[Gather], order: Tensor) -> None:
        """An epoch: a step for each minibatch of the rows `order`, int64 [n] on the GPU."""
        for block in order.split(self._batch * STEPS_AT_ONCE):
            self._gather(gathers, block)
            self._place.zero_()
            for start in range(0, len(block), self._batch):
                self._next(start, min(self._batch, len(block) - start))

    def _gather(self, gathers: Sequence[Gather], block: Tensor) -> None:
        """Inputs and targets of these rows into the buffers."""
        for start in range(0, len(block), ROWS_AT_ONCE):
            parts = [gather(block[start : start + ROWS_AT_ONCE]) for gather in gathers]
            if not self._buffers:
                self._make_buffers(parts, block)
            for pair, into in zip(parts, self._buffers, strict=True):
                for part, buffer in zip(pair, into, strict=True):
                    buffer[start : start + len(part)].copy_(part)

    def _make_buffers(self, parts: Sequence[tuple[Tensor, Tensor]], block: Tensor) -> None:
        """Of the first block, which is the largest."""
        self._buffers = [
            (x.new_empty(len(block), *x.shape[1:]), y.new_empty(len(block), *y.shape[1:])) for x, y in parts
        ]
        self._place = torch.zeros((), dtype=torch.int64, device=block.device)
        self._offsets = torch.arange(self._batch, device=block.device)

    def _next(self, start: int, rows: int) -> None:
        if rows < self._batch or self._refused:
            self._step([(x[start : start + rows], y[start : start + rows]) for x, y in self._buffers])
        elif self._graph is not None:
            self._graph.replay()
        elif self._left:
            self._left -= 1
            self._warm_up()
        else:
            self._capture()
            self._next(start, rows)

    def _taken(self) -> None:
        """A step on the minibatch at the graph's own place, which moves on."""
        rows = self._place + self._offsets
        self._step([(x.index_select(0, rows), y.index_select(0, rows)) for x, y in self._buffers])
        self._place += self._batch

    def _warm_up(self) -> None:
        """On another stream, as the graph will be."""
        stream, current = torch.cuda.Stream(), torch.cuda.current_stream()
        stream.wait_stream(current)
        with torch.cuda.stream(stream):
            self._taken()
        current.wait_stream(stream)

    def _capture(self) -> None:
        """Nothing is computed yet. Other threads may go on with what they do on the GPU."""
        graph = torch.cuda.CUDAGraph()
        self._may_be_captured(True)
        try:
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                self._taken()
        except RuntimeError as error:
            logger.warning(FALLBACK, reason_of(error)[:200])
            self._refused = True
        else:
            self._graph = graph
        finally:
            self._may_be_captured(False)

    def _may_be_captured(self, whether: bool) -> None:
        """What the optimizer asks for in a capture, and warns of outside of one."""
        for group in self._optimizer.param_groups:
            group["capturable"] = whether
