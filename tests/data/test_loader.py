from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from loaders import assert_same, endless, stored_loader

from seqjepa.data.actions import actions_between
from seqjepa.data.loader import Loader
from seqjepa.data.ring import auto_workers
from seqjepa.data.sequence import ViewSequence
from shards.errors import ConfigError

SETTINGS = {"views": 4, "action": "rotation", "batch_size": 6, "seed": 5}


def open_loader(index, **changes) -> Loader:
    return stored_loader(index, **(SETTINGS | {"workers": 1} | changes))


def keep(batch: ViewSequence) -> ViewSequence:
    """A copy that outlives its slot."""
    copies = {f.name: getattr(batch, f.name) for f in dataclasses.fields(batch)}
    return ViewSequence(**{k: v.clone() if isinstance(v, torch.Tensor) else list(v) for k, v in copies.items()})


def epochs_of(loader: Loader, count: int = 1) -> list[ViewSequence]:
    with loader:
        return [keep(batch) for epoch in range(count) for batch in loader.epoch(epoch)]


@pytest.mark.parametrize("encoding", ["jpeg", "raw"])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_batch_holds_what_the_shards_hold(build_index, encoding, workers):
    index = build_index(encoding=encoding)
    positions = {key: row for row, key in enumerate(index.keys)}
    for batch in epochs_of(open_loader(index, workers=workers)):
        assert batch.views.dtype == torch.uint8
        assert batch.views.shape[1:] == (4, 3, 16, 16)
        assert batch.actions.dtype == batch.params.dtype == torch.float32
        assert np.array_equal(batch.actions, actions_between(batch.params.numpy(), index.param_names, "rotation"))
        for i, key in enumerate(batch.keys):
            row = positions[key]
            assert batch.labels[i] == index.labels[row]
            slots = [int(np.flatnonzero((index.params[row] == p).all(1))[0]) for p in batch.params[i].numpy()]
            assert len(set(slots)) == 4
            for view, slot in zip(batch.views[i], slots, strict=True):
                assert np.array_equal(view.permute(1, 2, 0), index.read_view(row, slot))


def test_views_lie_channels_last_in_the_ring(build_index):
    with open_loader(build_index()) as loader:
        views = next(loader.epoch(0)).views
        assert views.permute(0, 1, 3, 4, 2).is_contiguous()
        assert views.flatten(0, 1).is_contiguous(memory_format=torch.channels_last)


def test_an_epoch_holds_every_sample_once_in_an_order_of_its_own(build_index):
    index = build_index()
    first, second = (epochs_of(loader) for loader in (open_loader(index), open_loader(index, seed=6)))
    for batches in (first, second):
        assert [len(b) for b in batches] == [6, 6, 6, 5]
        assert sorted(k for b in batches for k in b.keys) == sorted(index.keys)
    assert [b.keys for b in first] != [b.keys for b in second]
    both = epochs_of(open_loader(index), count=2)
    assert [b.keys for b in both[4:]] != [b.keys for b in both[:4]]
    assert [len(b) for b in epochs_of(open_loader(index, drop_last=True))] == [6, 6, 6]


def test_repeats_of_a_poorer_sample_are_never_drawn(build_index):
    index = build_index(samples=9, views=8, fewest=4)
    assert index.n_views.tolist().count(4) == 1
    poor = index.keys[int(np.argmin(index.n_views))]
    drawn = [b.views[b.keys.index(poor)] for b in epochs_of(open_loader(index), count=8) if poor in b.keys]
    for views in drawn:
        assert len({view.numpy().tobytes() for view in views}) == 4


@pytest.mark.parametrize("workers", [0, 2, 3])
def test_worker_count_changes_nothing(build_index, workers):
    index = build_index()
    expected = epochs_of(open_loader(index), count=2)
    for a, b in zip(epochs_of(open_loader(index, workers=workers), count=2), expected, strict=True):
        assert_same(a, b)


