"""Micro-batches and clipping: what they change, what they must not, and how they resume."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from train_helpers import assert_same_end, make_shards, metrics, tiny_config, train_killed_at

from seqjepa.data.sequence import ViewSequence
from seqjepa.losses import cosine_loss
from seqjepa.methods.base import Method, StepOutput, by_view
from seqjepa.models.ema import MovingAverage
from seqjepa.training.distributed import World
from seqjepa.training.learner import Learner, micro_batches
from seqjepa.training.train import train
from shards.errors import ConfigError

CPU = torch.device("cpu")


class NormFree(MovingAverage, Method):
    """Every row's loss is its own: no batch norm, no comparison of rows."""

    def __init__(self, config, action_size: int) -> None:
        super().__init__(config, action_size)
        self.encoder = nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 4, 8), nn.Tanh())
        self.start_averages(0.9, "encoder")
        self.predictor = nn.Linear(8 + action_size, 8)

    def step(self, seq: ViewSequence) -> StepOutput:
        z = self.embed(seq.views[:, 0])
        predicted = self.predictor(torch.cat((z, seq.actions[:, 0]), dim=1))
        loss = cosine_loss(predicted, self.embed_target(seq.views[:, 1]))
        return StepOutput(loss, {"loss": loss.detach()}, by_view(z))


def batch(rows: int, seed: int = 0) -> ViewSequence:
    g = torch.Generator().manual_seed(seed)
    views = torch.randn(rows, 2, 3, 4, 4, generator=g, dtype=torch.float64)
    actions = torch.randn(rows, 1, 2, generator=g, dtype=torch.float64)
    keys = [f"k{row}" for row in range(rows)]
    return ViewSequence(views, actions, torch.zeros(rows, 2, 0), torch.arange(rows), keys)


def learner_of(*overrides: str) -> Learner:
    config = tiny_config("train.channels_last=false", *overrides)
    torch.manual_seed(0)
    return Learner(NormFree(config, 2).double(), config, World(), CPU)


@pytest.mark.parametrize("rows", [8, 7])
@pytest.mark.parametrize("clip", ["0.0", "0.05"])
def test_micro_batches_learn_what_the_whole_batch_does(rows: int, clip: str) -> None:
    whole, parts = (learner_of(f"optim.accumulate={n}", f"optim.clip_norm={clip}") for n in (1, 3))
    for step in range(4):
        one, many = (learner.update(batch(rows, step), step, 1e-2, 0.3) for learner in (whole, parts))
        torch.testing.assert_close(many.loss, one.loss.detach(), rtol=1e-12, atol=1e-14)
        torch.testing.assert_close(many.logs["loss"], one.logs["loss"], rtol=1e-12, atol=1e-14)
        torch.testing.assert_close(many.features["z"], one.features["z"], rtol=1e-12, atol=1e-14)
    for name, value in whole.method.state_dict().items():
        torch.testing.assert_close(parts.method.state_dict()[name], value, rtol=1e-9, atol=1e-11, msg=name)


def test_two_halves_by_hand_are_one_step_of_two_micro_batches() -> None:
    learner, seq = learner_of("optim.accumulate=2"), batch(8)
    method = copy.deepcopy(learner.method)
    halves = micro_batches(seq, 2)
    (sum(method.step(half).loss for half in halves) / 2).backward()
    seen: list[Tensor] = []
    learner.optimizer.step = lambda: seen.extend(  # type: ignore[method-assign]
        p.grad.clone() for p in learner.method.parameters() if p.grad is not None
    )
    learner.update(seq, 0, 1e-2, 0.0)
    expected = [p.grad for p in method.parameters() if p.grad is not None]
    assert len(seen) == len(expected) > 0
    for ours, by_hand in zip(seen, expected, strict=True):
        torch.testing.assert_close(ours, by_hand, rtol=1e-12, atol=1e-15)


def test_micro_batches_are_consecutive_and_hold_two_rows_at_least() -> None:
    seq = batch(7)
    parts = micro_batches(seq, 3)
    assert [len(part) for part in parts] == [3, 2, 2]
    assert [key for part in parts for key in part.keys] == seq.keys
    assert torch.equal(torch.cat([part.views for part in parts]), seq.views)
    assert torch.equal(torch.cat([part.labels for part in parts]), seq.labels)
    assert [len(part) for part in micro_batches(seq, 6)] == [3, 2, 2]
    assert micro_batches(seq, 1) == [seq]


