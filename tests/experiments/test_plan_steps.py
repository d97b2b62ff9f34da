from __future__ import annotations

import pytest

from seqjepa.experiments.schedule import LENGTHS, plan_steps
from shards.errors import UsageError


def steps_of_a_pass(samples: int, batch: int) -> int:
    """By cutting it up as the trainer does."""
    parts = [range(samples)[start : start + batch] for start in range(0, samples, batch)]
    return len([part for part in parts if len(part) > 1])


@pytest.mark.parametrize("samples", [8, 16, 22, 100, 1023, 1024, 1025, 4000, 41920])
@pytest.mark.parametrize(("steps", "views"), [(1, 256), (1200, 256), (20000, 1024)])
def test_every_length_makes_the_same_steps_in_whole_passes(samples: int, steps: int, views: int) -> None:
    plan = plan_steps(samples, steps, views)
    for T in LENGTHS:
        assert plan.epochs[T] * steps_of_a_pass(samples, plan.batch[T]) == plan.steps
        assert abs(plan.batch[T] * T - plan.views_per_step) <= T, "one sequence more or less"
    assert abs(plan.views_per_step - min(views, samples)) <= 0.1 * views


def test_the_demos_set_is_cut_as_its_recipe_does() -> None:
    plan = plan_steps(1024, 1200, 256)
    assert (plan.steps, plan.views_per_step) == (1200, 256)
    assert plan.batch == {2: 128, 3: 86, 4: 64}
    assert plan.epochs == {2: 150, 3: 100, 4: 75}


def test_steps_are_the_nearest_that_fit() -> None:
    assert [plan_steps(1024, steps, 256).steps for steps in (1, 71, 73, 1210, 1230)] == [48, 48, 96, 1200, 1248]


def test_too_few_samples_are_refused() -> None:
    with pytest.raises(UsageError, match=r"split of 7 samples cannot .* at least 16"):
        plan_steps(7, 1200, 256)
