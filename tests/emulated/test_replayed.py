"""Small batches on an emulated GPU: a training step with probes and meter is one CUDA graph, which computes to the bit
what the step computes without one. A graph here computes nothing while it is captured and reads fixed addresses, as on
a card."""

from __future__ import annotations

import contextlib
import logging
from typing import Any

import pytest
import torch
from test_steps import CLASSES, A, batch, small_config
from torch.utils._pytree import tree_flatten_with_path, tree_map

from seqjepa.config import RunConfig
from seqjepa.cuda_graphs import WARM_UP
from seqjepa.data.sequence import ViewSequence
from seqjepa.methods import METHODS
from seqjepa.methods.base import Method
from seqjepa.methods.seq_jepa import SeqJEPA
from seqjepa.models.ema import MovingAverage
from seqjepa.training import learner as stepping
from seqjepa.training.checkpoint import initial_method
from seqjepa.training.distributed import World
from seqjepa.training.learner import Learner, TrainingStep
from seqjepa.training.monitor import ALONE, EpochMeter, OnlineProbes

pytestmark = pytest.mark.emulated
CUDA = torch.device("cuda", 0)
STEPS = 9
NEW_EPOCH = 4  # follows this step
SHORT = 6  # this step's batch is an epoch's last


def config_of(name: str, compile: bool, **optim: Any) -> RunConfig:
    config = small_config(name, "fp32")
    train, more = config.train.model_copy(update={"compile": compile}), {"clip_norm": 0.0, **optim}
    model = config.model.model_copy(update={"dropout": 0.2})
    return config.model_copy(update={"train": train, "model": model, "optim": config.optim.model_copy(update=more)})


def rows_of(seq: ViewSequence, rows: int) -> ViewSequence:
    return ViewSequence(seq.views[:rows], seq.actions[:rows], seq.params[:rows], seq.labels[:rows], seq.keys[:rows])


def step_of(config: RunConfig, kind: type[Method] | None = None, world: World = ALONE) -> TrainingStep:
    torch.manual_seed(0)
    method = kind(config, A) if kind else initial_method(config, A)
    method.eval()
    with torch.no_grad():
        widths = {name: value.shape for name, value in method.step(batch(config.method)).features.items()}
    learner = Learner(method, config, world, CUDA)
    torch.manual_seed(0)
    probes = OnlineProbes(widths, CLASSES, A, CUDA, enabled=world == ALONE)
    return TrainingStep(learner, probes, EpochMeter(widths, A, CUDA), config, world)


def steps(learn: TrainingStep, name: str, first: int = 0, last: int = STEPS) -> list[float]:
    """Losses. The learning rate, τ and the views change from step to step; rates are the same in float32."""
    losses = []
    for number in range(first, last):
        torch.manual_seed(number)
        seq = batch(name)
        views = torch.randn(seq.views.shape)
        seq = ViewSequence(views, seq.actions, seq.params, seq.labels, seq.keys).to(CUDA)
        seq = rows_of(seq, 4) if number == SHORT else seq
        losses.append(learn(seq, number, 2.0 ** -(8 + number % 3), number / STEPS).loss.item())
        if number == NEW_EPOCH:
            learn.meter.reset()
    return losses


def state_of(learn: TrainingStep) -> dict[str, Any]:
    parts = {"learner": learn.learner, "probes": learn.probes, "meter": learn.meter}
    return {name: part.state_dict() for name, part in parts.items()}


def assert_same_state(one: TrainingStep, other: TrainingStep) -> None:
    found, expected = (tree_flatten_with_path(state_of(learn))[0] for learn in (one, other))
    assert len(found) == len(expected) > 100
    for (place, value), (_, wanted) in zip(found, expected, strict=True):
        same = torch.equal(value.cpu(), wanted.cpu()) if isinstance(wanted, torch.Tensor) else value == wanted
        assert same, place


@pytest.mark.parametrize(
    ("name", "optim"),
    [
        ("seq_jepa", {}),
        ("seq_jepa", {"accumulate": 2, "clip_norm": 0.5}),
        ("context_ssl", {}),
        ("simclr", {"optimizer": "adam"}),
        ("byol", {}),
    ],
)
def test_a_replayed_step_is_the_step(gpu, name: str, optim: dict[str, Any]) -> None:
    """Weights, averages, moments, online probes, and what the meter has summed since an epoch began."""
    plain, replayed = (step_of(config_of(name, compile, **optim)) for compile in (False, True))
    expected = steps(plain, name)
    assert not gpu.graphs
    assert steps(replayed, name) == expected
    assert len(gpu.graphs) == 1
    assert_same_state(replayed, plain)
    assert replayed.meter.summary()["samples"] == 3 * 6 + 4


