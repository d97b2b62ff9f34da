from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from seqjepa.data.draws import Purpose, choose_distinct, draw_u32, permutation, philox4x32, uniform
from shards.errors import ConfigError

# Random123's kat_vectors, philox4x32 10: counter, key, output.
KNOWN_ANSWERS = [
    ([0, 0, 0, 0], (0, 0), [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
    ([0xFFFFFFFF] * 4, (0xFFFFFFFF, 0xFFFFFFFF), [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
    (
        [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
        (0xA4093822, 0x299F31D0),
        [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
    ),
]


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN_ANSWERS)
def test_philox_gives_the_published_answers(counter, key, expected):
    words = philox4x32(np.array(counter, dtype=np.uint64)[:, None], key)
    assert words[:, 0].tolist() == expected


def test_counter_layout_reaches_the_published_answer():
    # seed a4093822/299f31d0 as one 64-bit number; sample, epoch, purpose and block fill the counter's words.
    sample = 0x243F6A88 | 0x85A308D3 << 32
    counter = np.array([[0x243F6A88], [0x85A308D3], [0x13198A2E], [int(Purpose.VIEWS) << 24]], dtype=np.uint64)
    seed = 0xA4093822 | 0x299F31D0 << 32
    expected = philox4x32(counter, (0xA4093822, 0x299F31D0))[:, 0]
    drawn = draw_u32(seed, 0x13198A2E, Purpose.VIEWS, np.array([sample], dtype=np.uint64), 4)
    assert drawn[0].tolist() == expected.tolist()


def test_purposes_are_stable():
    assert {p.name: p.value for p in Purpose} == {
        "SHUFFLE": 1,
        "VIEWS": 2,
        "FIXATIONS": 3,
        "AUGMENT": 4,
        "PROBE": 5,
        "DROPOUT": 6,
        "EVALUATION": 7,
        "SHARDS": 8,
    }


def test_a_draw_depends_only_on_its_own_address():
    whole = draw_u32(7, 3, Purpose.VIEWS, np.arange(100), 9)
    assert np.array_equal(whole[[5, 99, 0]], draw_u32(7, 3, Purpose.VIEWS, [5, 99, 0], 9))
    assert np.array_equal(whole[:, :6], draw_u32(7, 3, Purpose.VIEWS, np.arange(100), 6))


@pytest.mark.parametrize(
    "other", [(8, 3, Purpose.VIEWS), (7, 4, Purpose.VIEWS), (7, 3, Purpose.SHUFFLE), (7 + 2**32, 3, Purpose.VIEWS)]
)
def test_any_part_of_the_address_changes_all_numbers(other):
    ours = draw_u32(7, 3, Purpose.VIEWS, np.arange(1000), 4)
    assert (ours == draw_u32(*other, np.arange(1000), 4)).sum() <= 1


def test_numbers_are_uniform_and_uncorrelated():
    numbers = uniform(1, 0, Purpose.AUGMENT, np.arange(50_000), 8)
    assert stats.kstest(numbers.ravel(), "uniform").pvalue > 1e-4
    correlation = np.corrcoef(numbers.T) - np.eye(8)
    assert np.abs(correlation).max() < 0.02
    assert abs(np.corrcoef(numbers[:-1, 0], numbers[1:, 0])[0, 1]) < 0.02
    bits = (draw_u32(1, 0, Purpose.AUGMENT, np.arange(50_000), 4)[..., None] >> np.arange(32, dtype=np.uint32)) & 1
    assert np.abs(bits.mean(axis=(0, 1)) - 0.5).max() < 0.006


def test_permutation_holds_every_sample_and_is_uniform():
    orders = np.stack([permutation(11, epoch, 4) for epoch in range(6000)])
    assert (np.sort(orders, axis=1) == np.arange(4)).all()
    codes = (orders * [64, 16, 4, 1]).sum(axis=1)
    _, counts = np.unique(codes, return_counts=True)
    assert len(counts) == 24
    assert stats.chisquare(counts).pvalue > 1e-4


def test_choose_distinct_is_uniform_over_ordered_picks():
    numbers = draw_u32(5, 0, Purpose.VIEWS, np.arange(60_000), 2)
    picks = choose_distinct(np.full(60_000, 5), numbers)
    assert (picks[:, 0] != picks[:, 1]).all()
    _, counts = np.unique(picks @ [5, 1], return_counts=True)
    assert len(counts) == 20
    assert stats.chisquare(counts).pvalue > 1e-4


def test_choose_distinct_respects_each_rows_count():
    n_items = np.array([3, 4, 50, 7] * 200)
    picks = choose_distinct(n_items, draw_u32(5, 1, Purpose.VIEWS, np.arange(800), 3))
    assert (picks < n_items[:, None]).all()
    assert all(len(set(row)) == 3 for row in picks.tolist())
    assert {tuple(sorted(row)) for row in picks[n_items == 3].tolist()} == {(0, 1, 2)}


def test_out_of_range_seed_and_epoch_are_refused():
    with pytest.raises(ConfigError, match="seed is -1"):
        draw_u32(-1, 0, Purpose.VIEWS, [0], 1)
    with pytest.raises(ConfigError, match="epoch is 4294967296"):
        draw_u32(0, 2**32, Purpose.VIEWS, [0], 1)
