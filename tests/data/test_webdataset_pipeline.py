"""seqjepa.webdataset gives what the trainer's loader gives, in another order."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from loaders import stored_loader
from torch.utils.data import DataLoader

import seqjepa
from shards.errors import ConfigError, DamageError, FormatError
from shards.reader import SplitIndex

SAMPLES = 23  # in three shards of eight


def folder_of(index: SplitIndex) -> Path:
    return index.shard_paths[0].parent


def by_key(items: Any) -> dict[str, dict[str, torch.Tensor]]:
    """Items or batches of a pipeline → one sequence a key; a key that comes twice is an error."""
    found: dict[str, dict[str, torch.Tensor]] = {}
    for item in items:
        keys = [item["keys"]] if isinstance(item["keys"], str) else item["keys"]
        for i, key in enumerate(keys):
            assert key not in found
            names = ("views", "actions", "params", "labels")
            found[key] = {name: item[name] if isinstance(item["keys"], str) else item[name][i] for name in names}
    return found


def loaded(index: SplitIndex, epoch: int, **settings: Any) -> dict[str, dict[str, torch.Tensor]]:
    """The same of the trainer's loader."""
    with stored_loader(
        index, **({"views": 4, "action": "rotation", "batch_size": 7, "workers": 0} | settings)
    ) as loader:
        return by_key(
            {"views": b.views.clone(), "actions": b.actions, "params": b.params, "labels": b.labels, "keys": b.keys}
            for b in loader.epoch(epoch)
        )


def assert_same(a: dict[str, dict[str, torch.Tensor]], b: dict[str, dict[str, torch.Tensor]]) -> None:
    assert set(a) == set(b)
    for key, sequence in a.items():
        for name, value in sequence.items():
            assert value.dtype == b[key][name].dtype, name
            assert torch.equal(value, b[key][name]), (key, name)


@pytest.mark.parametrize("encoding", ["jpeg", "raw"])
@pytest.mark.parametrize("batch_size", [0, 5])
def test_views_params_and_actions_are_the_loaders(build_index, encoding, batch_size):
    index = build_index(encoding=encoding, fewest=4)
    for epoch in (0, 3):
        found = by_key(seqjepa.webdataset(folder_of(index), seed=5, epoch=epoch, batch_size=batch_size))
        assert len(found) == SAMPLES
        assert_same(found, loaded(index, epoch, seed=5))


def test_shapes_and_dtypes(build_index):
    folder = folder_of(build_index())
    item = next(iter(seqjepa.webdataset(folder, context=2)))
    assert item["views"].shape == (3, 3, 16, 16)
    assert item["views"].dtype == torch.uint8
    assert item["actions"].shape == (2, 4)
    assert item["params"].shape == (3, 7)
    assert item["labels"].shape == ()
    batches = list(seqjepa.webdataset(folder, context=2, action="rotation_colour", batch_size=5))
    assert [len(batch["keys"]) for batch in batches] == [5, 5, 5, 5, 3]
    assert batches[0]["views"].shape == (5, 3, 3, 16, 16)
    assert batches[0]["actions"].shape == (5, 2, 6)
    assert batches[0]["labels"].dtype == torch.int64
    assert len(list(seqjepa.webdataset(folder, context=2, batch_size=5, drop_last=True))) == 4


def test_order_and_draws_follow_from_seed_and_epoch(build_index):
    index = build_index()

    def keys(**settings: Any) -> list[str]:
        return [item["keys"] for item in seqjepa.webdataset(folder_of(index), **settings)]

    assert keys(shuffle=0) == index.keys
    pipeline = seqjepa.webdataset(folder_of(index), seed=1, epoch=2)
    first, second = list(pipeline), list(pipeline)
    assert [item["keys"] for item in first] == [item["keys"] for item in second] == keys(seed=1, epoch=2)
    assert_same(by_key(first), by_key(second))
    assert len({tuple(keys(seed=s, epoch=e)) for s in (0, 1) for e in (0, 1)}) == 4
    assert len({tuple(keys(shuffle=4, epoch=e)) for e in range(3)}) == 3


