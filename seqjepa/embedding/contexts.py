"""Which views of a split make a z_AGG, and the actions between them.

Letters: Q sequences, M views of each, A numbers of an action; rows are those of inputs.Source.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from seqjepa.data.actions import actions_between, is_augmentation, needs_order
from seqjepa.data.augment.parameters import Scaling, scaled
from seqjepa.data.draws import Purpose, choose_distinct, draw_u32
from seqjepa.embedding.inputs import Source
from seqjepa.methods.base import Aggregating
from seqjepa.model import Model
from shards.errors import ConfigError
from shards.reader import SplitIndex
from shards.schema import ActionSpec


@dataclass(frozen=True)
class Contexts:
    """Q sequences of M views.

    rows    int64 [Q, M]: row numbers within the split
    stride  rows between two views, of windows: the action between them is of all steps on the way
    """

    rows: np.ndarray
    stride: int
    action: ActionSpec
    source: Source

    def __len__(self) -> int:
        return len(self.rows)

    def actions(self, part: slice) -> np.ndarray:
        """float32 [q, M − 1, A] of some of the sequences."""
        rows = self.rows[part]
        if rows.shape[1] == 1:
            return np.zeros((len(rows), 0, self.action.size), np.float32)
        if self.stride > 1:
            rows = rows[:, :1] + np.arange((rows.shape[1] - 1) * self.stride + 1)
        return actions_between(self.source.params[rows], self.source.param_names, self.action, self.stride)


def contexts_of(model: Model, source: Source, views: int, scaling: Scaling | None) -> Contexts:
    """Sequences of `views` views of a split, as the run was trained:

    windows   every window of consecutive steps (the run's stride), for runs on windows or on commands
    baked     the first views of every stored sequence
    else      of every object (a sequence of several samples is one) the views that `seqjepa evaluate` draws first

    scaling: the constants that come with baked augmentations. ConfigError: there is no z_AGG, and why.
    """
    index, action = source.index, model.action_spec.spec
    if not isinstance(model.method, Aggregating):
        raise ConfigError(f"{model.config.method} makes features of single views")
    if index is None:
        raise ConfigError("images are embedded whole, each by itself")
    if missing := [name for name in action.columns if name not in source.param_names]:
        raise ConfigError(f"the run's actions need {', '.join(missing)}, which the shards do not have")
    if is_augmentation(action):
        action = scaled(action, None if model.config.fidelity == "author" else scaling)
    rows, stride = _rows(model, index, views, needs_order(action))
    if not len(rows):
        raise ConfigError(f"no sequence of split {source.split!r} has {views} views")
    return Contexts(rows, stride, action, source)


def _rows(model: Model, index: SplitIndex, views: int, commands: bool) -> tuple[np.ndarray, int]:
    """int64 [Q, M], and the stride of windows."""
    sequences, data = index.sequences, model.config.data
    if index.sequence:
        if views > index.sequence:
            raise ConfigError(f"the stored sequences have {index.sequence} views, and {views} are asked for")
        runs = np.arange(0, index.offsets.shape[1], index.sequence)
        return (sequences.firsts[:-1, None] + runs).reshape(-1, 1) + np.arange(views), 1
    if data.order == "window" or commands:
        if not index.ordered:
            raise ConfigError("the run was trained on consecutive steps, and the shards hold views in no order")
        first = sequences.windows((views - 1) * data.stride + 1)
        return first[:, None] + data.stride * np.arange(views), data.stride
    starts, counts = sequences.bounds[:-1], np.diff(sequences.bounds)
    samples = np.flatnonzero(index.chunk == 0)
    enough = counts >= views
    if not enough.any():
        return np.zeros((0, views), np.int64), 1
    numbers = draw_u32(0, 0, Purpose.EVALUATION, samples[enough], views)
    return starts[enough, None] + choose_distinct(counts[enough], numbers), 1
