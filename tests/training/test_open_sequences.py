"""seqjepa.open_sequences: the trainer's own batches, in any loop, resumed exactly."""

from __future__ import annotations

import itertools

import pytest
import torch
from loaders import assert_same, stored_loader
from ordered_sets import write_walks
from torch.utils.data import DataLoader
from train_helpers import make_saliency_shards, make_shards

import seqjepa
from shards.errors import ConfigError, UsageError
from shards.reader import ShardSet


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return make_shards(tmp_path_factory.mktemp("api") / "set")


def opened(shards, **changes):
    return seqjepa.open_sequences(shards, **({"context": 2, "batch_size": 4, "workers": 0, "seed": 3} | changes))


def test_batches_are_the_trainers(shards):
    data = opened(shards)
    index = ShardSet.open(shards).split("train")
    with stored_loader(index, views=3, batch_size=4, seed=3, action="rotation", workers=0) as loader:
        for epoch in range(2):
            for ours, its in itertools.zip_longest(data, loader.epoch(epoch)):
                assert_same(ours, its)
    assert len(data) == 6


def test_batches_stay_when_the_next_is_read(shards):
    kept = list(opened(shards))
    for kept_batch, batch in zip(kept, opened(shards), strict=True):
        assert_same(kept_batch, batch)
    assert not torch.equal(kept[0].views, kept[1].views)


def test_a_dataloader_with_processes_gives_the_same(shards):
    loader = DataLoader(opened(shards), batch_size=None, num_workers=2, multiprocessing_context="spawn")
    for ours, its in itertools.zip_longest(loader, opened(shards)):
        assert_same(ours, its)


@pytest.mark.parametrize("seen", [0, 2, 6, 9])
def test_resume_is_exact(shards, seen):
    whole = opened(shards)
    everything = [batch for _ in range(3) for batch in whole]
    first = opened(shards)
    endless = itertools.chain.from_iterable(iter(first) for _ in range(3))
    for _ in range(seen):
        next(endless)
    again = opened(shards)
    again.load_state_dict(first.state_dict())
    rest = [batch for _ in range(3 - seen // 6) for batch in again]
    assert len(rest) == 18 - seen
    for ours, its in zip(rest, everything[seen:], strict=True):
        assert_same(ours, its)


def test_an_epoch_can_be_chosen(shards):
    data, later = opened(shards), opened(shards)
    list(data)
    later.set_epoch(1)
    assert_same(next(iter(later)), next(iter(data)))


def test_windows_and_images(tmp_path):
    walks = write_walks(tmp_path / "walks", {"train": (14, 9, 11, 23)}).path
    batch = next(iter(opened(walks, settings=["data.stride=2"])))
    assert batch.views.shape == (4, 3, 3, 16, 16)
    assert (batch.params[:, 1:, 1] - batch.params[:, :-1, 1] == 2).all()
    images = make_saliency_shards(tmp_path / "images")
    batch = next(iter(opened(images, settings=["data.patch=8"])))
    assert (batch.views.shape, batch.actions.shape) == ((4, 3, 3, 8, 8), (4, 2, 2))


@pytest.mark.parametrize("state", [{}, {"epoch": 0, "step": 7}, {"epoch": -1, "step": 0}, {"epoch": 0, "step": "1"}])
def test_a_state_of_something_else_is_refused(shards, state):
    with pytest.raises(UsageError, match="is no state of 6 batches an epoch"):
        opened(shards).load_state_dict(state)


def test_what_is_not_there_is_said(shards):
    with pytest.raises(ConfigError, match="has no split 'test' to train on"):
        opened(shards, split="test")
