"""What a probe is shown and what it should say (paper §3.3, §A.2, §B.9).

Each function here (or the one that it returns) is of type Inputs: it turns a feature bank and one draw of slots
int64 [S, V] into a `Gather`, rows → (inputs, targets). Training gathers from draw after draw, validation from fixed
draws; the same function serves both. b rows, D width of z, W width of z_AGG, E width of an embedded action.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from seqjepa.data.actions import HUE_COLUMNS, ROTATION_COLUMNS, quaternion
from seqjepa.evaluate.features import Features
from seqjepa.evaluate.heads import Gather
from seqjepa.methods.base import Aggregating

Inputs = Callable[[Features, np.ndarray], Gather]


def label_of_view(bank: Features, slots: np.ndarray) -> Gather:
    """z of one view [b, D] → class (paper §3.3)."""
    return gather_z(bank, slots[:, :1], bank.labels)


def label_of_image(bank: Features, slots: np.ndarray) -> Gather:
    """z of the whole image [b, D] → class (docs/fidelity.md #40); no draw plays a part."""
    z = bank.z_image
    assert z is not None, "asked for only where the bank has whole images"

    def gather(rows: Tensor) -> tuple[Tensor, Tensor]:
        return z[rows.to(z.device)].to(rows.device).float(), bank.labels[rows.to(bank.labels.device)].to(rows.device)

    return gather


def rotation_of_view(bank: Features, slots: np.ndarray) -> Gather:
    """z of one view [b, D] → its absolute rotation, quaternion (x, y, z, w)."""
    euler = np.stack([bank.column(name) for name in ROTATION_COLUMNS], axis=-1)
    angles = euler[np.arange(len(slots)), slots[:, 0]].astype(np.float64)
    return gather_z(bank, slots[:, :1], bank.on_device(quaternion(angles)))


def action_between(action: str) -> Inputs:
    """[z1; z2] [b, 2 D] → the action that takes the first view to the second: the relative rotation in the object's
    frame, or the difference of two positions (paper §A.1)."""

    def inputs(bank: Features, slots: np.ndarray) -> Gather:
        return gather_z(bank, slots[:, :2], bank.actions(slots[:, :2], action)[:, 0])

    return inputs


def augmentation_between(part: str, *, whole_draw: bool) -> Inputs:
    """[z1; z2] [b, 2 D] → how the second view's parameters of a part differ from the first's (paper §A.2).

    The pair is what a draw of two views would be: the first observation view, and the target view, which is the last
    slot of a draw. whole_draw: the released pair for seq-JEPA, the first two of all V views, with targets that are
    normalised over all of them.
    """

    def inputs(bank: Features, slots: np.ndarray) -> Gather:
        views = slots if whole_draw else slots[:, [0, -1]]
        return gather_z(bank, views[:, :2], bank.actions(views, part)[:, 0])

    return inputs


def hue_between(bank: Features, slots: np.ndarray) -> Gather:
    """[z1; z2] [b, 2 D] → (Δ floor hue, Δ light hue): a plain difference in (−1, 1), not circular (Table 7)."""
    rows = np.arange(len(slots))[:, None]
    hues = np.stack([bank.column(name)[rows, slots[:, :2]] for name in HUE_COLUMNS], axis=-1)
    return gather_z(bank, slots[:, :2], bank.on_device(hues[:, 1] - hues[:, 0]))


def label_of_prefixes(method: Aggregating, action: str, sizes: Sequence[int]) -> Inputs:
    """z_AGG [b, K, W] of the first M views for each of K sizes M, prefixes of one draw → class (docs/fidelity.md #39).

    The actions a_1 … a_{M−1} run between successive views of the prefix; the last view's slot is zero. The view after
    the prefix and the action towards it play no part in z_AGG, so M views are enough.
    """

    def inputs(bank: Features, slots: np.ndarray) -> Gather:
        longest = slots[:, : max(sizes)]
        features = gather_z(bank, longest, bank.labels, flat=False)
        actions = bank.actions(slots, action)

        @torch.no_grad()
        def gather(rows: Tensor) -> tuple[Tensor, Tensor]:
            z, labels = features(rows)
            a = actions[rows.to(actions.device)].to(rows.device)
            return torch.stack([method.aggregate(z[:, :m], a[:, : m - 1]).float() for m in sizes], dim=1), labels

        return gather

    return inputs


def label_of_means(sizes: Sequence[int]) -> Inputs:
    """Mean z [b, K, D] of the first M views for each of the K sizes M → class: for methods without aggregate."""

    def inputs(bank: Features, slots: np.ndarray) -> Gather:
        features = gather_z(bank, slots[:, : max(sizes)], bank.labels, flat=False)

        def gather(rows: Tensor) -> tuple[Tensor, Tensor]:
            z, labels = features(rows)
            return torch.stack([z[:, :m].mean(dim=1) for m in sizes], dim=1), labels

        return gather

    return inputs


def path_of_prefixes(
    method: Aggregating, action: str, target: str, sizes: Sequence[int], *, vision: bool, acting: bool
) -> Inputs:
    """[z_AGG; e_M] [b, K, W + E] after M views for each of the K sizes M → the whole way [b, K, A'], from the first
    view to the one after the prefix (path integration, paper §B.9).

    action  the kind of action that the method is given;  target  the kind in which the way is measured
    vision=False: every z is 0; acting=False: every embedded action is 0, e_M too.
    """

    def inputs(bank: Features, slots: np.ndarray) -> Gather:
        longest = slots[:, : max(sizes) + 1]
        actions = bank.actions(longest, action)
        ways = [bank.actions(longest[:, [0, m]], target)[:, 0] for m in sizes]
        features = gather_z(bank, longest, torch.stack(ways, dim=1), flat=False)

        @torch.no_grad()
        def gather(rows: Tensor) -> tuple[Tensor, Tensor]:
            z, way = features(rows)
            a = actions[rows.to(actions.device)].to(rows.device)
            x = [method.path_features(z[:, :m], a[:, :m], vision=vision, action=acting).float() for m in sizes]
            return torch.stack(x, dim=1), way

        return gather

    return inputs


def gather_z(bank: Features, slots: np.ndarray, targets: Tensor, flat: bool = True) -> Gather:
    """z of the drawn slots, float32 [b, V, D], or [b, V · D] if flat."""
    chosen = torch.from_numpy(slots).to(bank.z.device)

    def gather(rows: Tensor) -> tuple[Tensor, Tensor]:
        at = rows.to(bank.z.device)
        z = bank.z[at[:, None], chosen[at]].to(rows.device).float()
        return z.flatten(1) if flat else z, targets[at].to(rows.device)

    return gather
