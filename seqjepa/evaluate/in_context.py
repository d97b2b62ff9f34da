"""Evaluation of ContextSSL: its numbers are those of views that were seen after a context (paper §A.3).

The context is c / 2 pairs of the training split, c tokens. Its keys and values are computed once for each environment;
then every view of either bank is one more token, without an action, and its output z⁺ takes the place of z.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from seqjepa.data.actions import actions_between
from seqjepa.data.draws import Purpose, choose_distinct, draw_u32
from seqjepa.evaluate.encode import room
from seqjepa.evaluate.features import Features
from seqjepa.evaluate.probes import NO_SCORES, Bench, Scores
from seqjepa.evaluate.tasks import ProbeTask
from seqjepa.methods.base import Method
from seqjepa.methods.context_ssl import ENVIRONMENTS, ContextSSL
from seqjepa.methods.context_ssl.transformer import Memory
from shards.errors import ConfigError

HEADLINE = "rotation"
ROWS_AT_ONCE = 1024
"""The environment whose numbers stand beside other methods'."""
GPU_TOKENS, CPU_TOKENS = 16384, 1024
Take = Callable[[list[ProbeTask], Bench], Scores]


@dataclass(frozen=True)
class Context:
    """Pairs of views of the training split: z float32 [K, 2, D], actions float32 [K, A], where the model is."""

    z: Tensor
    actions: Tensor

    def memory(self, method: ContextSSL, environment: str, tokens: int) -> Memory:
        """What the method keeps of the first `tokens` / 2 pairs, told the environment's part of their actions."""
        told = torch.zeros_like(self.actions)
        told[:, ENVIRONMENTS[environment]] = self.actions[:, ENVIRONMENTS[environment]]
        return method.remember(self.z[: tokens // 2], told[: tokens // 2])


def draw_context(bank: Features, action: str, pairs: int, seed: int, device: torch.device) -> Context:
    """Two different views each of `pairs` objects, which may come twice. A smaller draw is the beginning of a larger.

    Which objects is the released code's draw (torch's generator from `seed`), which views is ours: there that depends
    on NumPy's global state.
    """
    rows = torch.randint(0, len(bank), (pairs,), generator=torch.Generator().manual_seed(seed)).numpy()
    numbers = draw_u32(seed, 0, Purpose.EVALUATION, np.arange(pairs), 2)
    slots = choose_distinct(bank.n_views[rows], numbers)
    actions = actions_between(bank.params[rows[:, None], slots], bank.param_names, action)[:, 0]
    z = bank.z[torch.from_numpy(rows)[:, None].to(bank.z.device), torch.from_numpy(slots).to(bank.z.device)]
    return Context(z.to(device).float(), torch.from_numpy(actions).to(device))


@torch.no_grad()
def put_in_context(method: ContextSSL, bank: Features, memory: Memory, device: torch.device) -> Features:
    """The same bank with z⁺ [S, N, D] for z."""
    z = room(tuple(bank.z.shape), device)
    rows, out = bank.z.flatten(0, 1), z.flatten(0, 1)
    step = GPU_TOKENS if device.type == "cuda" else CPU_TOKENS
    for start in range(0, len(rows), step):
        part = rows[start : start + step].to(device).float()
        out[start : start + step] = method.in_context(part, memory).to(out)
    padding = torch.from_numpy(np.arange(z.shape[1]) >= bank.n_views[:, None])
    z[padding.to(z.device)] = 0
    return replace(bank, z=z, labels=bank.labels.to(z.device))


def context_lengths(method: Method, asked: Iterable[int] | None, device: torch.device) -> list[int]:
    """Numbers of tokens, ascending; none for a method that takes no context.

    None asked: as many as leave room for a view in a training sequence, and on a GPU also 0. ConfigError for odd
    numbers, more than there is room for, and any where the method takes no context.
    """
    if not isinstance(method, ContextSSL):
        if asked is not None:
            raise ConfigError("contexts are for context_ssl; the run's method takes none, so leave them out")
        return []
    most = 2 * method.context.pairs - 2
    if asked is None:
        return sorted({most} | ({0} if device.type == "cuda" else set()))
    lengths = sorted(set(asked))
    if not lengths or any(c % 2 or not 0 <= c <= most for c in lengths):
        raise ConfigError(f"contexts are {lengths}; give even numbers of tokens from 0 to {most} (two for each pair)")
    return lengths


def scores_in_context(
    method: ContextSSL, measures: list[ProbeTask], bench: Bench, action: str, lengths: Sequence[int], take: Take
) -> tuple[Scores, dict[str, Any]]:
    """What the probes gave, and what the protocol says about the context.

    Under a measure's own name: in environment `rotation` with the longest context. Under in_context.ENVIRONMENT.NAME.C:
    all of them (C = 0 is the same in every environment, and is measured once). Under in_context.encoder.NAME: z without
    the transformer, which is what other baselines are probed on.
    """
    context = draw_context(bench.train, action, method.context.pairs, bench.seed, bench.device)
    environments = list(ENVIRONMENTS)[: len(method.environments)]
    found = NO_SCORES.joined(take(measures, bench).named("in_context.encoder.{}"))
    for tokens in lengths:
        for names in [[name] for name in environments] if tokens else [environments]:
            memory = context.memory(method, names[0], tokens)
            taken = _take_in_context(method, measures, bench, memory, take)
            for name in names:
                found = found.joined(taken.named(f"in_context.{name}.{{}}.{tokens}"))
            if HEADLINE in names and tokens == lengths[-1]:
                found = found.joined(taken)
    return found, _describe_context(environments, lengths, bench)


def _take_in_context(method: ContextSSL, measures: list[ProbeTask], bench: Bench, memory: Memory, take: Take) -> Scores:
    """Classes are read from z⁺ as it is, all else from z⁺ brought to length 1."""
    banks = [put_in_context(method, bank, memory, bench.device) for bank in (bench.train, bench.val)]
    inside = replace(bench, train=banks[0], val=banks[1])
    classes = take([m for m in measures if m.name.startswith("top1")], inside)
    for part in (part for bank in banks for part in bank.z.split(ROWS_AT_ONCE)):
        part.copy_(F.normalize(part.float(), dim=-1))  # in float16 a row of zeros, for no view, would not stay one
    rest = take([m for m in measures if not m.name.startswith("top1")], inside)
    return classes.joined(rest)


def _describe_context(environments: list[str], lengths: Sequence[int], bench: Bench) -> dict[str, Any]:
    return {
        "environment": HEADLINE,
        "tokens": lengths[-1],
        "environments": environments,
        "lengths": list(lengths),
        "drawn_from": "the training split",
        "seed": bench.seed,
        "classified": "z⁺",
        "regressed": "z⁺ of length 1",
    }
