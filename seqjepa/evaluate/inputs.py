"""What probes are shown and should say, made of features and one draw of places int64 [S, V].

Each of these functions (or the one that it returns) is of type probes.Inputs and gives a Gather, rows → (inputs,
targets).

Letters: b rows, D width of z, W width of z_AGG, E width of an embedded action, K sizes M.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from seqjepa.data.actions import absolute_rotations, columns
from seqjepa.devices import to_device
from seqjepa.evaluate.features import Features
from seqjepa.evaluate.heads import Gather
from seqjepa.evaluate.probes import Inputs
from seqjepa.methods.base import Aggregating
from shards.schema import ActionSpec, ActionTerm


def gather_z(features: Features, places: np.ndarray, targets: Tensor, flat: bool = True) -> Gather:
    """z of the drawn places, float32 [b, V, D], or [b, V · D] if flat."""
    chosen = to_device(torch.from_numpy(places), features.z.device)

    def gather(rows: Tensor) -> tuple[Tensor, Tensor]:
        at = rows.to(features.z.device)
        z = features.z_of(chosen[at]).to(rows.device).float()
        return z.flatten(1) if flat else z, targets[at].to(rows.device)

    return gather


def label_of_view(features: Features, places: np.ndarray) -> Gather:
    """z of one view [b, D] → class (paper §3.3)."""
    return gather_z(features, places[:, :1], features.labels)


def label_of_image(features: Features, places: np.ndarray) -> Gather:
    """z of the whole image [b, D] → class (docs/fidelity.md #40); no draw plays a part."""
    z, labels = features.z_image, features.labels
    assert z is not None, "asked for only where there are whole images"
    return lambda rows: (z[rows.to(z.device)].to(rows.device).float(), labels[rows.to(labels.device)].to(rows.device))


def rotation_of_view(term: ActionTerm) -> Inputs:
    """z of one view [b, D] → its absolute rotation, quaternion (x, y, z, w), by the columns of a term."""

    def inputs(features: Features, places: np.ndarray) -> Gather:
        params = features.params_of(places[:, :1])[:, 0]
        rotations = absolute_rotations(params[:, columns(features.param_names, term.columns)], term)
        return gather_z(features, places[:, :1], features.on_device(rotations))

    return inputs


def action_between(action: ActionSpec) -> Inputs:
    """[z1; z2] [b, 2 D] → the action that takes the first view to the second (paper §A.1): a rotation in the object's
    frame, a difference of two positions, hues in (−1, 1) and not circular (Table 7), or what the set declares."""
    return lambda features, places: gather_z(features, places[:, :2], features.actions(places[:, :2], action)[:, 0])


def augmentation_between(action: ActionSpec, *, whole_draw: bool) -> Inputs:
    """[z1; z2] [b, 2 D] → how the second view's parameters differ from the first's (paper §A.2).

    The pair is what a draw of two views would be: the first observation view, and the target view, which is the last
    slot of a draw. whole_draw: the released pair for seq-JEPA, the first two of all V views, with targets that are
    normalised over all of them.
    """

    def inputs(features: Features, places: np.ndarray) -> Gather:
        views = places if whole_draw else places[:, [0, -1]]
        return gather_z(features, views[:, :2], features.actions(views, action)[:, 0])

    return inputs


def _of_prefixes(
    gather: Gather, sizes: Sequence[int], represent: Callable[[Tensor, Tensor, int], Tensor], actions: Tensor
) -> Gather:
    """represent(z [b, V, D], actions [b, V', A], M) → [b, W] of each of K sizes M, stacked: [b, K, W]."""

    @torch.no_grad()
    def prefixes(rows: Tensor) -> tuple[Tensor, Tensor]:
        z, targets = gather(rows)
        a = actions[rows.to(actions.device)].to(rows.device)
        return torch.stack([represent(z, a, m).float() for m in sizes], dim=1), targets

    return prefixes


def label_of_prefixes(method: Aggregating, action: ActionSpec, sizes: Sequence[int]) -> Inputs:
    """z_AGG [b, K, W] of the first M views for each of K sizes M → class."""
    return aggregates_of_prefixes(method, action, sizes, lambda features, _: features.labels)


def aggregates_of_prefixes(
    method: Aggregating, action: ActionSpec, sizes: Sequence[int], targets: Callable[[Features, np.ndarray], Tensor]
) -> Inputs:
    """z_AGG [b, K, W] of the first M views for each of K sizes M, prefixes of one draw (docs/fidelity.md #39) → targets
    of these places.

    The actions a_1 … a_{M−1} run between successive views of the prefix; the last view's slot is zero. The view after
    the prefix and the action towards it play no part in z_AGG, so M views are enough.
    """

    def aggregate(z: Tensor, a: Tensor, m: int) -> Tensor:
        return method.aggregate(z[:, :m], a[:, : m - 1])

    def inputs(features: Features, places: np.ndarray) -> Gather:
        gather = gather_z(features, places[:, : max(sizes)], targets(features, places), flat=False)
        return _of_prefixes(gather, sizes, aggregate, features.actions(places, action))

    return inputs


def label_of_means(sizes: Sequence[int]) -> Inputs:
    """Mean z [b, K, D] of the first M views for each of the K sizes M → class: for methods without aggregate."""

    def inputs(features: Features, places: np.ndarray) -> Gather:
        gather = gather_z(features, places[:, : max(sizes)], features.labels, flat=False)
        return _of_prefixes(gather, sizes, lambda z, _, m: z[:, :m].mean(dim=1), torch.zeros(len(features), 0))

    return inputs


Way = Callable[[Features, np.ndarray], Tensor]
"""What is to be said of pairs of places int64 [S, 2]: the way from the one to the other, float32 [S, A']."""


def action_of(spec: ActionSpec) -> Way:
    """The action between the two."""
    return lambda features, places: features.actions(places, spec)[:, 0]


def path_of_prefixes(
    method: Aggregating, action: ActionSpec, way: Way, sizes: Sequence[int], *, vision: bool, acting: bool
) -> Inputs:
    """[z_AGG; e_M] [b, K, W + E] after M views for each of the K sizes M → the whole way [b, K, A'], from the first
    view to the one after the prefix (path integration, paper §B.9).

    action  what the method is given;  way  measured in those of its terms that add up along a path
    vision=False: every z is 0; acting=False: every embedded action is 0, e_M too.
    """

    def path(z: Tensor, a: Tensor, m: int) -> Tensor:
        return method.path_features(z[:, :m], a[:, :m], vision=vision, action=acting)

    def inputs(features: Features, places: np.ndarray) -> Gather:
        longest = places[:, : max(sizes) + 1]
        ways = torch.stack([way(features, longest[:, [0, m]]) for m in sizes], dim=1)
        gather = gather_z(features, longest, ways, flat=False)
        return _of_prefixes(gather, sizes, path, features.actions(longest, action))

    return inputs
