from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy import stats

from seqjepa.data.sampling import Sampling, piece, steps_per_epoch
from seqjepa.data.stored import Planner, StoredViews
from shards.errors import ConfigError
from shards.reading.sequences import Sequences


def sampling(**changes) -> Sampling:
    return Sampling(**({"views": 3, "batch_size": 6, "seed": 1} | changes))


def planner(index, action: str = "rotation", **changes) -> Planner:
    return Planner(index, StoredViews(action), sampling(**changes))


def fake_index(samples: int, views: int, n_views: np.ndarray | None = None, sequence: int = 0) -> Any:
    rng = np.random.default_rng(0)
    n = np.full(samples, views, np.int32) if n_views is None else n_views
    ids = np.where(np.arange(views) < n[:, None], np.arange(views), -1)
    return SimpleNamespace(
        sequences=Sequences(n, np.zeros(samples, np.int32), ids),
        ordered=False,
        name="train",
        keys=[f"k{i}" for i in range(samples)],
        shard=np.arange(samples, dtype=np.int32) // 10,
        labels=np.arange(samples),
        n_views=n,
        offsets=rng.integers(0, 1 << 40, (samples, views)),
        lengths=rng.integers(1, 1 << 20, (samples, views)).astype(np.int32),
        params=rng.normal(size=(samples, views, 3)).astype(np.float32),
        param_names=("rot_x", "rot_y", "rot_z"),
        sequence=sequence,
    )


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("samples", [6, 7, 11, 12, 23])
def test_pieces_are_equal_contiguous_and_leave_out_less_than_the_ranks(samples, drop_last, world_size):
    ranks = [sampling(drop_last=drop_last, rank=r, world_size=world_size) for r in range(world_size)]
    steps = {steps_per_epoch(samples, s) for s in ranks}
    assert len(steps) == 1
    covered = []
    for step in range(steps.pop()):
        pieces = [piece(samples, s, step) for s in ranks]
        assert len({stop - start for start, stop in pieces}) == 1
        assert all(a[1] == b[0] for a, b in itertools.pairwise(pieces))
        covered += [i for start, stop in pieces for i in range(start, stop)]
    assert covered == list(range(len(covered)))
    left_out = samples % 6 if drop_last else (samples % 6) % world_size
    assert samples - len(covered) == left_out


def test_a_batch_spanning_blocks_is_the_same_as_one_planned_alone(monkeypatch):
    index = fake_index(100, 9)
    whole = planner(index)
    monkeypatch.setattr("seqjepa.data.stored._BLOCK_SAMPLES", 13)
    blocks = planner(index)
    for step in range(whole.order.steps):
        a, b = whole.batch(4, step), blocks.batch(4, step)
        for name in ("rows", "slots", "table", "actions", "params"):
            assert np.array_equal(getattr(a, name), getattr(b, name))
        assert len(a.table) == 3 * len(a.rows)


def test_the_table_points_at_the_chosen_views():
    index = fake_index(40, 9)
    plan = planner(index).batch(2, 3)
    for sample, views, rows in zip(plan.rows, plan.slots, plan.table.reshape(-1, 3), strict=True):
        assert rows["offset"].tolist() == index.offsets[sample, views].tolist()
        assert rows["length"].tolist() == index.lengths[sample, views].tolist()
        assert set(rows["shard"]) == {sample // 10}


def test_every_pair_of_first_and_last_view_is_equally_likely_over_epochs():
    plans = planner(fake_index(200, 5), batch_size=200)
    views = np.concatenate([plans.batch(epoch, 0).slots for epoch in range(100)])
    _, counts = np.unique(views[:, 0] * 5 + views[:, 2], return_counts=True)
    assert len(counts) == 20
    assert stats.chisquare(counts).pvalue > 1e-4


def test_without_shuffling_samples_come_in_stored_order():
    plans = planner(fake_index(20, 5), shuffle=False)
    assert np.concatenate([plans.batch(7, s).rows for s in range(plans.order.steps)]).tolist() == list(range(20))


@pytest.mark.parametrize("views", [2, 3])
def test_of_stored_sequences_each_epoch_takes_the_next_in_order(views):
    index = fake_index(20, 9, sequence=3)
    plans = planner(index, views=views)
    for epoch, run in enumerate([0, 1, 2, 0]):
        for step in range(plans.order.steps):
            plan = plans.batch(epoch, step)
            assert (plan.slots == 3 * run + np.arange(views)).all()
            assert np.array_equal(plan.params, index.params[plan.rows, 3 * run : 3 * run + views])


def test_sequences_longer_than_the_stored_ones_are_refused():
    with pytest.raises(ConfigError, match=r"sequences of 4 views were asked for, but split 'train' holds seq.* of 3;"):
        planner(fake_index(20, 9, sequence=3), views=4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"views": 6}, "sequences of 6 views .* 'k0' in split 'train' has 5"),
        ({"views": 0}, "views is 0"),
        ({"action": "jump"}, "there is no action 'jump'"),
        ({"action": "rotation_colour"}, "no parameter floor_hue, light_hue"),
        ({"seed": -1}, "seed is -1"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"world_size": 4, "rank": 4}, "rank is 4"),
        ({"world_size": 4}, "batch_size is 6.*world_size 4"),
        ({"batch_size": 50, "world_size": 25}, "20 samples: not one batch of 50 over 25 ranks"),
        ({"batch_size": 50, "drop_last": True}, "not one batch of 50"),
    ],
)
def test_impossible_settings_say_why(changes, message):
    with pytest.raises(ConfigError, match=message):
        planner(fake_index(20, 5), **changes)


def test_an_empty_split_is_refused():
    with pytest.raises(ConfigError, match="split 'train' holds no samples"):
        planner(fake_index(0, 5))
