"""A method of ours in stable-pretraining: its Module takes a `forward` that gives a dictionary with "loss" of a batch,
which is a dictionary as well; its callbacks (OnlineProbe, RankMe …) watch what is in it. Tried with version 0.1.8.

    python examples/with_stable_pretraining.py shards/3die --set optim.epochs=2
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import lightning
import stable_pretraining as spt
from torch.utils.data import DataLoader, IterableDataset

import seqjepa
from seqjepa.data.sequence import ViewSequence, normalise
from seqjepa.models.ema import schedule_progress
from seqjepa.training.checkpoint import initial_method
from seqjepa.training.data import open_training_data


class Dictionaries(IterableDataset):
    """Batches of seqjepa.open_sequences as {"views": …, "actions": …, "params": …, "labels": …, "keys": …}."""

    def __init__(self, data: IterableDataset[ViewSequence]) -> None:
        self.data = data

    def __len__(self) -> int:
        return len(self.data)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for seq in self.data:
            yield {field.name: getattr(seq, field.name) for field in fields(seq)}


class Learner(spt.Module):
    """With moving averages after each step, which this Module takes within training_step."""

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, Any]:
        state = super().training_step(batch, batch_idx)
        self.method.after_step(schedule_progress(self.global_step, self.steps, self.epochs, self.fidelity))
        return state


def forward(self: Any, batch: dict[str, Any], stage: str) -> dict[str, Any]:
    seq = ViewSequence(**{field.name: batch[field.name] for field in fields(ViewSequence)})
    output = self.method.step(replace(seq, views=normalise(seq.views, *self.constants)))
    self.log(f"{stage}/loss", output.loss, batch_size=len(seq))
    return {"loss": output.loss, "embedding": output.features["z"][:, 0], "label": seq.labels}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shards", type=Path)
    parser.add_argument("--recipe", default="", help="default: what `seqjepa train` takes for such shards")
    parser.add_argument("--set", action="append", default=[], metavar="a.b=c")
    args = parser.parse_args()

    data = seqjepa.open_sequences(args.shards, recipe=args.recipe, settings=args.set)
    source = open_training_data(args.shards, data.config)
    config, constants = source.config, (tuple(source.data.mean), tuple(source.data.std))
    optim = {"type": "AdamW", "lr": config.optim.lr, "weight_decay": config.optim.weight_decay}
    module = Learner(
        forward=forward,
        method=initial_method(config, source.data.action_size),
        constants=constants,
        steps=len(data),
        epochs=config.optim.epochs,
        fidelity=config.fidelity,
        optim={"optimizer": optim, "scheduler": "CosineAnnealingLR", "interval": "step"},
    )
    trainer = lightning.Trainer(max_epochs=config.optim.epochs, logger=False, enable_checkpointing=False)
    trainer.fit(module, DataLoader(Dictionaries(data), batch_size=None))
    print(f"loss of the last step: {trainer.callback_metrics['fit/loss'].item():.4f}")


if __name__ == "__main__":
    main()
