"""A method of ours in Lightning's Trainer, on batches of our shards: same losses, same weights as `seqjepa train`.

    python examples/with_lightning.py shards/3die lightning/ --set optim.epochs=2
    python examples/with_lightning.py shards/3die lightning/ --set optim.epochs=2 --resume lightning/last.ckpt

A checkpoint of Lightning's holds weights, optimizer and the place in the shards: a run that is stopped anywhere and
goes on ends with the weights of one that was left alone.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

import seqjepa
from seqjepa.config import RunConfig
from seqjepa.data.sequence import ViewSequence, normalise
from seqjepa.models.ema import schedule_progress
from seqjepa.training.checkpoint import initial_method
from seqjepa.training.data import open_training_data
from seqjepa.training.learner import seed_step
from seqjepa.training.optim import build_optimizer, lr_at, set_lr
from seqjepa.training.run import DataInfo


class Lit(lightning.LightningModule):
    """Any method of seqjepa. steps: batches of an epoch."""

    def __init__(self, config: RunConfig, data: DataInfo, steps: int) -> None:
        super().__init__()
        self.config, self.steps, self.constants = config, steps, (tuple(data.mean), tuple(data.std))
        self.method = initial_method(config, data.action_size).to(memory_format=torch.channels_last)

    def training_step(self, seq: ViewSequence, batch: int) -> torch.Tensor:
        seed_step(self.config.seed, self.global_step, self.global_rank, self.device)  # dropout, however often resumed
        output = self.method.step(replace(seq, views=normalise(seq.views, *self.constants)))
        self.log("loss", output.loss, prog_bar=True, batch_size=len(seq))
        return output.loss

    def optimizer_step(self, epoch: int, batch: int, optimizer: Any, closure: Any = None) -> None:
        """Not in on_train_batch_end: Lightning's checkpoints are written before that, and would lack the averages."""
        step, optim = self.global_step, self.config.optim
        set_lr(optimizer, lr_at(step, self.steps, optim))
        optimizer.step(closure)
        self.method.after_step(schedule_progress(step + 1, self.steps, optim.epochs, self.config.fidelity))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return build_optimizer(self.method, self.config.optim)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shards", type=Path)
    parser.add_argument("out", type=Path, help="folder of Lightning's checkpoints")
    parser.add_argument("--recipe", default="", help="default: what `seqjepa train` takes for such shards")
    parser.add_argument("--set", action="append", default=[], metavar="a.b=c")
    parser.add_argument("--steps", type=int, default=-1, help="stop after so many, of all that the recipe has")
    parser.add_argument("--save-every", type=int, default=100, metavar="STEPS")
    parser.add_argument("--resume", type=Path, help="a checkpoint of an earlier call")
    args = parser.parse_args()

    data = seqjepa.open_sequences(args.shards, recipe=args.recipe, settings=args.set)
    source = open_training_data(args.shards, data.config)  # the settings, with the action that the shards declare
    module = Lit(source.config, source.data, len(data))
    keep = ModelCheckpoint(args.out, save_last=True, every_n_train_steps=args.save_every)
    limits = {"max_epochs": source.config.optim.epochs, "max_steps": args.steps}
    trainer = lightning.Trainer(**limits, callbacks=[keep], default_root_dir=args.out, log_every_n_steps=1)
    trainer.fit(module, data, ckpt_path=args.resume)


if __name__ == "__main__":
    main()
