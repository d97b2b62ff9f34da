"""Functions compiled for a GPU: which batches are left to the caller, and what is said where that cannot be had."""

from __future__ import annotations

import functools

import pytest
import torch

from seqjepa.compiling import CompiledForGpu


def doubled(x: torch.Tensor) -> torch.Tensor:
    return x * 2


def test_the_largest_batches_are_compiled_and_smaller_ones_left_to_the_caller(monkeypatch: pytest.MonkeyPatch):
    sizes = []

    def backend(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]):
        sizes.append(tuple(inputs[0].shape))
        return graph.forward

    torch._dynamo.reset()
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=backend))
    function = CompiledForGpu(doubled, "numbers")
    for rows, expected in ((4, True), (2, False), (4, True), (6, True), (4, False)):
        found = function(rows, torch.ones(rows))
        assert (found is not None) == expected
        if found is not None:
            assert torch.equal(found, torch.full((rows,), 2.0))
    assert sizes == [(2,), (4,), (6,)]  # the first is the trial


def test_what_cannot_be_compiled_is_left_to_the_caller_with_one_line(monkeypatch: pytest.MonkeyPatch, caplog):
    def broken(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]):
        raise RuntimeError("no kernel for that")

    torch._dynamo.reset()
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=broken))
    function = CompiledForGpu(doubled, "numbers")
    assert [function(4, torch.ones(4)) for _ in range(3)] == [None] * 3
    (message,) = (record.message for record in caplog.records if record.name == "seqjepa.compiling")
    assert message.startswith("numbers are not compiled, and slower for it (")
    assert message.endswith("train.compile=false does not try")
    assert "no kernel for that" in message