@pytest.mark.parametrize("largest", [0.01, 1e6])
def test_clipping_is_torchs_on_all_gradients_together(largest: float) -> None:
    learner, seq = learner_of(f"optim.clip_norm={largest}"), batch(6)
    method = copy.deepcopy(learner.method)
    method.step(seq).loss.backward()
    grads = [p.grad for p in method.parameters() if p.grad is not None]
    norm = torch.sqrt(sum((grad.square().sum() for grad in grads), torch.zeros((), dtype=torch.float64)))
    scale = min(1.0, largest / (float(norm) + 1e-6))
    seen: list[Tensor] = []
    learner.optimizer.step = lambda: seen.extend(  # type: ignore[method-assign]
        p.grad.clone() for p in learner.method.parameters() if p.grad is not None
    )
    learner.update(seq, 0, 1e-2, 0.0)
    assert (scale < 1) == (largest < 1)
    for ours, grad in zip(seen, grads, strict=True):
        torch.testing.assert_close(ours, grad * scale, rtol=1e-9, atol=1e-15)


ACCUMULATING = ["optim.accumulate=3", "optim.clip_norm=0.5", "optim.epochs=2"]


def test_a_run_killed_in_mid_epoch_ends_with_the_same_bits(tmp_path, monkeypatch) -> None:
    shards = make_shards(tmp_path / "set", 20)
    config = tiny_config(*ACCUMULATING, "train.checkpoint_minutes=1e-9")
    summary = train(config, shards, tmp_path / "whole", workers=0, progress=False)
    assert (summary["steps"], summary["samples"]) == (6, 20)  # of the optimizer: 8, 8 and 4 rows
    train_killed_at(4, config, shards, tmp_path / "run", monkeypatch)
    assert_same_end(tmp_path / "run", tmp_path / "whole")


def test_lr_and_tau_are_those_of_a_run_without_micro_batches(tmp_path) -> None:
    shards = make_shards(tmp_path / "set", 20)
    for name, settings in (("plain", []), ("parts", ["optim.accumulate=2"])):
        train(tiny_config("optim.epochs=2", *settings), shards, tmp_path / name, workers=0, progress=False)
    plain, parts = metrics(tmp_path / "plain"), metrics(tmp_path / "parts")
    for key in ("epoch", "step", "lr", "tau", "samples"):
        assert [line[key] for line in parts] == [line[key] for line in plain]
    assert parts[-1]["loss"] != plain[-1]["loss"]  # batch norm sees a micro-batch


def test_two_ranks_accumulate_as_one_process_does(two_ranks, tmp_path) -> None:
    """Without global batch norm a rank's micro-batch of 2 rows is the process's of 2, in another order."""
    shards = make_shards(tmp_path / "set", 16)
    settings = ["model.dropout=0.0", "optim.epochs=1", "optim.accumulate=2", "optim.clip_norm=0.5"]
    done = two_ranks(shards, tmp_path / "two", [*settings, "train.sync_bn=false"])
    assert [code for code, _ in done] == [0, 0], done
    four = [*settings[:2], "optim.accumulate=4", "optim.clip_norm=0.5"]
    train(tiny_config(*four), shards, tmp_path / "one", workers=0, progress=False)
    (one,), (two,) = metrics(tmp_path / "one"), metrics(tmp_path / "two")
    assert two["loss"] == pytest.approx(one["loss"], abs=1e-5)


@pytest.mark.parametrize(
    ("setting", "match"),
    [
        ("optim.accumulate=5", r"optim\.accumulate = 5 splits the 8 sequences .* set at most 4"),
        ("optim.accumulate=0", r"optim\.accumulate"),
        ("optim.clip_norm=-1.0", r"optim\.clip_norm"),
    ],
)
def test_wrong_values_are_one_line(tmp_path, setting: str, match: str) -> None:
    shards = make_shards(tmp_path / "set", 8)
    with pytest.raises(ConfigError, match=match) as caught:
        train(tiny_config(setting), shards, tmp_path / "run", workers=0, progress=False)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()
