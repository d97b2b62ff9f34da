"""Stored views that are decoded once and kept: every batch is the one that the ring gives."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from loaders import assert_same, stored_loader
from ordered_sets import COMMAND, write_walks

from seqjepa.data import stored
from seqjepa.data.decode_ahead import Reading
from seqjepa.data.stored import lives_there
from shards.errors import DamageError

SETTINGS = {"views": 4, "batch_size": 6, "seed": 5, "action": "rotation", "workers": 2}


def assert_both_ways_give_the_same(index, monkeypatch, **settings) -> None:
    monkeypatch.setattr(stored, "_VIEWS_AT_ONCE", 17)  # several runs, the last of another length
    alone = settings | {"workers": 0}  # whose batches are those of any number (test_loader.py)
    with stored_loader(index, **alone) as ring, stored_loader(index, **settings, resident=True) as kept:
        assert (ring.resident, kept.resident) == (False, True)
        assert len(ring) == len(kept)
        for epoch in range(2):
            for a, b in zip(ring.epoch(epoch), kept.epoch(epoch), strict=True):
                assert_same(a, b)
                assert a.views.stride() == b.views.stride()
        kept.close()
        assert_same(next(ring.epoch(3, 1)), next(kept.epoch(3, 1)))  # read again


@pytest.mark.parametrize("encoding", ["jpeg", "raw"])
def test_batches_are_those_of_the_ring(build_index, monkeypatch, encoding):
    index = build_index(samples=9, views=8, fewest=4, encoding=encoding)  # one sample has repeats
    assert_both_ways_give_the_same(index, monkeypatch, **SETTINGS)
    assert_both_ways_give_the_same(index, monkeypatch, **SETTINGS, rank=1, world_size=2)


def test_windows_across_samples_are_those_of_the_ring(tmp_path, monkeypatch):
    index = write_walks(tmp_path / "walks", {"train": (14, 9, 11, 23)}).split("train")
    windows = {"views": 3, "batch_size": 4, "seed": 1, "workers": 0, "action": COMMAND, "order": "window"}
    assert_both_ways_give_the_same(index, monkeypatch, **windows, stride=2)


def test_a_damaged_view_is_named_though_no_batch_has_it(build_index):
    index = build_index(encoding="jpeg")
    path = index.shard_paths[index.shard[3]]
    data, start = bytearray(path.read_bytes()), int(index.offsets[3, 2])
    data[start : start + 4] = b"none"
    path.write_bytes(data)
    with pytest.raises(DamageError, match=f"view 2 of sample '{index.keys[3]}' cannot be decoded"):
        next(stored_loader(index, **SETTINGS, resident=True).epoch(0))


@pytest.mark.parametrize(("free", "fits"), [(2**30, True), (1000, False)])
def test_views_stay_on_a_gpu_where_they_fit(build_index, monkeypatch, free, fits):
    index = build_index()
    monkeypatch.setattr(stored, "free_bytes", lambda device, world_size: free)
    gpu = SimpleNamespace(type="cuda")
    assert lives_there(index, Reading(gpu), 1) is fits  # type: ignore[arg-type]
    assert lives_there(index, Reading(gpu, resident=False), 1) is False  # type: ignore[arg-type]
    assert lives_there(index, Reading(torch.device("cpu")), 1) is False


@pytest.mark.gpu
def test_on_a_gpu_the_same_batches_come(build_index):
    index = build_index()
    with stored_loader(index, **SETTINGS) as ring, stored_loader(index, **SETTINGS, device="cuda") as kept:
        assert kept.resident
        for a, b in zip(ring.epoch(0), kept.epoch(0), strict=True):
            assert b.views.is_cuda
            assert_same(a, b.to(torch.device("cpu")))
