"""--val-fraction and --limit: the share that was asked for, of the same classes in each split."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from pipelines.sources.subset import evenly, validation_share
from shards.errors import UsageError


def of_class(sizes: list[int], fraction: float) -> list[int]:
    """How many of each class are validation."""
    items = [(f"c{label:03d}/{i}.png", label) for label, size in enumerate(sizes) for i in range(size)]
    chosen = validation_share([name for name, _ in items], [label for _, label in items], fraction)
    counts = Counter(label for (_, label), validation in zip(items, chosen, strict=True) if validation)
    return [counts[label] for label in range(len(sizes))]


def test_each_class_gives_its_share() -> None:
    assert of_class([10, 20, 5], 0.2) == [2, 4, 1]
    assert of_class([50] * 3, 0.1) == [5, 5, 5]
    assert of_class([100], 0.29) == [29]


@pytest.mark.parametrize(("sizes", "fraction"), [([6] * 8, 0.2), ([14] * 100, 0.1), ([7, 13, 29, 31], 0.37)])
def test_all_together_are_the_share_asked_for(sizes: list[int], fraction: float) -> None:
    found = of_class(sizes, fraction)
    assert sum(found) == int(fraction * sum(sizes) + 0.5)
    assert all(abs(count - fraction * size) < 1 for count, size in zip(found, sizes, strict=True))


def test_every_class_is_in_both_splits() -> None:
    assert of_class([2, 3, 1000], 0.01) == [1, 1, 10]
    assert of_class([2, 2, 1], 0.9) == [1, 1, 0]


def test_order_does_not_matter_and_growth_moves_few() -> None:
    items = [(f"{i}.png", "a" if i % 3 else "b") for i in range(300)]
    shuffled = random.Random(0).sample(items, len(items))

    def chosen(some: list[tuple[str, str]]) -> set[str]:
        kept = validation_share([name for name, _ in some], [label for _, label in some], 0.2)
        return {name for (name, _), keep in zip(some, kept, strict=True) if keep}

    assert chosen(items) == chosen(shuffled)
    before = chosen(items[:270])
    assert len(before) == 54
    assert len(before - chosen(items)) <= 6
    for bad in (0.0, 1.0, -1.0, float("nan")):
        with pytest.raises(UsageError, match="between 0 and 1"):
            validation_share(["a"], [0], bad)


def kept(splits: str, labels: list[int], limit: int | None) -> list[int]:
    return [i for i, keep in enumerate(evenly([None if s == "-" else s for s in splits], labels, limit)) if keep]


def test_a_limit_takes_turns_among_classes() -> None:
    splits, labels = "tttttttttvvvvvv", [0, 0, 0, 1, 1, 1, 2, 2, 2, 0, 0, 1, 1, 2, 2]
    assert kept(splits, labels, 6) == [0, 1, 3, 4, 6, 7, 9, 10, 11, 12, 13, 14]
    assert kept(splits, labels, 4) == [0, 1, 3, 6, 9, 10, 11, 13]
    assert kept(splits, labels, 2) == [0, 3, 9, 11]
    assert kept(splits, labels, None) == list(range(15))


def test_a_class_that_a_split_lacks_comes_last() -> None:
    assert kept("tttvv", [0, 1, 2, 1, 2], 2) == [1, 2, 3, 4]
    assert kept("tttttv", [0, 0, 0, 1, 2, 1], 4) == [0, 1, 3, 4, 5]


def test_unlabelled_items_and_those_that_are_left_out() -> None:
    assert kept("tt-uuu", [0, 1, 0, -1, -1, -1], 2) == [0, 1, 3, 4]
    assert kept("t-", [0, 0], None) == [0]
