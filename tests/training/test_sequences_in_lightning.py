"""seqjepa.open_sequences in Lightning: its batches, and a checkpoint in the middle of an epoch resumed exactly."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from train_helpers import make_shards

import seqjepa

pytestmark = [pytest.mark.tools, pytest.mark.filterwarnings("ignore")]  # other people's


def fitted(data, steps: int, checkpoint: Path | None = None):
    """The trainer after `steps` steps in all, and the keys of each batch that it saw."""
    import lightning

    class Reader(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.layer, self.seen = torch.nn.Linear(3, 1), []

        def training_step(self, seq, _):
            self.seen.append(seq.keys)
            return self.layer(seq.views.float().mean(dim=(1, 3, 4))).mean()

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 1e-3)

    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    where = {"accelerator": "cpu", "devices": 1, "enable_checkpointing": False}
    trainer, module = lightning.Trainer(max_steps=steps, **quiet, **where), Reader()
    trainer.fit(module, data, ckpt_path=checkpoint)
    return trainer, module.seen


def test_a_checkpoint_in_the_middle_of_an_epoch_goes_on_with_the_next_batch(tmp_path):
    shards = make_shards(tmp_path / "set", 24)

    def opened():
        return seqjepa.open_sequences(shards, context=2, batch_size=4, workers=0, seed=3)

    whole = opened()
    expected = [batch.keys for _ in range(2) for batch in whole]
    trainer, first = fitted(opened(), 4)
    trainer.save_checkpoint(tmp_path / "middle.ckpt")
    _, rest = fitted(opened(), 10, tmp_path / "middle.ckpt")
    assert first == expected[:4]
    assert rest == expected[4:10]
