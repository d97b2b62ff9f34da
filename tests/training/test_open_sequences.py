"""seqjepa.open_sequences: the trainer's own batches, in any loop, resumed exactly."""

from __future__ import annotations

import itertools
import json
import os
import pickle
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from loaders import assert_same, stored_loader
from ordered_sets import write_walks
from torch.utils.data import DataLoader, IterableDataset, get_worker_info
from train_helpers import make_saliency_shards, make_shards

import seqjepa
from shards.errors import ConfigError, UsageError
from shards.reader import ShardSet

ROOT = Path(__file__).resolve().parents[2]
FORKS = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # Python 3.12 warns of threads beside them


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


@FORKS
@pytest.mark.parametrize("how", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_a_dataloader_with_a_process_gives_the_same(shards, how):
    """Pickled, as it comes to one that is spawned, which takes seconds."""
    sent = pickle.loads(pickle.dumps(opened(shards)))
    loader = DataLoader(sent, batch_size=None, num_workers=1, multiprocessing_context=how)
    for ours, its in itertools.zip_longest(loader, opened(shards)):
        assert_same(ours, its)


def test_a_dataloader_that_is_told_no_batch_size_gives_the_same(shards):
    for ours, its in itertools.zip_longest(DataLoader(opened(shards)), opened(shards)):
        assert_same(ours, its)
    with pytest.raises(UsageError, match="batch_size=2 collects what are batches already; give it batch_size=None"):
        next(iter(DataLoader(opened(shards), batch_size=2)))


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


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"batch_size": 6}, "optim.batch_size 4 there, 6 here"),
        ({"seed": 4}, "seed 3 there, 4 here"),
        ({"context": 1}, "data.context 2 there, 1 here"),
        ({"shards": "other"}, "shards "),
    ],
)
def test_a_state_of_other_batches_is_refused(shards, tmp_path, changed, said):
    """A batch size that follows the number of GPUs, another seed: samples would come twice, and others never."""
    if "shards" in changed:
        changed = {"shards": make_shards(tmp_path / "other", seed=1)}
    first = opened(shards)
    next(iter(first))
    state = json.loads(json.dumps(first.state_dict()))
    with pytest.raises(UsageError, match=f"the state is of other batches: {said}"):
        opened(**({"shards": shards} | changed)).load_state_dict(state)
    opened(**({"shards": shards} | changed)).load_state_dict({"epoch": 0, "step": 1})  # of before


def test_an_epoch_can_be_chosen(shards):
    data, later = opened(shards), opened(shards)
    list(data)
    later.set_epoch(np.int64(1))
    assert_same(next(iter(later)), next(iter(data)))


def test_windows_and_images(tmp_path):
    walks = write_walks(tmp_path / "walks", {"train": (14, 9, 11, 23)}).path
    batch = next(iter(opened(walks, settings=["data.stride=2"])))
    assert batch.views.shape == (4, 3, 3, 16, 16)
    assert (batch.params[:, 1:, 1] - batch.params[:, :-1, 1] == 2).all()
    images = make_saliency_shards(tmp_path / "images")
    batch = next(iter(opened(images, settings=["data.patch=8"])))
    assert (batch.views.shape, batch.actions.shape) == ((4, 3, 3, 8, 8), (4, 2, 2))


@pytest.mark.parametrize(
    "state", [{}, {"epoch": 0, "step": 7}, {"epoch": -1, "step": 0}, {"epoch": 0, "step": "1"}, [0, 0]]
)
def test_a_state_of_something_else_is_refused(shards, state):
    with pytest.raises(UsageError, match="is no state of 6 batches an epoch"):
        opened(shards).load_state_dict(state)


@pytest.mark.parametrize("split", ["true", "inf"])
def test_a_split_may_be_called_as_a_value_is_written(tmp_path, split):
    data = opened(make_shards(tmp_path / "set", split=split), split=split)
    assert next(iter(data)).views.shape[0] == 4
    assert data.config.data.split == split


def test_what_is_not_there_is_said(shards):
    with pytest.raises(ConfigError, match="has no split 'test' to train on"):
        opened(shards, split="test")
    with pytest.raises(UsageError, match="there is no device 'tpu'"):
        opened(shards, device="tpu")
    with pytest.raises(UsageError, match=r"settings is the text 'data.context=1'; give a list: \['data.context=1'\]"):
        opened(shards, settings="data.context=1")
    for settings in (None, [3]):
        with pytest.raises(UsageError, match=r"settings is .*; give a list of texts as 'data.stride=4'"):
            opened(shards, settings=settings)
    for workers in (1.5, "2"):
        with pytest.raises(UsageError, match=r"workers is .*; a whole number, 0 or more, or None is needed"):
            seqjepa.open_sequences(shards, workers=workers)
    for epoch in (-1, "a", 0.5):
        with pytest.raises(UsageError, match=r"epoch is .*; a whole number, 0 or more, is needed"):
            opened(shards).set_epoch(epoch)


