"""Evaluation of methods that encode in context (ContextSSL): numbers of views seen after a context (paper §A.3).

The context is c / 2 pairs of the training split, c tokens. Its keys and values are computed once for each environment;
then every view of either split is one more token, without an action, and its output z⁺ takes the place of z.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from seqjepa.data.draws import Purpose, choose_distinct, draw_u32
from seqjepa.evaluate.features import Features, room
from seqjepa.evaluate.learning import score_tasks
from seqjepa.evaluate.probes import Bench, ProbeTask, Scores
from seqjepa.methods.base import EncodesInContext, Method
from shards.errors import ConfigError
from shards.schema import ActionSpec

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
    return found, {"context": _describe_context(environments, lengths, bench)}


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


def _describe_context(environments: list[str], lengths: Sequence[int], bench: Bench) -> dict[str, Any]:
    return {
        "environment": environments[0],
        "tokens": lengths[-1],
        "environments": environments,
        "lengths": list(lengths),
        "drawn_from": "the training split",
        "seed": bench.seed,
        "classified": "z⁺",
        "regressed": "z⁺ of length 1",
    }