@pytest.mark.parametrize("samples", [24, 23, 21])
def test_two_ranks_together_see_what_one_sees(build_index, samples):
    index = build_index(samples=samples)
    whole = epochs_of(open_loader(index))
    ranks = [epochs_of(open_loader(index, rank=r, world_size=2)) for r in range(2)]
    assert len(ranks[0]) == len(ranks[1]) == len(whole)
    for batch, *pieces in zip(whole, *ranks, strict=True):
        assert len(pieces[0]) == len(pieces[1]) == len(batch) // 2
        even = len(batch) - len(batch) % 2
        assert pieces[0].keys + pieces[1].keys == batch.keys[:even]
        assert torch.equal(torch.cat([p.views for p in pieces]), batch.views[:even])
        assert torch.equal(torch.cat([p.actions for p in pieces]), batch.actions[:even])


@pytest.mark.parametrize("every", [2, pytest.param(1, marks=pytest.mark.slow)])
def test_resuming_at_any_step_with_any_workers_gives_the_same_batches(build_index, every):
    index = build_index(samples=13)
    expected = epochs_of(open_loader(index), count=2)
    for stop in range(0, len(expected) + 1, every):
        first, second = open_loader(index, workers=stop % 3), open_loader(index, workers=(stop + 1) % 3)
        with first:
            seen = [keep(next(batches)) for batches in [endless(first)] for _ in range(stop)]
        with second:
            batches = endless(second, *divmod(stop, len(second)))
            seen += [keep(next(batches)) for _ in range(len(expected) - stop)]
        for a, b in zip(seen, expected, strict=True):
            assert_same(a, b)


def test_jumping_elsewhere_gives_the_batches_of_that_place(build_index):
    index = build_index()
    expected = epochs_of(open_loader(index), count=2)
    with open_loader(index, workers=2) as loader:
        assert_same(next(loader.epoch(1, 2)), expected[6])
        assert_same(next(loader.epoch(0)), expected[0])
        assert_same(next(loader.epoch(0, 3)), expected[3])
        assert_same(next(loader.epoch(1)), expected[4])
        assert list(loader.epoch(0, 4)) == []
        with pytest.raises(ConfigError, match="step is 9; an epoch has 4 steps"):
            next(loader.epoch(0, 9))


def test_closing_keeps_the_last_batch_and_allows_another(build_index):
    loader = open_loader(build_index())
    batch = next(loader.epoch(0))
    before = batch.views.clone()
    loader.close()
    loader.close()
    assert torch.equal(batch.views, before)
    assert len(next(loader.epoch(0, 1))) == 6
    loader.close()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"views": 7}, "sequences of 7 views .* 'object-000' in split 'train' has 6"),
        ({"workers": -1}, "workers is -1"),
        ({"prefetch": 0}, "prefetch is 0"),
        ({"batch_size": 7, "world_size": 2}, "multiple of world_size 2"),
    ],
)
def test_bad_settings_are_refused_at_once(build_index, changes, message):
    with pytest.raises(ConfigError, match=message):
        open_loader(build_index(), **changes)


def test_pinning_without_cuda_is_refused(build_index, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="needs a CUDA device"):
        open_loader(build_index(), device="cuda")


@pytest.mark.gpu
def test_pinned_batches_copy_asynchronously(build_index):
    index = build_index()
    expected = epochs_of(open_loader(index), count=3)
    with open_loader(index, workers=2, device="cuda", resident=False) as loader:
        batches = endless(loader)
        copies = []
        for _ in expected:
            batch = next(batches)
            assert batch.views.is_pinned()
            copies.append(batch.to("cuda", non_blocking=True))
        for copy, batch in zip(copies, expected, strict=True):
            assert torch.equal(copy.views.cpu(), batch.views)


def test_auto_workers_shares_the_cores_between_local_ranks(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    assert (auto_workers(), auto_workers(4), auto_workers(64)) == (16, 4, 1)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert auto_workers(64) == 8
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(128)))
    assert auto_workers() == 16
