"""Loader: epochs of ViewSequences of a split, exactly repeatable."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Self

import numpy as np
import torch

from seqjepa.data.decode_ahead import Reading
from seqjepa.data.ring import auto_workers
from seqjepa.data.sampling import Sampling
from seqjepa.data.sequence import ViewSequence
from seqjepa.data.views import Views
from seqjepa.devices import to_device
from shards.errors import ConfigError
from shards.reading.split_index import ImageIndex, SplitIndex


class Loader:
    """Epochs of ViewSequences.

    The batch at (epoch, step) is a function of the split, `views` and `sampling` alone: a run resumes exactly by asking
    for the step at which it stopped.

    index     a split
    views     what is drawn of its samples: StoredViews, or views.Patches or Augmented
    sampling  which samples a batch holds
    reading   with how many workers, where; None: the defaults

    Raises ConfigError where the split cannot give such batches; while iterating DamageError (names shard and sample)
    and FailureError (a worker died). Stored views of a batch are valid until the next batch is asked for.
    """

    def __init__(
        self, index: SplitIndex | ImageIndex, views: Views, sampling: Sampling, reading: Reading | None = None
    ) -> None:
        reading = reading or Reading()
        if reading.workers is None:
            reading = replace(reading, workers=auto_workers(sampling.world_size))
        self.index, self.views, self.sampling = index, views, sampling
        self._source = views.open(index, sampling, reading)  # type: ignore[arg-type]  views are of their kind of split
        self._labels = index.labels.astype(np.int64)

    def __len__(self) -> int:
        """Batches per epoch, the same on every rank."""
        return self._source.steps

    @property
    def resident(self) -> bool:
        """Whether the split lives on the device."""
        return self._source.resident

    def epoch(self, epoch: int, start_step: int = 0) -> Iterator[ViewSequence]:
        """The batches of an epoch from start_step on. Raises ConfigError if there is no such step."""
        if not 0 <= start_step <= len(self):
            raise ConfigError(f"step is {start_step}; an epoch has {len(self)} steps")
        for step in range(start_step, len(self)):
            rows, views, actions, params = self._source.batch(epoch, step)
            labels = to_device(torch.from_numpy(self._labels[rows]), views.device)
            yield ViewSequence(views, actions, params, labels, [self.index.keys[row] for row in rows.tolist()])

    def close(self) -> None:
        """End the worker processes and let go of what they filled. Asking for another batch starts anew."""
        self._source.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
