"""The battery of probes for stored views: which there are, with which head, for how long, scored how (SPEC D.1–D.4)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from torch import Tensor, nn
from torch.nn import functional as F

from seqjepa.data.actions import HUE_COLUMNS, ROTATION_COLUMNS
from seqjepa.evaluate import tasks
from seqjepa.evaluate.metrics import r2_avg, r2_pool, top1
from seqjepa.evaluate.probes import Loss, StackedLinear, cross_entropy, mlp
from seqjepa.methods.base import Aggregating, Method

Scores = dict[str, float]
PAPER_EPOCHS = 300
PAPER_EPOCHS_LINEAR_REGRESSOR = 50


@dataclass(frozen=True)
class Question:
    """One probe.

    views   how many views of an object it needs
    head    builds the head for an example input [1, …]
    score   (predictions, targets) over the whole validation set → numbers by name
    draws   how many different training draws there are, cycled over epochs; None: a new one every epoch
    """

    name: str
    task: tasks.Task
    views: int
    head: Callable[[Tensor], nn.Module]
    loss: Loss
    epochs: int
    score: Callable[[Tensor, Tensor], Scores]
    draws: int | None = None


@dataclass(frozen=True)
class Subject:
    """What decides which questions make sense: the splits at hand and the method."""

    method: Method
    action: str
    classes: int
    param_names: tuple[str, ...]
    fewest_views: int
    labelled: bool


def linear_epochs(probe_epochs: int) -> int:
    """Epochs of the linear regressors, in the paper's proportion to the others' (50 to 300)."""
    return max(1, round(probe_epochs * PAPER_EPOCHS_LINEAR_REGRESSOR / PAPER_EPOCHS))


def questions_for(
    subject: Subject, m_val: Sequence[int], probe_epochs: int, agg_draws: int | None
) -> tuple[list[Question], dict[str, str]]:
    """The questions that can be asked, and for each that cannot, why."""
    possible: list[Question] = []
    skipped: dict[str, str] = {}
    wanted = [*_classification(subject, m_val, probe_epochs, agg_draws, skipped), *_regression(subject, probe_epochs)]
    for question, obstacle in wanted:
        few = f"needs {question.views} views, a sample has {subject.fewest_views}"
        reason = obstacle or (few if subject.fewest_views < question.views else None)
        if reason is None:
            possible.append(question)
        else:
            skipped[question.name] = reason
    return possible, skipped


def _classification(
    subject: Subject, m_val: Sequence[int], epochs: int, agg_draws: int | None, skipped: dict[str, str]
) -> list[tuple[Question, str | None]]:
    obstacle = None if subject.labelled else "samples without a label"
    linear = partial(_linear, outputs=subject.classes)
    z = Question("top1_z", tasks.label_of_view, 1, linear, cross_entropy, epochs, _top1)
    if not isinstance(subject.method, Aggregating):
        skipped["top1_agg"] = "the method has no aggregate"
        return [(z, obstacle)]
    sizes = [m for m in m_val if m <= subject.fewest_views]
    for m in sorted(set(m_val) - set(sizes)):
        skipped[f"top1_agg.{m}"] = f"needs {m} views, a sample has {subject.fewest_views}"
    aggregate = Question(
        "top1_agg",
        tasks.label_of_prefixes(subject.method, subject.action, sizes),
        max(sizes, default=1),
        partial(_stacked, outputs=subject.classes),
        cross_entropy,
        epochs,
        partial(_top1_by_size, sizes=sizes),
        agg_draws,
    )
    return [(z, obstacle), *([(aggregate, obstacle)] if sizes else [])]


def _regression(subject: Subject, epochs: int) -> list[tuple[Question, str | None]]:
    def missing(fields: tuple[str, ...]) -> str | None:
        absent = [name for name in fields if name not in subject.param_names]
        return f"the shards have no {', '.join(absent)}" if absent else None

    rotation, hue = missing(ROTATION_COLUMNS), missing(HUE_COLUMNS)
    deep, flat = partial(_mlp, outputs=4), partial(_linear, outputs=2)

    def regress(name: str, task: tasks.Task, views: int, head: Callable[[Tensor], nn.Module], length: int) -> Question:
        return Question(name, task, views, head, F.mse_loss, length, partial(_r2, name))

    return [
        (regress("rel_rot", tasks.rotation_between, 2, deep, epochs), rotation),
        (regress("indiv_rot", tasks.rotation_of_view, 1, deep, epochs), rotation),
        (regress("hue", tasks.hue_between, 2, flat, linear_epochs(epochs)), hue),
    ]


def _linear(example: Tensor, outputs: int) -> nn.Module:
    return nn.Linear(example.shape[-1], outputs)


def _stacked(example: Tensor, outputs: int) -> nn.Module:
    return StackedLinear(example.shape[1], example.shape[-1], outputs)


def _mlp(example: Tensor, outputs: int) -> nn.Module:
    return mlp(example.shape[-1], outputs)


def _top1(logits: Tensor, labels: Tensor) -> Scores:
    return {"top1_z": top1(logits, labels)}


def _top1_by_size(logits: Tensor, labels: Tensor, sizes: Sequence[int]) -> Scores:
    return {f"top1_agg.{m}": top1(logits[:, k], labels) for k, m in enumerate(sizes)}


def _r2(name: str, predicted: Tensor, target: Tensor) -> Scores:
    return {f"r2_{name}_avg": r2_avg(target, predicted), f"r2_{name}_pool": r2_pool(target, predicted)}
