from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from seqjepa.data.draws import Purpose
from seqjepa.evaluate.features import Features
from shards.schema import ActionSpec

S, N = 40, 6


def bank_of(n_views: np.ndarray, run_length: int = 0) -> Features:
    params = np.arange(S * N, dtype=np.float32).reshape(S, N, 1)
    return Features(torch.zeros(S, N, 2), n_views, params, ("x",), torch.zeros(S), run_length)


def test_views_without_parameters_have_no_actions():
    bank = replace(bank_of(np.full(S, N)), params=np.zeros((S, N, 0), np.float32), param_names=())
    places = np.arange(S * N).reshape(S, N)
    assert bank.params_of(places).shape == (S, N, 0)
    assert bank.actions(places, ActionSpec()).shape == (S, N - 1, 0)


def test_sets_give_distinct_views_that_a_sample_has():
    n_views = np.arange(S) % 3 + 4
    bank = bank_of(n_views)
    assert (bank.most_views, bank.different_draws) == (4, None)
    drawn = np.stack([bank.draw(0, draw, Purpose.PROBE, 4) for draw in range(200)])
    assert (drawn // N == np.arange(S)[:, None]).all(), "of the sample itself"
    drawn %= N
    assert all(len(set(row)) == 4 for row in drawn.reshape(-1, 4))
    for count in (4, 5, 6):
        seen = drawn[:, n_views == count]
        assert set(seen.flat) == set(range(count))
        frequency = np.bincount(seen[..., 0].flat, minlength=count) / seen[..., 0].size
        np.testing.assert_allclose(frequency, 1 / count, atol=0.03)


def test_longer_sequences_extend_shorter_ones_and_purposes_differ():
    bank = bank_of(np.full(S, N))
    long = bank.draw(3, 1, Purpose.PROBE, 6)
    np.testing.assert_array_equal(bank.draw(3, 1, Purpose.PROBE, 2), long[:, :2])
    for other in (bank.draw(3, 1, Purpose.EVALUATION, 6), bank.draw(3, 2, Purpose.PROBE, 6)):
        assert (other != long).any()


def test_runs_are_taken_in_order_and_repeat():
    bank = bank_of(np.full(S, N), run_length=3)
    assert (bank.most_views, bank.different_draws) == (3, 2)
    for draw, slots in enumerate(([0, 1], [3, 4], [0, 1])):
        np.testing.assert_array_equal(bank.draw(0, draw, Purpose.PROBE, 2), np.arange(S)[:, None] * N + slots)


def test_parameters_of_drawn_places():
    bank = bank_of(np.full(S, N))
    places = bank.draw(0, 0, Purpose.PROBE, 3)
    np.testing.assert_array_equal(bank.params_of(places), places[..., None])  # its parameter is a view's place