@pytest.mark.parametrize("name", sorted(METHODS))
def test_a_replayed_step_of_every_method_is_one_launch_and_copies(gpu, name: str) -> None:
    learn = step_of(config_of(name, True))
    steps(learn, name, 0, 5)
    seq = batch(name).to(CUDA)
    gpu.reset()
    learn(seq, 5, 1e-3, 0.5)
    written = 1 + isinstance(learn.learner.method, MovingAverage)  # the learning rate, and 1 − τ
    assert gpu.launches == {"copy_": 4, "fill_": written, "replay": 1}
    assert not gpu.syncs
    parts = {"_fused_adamw_": 2, "_fused_adam_": 1, "_fused_sgd_": 0}
    if averages := getattr(learn.learner.method, "moving_parts", ()):
        parts["_fused_sgd_"] = len(averages)
    assert {part: gpu.graphs[0].launches[part] for part in parts} == parts


def test_a_state_that_is_taken_on_ends_the_graph_of_the_one_before(gpu) -> None:
    whole, parts = (step_of(config_of("seq_jepa", True)) for _ in range(2))
    expected = steps(whole, "seq_jepa")
    steps(parts, "seq_jepa", 0, 5)
    saved = tree_map(lambda x: x.clone() if isinstance(x, torch.Tensor) else x, state_of(parts))
    steps(parts, "seq_jepa", 5, STEPS)  # to be forgotten
    parts.learner.load_state_dict(saved["learner"])
    parts.probes.load_state_dict(saved["probes"])
    parts.meter.load_state_dict(saved["meter"])
    parts.begin_anew()
    assert steps(parts, "seq_jepa", 5, STEPS) == expected[5:]
    assert_same_state(parts, whole)


def test_where_no_graph_can_be_had_a_line_says_so(gpu, monkeypatch, caplog) -> None:
    @contextlib.contextmanager
    def refused(graph: Any, **_: Any) -> Any:
        yield
        raise RuntimeError("operation not permitted when stream is capturing")

    plain, attempt = (step_of(config_of("seq_jepa", compile)) for compile in (False, True))
    expected = steps(plain, "seq_jepa", 0, 3)
    monkeypatch.setattr(torch.cuda, "graph", refused)
    found = steps(attempt, "seq_jepa", 0, 3)
    with caplog.at_level(logging.WARNING):
        # What the attempt did counts here, unlike on a card, as this stand-in runs it.
        steps(attempt, "seq_jepa", 3, 6)
    assert found == expected
    messages = [record.message for record in caplog.records if record.name == "seqjepa.cuda_graphs"]
    assert messages == [
        "training steps run without a CUDA graph, and slower for it (operation not permitted when stream is capturing)"
    ]


def test_a_step_that_waits_goes_on_without_a_graph_where_it_was(gpu, monkeypatch, caplog) -> None:
    """On the stream that copies are waited for on; the line says what waited, not that something did."""
    learned = Learner._learn
    plain, attempt = (step_of(config_of("seq_jepa", compile)) for compile in (False, True))
    expected = steps(plain, "seq_jepa", 0, 6)
    monkeypatch.setattr(Learner, "_learn", lambda self, seq: [out := learned(self, seq), out.loss.item()][0])
    assert steps(attempt, "seq_jepa", 0, 6) == expected
    assert torch.cuda.current_stream() is gpu.runtime.model
    assert "permitted when stream is capturing: a value is read" in caplog.text


def captured_steps(gpu: Any) -> int:
    """Graphs in which a method learns; those of the online probes alone are not counted."""
    return sum("_fused_adamw_" in graph.launches for graph in gpu.graphs)


@pytest.mark.parametrize("why", ["large", "of another package", "several ranks"])
def test_what_is_not_replayed(gpu, monkeypatch, why: str) -> None:
    class Other(SeqJEPA):
        pass

    if why == "large":
        monkeypatch.setattr(stepping, "SMALL", 1)
    if why == "several ranks":
        monkeypatch.setattr(Learner, "_wrapped", lambda self, step, *_: step)
    kind, world = Other if why == "of another package" else None, World(0, 2) if why == "several ranks" else ALONE
    learn = step_of(config_of("seq_jepa", True), kind, world)
    for number in range(5):
        learn(batch("seq_jepa").to(CUDA), number, 1e-3, 0.5)
    assert not captured_steps(gpu)


def test_an_epochs_last_batch_of_a_large_run_is_not_replayed(gpu, monkeypatch) -> None:
    learn, seq = step_of(config_of("seq_jepa", True)), batch("seq_jepa").to(CUDA)
    monkeypatch.setattr(stepping, "SMALL", seq.views[:4].numel())
    for number in range(16):
        learn(rows_of(seq, 4) if number % 2 else seq, number, 1e-3, 0.5)
    assert not captured_steps(gpu)


def test_of_large_batches_the_online_probes_are_replayed(gpu, monkeypatch) -> None:
    plain, replayed = (step_of(config_of("seq_jepa", compile)) for compile in (False, True))
    monkeypatch.setattr(stepping, "SMALL", 1)
    assert steps(replayed, "seq_jepa") == steps(plain, "seq_jepa")
    assert gpu.launches["replay"] == STEPS - WARM_UP - 1
    assert len(gpu.graphs) == 1
    assert_same_state(replayed, plain)
