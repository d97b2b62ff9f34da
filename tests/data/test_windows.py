"""Windows of ordered sequences: which steps a batch holds, across chunks and shards, and the actions between them."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from loaders import assert_same, stored_loader
from ordered_sets import COMMAND, PARAMS, torque, write_walks
from scipy import stats

from seqjepa import open_sequences, webdataset
from seqjepa.data.bake import Baking, OfStored, bake
from seqjepa.data.draws import Draw, choose_distinct, draw_u32
from seqjepa.data.sampling import long_enough, part_of, with_windows
from seqjepa.data.stored import StoredViews
from seqjepa.evaluate.encode import in_windows
from seqjepa.experiments.compare import training_samples
from seqjepa.recipes import load_recipe
from shards.errors import ConfigError
from shards.reader import ShardSet
from shards.schema import ActionSpec, ActionTerm

LENGTHS = (14, 9, 11, 23)


@pytest.fixture(scope="module")
def walks(tmp_path_factory):
    return write_walks(tmp_path_factory.mktemp("walks") / "set", {"train": LENGTHS})


def settings(**changes):
    return {"views": 3, "batch_size": 4, "seed": 1, "workers": 0, "action": COMMAND, "order": "window"} | changes


def steps_of(batch) -> tuple[np.ndarray, np.ndarray]:
    """Sequence [B] and step [B, T] of each view, as its pixels tell."""
    pixels = batch.views.numpy()
    walk, step = (pixels[:, :, channel, 0, 0].astype(int) for channel in (0, 1))
    assert (walk == walk[:, :1]).all()
    return (walk[:, 0] - 2) // 8, step // 4


@pytest.mark.parametrize("stride", [1, 3])
def test_a_batch_holds_windows_with_their_actions(walks, stride):
    with stored_loader(walks.split("train"), **settings(stride=stride)) as loader:
        for batch in loader.epoch(0):
            walk, step = steps_of(batch)
            assert (np.diff(step) == stride).all()
            assert batch.params[:, :, 1].numpy() == pytest.approx(10 * walk[:, None] + step)
            for row in range(len(batch)):
                between = [sum(torque(walk[row], s) for s in range(first, first + stride)) for first in step[row, :-1]]
                assert batch.actions[row, :, 0].numpy() == pytest.approx(between, abs=1e-5)
            assert batch.actions[:, :, 1].numpy() == pytest.approx(stride)


def test_every_window_of_a_sequence_is_as_likely(walks):
    index, views = walks.split("train"), StoredViews(COMMAND, order="window", stride=2)
    starts = Counter()
    for epoch in range(400):
        samples, slots = views.places(index, np.arange(len(index)), Draw(3, 0, epoch))
        first = index.view_ids[samples[:, 0], slots[:, 0]]
        starts.update(zip(index.sequences.ids.tolist(), first.tolist(), strict=True))
    for walk, length in enumerate(LENGTHS):
        counts = [starts[walk, first] for first in range(length - 4)]
        assert sum(counts) == 400 * -(-length // 4)  # as often as it has chunks
        assert stats.chisquare(counts).pvalue > 1e-3
    assert len(starts) == sum(length - 4 for length in LENGTHS)


def test_random_order_draws_from_whole_sequences(walks):
    index = walks.split("train")
    with stored_loader(index, **settings(order="random", action="none", views=9)) as loader:
        _, step = steps_of(next(loader.epoch(0)))
    assert all(len(set(row)) == 9 for row in step.tolist())
    assert max(step[row].max() for row in range(4)) >= 8  # beyond the first chunk of 4


def test_workers_ranks_and_resume_change_nothing(walks):
    index = walks.split("train")
    with (
        stored_loader(index, **settings(stride=2)) as alone,
        stored_loader(index, **settings(stride=2, workers=2)) as two,
    ):
        for a, b in zip(alone.epoch(3), two.epoch(3), strict=True):
            assert_same(a, b)
        *_, last = alone.epoch(3)
        assert_same(next(two.epoch(3, len(two) - 1)), last)
    with stored_loader(index, **settings(rank=1, world_size=2)) as second, stored_loader(index, **settings()) as whole:
        assert next(second.epoch(0)).keys == next(whole.epoch(0)).keys[2:]


def test_short_sequences_are_left_out_and_counted(walks, caplog):
    index = walks.split("train")
    with caplog.at_level(logging.WARNING):
        kept = with_windows(index, 12)
    assert "2 of 4 sequences of split 'train' have fewer than 12 consecutive steps" in caplog.text
    assert set(kept.meta["walk"]) == {0, 3}
    assert kept.fingerprint() != index.fingerprint()
    with stored_loader(kept, **settings(views=12, batch_size=2)) as loader:
        assert next(loader.epoch(0)).views.shape[:2] == (2, 12)
    with pytest.raises(ConfigError, match="no sequence of split 'train' has 24 consecutive steps"):
        with_windows(index, 24)
    with pytest.raises(ConfigError, match="has no 12 consecutive steps, as 12 views with stride 1 need"):
        stored_loader(index, **settings(views=12))


def test_sequences_with_too_few_views_are_left_out_in_random_order_too(walks, caplog):
    index = walks.split("train")
    with caplog.at_level(logging.WARNING):
        kept = long_enough(index, "random", 12, 1)
    assert "2 of 4 sequences of split 'train' have fewer than 12 views and are left out" in caplog.text
    assert set(kept.meta["walk"]) == {0, 3}
    assert kept.fingerprint() != index.fingerprint()
    assert long_enough(index, "random", 9, 1) is index
    with pytest.raises(ConfigError, match="no sequence of split 'train' has 24 views; use fewer"):
        long_enough(index, "random", 24, 1)


def test_one_object_with_a_single_picture_keeps_nobody_from_training(tmp_path, caplog):
    """It was refused by training, the webdataset pipeline and bake: the set had to be made anew without it."""
    way = ActionSpec((ActionTerm("difference", ("x",)),))
    found = write_walks(tmp_path / "set", {"train": (4, 1, 3)}, ordered=False, actions=way)
    opened = open_sequences(found.path, context=2, batch_size=2, workers=0)
    assert sorted(key for batch in opened for key in batch.keys) == ["w000-000", "w002-000"]
    bare = write_walks(tmp_path / "bare", {"train": (4, 3)}, ordered=False, actions=None)
    with pytest.raises(ConfigError, match="none follows from its parameters torque, x, yaw; give action='none', or"):
        webdataset(bare.path, "train", context=2)
    piped = webdataset(found.path, "train", context=2, batch_size=0)
    assert sorted(sample["__key__"] for sample in piped) == ["w000-000", "w002-000"]
    bake(found.path, tmp_path / "baked", Baking(2, 3, OfStored(), seed=1))
    assert sorted(ShardSet.open(tmp_path / "baked").split("train").keys) == ["w000-000", "w002-000"]
    assert caplog.text.count("1 of 3 sequences of split 'train' have fewer than 3 views and are left out") >= 3
    assert training_samples(found.path) == 1  # of which a comparison plans its steps: seq-JEPA takes four views


def test_what_has_a_single_view_keeps_nothing_from_being_measured(walks, tmp_path):
    """The fewest views of an object say what can be measured: one with a single picture left nothing between views."""
    config = load_recipe("views-tiny", ["data.order=random", "data.action=none", "model.condition=none"])
    loaded = SimpleNamespace(config=config, action=ActionSpec())
    for lengths, kept in (((4, 1, 2), ["w000-000", "w002-000"]), ((1, 1), ["w000-000", "w001-000"])):
        found = write_walks(tmp_path / str(len(lengths)), {"val": lengths}, ordered=False, actions=None)
        index, stride = in_windows(loaded, found.split("val"))
        assert (index.keys, stride) == (kept, 0)
    assert in_windows(loaded, walks.split("train"))[0].keys == walks.split("train").keys


def test_a_part_keeps_sequences_whole(walks):
    index = walks.split("train")
    half = part_of(index, 0.5, seed=3)
    assert len(set(half.meta["walk"])) == 2
    for walk in set(half.meta["walk"]):
        assert half.meta["walk"].count(walk) == index.meta["walk"].count(walk)


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"order": "random"}, "say nothing of views in random order; set data.order=window"),
        ({"order": "any"}, "order 'any' with stride 1; allowed are random, and window"),
        ({"order": "random", "stride": 2, "action": "none"}, "order 'random' with stride 2"),
    ],
)
def test_what_is_refused(walks, changes, found):
    with pytest.raises(ConfigError, match=found):
        stored_loader(walks.split("train"), **settings(**changes))


def test_views_in_no_order_have_no_windows(walks):
    index = replace(walks.split("train"), ordered=False)
    with pytest.raises(ConfigError, match="in no order, and commands lead from a view to the one recorded next"):
        stored_loader(index, **settings())
    with pytest.raises(ConfigError, match="in no order, and so no windows; set data"):
        stored_loader(index, **settings(action="none"))


def test_choosing_from_many_is_the_same_shuffle():
    numbers = draw_u32(0, 0, 1, np.arange(50), 12)
    many = np.full(50, 1025)
    pool = np.tile(np.arange(1025), (50, 1))
    for t in range(12):  # Fisher–Yates, row by row
        for row in range(50):
            pick = t + (int(numbers[row, t]) * (1025 - t) >> 32)
            pool[row, [t, pick]] = pool[row, [pick, t]]
    assert (choose_distinct(many, numbers) == pool[:, :12]).all()
    few = draw_u32(0, 1, 1, np.arange(50), 12)
    assert (
        choose_distinct(np.full(50, 12), few) == choose_distinct(np.r_[np.full(50, 12), 5000], np.r_[few, few[:1]])[:50]
    ).all()


def test_webdataset_gives_windows_within_a_sample(walks):
    seen = list(webdataset(walks.path, "train", context=2, batch_size=0, shuffle=0))
    assert len(seen) == 14  # of 16 samples; 14 = 4 + 4 + 4 + 2 and 9 = 4 + 4 + 1 end in one that is too short
    for item in seen:
        step = item["views"][:, 1, 0, 0].numpy().astype(int) // 4
        assert (np.diff(step) == 1).all()
        walk = (int(item["views"][0, 0, 0, 0]) - 2) // 8
        assert item["actions"][:, 0].numpy() == pytest.approx([torque(walk, s) for s in step[:-1]], abs=1e-6)
    with pytest.raises(ConfigError, match="no sequence of split 'train' has 5 consecutive steps"):
        webdataset(walks.path, "train", context=4, order="window")


def test_the_set_says_what_it_is(walks):
    assert [field.name for field in PARAMS] == list(walks.split("train").param_names)
    assert walks.info.spec.actions == COMMAND
