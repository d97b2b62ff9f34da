"""CUDA graphs: the kernels of a call as one launch, ever after the first calls.

A graph reads and writes fixed addresses and knows no value of the host but those of its capture. So what is replayed
must read no number of the host that changes from call to call; what it draws follows torch's generator for the GPU,
seeded before each call.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import torch
from torch import Tensor

from shards.errors import reason_of

T = TypeVar("T")
Optimizers = Sequence[torch.optim.Optimizer]
logger = logging.getLogger(__name__)
FALLBACK = "%s without a CUDA graph, and slower for it (%s)"
WARM_UP = 3
"""Calls before the graph: what compilers and libraries make at their first calls must not be a part of it."""
LONGEST = 200


def aside(work: Callable[[], T]) -> T:
    """work() on a stream of its own, which the current one waits for: as it runs in a capture."""
    stream, current = torch.cuda.Stream(), torch.cuda.current_stream()
    stream.wait_stream(current)
    with torch.cuda.stream(stream):
        made = work()
    current.wait_stream(stream)
    return made


def captured(work: Callable[[], T], optimizers: Optimizers) -> tuple[torch.cuda.CUDAGraph, T]:
    """A graph of work(), which moves `optimizers`, and where it leaves what it returns; nothing is computed yet.

    Other threads may go on with what they do on the GPU. RuntimeError: it cannot be captured.
    """
    graph = torch.cuda.CUDAGraph()
    _may_be_captured(optimizers, True)
    try:
        # torch leaves its own stream current where CUDA refuses; copies made ahead are waited for on the one before.
        with torch.cuda.stream(torch.cuda.current_stream()), torch.cuda.graph(graph, capture_error_mode="thread_local"):
            made = work()
    finally:
        _may_be_captured(optimizers, False)
    return graph, made


def _may_be_captured(optimizers: Optimizers, whether: bool) -> None:
    """What optimizers ask for in a capture, and warn of outside of one."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["capturable"] = whether


class Replayed(Generic[T]):
    """`work` of tensors [B, …] as one CUDA graph for the largest batches there are; all else runs as it is.

    work moves `optimizers` and leaves no gradients behind. What a call returns is good until the next one. Where no
    graph can be had a line says so. what: "training steps run", as that line begins.
    """

    def __init__(self, work: Callable[..., T], optimizers: Optimizers, what: str) -> None:
        self._work, self._optimizers, self._what = work, optimizers, what
        self._shapes: list[torch.Size] = []
        self._left = WARM_UP
        self._inputs: list[Tensor] = []
        self._graph: tuple[torch.cuda.CUDAGraph, T] | None = None
        self._refused = False

    def __call__(self, *given: Tensor) -> T:
        if self._refused or (self._shapes and len(given[0]) < self._shapes[0][0]):
            return self._work(*given)
        if (shapes := [x.shape for x in given]) != self._shapes:
            self._shapes, self._left, self._graph = shapes, WARM_UP, None
        if self._left:
            self._left -= 1
            return aside(lambda: self._work(*given))
        if self._graph is None:
            self._capture(given)
        return self._replay(given)

    def _capture(self, given: tuple[Tensor, ...]) -> None:
        self._inputs = [x.clone() for x in given]
        try:
            self._graph = captured(lambda: self._work(*self._inputs), self._optimizers)
        except RuntimeError as error:
            first = error.__context__  # the end of a capture says no more than that something failed in it
            reason = reason_of(first if isinstance(first, RuntimeError) else error)
            logger.warning(FALLBACK, self._what, reason[:LONGEST])
            for optimizer in self._optimizers:
                optimizer.zero_grad(set_to_none=True)  # what the attempt has left was never computed
            self._refused = True

    def _replay(self, given: tuple[Tensor, ...]) -> T:
        if self._graph is None:
            return self._work(*given)
        graph, made = self._graph
        for mine, x in zip(self._inputs, given, strict=True):
            mine.copy_(x)
        graph.replay()
        return made