def test_workers_and_ranks_share_the_shards(build_index, monkeypatch):
    index = build_index()
    pipeline = seqjepa.webdataset(folder_of(index), seed=5, batch_size=4)
    workers = DataLoader(pipeline, batch_size=None, num_workers=2, multiprocessing_context="fork")
    assert_same(by_key(workers), loaded(index, 0, seed=5))
    assert_same(by_key(pickle.loads(pickle.dumps(pipeline))), loaded(index, 0, seed=5))  # as spawned workers get it
    monkeypatch.setenv("WORLD_SIZE", "2")
    ranks = []
    for rank in "01":
        monkeypatch.setenv("RANK", rank)
        ranks.append(by_key(pipeline))
    assert {len(rank) for rank in ranks} < {7, 8, 15, 16}
    assert_same(ranks[0] | ranks[1], loaded(index, 0, seed=5))


def test_no_rank_is_left_without_a_shard(build_index, monkeypatch):
    """It would end at once, and the others wait for it."""
    pipeline = seqjepa.webdataset(folder_of(build_index()))
    monkeypatch.setenv("WORLD_SIZE", "4")
    for rank in "03":
        monkeypatch.setenv("RANK", rank)
        with pytest.raises(ConfigError, match="the split has 3 shards for 4 ranks"):
            next(iter(pipeline))


def test_what_does_not_fit_is_one_line(build_index, build_image_set, tmp_path):
    index = build_index(fewest=3)
    folder = folder_of(index)
    for settings, words in (
        ({"split": "val"}, "has no split 'val', there are: train"),
        ({"context": 0}, "context is 0; allowed is a whole number from 1 on"),
        ({"stride": 0}, "stride is 0; allowed is a whole number from 1 on"),
        ({"epoch": 1.5}, r"epoch is 1\.5; allowed is a whole number from 0 on"),
        ({"epoch": None}, "epoch is None; allowed is a whole number from 0 on"),
        ({"batch_size": -1}, "batch_size is -1"),
        ({"shuffle": 2.5}, "shuffle is 2.5"),
        ({"seed": -1, "context": 2}, "seed is -1"),
        ({"epoch": 2**32, "context": 2}, "epoch is 4294967296"),
        ({"context": 30}, "no sequence of split 'train' has 31 views; use fewer"),
        ({"action": "spin", "context": 2}, "there is no action 'spin'"),
        ({"action": "position", "context": 2}, "no parameter x, y"),
        ({"action": "crop", "context": 2}, "seqjepa-data bake"),
    ):
        with pytest.raises(ConfigError, match=words):
            seqjepa.webdataset(folder, **settings)
    with pytest.raises(ConfigError, match="holds saliency shards, this needs views shards"):
        seqjepa.webdataset(build_image_set().path)
    with pytest.raises(FormatError, match="is not a folder"):
        seqjepa.webdataset(tmp_path / "nothing")


def test_damage_is_named(build_index):
    index = build_index(encoding="jpeg")
    path, start = index.shard_paths[0], int(index.offsets[2, 0])
    whole = path.read_bytes()
    pipeline = seqjepa.webdataset(folder_of(index), context=5)  # all six views
    path.write_bytes(whole[:start] + bytes(int(index.lengths[2, 0])) + whole[start + int(index.lengths[2, 0]) :])
    with pytest.raises(DamageError, match=r"train-000000.tar: object-002.00.jpg cannot be decoded"):
        list(pipeline)
    path.write_bytes(whole.replace(b"object-003", b"object-9z3"))  # its header's checksum does not fit any more
    with pytest.raises(DamageError, match=r"train-000000.tar ends after 3 of its 8 samples"):
        list(pipeline)
    path.write_bytes(index.shard_paths[1].read_bytes())
    with pytest.raises(DamageError, match=r"train-000000.tar holds a sample 'object-008' that its index does not name"):
        list(pipeline)
    path.write_bytes(bytes([255]) * len(whole))
    with pytest.raises(DamageError, match=r"train-000000.tar cannot be read"):
        list(pipeline)


def test_importing_seqjepa_is_cheap():
    code = (
        "import sys, time; began = time.perf_counter(); import seqjepa; took = time.perf_counter() - began; "
        "assert 'webdataset' in dir(seqjepa); heavy = {'torch', 'webdataset', 'numpy', 'pydantic'} & set(sys.modules); "
        "print(took, *heavy)"
    )
    runs = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True) for _ in range(2)]
    assert [run.stdout.split()[1:] for run in runs] == [[], []]
    assert min(float(run.stdout.split()[0]) for run in runs) < 0.3
    with pytest.raises(AttributeError, match="it offers: load, open_sequences, webdataset"):
        seqjepa.webdatasets  # noqa: B018