@FORKS
def test_processes_that_are_forked_leave_ours_alone(shards):
    """With decoding processes of its own in the parent: those go on, and the forked ones decode by themselves."""
    data = opened(shards, workers=1)
    plain = iter(data)
    first = next(plain).keys
    copied = DataLoader(data, batch_size=None, num_workers=2, multiprocessing_context="fork")
    data.set_epoch(0)
    of_forks = [batch.keys for batch in copied]
    assert [first, *(batch.keys for batch in plain)] == of_forks
    data.close()


class WithState(IterableDataset):
    """In each process of a DataLoader: keys of its batches, and its state after each."""

    def __init__(self, data, states=None):
        self.data, self.states = data, states

    def __iter__(self):
        if self.states is not None:
            self.data.load_state_dict(self.states[get_worker_info().id])
        for batch in self.data:
            yield get_worker_info().id, batch.keys, self.data.state_dict()


@FORKS
@pytest.mark.parametrize("seen", [1, 4])
def test_each_process_of_a_dataloader_goes_on_from_its_own_state(shards, seen):
    def loader(states=None):
        data = WithState(opened(shards), states)
        return DataLoader(data, batch_size=None, num_workers=2, multiprocessing_context="fork")

    everything = [batch.keys for batch in opened(shards)]
    states = {number: {"epoch": 0, "step": number, "workers": 2} for number in range(2)}
    for (number, keys, state), expected in zip(itertools.islice(loader(), seen), everything, strict=False):
        assert keys == expected
        states[number] = state
    rest = {number: [] for number in range(2)}
    for number, keys, _ in loader(states):
        rest[number].append(keys)
    for number in range(2):
        assert rest[number] == everything[states[number]["step"] :: 2]
    data = opened(shards)
    data.load_state_dict(states[0])
    with pytest.raises(UsageError, match="the state is of one of 2 workers of a DataLoader"):
        next(iter(data))


RANK = """
import sys, torch.distributed as dist
import seqjepa
from torch.utils.data import DataLoader, IterableDataset, get_worker_info
if __name__ == "__main__":
    shards, how = sys.argv[1:]
    data = seqjepa.open_sequences(shards, context=2, batch_size=4, workers=0, seed=3)  # before there is a group
    dist.init_process_group("gloo")
    if how == "alone":
        for batch in data:
            print(0, *batch.keys)
    elif how == "resumed":
        batches = iter(data)
        for _ in range(4):
            print(0, *next(batches).keys)
        again = seqjepa.open_sequences(shards, context=2, batch_size=4, workers=0, seed=3)
        again.load_state_dict(data.state_dict())
        for epoch in range(2):
            for batch in again:
                print(epoch, *batch.keys)
    else:
        for batch in DataLoader(data, batch_size=None, num_workers=2, multiprocessing_context=how):
            print(0, *batch.keys)
    dist.destroy_process_group()
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", ["alone", "resumed", "fork", "spawn"])
def test_two_ranks_share_each_batch(tmp_path, how):
    shards = make_shards(tmp_path / "set", 24)
    (tmp_path / "rank.py").write_text(RANK)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    ranks = []
    for rank in range(2):
        env = {**os.environ, "RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        words = [sys.executable, tmp_path / "rank.py", shards, how]
        ranks.append(subprocess.Popen(words, env=env, cwd=ROOT, stdout=subprocess.PIPE, text=True))
    lines = [process.communicate(timeout=300)[0].splitlines() for process in ranks]
    assert [process.returncode for process in ranks] == [0, 0]
    pieces = [[line.split() for line in of_rank] for of_rank in lines]
    whole = opened(shards)
    expected = [(str(epoch), batch.keys) for epoch in range(1 + (how == "resumed")) for batch in whole]
    assert len(pieces[0]) == len(pieces[1]) == len(expected)
    for (epoch, *first), (_, *second), (its, keys) in zip(*pieces, expected, strict=True):
        assert (epoch, first + second) == (its, keys)
        assert len(first) == len(second) == len(keys) / 2
