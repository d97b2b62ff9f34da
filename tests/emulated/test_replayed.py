"""Small batches on an emulated GPU: a training step and a step of the online probes are one CUDA graph each, and what
they compute is to the bit what the steps compute without one. A graph here computes nothing while it is captured and
reads fixed addresses, as on a card."""

from __future__ import annotations

import contextlib
import logging
from typing import Any

import pytest
import torch
from test_steps import CLASSES, A, batch, small_config

from seqjepa.config import RunConfig
from seqjepa.data.sequence import ViewSequence
from seqjepa.methods.seq_jepa import SeqJEPA
from seqjepa.training import learner as learning
from seqjepa.training.checkpoint import initial_method
from seqjepa.training.distributed import World
from seqjepa.training.learner import Learner
from seqjepa.training.monitor import OnlineProbes

pytestmark = pytest.mark.emulated
CUDA = torch.device("cuda", 0)
STEPS = 9
SHORT = 6  # this step's batch is an epoch's last


def config_of(name: str, compile: bool, **optim: Any) -> RunConfig:
    config = small_config(name, "fp32")
    train, more = config.train.model_copy(update={"compile": compile}), {"clip_norm": 0.0, **optim}
    model = config.model.model_copy(update={"dropout": 0.2})
    return config.model_copy(update={"train": train, "model": model, "optim": config.optim.model_copy(update=more)})


def rows_of(seq: ViewSequence, rows: int) -> ViewSequence:
    return ViewSequence(seq.views[:rows], seq.actions[:rows], seq.params[:rows], seq.labels[:rows], seq.keys[:rows])


def learner_of(config: RunConfig) -> Learner:
    torch.manual_seed(0)
    return Learner(initial_method(config, A), config, World(), CUDA)


def steps(learner: Learner, name: str, first: int = 0, last: int = STEPS) -> list[float]:
    """Losses. The learning rate, τ and the views change from step to step; rates are the same in float32."""
    losses = []
    for number in range(first, last):
        torch.manual_seed(number)
        seq = batch(name)
        views = torch.randn(seq.views.shape)
        seq = ViewSequence(views, seq.actions, seq.params, seq.labels, seq.keys).to(CUDA)
        seq = rows_of(seq, 4) if number == SHORT else seq
        losses.append(learner.update(seq, number, 2.0 ** -(8 + number % 3), number / STEPS).loss.item())
    return losses


def assert_same_state(one: Learner, other: Learner) -> None:
    found, expected = one.state_dict(), other.state_dict()
    for name, value in expected["method"].items():
        assert torch.equal(found["method"][name].cpu(), value.cpu()), name
    for number, moments in expected["optimizer"].items():
        for name, value in moments.items():
            assert torch.equal(found["optimizer"][number][name].cpu(), value.cpu()), (number, name)


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
    plain, replayed = (learner_of(config_of(name, compile, **optim)) for compile in (False, True))
    expected = steps(plain, name)
    assert not gpu.graphs
    assert steps(replayed, name) == expected
    assert len(gpu.graphs) == 1
    assert_same_state(replayed, plain)


def test_a_replayed_step_is_a_handful_of_launches(gpu) -> None:
    learner = learner_of(config_of("seq_jepa", True))
    steps(learner, "seq_jepa", 0, 5)
    seq = batch("seq_jepa").to(CUDA)
    gpu.reset()
    learner.update(seq, 5, 1e-3, 0.5)
    # the batch's four tensors, the learning rate, the moving average
    assert gpu.launches == {"copy_": 4, "fill_": 1, "replay": 1, "_foreach_lerp_": 1}
    assert not gpu.syncs
    assert gpu.graphs[0].launches["_fused_adamw_"] == 2


def test_a_state_that_is_taken_on_ends_the_graph_of_the_one_before(gpu) -> None:
    whole, parts = (learner_of(config_of("seq_jepa", True)) for _ in range(2))
    expected = steps(whole, "seq_jepa")
    steps(parts, "seq_jepa", 0, 5)
    saved = {name: _copied(value) for name, value in parts.state_dict().items()}
    steps(parts, "seq_jepa", 5, STEPS)  # to be forgotten
    parts.load_state_dict(saved)
    assert steps(parts, "seq_jepa", 5, STEPS) == expected[5:]
    assert_same_state(parts, whole)


def _copied(state: Any) -> Any:
    return {k: _copied(v) for k, v in state.items()} if isinstance(state, dict) else state.clone()


def test_where_no_graph_can_be_had_a_line_says_so(gpu, monkeypatch, caplog) -> None:
    @contextlib.contextmanager
    def refused(graph: Any, **_: Any) -> Any:
        yield
        raise RuntimeError("operation not permitted when stream is capturing")

    plain, attempt = (learner_of(config_of("seq_jepa", compile)) for compile in (False, True))
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


@pytest.mark.parametrize("why", ["large", "of another package", "several ranks"])
def test_what_is_not_replayed(gpu, monkeypatch, why: str) -> None:
    config = config_of("seq_jepa", True)
    learner = learner_of(config)
    if why == "large":
        monkeypatch.setattr(learning, "SMALL", 1)
    elif why == "of another package":

        class Other(SeqJEPA):
            pass

        learner = Learner(Other(config, A), config, World(), CUDA)
    else:
        monkeypatch.setattr(Learner, "_wrapped", lambda self, step, *_: step)
        learner = Learner(initial_method(config, A), config, World(0, 2), CUDA)
    seq = batch("seq_jepa").to(CUDA)
    for number in range(5):
        learner.update(seq, number, 1e-3, 0.5)
    assert not gpu.graphs


def test_an_epochs_last_batch_of_a_large_run_is_not_replayed(gpu, monkeypatch) -> None:
    learner, seq = learner_of(config_of("seq_jepa", True)), batch("seq_jepa").to(CUDA)
    monkeypatch.setattr(learning, "SMALL", seq.views[:4].numel())
    for number in range(16):
        learner.update(rows_of(seq, 4) if number % 2 else seq, number, 1e-3, 0.5)
    assert not gpu.graphs


def test_online_probes_are_replayed_too(gpu) -> None:
    widths = {"z": torch.Size((6, 2, 8)), "z_agg": torch.Size((6, 5))}
    probes = []
    for compile in (False, True):
        torch.manual_seed(0)
        probes.append(OnlineProbes(widths, CLASSES, A, CUDA, compile=compile))
    seq = batch("seq_jepa").to(CUDA)
    for number in range(8):
        generator, rows = torch.Generator().manual_seed(number), 4 if number == SHORT else 6
        features = {n: torch.randn(shape, generator=generator)[:rows].to(CUDA) for n, shape in widths.items()}
        gpu.reset()
        plain, replayed = (p.learn(features, rows_of(seq, rows), World()) for p in probes)
        for name, value in plain.items():
            assert torch.equal(replayed[name].cpu(), value.cpu()), (number, name)
    assert gpu.launches["replay"] == 1
    assert len(gpu.graphs) == 1
    for one, other in zip(*(p.heads.parameters() for p in probes), strict=True):
        assert torch.equal(one.cpu(), other.cpu())
