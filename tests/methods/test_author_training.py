"""Author mode trains as the released loop does, step for step: 120 steps in float64.

golden_author_training.json holds numbers from one run of `train_one_epoch_3diebench` of their repository (commit
73e0550) on SeqJEPA_Transforms, float64, every dropout at zero, lr as main_transformed_views.py sets it: 12 epochs of 10
steps, 4 of them the warm-up, each batch another. Weights and batches come from formulas. None of their code is here.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from test_author_golden import ACTION, assert_matches, formula_weight, hashed

from seqjepa.config import RunConfig
from seqjepa.data.sequence import ViewSequence
from seqjepa.methods.seq_jepa import SeqJEPA
from seqjepa.models.ema import cosine_tau, schedule_progress
from seqjepa.recipes import load_recipe
from seqjepa.released.seq_jepa import author_key
from seqjepa.training.distributed import World
from seqjepa.training.learner import Learner
from seqjepa.training.optim import lr_at

GOLDEN = json.loads((Path(__file__).parent / "golden_author_training.json").read_text())
EPOCHS, STEPS, BATCH, CONTEXT, SIDE = 12, 10, 8, 3, 16
SETTINGS = (f"optim.epochs={EPOCHS}", "optim.warmup_epochs=4", f"optim.batch_size={BATCH}", "model.dropout=0")


def batch_of(step: int) -> ViewSequence:
    views = 1.5 * hashed((BATCH, CONTEXT + 1, 3, SIDE, SIDE), f"views of step {step}")
    actions = hashed((BATCH, CONTEXT, ACTION), f"actions of step {step}")
    actions = actions / actions.norm(dim=-1, keepdim=True)
    return ViewSequence(views, actions, actions, torch.zeros(BATCH, dtype=torch.long), [""] * BATCH)


def released_start(config: RunConfig) -> SeqJEPA:
    """With the formula's values in float64, the target encoder as the encoder."""
    method = SeqJEPA(config, ACTION).double()
    state = method.state_dict()
    keys = {name: author_key(name).replace("target_encoder.", "encoder.") for name in state}
    method.load_state_dict({name: formula_weight(keys[name], value) for name, value in state.items()})
    return method


def assert_trained_alike(steps: int) -> None:
    """Losses, lr and τ of every step, and weights, buffers and averages where the golden file has them."""
    config = load_recipe("3die-rot-M3", ["fidelity=author", *SETTINGS])
    learner = Learner(released_start(config), config, World(), torch.device("cpu"))
    optim = config.optim
    for step in range(steps):
        lr = lr_at(step, STEPS, optim)
        progress = schedule_progress(step + 1, STEPS, optim.planned_epochs, config.fidelity, optim.ema_update)
        assert lr == pytest.approx(GOLDEN["lr"][step], rel=1e-12)
        assert cosine_tau(optim.ema_tau, progress) == pytest.approx(GOLDEN["tau"][step], rel=1e-12)
        loss = learner.update(batch_of(step), step, lr, progress).loss.item()
        assert loss == pytest.approx(GOLDEN["losses"][step], rel=1e-8), f"step {step}"
        for name, expected in GOLDEN["weights"].get(str(step + 1), {}).items():
            (ours,) = (value for key, value in learner.method.state_dict().items() if author_key(key) == name)
            assert_matches(ours, expected, 1e-8, f"{name} after {step + 1} steps")


def test_two_steps() -> None:
    assert_trained_alike(2)


@pytest.mark.slow
def test_every_step() -> None:
    assert len(GOLDEN["losses"]) == EPOCHS * STEPS
    assert set(GOLDEN["weights"]) == {"1", "10", "60", "120"}
    assert_trained_alike(EPOCHS * STEPS)
