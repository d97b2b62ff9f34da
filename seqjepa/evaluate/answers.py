"""Training one probe on the training bank and scoring it on the validation bank."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from seqjepa.data.draws import Purpose, choose_distinct, draw_u32
from seqjepa.evaluate.features import FeatureBank
from seqjepa.evaluate.probes import Fit, Gather, fit, predict
from seqjepa.evaluate.questions import Question, Scores

CHECKS = 10
KEPT_BYTES = 4 * 2**30


@dataclass(frozen=True)
class Bench:
    """Where probes are trained: the two banks, the device, and the seed that fixes draws, heads and row order.

    val_draws: the validation set is seen under so many fixed draws of views; scores are over all of them together.
    """

    train: FeatureBank
    val: FeatureBank
    device: torch.device
    seed: int
    val_draws: int = 1


def answer(question: Question, bench: Bench) -> tuple[Scores, Scores]:
    """Scores after the last epoch, and the best seen in ten checks along the way (logged, never reported as ours)."""
    x, y = _validation(question, bench)
    best: Scores = {}
    last: Scores = {}
    every = max(1, question.epochs // CHECKS)

    def check(epoch: int, head: nn.Module) -> None:
        if epoch % every and epoch != question.epochs:
            return
        last.update(question.score(predict(head, x), y))
        best.update({name: max(value, best.get(name, value)) for name, value in last.items()})

    fit(
        lambda: question.head(x[:1]),
        _training(question, bench),
        len(bench.train),
        question.loss,
        Fit(question.epochs, bench.seed),
        device=bench.device,
        after_epoch=check,
    )
    return last, best


def _validation(question: Question, bench: Bench) -> tuple[Tensor, Tensor]:
    """Every validation sample under each fixed draw, on the device."""
    drawn = (_views(bench.val, question, bench.seed, draw, Purpose.EVALUATION) for draw in range(bench.val_draws))
    parts = [_everything(question.task(bench.val, views), len(bench.val), bench.device) for views in drawn]
    return torch.cat([x for x, _ in parts]), torch.cat([y for _, y in parts])


def _training(question: Question, bench: Bench) -> Callable[[int], Gather]:
    """inputs(epoch) for `fit`. Where draws are cycled their inputs are computed once, if they fit in 4 GiB."""
    draws = question.draws or question.epochs
    kept: dict[int, Gather] = {}

    def inputs(epoch: int) -> Gather:
        draw = epoch % draws
        if draw in kept:
            return kept[draw]
        gather = question.task(bench.train, _views(bench.train, question, bench.seed, draw, Purpose.PROBE))
        if draws >= question.epochs:
            return gather
        x, y = _everything(gather, len(bench.train), bench.device)
        gather = _looked_up(x, y)
        if x.nbytes * draws <= KEPT_BYTES:
            kept[draw] = gather
        return gather

    return inputs


def _looked_up(x: Tensor, y: Tensor) -> Gather:
    return lambda rows: (x[rows], y[rows])


def _everything(gather: Gather, rows: int, device: torch.device) -> tuple[Tensor, Tensor]:
    parts = [gather(part) for part in torch.arange(rows, device=device).split(1024)]
    return torch.cat([x for x, _ in parts]), torch.cat([y for _, y in parts])


def _views(bank: FeatureBank, question: Question, seed: int, draw: int, purpose: Purpose) -> np.ndarray:
    """int64 [S, V] distinct views in random order. A longer draw extends a shorter one: all questions share draws."""
    numbers = draw_u32(seed, draw, purpose, np.arange(len(bank)), question.views)
    return choose_distinct(bank.n_views, numbers)
