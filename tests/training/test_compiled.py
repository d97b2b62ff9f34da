"""The compiled step: one graph for every method, none of a smaller batch, and a line where it cannot be had.

On a CPU, where nothing is generated: what is captured, and when, does not depend on that.
"""

from __future__ import annotations

import functools
import logging
from collections import Counter

import pytest
import torch
from small_backbone import small
from torch import nn

from seqjepa.config import RunConfig
from seqjepa.data.sequence import ViewSequence, normalise
from seqjepa.methods import METHODS
from seqjepa.methods.base import Method, StepOutput
from seqjepa.recipes import load_recipe
from seqjepa.training.checkpoint import initial_method
from seqjepa.training.compiled import Compiled, Step, compiled, why_not
from seqjepa.training.distributed import World

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.2, 0.3)
SMALL = ["model.width=0.125", "model.layers=1", "data.image_size=0", "model.dropout=0.0"]
OWN = {
    "seq_jepa": ["data.context=2", "model.action_dim=32"],
    "conv_jepa": ["data.context=2"],
    "vicreg_traj": ["data.context=2"],
    "context_ssl": ["data.action=rotation_colour", "context_ssl.width=64", "context_ssl.pairs=4"],
}


def config_of(method: str, backbone: str) -> RunConfig:
    own = [f"method={method}", f"model.backbone={backbone}"]
    return load_recipe("3die-rot-M3", [*own, *SMALL, "data.context=1", *OWN.get(method, [])])


def batch(config: RunConfig, rows: int) -> ViewSequence:
    """uint8, channels-last, as a loader makes them."""
    T, A = config.data.context + 1, 6 if config.method == "context_ssl" else 4
    views = torch.randint(0, 256, (rows, T, 32, 32, 3), dtype=torch.uint8).permute(0, 1, 4, 2, 3)
    labels = torch.zeros(rows, dtype=torch.int64)
    keys = [str(torch.rand(())) for _ in range(rows)]
    return ViewSequence(views, torch.randn(rows, T - 1, A), torch.rand(rows, T, 7), labels, keys)


def step_of(method: str, backbone: str) -> tuple[RunConfig, Step]:
    torch.manual_seed(0)
    config = config_of(method, backbone)
    return config, Step(initial_method(config, 6 if method == "context_ssl" else 4).train(), MEAN, STD)


class Tiny(Method):
    def __init__(self) -> None:
        nn.Module.__init__(self)
        self.encoder = nn.BatchNorm2d(3)

    def step(self, seq: ViewSequence) -> StepOutput:
        return StepOutput(self.encoder(seq.views[:, 0]).square().mean())


def tiny_step() -> Step:
    return Step(Tiny(), MEAN, STD)


def tiny_batch(rows: int) -> ViewSequence:
    views = torch.randint(0, 256, (rows, 2, 3, 4, 4), dtype=torch.uint8)
    nothing = torch.zeros(rows, 1, 0)
    return ViewSequence(views, nothing, nothing, torch.zeros(rows, dtype=torch.int64), [""] * rows)


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> Counter[int]:
    """torch.compile captures and runs what it captured; counts the runs of each graph."""
    runs: Counter[int] = Counter()
    torch._dynamo.reset()

    def backend(graph: torch.fx.GraphModule, inputs: list[torch.Tensor], **_: object):
        number = len(runs)
        runs[number] = 0

        def run(*values):
            runs[number] += 1
            return graph.forward(*values)

        return run

    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=backend))
    return runs


@pytest.mark.parametrize(
    ("method", "backbone"),
    [("seq_jepa", small.__name__), *(pytest.param(name, "resnet18", marks=pytest.mark.slow) for name in METHODS)],
)
def test_a_step_of_every_method_is_one_graph_whatever_its_keys(
    graphs: Counter[int], method: str, backbone: str
) -> None:
    config, step = step_of(method, backbone)
    compiled = Compiled(step)
    with torch.autocast("cpu", torch.bfloat16):
        for _ in range(3):
            compiled(batch(config, 6))
    assert graphs == {0: 3}


def test_pixels_are_normalised_in_the_graph(graphs: Counter[int]) -> None:
    step, seq = tiny_step(), tiny_batch(6)
    ready = ViewSequence(normalise(seq.views, MEAN, STD), seq.actions, seq.params, seq.labels, [])
    torch.testing.assert_close(Compiled(step)(seq).loss, step.method.step(ready).loss)


def test_smaller_batches_run_eagerly_and_no_graph_is_dynamic(graphs: Counter[int]) -> None:
    step = tiny_step()
    compiled = Compiled(step)
    for rows in (8, 8, 4, 8, 4, 8):
        compiled(tiny_batch(rows))
    assert graphs == {0: 4}


def test_a_run_that_goes_on_with_its_epochs_last_batch_compiles_the_full_one(graphs: Counter[int]) -> None:
    step = tiny_step()
    compiled = Compiled(step)
    for rows in (4, 8, 8, 4, 8):
        compiled(tiny_batch(rows))
    assert graphs == {0: 1, 1: 3}


def test_what_cannot_be_compiled_runs_eagerly_once_with_a_line(monkeypatch: pytest.MonkeyPatch, caplog) -> None:
    """The statistics of batch norm show that the step that failed was done once."""

    def backend(graph: torch.fx.GraphModule, inputs: list[torch.Tensor], **_: object):
        raise RuntimeError("no kernel for that")

    torch._dynamo.reset()
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=backend))
    step = tiny_step()
    attempt = Compiled(step)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            attempt(tiny_batch(6)).loss.backward()
    (message,) = (record.message for record in caplog.records if record.name == "seqjepa.training.compiled")
    assert message.startswith("the step is not compiled, and slower for it (")
    assert "no kernel for that" in message
    assert message.endswith("train.compile=false does not try")
    assert step.method.encoder.num_batches_tracked == 3


def test_a_compiler_that_cannot_combine_kernels_compiles_without(monkeypatch: pytest.MonkeyPatch, caplog) -> None:
    asked: list[object] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[torch.Tensor], options: object = None):
        asked.append(options)
        if options:
            raise RuntimeError("no kernel for that")
        return graph.forward

    torch._dynamo.reset()
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=backend))
    step = tiny_step()
    attempt = Compiled(step)
    for _ in range(3):
        attempt(tiny_batch(6)).loss.backward()
    assert asked == [{"combo_kernels": True}, None]
    assert step.method.encoder.num_batches_tracked == 3
    assert "not compiled" not in caplog.text


def test_a_machine_without_a_compiler_trains_eagerly_with_a_line(monkeypatch: pytest.MonkeyPatch, caplog) -> None:
    def broken(*_: object, **__: object):
        raise RuntimeError("Failed to find C compiler. Please specify via CC environment variable.")

    monkeypatch.setattr(torch, "compile", broken)
    step = tiny_step()
    with caplog.at_level(logging.WARNING):
        assert compiled(step, World(), torch.device("cpu")) is step
    assert "Failed to find C compiler" in caplog.text


def test_the_trial_compiles_something(graphs: Counter[int]) -> None:
    assert why_not(torch.device("cpu")) == ""
    assert graphs == {0: 1}
