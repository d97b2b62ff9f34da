"""What each probe is asked, for data sets of stored views (SPEC D.1, D.2, D.4).

A task turns a feature bank and one draw of views int64 [S, V] into a `Gather`: rows → (inputs, targets). Training
gathers from a new draw every epoch, validation from fixed draws; the same function serves both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from seqjepa.data.actions import HUE_COLUMNS, ROTATION_COLUMNS, actions_between, quaternion, relative_quaternion
from seqjepa.evaluate.features import FeatureBank
from seqjepa.evaluate.probes import Gather
from seqjepa.methods.base import Aggregating

Task = Callable[[FeatureBank, np.ndarray], Gather]


def label_of_view(bank: FeatureBank, views: np.ndarray) -> Gather:
    """One view's z [b, D] → class (D.1)."""
    return _gather(bank, views[:, :1], bank.labels)


def rotation_of_view(bank: FeatureBank, views: np.ndarray) -> Gather:
    """One view's z [b, D] → its absolute rotation, quaternion (x, y, z, w)."""
    return _gather(bank, views[:, :1], _angles(bank, views[:, 0], quaternion))


def rotation_between(bank: FeatureBank, views: np.ndarray) -> Gather:
    """[z1; z2] [b, 2 D] → the rotation that takes the first view to the second, in the object's frame (A.3.1)."""

    def target(first: np.ndarray, second: np.ndarray) -> np.ndarray:
        return relative_quaternion(quaternion(first), quaternion(second))

    return _gather(bank, views[:, :2], _angles(bank, views[:, :2], target))


def hue_between(bank: FeatureBank, views: np.ndarray) -> Gather:
    """[z1; z2] [b, 2 D] → (Δ floor hue, Δ light hue): a plain difference in (−1, 1), not circular (A.3.2)."""
    rows = np.arange(len(views))[:, None]
    hues = np.stack([bank.column(name)[rows, views[:, :2]] for name in HUE_COLUMNS], axis=-1)
    return _gather(bank, views[:, :2], _on_device(bank, hues[:, 1] - hues[:, 0]))


def label_of_prefixes(method: Aggregating, action: str, sizes: Sequence[int]) -> Task:
    """z_AGG [b, K, D'] of the first M views for each of the K sizes M, nested prefixes of one draw → class (D.2).

    The actions a_1 … a_{M−1} run between successive views of the prefix; the last view's slot is zero. The view after
    the prefix and the action towards it play no part in z_AGG, so M views are enough.
    """

    def task(bank: FeatureBank, views: np.ndarray) -> Gather:
        longest = views[:, : max(sizes)]
        params = bank.params[np.arange(len(views))[:, None], longest]
        actions = _on_device(bank, actions_between(params, bank.param_names, action))
        features = _gather(bank, longest, bank.labels, flat=False)

        @torch.no_grad()
        def gather(rows: Tensor) -> tuple[Tensor, Tensor]:
            z, labels = features(rows)
            a = actions[rows.to(actions.device)].to(rows.device)
            return torch.stack([method.aggregate(z[:, :m], a[:, : m - 1]).float() for m in sizes], dim=1), labels

        return gather

    return task


def _gather(bank: FeatureBank, views: np.ndarray, targets: Tensor, flat: bool = True) -> Gather:
    """z of the drawn views, float32 [b, V, D], or [b, V · D] if flat."""
    chosen = torch.from_numpy(views).to(bank.z.device)

    def gather(rows: Tensor) -> tuple[Tensor, Tensor]:
        at = rows.to(bank.z.device)
        z = bank.z[at[:, None], chosen[at]].to(rows.device).float()
        return z.flatten(1) if flat else z, targets[at].to(rows.device)

    return gather


def _angles(bank: FeatureBank, views: np.ndarray, target: Callable[..., np.ndarray]) -> Tensor:
    """target(angles of each drawn view [S, 3] …) as float32 on the bank's device."""
    euler = np.stack([bank.column(name) for name in ROTATION_COLUMNS], axis=-1)
    rows = np.arange(len(views))
    drawn = views.reshape(len(views), -1).T
    return _on_device(bank, target(*(euler[rows, v].astype(np.float64) for v in drawn)))


def _on_device(bank: FeatureBank, values: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32)).to(bank.z.device)
