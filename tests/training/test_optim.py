from __future__ import annotations

import math

import pytest
import torch
from train_helpers import tiny_config

from seqjepa.config import OptimConfig
from seqjepa.training.checkpoint import initial_method
from seqjepa.training.optim import build_optimizer, lr_at, parameter_groups, schedule_doubts

PAPER = OptimConfig()
STEPS = 82  # an epoch of 3DIEBench at batch 512


def test_lr_trace_of_the_paper():
    """Paper §A.2: 1e-5 at epoch 0, 4e-4 at epoch 20, 1e-5 at the end."""
    assert lr_at(0, STEPS, PAPER) == 1e-5
    assert lr_at(10 * STEPS, STEPS, PAPER) == pytest.approx((1e-5 + 4e-4) / 2)
    assert lr_at(20 * STEPS, STEPS, PAPER) == pytest.approx(4e-4)
    assert lr_at(510 * STEPS, STEPS, PAPER) == pytest.approx((1e-5 + 4e-4) / 2)
    assert lr_at(1000 * STEPS - 1, STEPS, PAPER) == pytest.approx(1e-5, rel=1e-4)


def test_at_whole_epochs_it_is_the_formula_of_the_paper():
    for e in (20, 21, 400, 999):
        formula = 1e-5 + 0.5 * (4e-4 - 1e-5) * (1 + math.cos(math.pi * (e - 20) / (1000 - 20)))
        assert lr_at(e * STEPS, STEPS, PAPER) == pytest.approx(formula, rel=1e-12)


def test_the_released_trace_rises_by_epochs_and_stays():
    author = OptimConfig(schedule="constant", lr_update="epoch")
    assert [lr_at(s, 2, author) for s in range(4)] == pytest.approx([1e-5, 1e-5, 2.95e-5, 2.95e-5])
    assert {lr_at(s, 2, author) for s in range(40, 2000, 7)} == {4e-4}


def test_it_never_leaves_its_bounds_whatever_the_lengths():
    for epochs, warmup in [(1, 20), (20, 20), (3, 0), (5, 1)]:
        config = OptimConfig(epochs=epochs, warmup_epochs=warmup)
        trace = [lr_at(s, 3, config) for s in range(3 * epochs)]
        assert all(1e-5 <= lr <= 4e-4 for lr in trace)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"epochs": 50}, ""),
        ({"epochs": 20}, "never comes to optim.lr = 0.0004"),
        ({"lr": 5e-6}, "falls during the warm-up rises to the end"),
        ({"lr": 5e-6, "warmup_epochs": 0}, "rises to the end"),
        ({"lr": 5e-6, "schedule": "constant", "final_lr": 1}, "falls during the warm-up"),
    ],
)
def test_a_learning_rate_that_turns_round_or_is_never_reached_is_said(changed, said):
    config = OptimConfig.model_validate({"epochs": 40, "schedule_epochs": 0, **changed})
    doubts = " ".join(schedule_doubts(config))
    assert [words in doubts for words in ("never comes to", "falls during", "rises to")] == [
        words in said for words in ("never comes to", "falls during", "rises to")
    ]
    trace = [lr_at(s, 3, config) for s in range(3 * config.epochs)]
    top = trace.index(max(trace))
    rises_then_falls = trace == sorted(trace[:top]) + sorted(trace[top:], reverse=True)
    assert (max(trace) == pytest.approx(config.lr) and rises_then_falls) == (not doubts)


def test_only_tensors_of_two_and_more_dimensions_decay():
    module = initial_method(tiny_config(), 4)
    decayed, plain = parameter_groups(module, 1e-3)
    assert (decayed["weight_decay"], plain["weight_decay"]) == (1e-3, 0)
    assert all(p.ndim >= 2 for p in decayed["params"])
    assert all(p.ndim == 1 for p in plain["params"])
    assert any(p.ndim == 3 and not p.any() for p in decayed["params"]), "the zero [AGG] token decays"
    trained = {id(p) for p in module.parameters() if p.requires_grad}
    assert {id(p) for g in (decayed, plain) for p in g["params"]} == trained
    assert len(trained) < len(list(module.parameters())), "the target encoder is not in the optimizer"


def test_first_adamw_step_by_hand():
    layer = torch.nn.Linear(2, 1)
    before = layer.weight.detach().clone()
    optimizer = build_optimizer(layer, OptimConfig(lr=0.1, weight_decay=0.5))
    layer(torch.tensor([[1.0, -2.0]])).sum().backward()
    optimizer.step()
    torch.testing.assert_close(layer.weight.detach(), before * (1 - 0.1 * 0.5) - 0.1 * torch.tensor([[1.0, -1.0]]))
