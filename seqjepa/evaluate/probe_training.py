"""Probes learn and are scored: heads of several tasks side by side, on what the same draws of views show.

For methods that encode in context (ContextSSL, paper §A.3) they are shown views after a context: c / 2 pairs of the
training split, c tokens. Its keys and values are computed once for each environment; then every view of either split is
one more token, without an action, and its output z⁺ takes the place of z.

Letters: n validation rows, b of a minibatch, S samples of a split, K sizes M.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from seqjepa.data.draws import Purpose, choose_distinct, draw_u32
from seqjepa.devices import available_memory
from seqjepa.evaluate.features import Features, room
from seqjepa.evaluate.heads import Fit, Gather, Job, fit_together, predict
from seqjepa.evaluate.metrics import Resampling
from seqjepa.evaluate.probes import Bench, ProbeTask, Scores
from seqjepa.methods.base import EncodesInContext, Method
from shards.errors import ConfigError
from shards.schema import ActionSpec

logger = logging.getLogger(__name__)
CHECKS = 10
EXAMPLES = 4096
FULL_PRECISION_BYTES = 4 * 2**30
ERRORS = ("_deg", "_deg_median", "_rmse")
"""Ends of the keys of numbers that are better when smaller."""


def fit_and_score(task: ProbeTask, bench: Bench) -> Scores:
    """Scores after the last epoch with their intervals, and the best seen in ten checks on the way (logged, never
    reported as ours). Nothing is fitted where there is nothing to tell apart."""
    return score_tasks([task], bench, progress=False)


def score_tasks(tasks: Iterable[ProbeTask], bench: Bench, of: str = "", *, progress: bool) -> Scores:
    """Every task fitted and scored. of: "invariant half: ", what stands before its name in logs and on the bar.

    Heads learn side by side, each as it would alone (heads.fit_together), as many at once as there is memory for.
    """
    scores, tasks = Scores(), list(tasks)
    with tqdm(total=len(tasks), unit="probe", disable=None if progress else True, leave=False) as bar:
        for group in _groups(tasks, bench):
            bar.set_description(f"probe {of}{', '.join(part.task.name for part in group)}")
            _learn(group, bench)
            for part in group:
                found = part.scores(bench)
                logger.info("%s%s: %s", of, part.task.name, found.last)
                scores = scores.joined(found)
            bar.update(len(group))
    return scores


def _groups(tasks: Iterable[ProbeTask], bench: Bench) -> Iterator[list[_Fitted]]:
    """Tasks to learn together, in their order: as many as leave half of the free memory to what is kept over epochs."""
    group: list[_Fitted] = []
    for task in tasks:
        part = _Fitted.of(task, bench)
        if group and sum(other.x.nbytes for other in group) + part.x.nbytes > _spare_bytes(bench.device):
            yield group
            group = []
        group.append(part)
    if group:
        yield group


def _learn(group: Sequence[_Fitted], bench: Bench) -> None:
    """Views are drawn once an epoch for all heads, as all see the same."""
    draws = _Draws(bench)
    learning = sorted((part for part in group if part.learns), key=lambda part: -part.task.views)  # see _Draws
    if learning:
        jobs = [part.job(bench, draws) for part in learning]
        heads = fit_together(jobs, len(bench.train), Fit(0, bench.seed), device=bench.device)
        bench.heads.update((part.task.name, head) for part, head in zip(learning, heads, strict=True))


@dataclass
class _Fitted:
    """A task on its way: its validation inputs x and targets y, why numbers are missing, what its head was best at."""

    task: ProbeTask
    x: Tensor
    y: Tensor
    skipped: dict[str, str]
    best: dict[str, float] = field(default_factory=dict)
    blind: dict[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, task: ProbeTask, bench: Bench) -> _Fitted:
        x, y = validation_pairs(task, bench, bench.val)
        return cls(task, x, y, task.missing(y, bench.train.labels))

    @property
    def learns(self) -> bool:
        """Whether there is something to tell apart."""
        return self.task.name not in self.skipped

    def job(self, bench: Bench, draws: _Draws) -> Job:
        task, rows = self.task, len(bench.train)
        training = _training_inputs(task, bench, draws)
        spread = torch.linspace(0, rows - 1, min(EXAMPLES, rows), device=bench.device).long()
        examples = training(0)(spread)
        self.blind = task.blind(examples[1], self.y) if bench.blind else {}
        return Job(lambda: task.head(*examples), training, task.loss, task.epochs, self.check)

    def check(self, epoch: int, head: nn.Module) -> None:
        every = max(1, self.task.epochs // CHECKS)
        if epoch % every == 0 or epoch == self.task.epochs:
            for name, value in self.task.score(predict(head, self.x), self.y).items():
                # Errors are better when smaller, all else when larger.
                better = min if name.endswith(ERRORS) else max
                self.best[name] = better(value, self.best.get(name, value))

    def scores(self, bench: Bench) -> Scores:
        """After the last epoch."""
        if not self.learns:
            return Scores(skipped=self.skipped)
        besides = Scores(best=self.best, skipped=self.skipped, blind=self.blind)
        predicted = predict(bench.heads[self.task.name], self.x)
        return score_head(self.task, predicted, self.y, bench.resampling).joined(besides)


def score_head(task: ProbeTask, predicted: Tensor, target: Tensor, resampling: Resampling) -> Scores:
    """Numbers of predictions for a whole validation set, their intervals and confusion matrices."""
    intervals, confusions = task.intervals(predicted, target, resampling), task.confusions(predicted, target)
    return Scores(task.score(predicted, target), intervals=intervals, confusions=confusions)


def validation_pairs(task: ProbeTask, bench: Bench, features: Features) -> tuple[Tensor, Tensor]:
    """Inputs and targets of every sample under each fixed draw of the bench, on the device."""
    drawn = (features.draw(bench.seed, draw, Purpose.EVALUATION, task.views) for draw in range(bench.val_draws))
    parts = [gather_all(task.inputs(features, slots), len(features), bench.device) for slots in drawn]
    return torch.cat([x for x, _ in parts]), torch.cat([y for _, y in parts])


class _Draws:
    """Training draws of a bench's views, of which the last one is kept: several probes see the same.

    left: bytes for inputs that are kept over epochs
    """

    def __init__(self, bench: Bench) -> None:
        self._bench, self.left = bench, _spare_bytes(bench.device)
        self._last, self._places = -1, np.empty((0, 0), np.int64)

    def __call__(self, draw: int, views: int) -> np.ndarray:
        """Places int64 [S, views]. A longer draw extends a shorter one, but for windows: ask for the longest first."""
        features, known = self._bench.train, self._places.shape[1]
        if draw != self._last or known < views or (features.stride and known != views):
            self._last = draw
            self._places = features.draw(self._bench.seed, draw, Purpose.PROBE, views)
        return self._places[:, :views]


def _training_inputs(task: ProbeTask, bench: Bench, places: _Draws) -> Callable[[int], Gather]:
    """inputs(epoch) for `fit`. Inputs that cost a forward pass are computed once for each draw, as far as they fit.

    They are kept as float16, as features of that size are, where all draws together would take more than 4 GiB.
    """
    features = bench.train
    draws = min(task.draws or task.epochs, features.different_draws or task.epochs)
    keep = task.draws is not None and draws < task.epochs
    kept: dict[int, Gather] = {}

    def inputs(epoch: int) -> Gather:
        draw = epoch % draws
        if draw in kept:
            return kept[draw]
        gather = task.inputs(features, places(draw, task.views))
        one = gather(torch.zeros(1, dtype=torch.int64, device=bench.device)) if keep else ()
        size = len(features) * sum(tensor.nbytes for tensor in one)
        dtype = torch.float32 if size * draws <= FULL_PRECISION_BYTES else torch.float16
        size = size * dtype.itemsize // torch.float32.itemsize
        if keep and size <= places.left:
            places.left -= size
            x, y = gather_all(gather, len(features), bench.device, dtype)
            kept[draw] = lambda rows: (x[rows].float(), y[rows])
            return kept[draw]
        return gather

    return inputs


def _spare_bytes(device: torch.device) -> int:
    """Half of the memory that is free."""
    return (torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else available_memory()) // 2


def gather_all(
    gather: Gather, rows: int, device: torch.device, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor]:
    parts = [gather(part) for part in torch.arange(rows, device=device).split(1024)]
    return torch.cat([x.to(dtype) for x, _ in parts]), torch.cat([y for _, y in parts])


ROWS_AT_ONCE = 1024
GPU_TOKENS, CPU_TOKENS = 16384, 1024


@dataclass(frozen=True)
class Context:
    """Pairs of views of the training split: z float32 [K, 2, D], actions float32 [K, A], where the model is."""

    z: Tensor
    actions: Tensor

    def memory(self, method: EncodesInContext, environment: str, tokens: int) -> Any:
        """What the method keeps of the first `tokens` / 2 pairs, told the environment's part of their actions."""
        told = torch.zeros_like(self.actions)
        part = method.environments[environment]
        told[:, part] = self.actions[:, part]
        return method.remember(self.z[: tokens // 2], told[: tokens // 2])


def draw_context(features: Features, action: ActionSpec, pairs: int, seed: int, device: torch.device) -> Context:
    """Two different views each of `pairs` objects, which may come twice. A smaller draw is the beginning of a larger.

    Which objects is the released code's draw (torch's generator from `seed`), which views is ours: there that depends
    on NumPy's global state.
    """
    rows = torch.randint(0, len(features), (pairs,), generator=torch.Generator().manual_seed(seed)).numpy()
    if features.sequences is None:
        numbers = draw_u32(seed, 0, Purpose.EVALUATION, np.arange(pairs), 2)
        places = rows[:, None] * features.z.shape[1] + choose_distinct(features.n_views[rows], numbers)
    else:
        places = features.draw(seed, 0, Purpose.EVALUATION, 2)[rows]
    z = features.z_of(torch.from_numpy(places).to(features.z.device))
    return Context(z.to(device).float(), features.actions(places, action)[:, 0].to(device))


@torch.no_grad()
def put_in_context(method: EncodesInContext, features: Features, memory: Any, device: torch.device) -> Features:
    """The same features with z⁺ [S, N, D] for z."""
    z = room(tuple(features.z.shape), device)
    rows, out = features.z.flatten(0, 1), z.flatten(0, 1)
    step = GPU_TOKENS if device.type == "cuda" else CPU_TOKENS
    for start in range(0, len(rows), step):
        part = rows[start : start + step].to(device).float()
        out[start : start + step] = method.in_context(part, memory).to(out)
    padding = torch.from_numpy(np.arange(z.shape[1]) >= features.n_views[:, None])
    z[padding.to(z.device)] = 0
    return replace(features, z=z, labels=features.labels.to(z.device))


def context_lengths(method: Method, asked: Iterable[int] | None, device: torch.device) -> list[int]:
    """Numbers of tokens, ascending; none for a method that takes no context.

    None asked: as many as leave room for a view in a training sequence, and on a GPU also 0. ConfigError for odd
    numbers, more than there is room for, and any where the method takes no context.
    """
    if not isinstance(method, EncodesInContext):
        if asked is not None:
            raise ConfigError("contexts are for context_ssl; the run's method takes none, so leave them out")
        return []
    most = 2 * method.pairs - 2
    if asked is None:
        return sorted({most} | ({0} if device.type == "cuda" else set()))
    lengths = sorted(set(asked))
    if not lengths or any(c % 2 or not 0 <= c <= most for c in lengths):
        raise ConfigError(f"contexts are {lengths}; give even numbers of tokens from 0 to {most} (two for each pair)")
    return lengths


def scores_in_context(
    method: EncodesInContext,
    tasks: list[ProbeTask],
    bench: Bench,
    action: ActionSpec,
    lengths: Sequence[int],
    progress: bool,
) -> tuple[Scores, dict[str, Any]]:
    """What the probes gave, and what the protocol says about the context.

    Under a task's own name: in the first environment (`rotation`) with the longest context. Under
    in_context.ENVIRONMENT.NAME.C: all of them (C = 0 is the same in every environment, and is measured once). Under
    in_context.encoder.NAME: z without the transformer, which is what other baselines are probed on.
    """
    context = draw_context(bench.train, action, method.pairs, bench.seed, bench.device)
    environments = list(method.environments)
    found = score_tasks(tasks, bench, progress=progress).named("in_context.encoder.{}")
    for tokens in lengths:
        for names in [[name] for name in environments] if tokens else [environments]:
            memory = context.memory(method, names[0], tokens)
            scores = _score_in_context(method, tasks, bench, memory, progress)
            for name in names:
                found = found.joined(scores.named(f"in_context.{name}.{{}}.{tokens}"))
            if environments[0] in names and tokens == lengths[-1]:
                found = found.joined(scores)
    described = {
        "environment": environments[0],
        "tokens": lengths[-1],
        "environments": environments,
        "lengths": list(lengths),
        "drawn_from": "the training split",
        "seed": bench.seed,
        "classified": "z⁺",
        "regressed": "z⁺ of length 1",
    }
    return found, {"context": described}


def _score_in_context(
    method: EncodesInContext, tasks: list[ProbeTask], bench: Bench, memory: Any, progress: bool
) -> Scores:
    """Classes are read from z⁺ as it is, all else from z⁺ brought to length 1."""
    both = [put_in_context(method, features, memory, bench.device) for features in (bench.train, bench.val)]
    inside = replace(bench, train=both[0], val=both[1])
    classes = score_tasks([task for task in tasks if task.classes], inside, progress=progress)
    for part in (part for features in both for part in features.z.split(ROWS_AT_ONCE)):
        part.copy_(F.normalize(part.float(), dim=-1))  # in float16 a row of zeros, for no view, would not stay one
    return classes.joined(score_tasks([task for task in tasks if not task.classes], inside, progress=progress))
