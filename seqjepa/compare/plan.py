"""How methods whose sequences differ in length come to the same number of steps, and of views in a step."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from shards.errors import UsageError

LENGTHS = (2, 3, 4)
"""Views in a sequence, of any method."""
COMMON = 3
"""In as many passes over sequences of four views, sequences of two and of three fit whole passes too."""


@dataclass(frozen=True)
class Plan:
    """What every method trains for, exactly: `steps` optimizer steps, `views_per_step` views in each, up to rounding.

    batch, epochs  by the number of views in a sequence: sequences in a batch, passes over the training split
    """

    steps: int
    views_per_step: int
    batch: dict[int, int]
    epochs: dict[int, int]


def plan_steps(samples: int, steps: int, views_per_step: int) -> Plan:
    """The plan nearest to `steps` and `views_per_step` in which every method makes whole passes over `samples`.

    A pass over sequences of T views has T / 4 as many steps as one over sequences of four. UsageError: too few samples.
    """
    length = _steps_in_a_pass(samples, views_per_step)
    rounds = max(1, round(steps / (COMMON * length)))
    total = rounds * COMMON * length
    in_pass = {T: length * T // 4 for T in LENGTHS}
    return Plan(
        steps=total,
        views_per_step=round(4 * samples / length),
        batch={T: ceil(samples / in_pass[T]) for T in LENGTHS},
        epochs={T: total // in_pass[T] for T in LENGTHS},
    )


def _steps_in_a_pass(samples: int, views_per_step: int) -> int:
    """Over sequences of four views: the multiple of 4 that is nearest to the wish and can be had for all lengths."""
    wish = 4 * samples / views_per_step
    for length in sorted(range(4, samples + 1, 4), key=lambda k: abs(k - wish)):
        if all(_batches(samples, ceil(samples / part)) == part for part in (length * T // 4 for T in LENGTHS)):
            return length
    raise UsageError(
        f"a training split of {samples} samples cannot be cut into batches for sequences of "
        f"{', '.join(map(str, LENGTHS))} views alike; use one of at least 16"
    )


def _batches(samples: int, batch: int) -> int:
    """Batches of a pass, as the trainer cuts them: a last one of a single sequence is dropped."""
    whole, rest = divmod(samples, batch)
    return whole + (rest > 1)
