"""torch.compile for the training step on a GPU: one graph of fixed shapes, and a line where that cannot be had."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import nn

from seqjepa.compiling import in_short, why_not
from seqjepa.data.sequence import ViewSequence, normalise
from seqjepa.methods.base import Method, StepOutput
from seqjepa.training.distributed import World, highest
from shards.errors import FailureError

logger = logging.getLogger(__name__)
FALLBACK = "the step is not compiled, and slower for it (%s); train.compile=false does not try"
WAYS: Sequence[Mapping[str, bool]] = ({"combo_kernels": True}, {})
"""Options of the compiler, tried in this order. Combined kernels cast all weights at once: 369 launches, not 616,
when both were counted (benchmarks/compiled_launches.py)."""
Graph = Callable[[ViewSequence], StepOutput]


class Step(nn.Module):
    """A method's loss of a batch whose pixels may still be uint8: they are normalised here, where a compiler fuses it.

    mean, std: per channel, for pixels in [0, 1].
    """

    def __init__(self, method: Method, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.method = method
        self.register_buffer("mean", torch.tensor(tuple(mean), dtype=torch.float32), persistent=False)
        self.register_buffer("std", torch.tensor(tuple(std), dtype=torch.float32), persistent=False)

    mean: torch.Tensor
    std: torch.Tensor

    def forward(self, seq: ViewSequence) -> StepOutput:
        if seq.views.dtype == torch.uint8:
            # Without the keys: a graph would be of this batch's alone.
            views = normalise(seq.views, self.mean, self.std)
            seq = ViewSequence(views, seq.actions, seq.params, seq.labels, [])
        return self.method(seq)


class Compiled(nn.Module):
    """`step` as one graph for the largest batches there are; smaller ones, as an epoch's last, run as they are.

    A graph is of one shape: with dynamic shapes, which torch takes after the first other batch, every later step is
    slower. Micro-batches differ by one row, which makes two graphs. FailureError: a rank has no graph and another has,
    whose messages are other ones.
    """

    def __init__(self, step: nn.Module, world: World = World()) -> None:
        super().__init__()
        self.step, self.world = step, world
        self.rows = 0
        self._graph: Graph | None = None
        self._untried = [torch.compile(step.forward, dynamic=False, options=dict(how)) for how in WAYS]

    def forward(self, seq: ViewSequence) -> StepOutput:
        if len(seq) < self.rows - 1:
            return self.step(seq)
        self.rows = max(self.rows, len(seq))
        if self._untried and self._graph is None:
            output = self._first(seq)
            without, having = highest(self.world, [self._graph is None, self._graph is not None])
            if without and having:
                raise FailureError(
                    "the step of some ranks is compiled and that of others is not; set train.compile=false"
                )
            if output is not None:
                return output
        return self._graph(seq) if self._graph else self.step(seq)

    def _first(self, seq: ViewSequence) -> StepOutput | None:
        """Both directions are compiled before anything is computed, so that nothing is done twice where that fails."""
        from torch._dynamo.exc import TorchDynamoException  # takes a second to import
        from torch._functorch import config as aot_config

        while self._untried:
            graph = self._untried.pop(0)
            try:
                with aot_config.patch(force_non_lazy_backward_lowering=True):
                    output = graph(seq)
            except TorchDynamoException as error:
                if not self._untried:
                    logger.warning(FALLBACK, in_short(error))
            else:
                self._graph = graph
                return output
        return None


def compiled(step: nn.Module, world: World, device: torch.device) -> nn.Module:
    """Compiled, or `step` itself with a warning on every rank where one of them cannot compile for its GPU at all."""
    reason = why_not(device)
    if not highest(world, [bool(reason)])[0]:
        return Compiled(step, world)
    logger.warning(FALLBACK, reason or "another rank cannot")
    return step
