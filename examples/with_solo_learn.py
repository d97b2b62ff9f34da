"""Our shards as solo-learn's methods take them: batches [indexes, [X1, X2], targets], two views of an object a pair.

    python examples/with_solo_learn.py shards/3die      # what a batch looks like; solo-learn is not needed for that

In solo-learn's main_pretrain.py, in the place of its own loader:

    train_loader = Pairs(Path("shards/3die"), batch_size=256)
    trainer.fit(model, train_loader, val_loader)

The layout: BaseMethod.training_step and simclr_loss_func of vturrisi/solo-learn@9187ea3.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import IterableDataset

import seqjepa
from seqjepa.data.sequence import normalise
from shards.reader import ShardSet

Batch = tuple[Tensor, list[Tensor], Tensor]


class Pairs(IterableDataset):
    """Batches of pairs: indexes int64 [B], rows of the split; two views float32 [B, 3, H, W]; targets int64 [B].

    Two images with one index are a positive pair to solo-learn's SimCLR, so an index is that of the object. An
    iteration is an epoch; state_dict() and load_state_dict(), which Lightning calls, make resuming exact.
    """

    def __init__(self, shards: Path, batch_size: int, split: str = "train", workers: int | None = None) -> None:
        opened = ShardSet.open(shards)
        self.data = seqjepa.open_sequences(shards, split, context=1, batch_size=batch_size, workers=workers)
        self.rows = {key: row for row, key in enumerate(opened.split(split).keys)}
        self.constants = opened.info.normalisation

    def __len__(self) -> int:
        return len(self.data)

    def __iter__(self) -> Iterator[Batch]:
        for seq in self.data:
            views = normalise(seq.views, **self.constants)
            yield torch.tensor([self.rows[key] for key in seq.keys]), list(views.unbind(1)), seq.labels

    def state_dict(self) -> dict[str, int]:
        return self.data.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.data.load_state_dict(state)


if __name__ == "__main__":
    indexes, (first, second), targets = next(iter(Pairs(Path(sys.argv[1]), batch_size=64)))
    print(f"indexes {indexes.tolist()[:5]} …, views {list(first.shape)} and {list(second.shape)}", end=", ")
    print(f"targets {targets.tolist()[:5]} …")
