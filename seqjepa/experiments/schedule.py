"""How long methods train that are compared: as many optimizer steps, with as many views in each, in whole passes.

Letters: T views of a sequence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil, gcd, lcm

from seqjepa.config import RunConfig
from shards.errors import UsageError

LENGTHS = (2, 3, 4)
"""Views in a sequence, of any method."""


@dataclass(frozen=True)
class Schedule:
    """How long every method trains: `steps` optimizer steps with `views_per_step` views in each, up to rounding.

    batch, epochs  by the number of views in a sequence: sequences in a batch, passes over the training split
    """

    steps: int
    views_per_step: int
    batch: dict[int, int]
    epochs: dict[int, int]

    def times(self, length: int) -> Schedule:
        """As many times the steps and passes."""
        epochs = {views: length * passes for views, passes in self.epochs.items()}
        return replace(self, steps=length * self.steps, epochs=epochs)

    def settings(self, plain: RunConfig, warm_up: Schedule | None = None) -> tuple[str, ...]:
        """What it sets in a run that is `plain` but for its length, "a.b=c" each.

        Warm-up keeps its part of training; warm_up: of a shorter one, for a run that is looked at after that.
        """
        views = plain.data.context + 1
        part = plain.optim.warmup_epochs / plain.optim.epochs
        return (
            f"optim.batch_size={self.batch[views]}",
            f"optim.epochs={self.epochs[views]}",
            f"optim.warmup_epochs={part * (warm_up or self).epochs[views]:.6f}",
        )


def plan_steps(samples: int, steps: int, views_per_step: int, lengths: Sequence[int] = LENGTHS) -> Schedule:
    """The schedule nearest to `steps` and `views_per_step` in which every method makes whole passes over `samples`.

    lengths: T of the sequences. A pass over sequences of T views has T / 4 as many steps as one over sequences of four.
    UsageError: too few samples.
    """
    length = _steps_in_a_pass(samples, views_per_step, lengths)
    # So many passes over sequences of four are whole passes over the others: three, where some have three or six.
    passes = lcm(*(T // gcd(T, 4) for T in lengths))
    rounds = max(1, round(steps / (passes * length)))
    total = rounds * passes * length
    in_pass = {T: length * T // 4 for T in lengths}
    return Schedule(
        steps=total,
        views_per_step=round(4 * samples / length),
        batch={T: ceil(samples / in_pass[T]) for T in lengths},
        epochs={T: total // in_pass[T] for T in lengths},
    )


def _steps_in_a_pass(samples: int, views_per_step: int, lengths: Sequence[int]) -> int:
    """Over sequences of four views: what is nearest to what is asked for of all that every length can have."""
    wish, unit = 4 * samples / views_per_step, lcm(*(4 // gcd(T, 4) for T in lengths))
    for length in sorted(range(unit, samples + 1, unit), key=lambda k: abs(k - wish)):
        if all(_batches(samples, ceil(samples / part)) == part for part in (length * T // 4 for T in lengths)):
            return length
    raise UsageError(
        f"a training split of {samples} samples cannot be cut into batches for sequences of "
        f"{', '.join(map(str, lengths))} views alike; use one of at least {4 * max(lengths)}"
    )


def _batches(samples: int, batch: int) -> int:
    """Batches of a pass, as the trainer cuts them: it drops a last batch of a single sequence."""
    whole, rest = divmod(samples, batch)
    return whole + (rest > 1)
