"""FeatureBank, the cache that every probe is trained from. S samples, N slots, D width, P parameters."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from seqjepa.data.actions import AUGMENTATION_PARTS, actions_between
from seqjepa.data.augment.parameters import Scaling, augmentation_actions
from seqjepa.data.draws import Purpose, choose_distinct, draw_u32


@dataclass(frozen=True)
class Features:
    """What is known of one split after the encoder has seen it.

    z           float32 or float16 [S, N, D], on the device where probes are trained; rows of padding slots are zero
    n_views     int64 [S]            distinct views of each sample: slots 0 … n_views − 1
    params      float32 [S, N, P]    in the shards' units, fields named by param_names
    labels      int64 [S], on the device; −1 for none
    run_length  0: the slots of a sample are an unordered set of views. V > 0: they are N/V runs of V views in the
                order in which they were drawn
    z_image     float32 or float16 [S, D]: z of the whole image, where the views are made of one
    scaling     of augmentation parameters before they are subtracted; None: by their norm over the views of a draw
                (author fidelity). No other parameters are scaled
    independent  of runs: every view was drawn regardless of the others, the last one as the target (augmentations).
                Then any views make a draw, and there are far more draws than runs
    """

    z: Tensor
    n_views: np.ndarray
    params: np.ndarray
    param_names: tuple[str, ...]
    labels: Tensor
    run_length: int = 0
    z_image: Tensor | None = None
    scaling: Scaling | None = None
    independent: bool = False

    def __len__(self) -> int:
        return self.z.shape[0]

    @property
    def most_views(self) -> int:
        """The longest sequence that every sample can give."""
        return self.run_length or int(self.n_views.min())

    @property
    def different_draws(self) -> int | None:
        """How many training draws there are before they repeat; None: no end to them."""
        return self.runs if self.run_length and not self.independent else None

    @property
    def runs(self) -> int:
        """K, how many runs a sample's slots are; run_length > 0."""
        return self.z.shape[1] // self.run_length

    def draw(self, seed: int, draw: int, purpose: Purpose, views: int) -> np.ndarray:
        """Slots int64 [S, views] of the sequence that each sample gives in a draw; views ≤ most_views.

        From a set of views: distinct ones in random order, new for each (seed, draw, purpose). From runs: the first
        slots of run `draw` modulo their number; to train on independent ones, any views in these places. A longer
        sequence always extends a shorter one, so that all probes of a draw see the same views.
        """
        if self.independent and purpose is Purpose.PROBE:
            return self._mixed(draw_u32(seed, draw, purpose, np.arange(len(self)), self.run_length))[:, :views]
        if self.run_length:
            first = draw % self.runs * self.run_length
            return np.tile(np.arange(first, first + views), (len(self), 1))
        return choose_distinct(self.n_views, draw_u32(seed, draw, purpose, np.arange(len(self)), views))

    def _mixed(self, numbers: np.ndarray) -> np.ndarray:
        """uint32 [S, V] → slots int64 [S, V]: distinct observation views of any runs, then any run's target view."""
        before = self.run_length - 1
        chosen = choose_distinct(np.full(len(self), self.runs * before), numbers[:, :before])
        target = choose_distinct(np.full(len(self), self.runs), numbers[:, before:])
        return np.concatenate([chosen + chosen // before, target * self.run_length + before], axis=1)

    def params_of(self, slots: np.ndarray) -> np.ndarray:
        """Parameters of drawn slots int64 [S, V]: float32 [S, V, P]."""
        return self.params[np.arange(len(slots))[:, None], slots]

    def actions(self, slots: np.ndarray, kind: str) -> Tensor:
        """Actions of a kind from each drawn slot to the next: int64 [S, V] → float32 [S, V − 1, A], where z is.

        With author fidelity actions of augmentations depend on all V slots that are given (docs/fidelity.md #22).
        """
        params = self.params_of(slots)
        if kind in AUGMENTATION_PARTS:
            return augmentation_actions(torch.from_numpy(params), kind, self.scaling).to(self.z.device)
        return self.on_device(actions_between(params, self.param_names, kind))

    def column(self, name: str) -> np.ndarray:
        """One parameter of every view: float32 [S, N]."""
        return self.params[..., self.param_names.index(name)]

    def on_device(self, values: np.ndarray) -> Tensor:
        """float32 values where z is."""
        return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32)).to(self.z.device)
