"""Stored views: what every batch holds is planned as a pure function of (seed, epoch, step, rank), then read.

Nothing of a plan knows about workers, so a batch is the same at any worker count and after any resume. Where there is
room, views are decoded once, live in memory or on a GPU, and batches are gathered there (ResidentSource).

Letters: B samples, T views of a sequence, F distinct views of a split, one after the other
(shards/reading/sequences.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import ClassVar, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from seqjepa.data.actions import action_name, actions_between, are_augmented, as_spec, is_augmentation, needs_order
from seqjepa.data.augment.parameters import Scaling, ScalingMode, check_scaling_mode, scaled
from seqjepa.data.augment.recipes import Recipe
from seqjepa.data.augment.stored_views import AugmentedSource, augment_problem
from seqjepa.data.decode_ahead import DecodedAhead, Reading, damaged, places_of, read_once
from seqjepa.data.decode_worker import RowError, Setup
from seqjepa.data.draws import Draw, Purpose, choose_distinct, draw_u32
from seqjepa.data.images import free_bytes
from seqjepa.data.sampling import EpochOrder, Sampling, homes_of
from seqjepa.data.sequence import VECTORS, Drawn, KindOfViews, ViewPlan
from seqjepa.data.shards_needed import supply_for
from seqjepa.devices import to_device
from shards.errors import ConfigError, DamageError
from shards.reading.sequences import window_span
from shards.reading.split_index import SplitIndex
from shards.schema import ActionSpec, ViewSpec
from shards.vector_reader import VectorReader

# Batches are planned this many samples at a time: the fixed cost of some hundred numpy calls is paid once per block,
# and a trainer whose Python holds the GIL (each numpy call may wait 5 ms for it) delays planning rarely.
_BLOCK_SAMPLES = 32_768

Order = Literal["random", "window"]


@dataclass(frozen=True)
class StoredViews:
    """T views of the sequence that a sample belongs to, which mostly is that sample alone.

    order   "random": distinct views, uniformly, in random order (docs/fidelity.md #31). "window": every `stride`-th of
            (T − 1) · stride + 1 consecutive steps, uniformly among all such windows of an ordered sequence
    Of a baked set, epoch e instead takes the first T views of the e-th stored sequence, in their order, and starts over
    when there are no more; of augmentations all T, as the last is the target.

    action                  a preset's name in actions.PRESETS, or terms with their constants
    normalisation, scaling  for actions of baked augmentations: "zscore" with the set's constants
                            (augment.parameters.stored_scaling), or "author", which has none
    augment                 how views are augmented beside what the actions say; None: they are as stored
    compile                 on a GPU, that in a few kernels

    Raises ConfigError for an action without the constants that it needs.
    """

    action: str | ActionSpec
    normalisation: ScalingMode = "zscore"
    scaling: Scaling | None = None
    order: Order = "random"
    stride: int = 1
    augment: Recipe | None = None
    compile: bool = False
    kind: ClassVar[KindOfViews] = "stored views"

    def __post_init__(self) -> None:
        if self.order not in get_args(Order) or self.stride < 1 or (self.order == "random" and self.stride != 1):
            raise ConfigError(
                f"order {self.order!r} with stride {self.stride}; allowed are random, and window with any stride"
            )
        if not is_augmentation(self.action):
            return
        check_scaling_mode(self.normalisation)
        if self.normalisation == "zscore" and self.scaling is None:
            raise ConfigError(
                f"action {action_name(self.action)!r} needs the constants that scale augmentation parameters, which "
                "sets made by `seqjepa-data bake --augment` have; use such a set, or another action"
            )

    def check(self, index: SplitIndex, views: int) -> None:
        """ConfigError where stored sequences cannot give `views` views, a sample (named) has fewer, the parameters
        that the action is made of are missing, or views have no order and the action needs one.

        Of baked augmentations, a shorter sequence would lack the target pipeline's view, which is the last.
        """
        if 0 < index.sequence < views:
            raise ConfigError(
                f"sequences of {views} views were asked for, but split {index.name!r} holds sequences of "
                f"{index.sequence}; use fewer views, or bake with more"
            )
        if index.sequence > views and are_augmented(index.param_names):
            raise ConfigError(
                f"sequences of {views} views were asked for, but split {index.name!r} holds augmented sequences of "
                f"{index.sequence}, whose last view is the target: use {index.sequence} views (data.context = "
                f"{index.sequence - 1}), or bake with --views {views}"
            )
        if problem := order_problem(index, as_spec(self.action), self.order, self.stride):
            raise ConfigError(f"split {index.name!r} {problem}")
        if self.augment and (problem := augment_problem(index, as_spec(self.action), self.augment)):
            raise ConfigError(f"split {index.name!r} {problem}")
        if self.order == "window":
            self._check_windows(index, views)
        elif index.sequences.counts.min() < views:
            poorest = int(np.argmin(index.sequences.counts))
            raise ConfigError(
                f"sequences of {views} views need as many per sample, but {index.keys[poorest]!r} in split "
                f"{index.name!r} has {index.sequences.counts[poorest]}; use fewer views or other shards"
            )
        self.plan(index, np.zeros(1, np.int64), Draw(views, 0, 0))

    def _check_windows(self, index: SplitIndex, views: int) -> None:
        if index.sequence:
            return
        span = window_span(views, self.stride)
        _, found = index.sequences.windows_of(np.arange(len(index)), span)
        if not found.all():
            row = int(np.argmin(found))
            raise ConfigError(
                f"the sequence of sample {index.keys[row]!r} in split {index.name!r} has no {span} "
                f"consecutive steps, as {views} views with stride {self.stride} need; use fewer views (data.context), "
                "a smaller data.stride, or longer sequences"
            )

    def places(
        self, index: SplitIndex, rows: NDArray[np.int64], draw: Draw
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(samples, slots) int64 [B, T'] of the views that are drawn for samples `rows` [B]; T' = T but for windows,
        where it is every step: the views are each stride-th."""
        if index.sequence:
            run = draw.epoch % (index.offsets.shape[1] // index.sequence)
            slots = np.tile(run * index.sequence + np.arange(draw.views), (len(rows), 1))
            return np.broadcast_to(rows[:, None], slots.shape), slots
        purpose, sequences = draw.numbers(Purpose.VIEWS), index.sequences
        if self.order == "window":
            numbers = draw_u32(draw.seed, draw.epoch, purpose, rows, 1)[:, 0]
            return sequences.locate(sequences.draw_windows(rows, window_span(draw.views, self.stride), numbers))
        numbers = draw_u32(draw.seed, draw.epoch, purpose, rows, draw.views)
        if not sequences.joined:
            slots = choose_distinct(index.n_views[rows], numbers)
            return np.broadcast_to(rows[:, None], slots.shape), slots
        return sequences.locate(sequences.starts[rows][:, None] + choose_distinct(sequences.counts[rows], numbers))

    def actions(self, params: NDArray[np.float32], names: tuple[str, ...]) -> NDArray[np.float32]:
        """float32 [B, T', P] with columns `names` → [B, T-1, A]; T' as in places(). Of baked augmentations equal, to
        the bit, to those made on the fly."""
        action = as_spec(self.action)
        if is_augmentation(action):
            action = scaled(action, self.scaling if self.normalisation == "zscore" else None)
        return actions_between(params, names, action, self.stride)

    def plan(self, index: SplitIndex, rows: NDArray[np.int64], draw: Draw) -> ViewPlan:
        """What is to be read of samples `rows` [B], and what is known of it beforehand."""
        samples, slots = self.places(index, rows, draw)
        params = index.params[samples, slots].astype(np.float32, copy=False)
        actions = self.actions(params, index.param_names)
        steps = slice(None, None, self.stride)
        samples, slots, params = samples[:, steps], slots[:, steps], params[:, steps]
        table = places_of(index, samples, slots).reshape(-1)
        return ViewPlan(rows, samples, slots, table, actions, np.ascontiguousarray(params))

    def open(
        self, index: SplitIndex, sampling: Sampling, reading: Reading
    ) -> StoredSource | FeatureSource | ResidentSource | AugmentedSource:
        """See views.Views."""
        source = self._read_from(index, sampling, reading)
        if self.augment is None:
            return source
        return AugmentedSource(source, self.augment, sampling.seed, reading.device, self.compile)

    def _read_from(
        self, index: SplitIndex, sampling: Sampling, reading: Reading
    ) -> StoredSource | FeatureSource | ResidentSource:
        planner = Planner(index, self, sampling)
        if index.features:
            reader = VectorReader(index)
            needed = int(index.sequences.firsts[-1]) * reader.size * reader.dtype.itemsize
            fits = reading.resident is None and needed <= free_bytes(reading.device, sampling.world_size)
            if not reading.resident and not fits:
                return FeatureSource(planner, reader)
            return ResidentSource(planner, lambda: torch.from_numpy(reader.take_all()).to(reading.device))
        if lives_there(index, reading, sampling.world_size):
            return ResidentSource(planner, partial(decode_all, index, reading))
        return StoredSource(planner, reading)


def usual_order(of: ViewSpec) -> Order:
    """Views of an ordered sequence that are close by have something in common: windows, not any two of its views."""
    return "window" if of.ordered else "random"


def order_problem(of: ViewSpec | SplitIndex, action: ActionSpec, order: Order, stride: int) -> str:
    """What keeps views of a set or a split from being taken in that order, as the end of a sentence that names it; ""
    for nothing."""
    commands = needs_order(action)
    if of.sequence:
        wrong = f"holds baked sequences, which have no other stride than 1; set data.stride=1, not {stride}"
        return wrong if stride > 1 else ""
    if not of.ordered and commands:
        return (
            "holds views in no order, and commands lead from a view to the one recorded next; set data.action to other "
            "terms, or shard them with a step of each"
        )
    if not of.ordered and order == "window":
        return "holds views in no order, and so no windows; set data.order=random, or shard them with a step of each"
    if order == "random" and commands:
        return (
            "holds commands, which lead from a view to the one recorded next and say nothing of views in random order; "
            "set data.order=window"
        )
    return ""


class Planner:
    """Plans batches of one split for one rank. Raises ConfigError where the split cannot give such batches."""

    def __init__(self, index: SplitIndex, views: StoredViews, sampling: Sampling) -> None:
        self.index, self.views, self.sampling = index, views, sampling
        self.order = EpochOrder(index.name, len(index.keys), sampling, homes_of(index))
        views.check(index, sampling.views)
        self._block_steps = max(1, _BLOCK_SAMPLES // self.order.local_batch)
        self._block = lru_cache(maxsize=2)(self._plan_block)

    def batch(self, epoch: int, step: int) -> ViewPlan:
        """This rank's piece of batch `step` of an epoch."""
        position = step % self._block_steps
        start = position * self.order.local_batch
        return self._block(epoch, step - position).part(start, start + self.order.size(step))

    def _plan_block(self, epoch: int, first: int) -> ViewPlan:
        rows = self.order.rows(epoch, first, min(first + self._block_steps, self.order.steps))
        return self.views.plan(self.index, rows, Draw(self.sampling.views, self.sampling.seed, epoch))


class StoredSource:
    """Batches of stored views, decoded ahead into a ring in host memory, page-locked where reading.device is a GPU.

    The views of a batch lie in a slot of the ring: they are valid until the next batch is asked for. If page-locked,
    non_blocking copies queued on the device's current stream before then are waited for.
    """

    resident = False

    def __init__(self, planner: Planner, reading: Reading) -> None:
        index, self.steps = planner.index, planner.order.steps
        setup = Setup.of(index, rows=planner.order.local_batch * planner.sampling.views)
        damage, supply = partial(_damage_of_view, index), partial(supply_for, index, planner.order)
        self._ahead = DecodedAhead(planner.batch, self.steps, setup, damage, reading, supply)

    def batch(self, epoch: int, step: int) -> Drawn:
        """This rank's piece of that batch; one after the other is fast."""
        plan, (images,) = self._ahead.fetch(epoch, step)
        views = images.reshape(*plan.slots.shape, *images.shape[1:]).transpose(0, 1, 4, 2, 3)
        return plan.drawn(torch.from_numpy(views))

    def close(self) -> None:
        """End the worker processes. The last batch stays readable; asking for another starts new workers."""
        self._ahead.close()


class FeatureSource:
    """Batches of stored feature vectors, gathered from the mapped tars. Nothing is read ahead."""

    resident = False

    def __init__(self, planner: Planner, reader: VectorReader) -> None:
        self._planner, self.steps, self._reader = planner, planner.order.steps, reader

    def batch(self, epoch: int, step: int) -> Drawn:
        """This rank's piece of that batch, views [B, T, D] in the stored dtype. DamageError: no vector is there."""
        plan = self._planner.batch(epoch, step)
        return plan.drawn(torch.from_numpy(self._reader.take(plan.samples, plan.slots)))

    def close(self) -> None:
        """Nothing is held."""


def _damage_of_view(index: SplitIndex, plan: ViewPlan | _Run, error: RowError) -> DamageError:
    return damaged(index, int(plan.samples.flat[error.row]), f"view {plan.slots.flat[error.row]}", error)


_VIEWS_AT_ONCE = 1024  # decoded, when a whole split is


def lives_there(index: SplitIndex, reading: Reading, world_size: int) -> bool:
    """Whether the decoded views of a split stay on the device: if asked, or if they fit on a GPU.

    In a machine's memory they do only if asked: a short training never sees most of what would be decoded.
    """
    if reading.resident is not None or reading.device.type == "cpu":
        return bool(reading.resident)
    views = int(index.sequences.firsts[-1])
    return views * index.height * index.width * 3 <= free_bytes(reading.device, world_size)


class ResidentSource:
    """Batches gathered on a device, the same as of StoredSource or FeatureSource; they live as long as needed.

    read_all: when the first batch is asked for, all F views: uint8 [F, H, W, 3], or vectors [F, D] in the stored dtype.
    """

    resident = True

    def __init__(self, planner: Planner, read_all: Callable[[], Tensor]) -> None:
        self._planner, self.steps, self._read_all = planner, planner.order.steps, read_all
        self._kept: Tensor | None = None

    def batch(self, epoch: int, step: int) -> Drawn:
        """This rank's piece of that batch. DamageError: a view of the split, whichever it is, cannot be decoded."""
        if self._kept is None:
            self._kept = self._read_all()
        index, plan = self._planner.index, self._planner.batch(epoch, step)
        slots = plan.slots % index.n_views[plan.samples]  # those beyond a sample's views repeat them
        frames = torch.from_numpy((index.sequences.firsts[plan.samples] + slots).ravel())
        chosen = to_device(frames, self._kept.device)
        views = self._kept.index_select(0, chosen).unflatten(0, plan.slots.shape)
        return plan.drawn(views if self._kept.ndim == VECTORS else views.permute(0, 1, 4, 2, 3))

    def close(self) -> None:
        """Let go of the views. Asking for another batch reads them again."""
        self._kept = None


@dataclass(frozen=True)
class _Run:
    """Consecutive views: their samples and slots int64 [n], and where their bytes are, ROW [n]."""

    samples: np.ndarray
    slots: np.ndarray
    table: np.ndarray


def decode_all(index: SplitIndex, reading: Reading) -> Tensor:
    """uint8 [F, H, W, 3] on reading.device: every distinct view of a split. DamageError names one that is damaged."""
    firsts, slots = index.sequences.firsts, index.offsets.shape[1]
    at_once = max(1, min(len(index), _VIEWS_AT_ONCE // slots))  # samples
    order = EpochOrder(index.name, len(index), Sampling(1, at_once, 0, shuffle=False))
    setup, damage = Setup.of(index, rows=at_once * slots), partial(_damage_of_view, index)
    plan, supply = partial(_run, index, order), partial(supply_for, index, order)
    ahead, total = DecodedAhead(plan, order.steps, setup, damage, reading, supply), int(firsts[-1])
    kept = torch.empty((total, index.height, index.width, 3), dtype=torch.uint8, device=reading.device)
    for run, (images,) in read_once(ahead, order.steps, total, "view", reading.device):
        start = int(firsts[run.samples[0]])
        kept[start : start + len(images)].copy_(torch.from_numpy(images), non_blocking=True)
    return kept


def _run(index: SplitIndex, order: EpochOrder, epoch: int, step: int) -> _Run:
    rows = order.rows(epoch, step, step + 1)
    firsts = index.sequences.firsts
    samples, slots = index.sequences.locate(np.arange(int(firsts[rows[0]]), int(firsts[rows[-1] + 1])))
    return _Run(samples, slots, places_of(index, samples, slots))
