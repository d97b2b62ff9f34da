"""A run on an emulated GPU: between two steps of an epoch the host waits for no more than a slot of the ring."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from noise_shards import noise_shards

from seqjepa.recipes import load_recipe
from seqjepa.training.learner import TrainingStep
from seqjepa.training.train import train

pytestmark = pytest.mark.emulated
TINY = ("model.width=0.125", "model.layers=1", "model.ff_mult=1", "model.action_dim=8", "model.predictor_hidden=16")
SETTINGS = ("data.image_size=0", "optim.epochs=2", "optim.warmup_epochs=0", "optim.batch_size=8", "data.context=2")


def test_no_step_of_a_run_waits(gpu, tmp_path, monkeypatch) -> None:
    learn, between = TrainingStep.__call__, []

    def counted(self: TrainingStep, seq: Any, step: int, *rest: float) -> Any:
        between.append((step, Counter(gpu.syncs), Counter(gpu.waits)))
        gpu.reset()
        return learn(self, seq, step, *rest)

    monkeypatch.setattr(TrainingStep, "__call__", counted)
    # The last stage would see 1 × 1 of smaller views, where torch's bf16 convolutions on a CPU leave gradients unset.
    shards = noise_shards(tmp_path / "set", 64, size=32)
    settings = [*SETTINGS, *TINY, "train.monitor_epochs=0", "train.picture_epochs=0"]
    train(load_recipe("3die-rot-M3", settings), shards, tmp_path / "run", device="cuda", workers=0, progress=False)
    steps = [(step, syncs, waits) for step, syncs, waits in between if step % 8 > 1]
    assert len(steps) == 12
    for step, syncs, waits in steps:
        assert not syncs, step
        assert waits.total() <= 1, step
