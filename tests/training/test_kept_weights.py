"""Weights that are kept on the way (train.keep_epochs): those of that step, whatever happens to the run."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from bucket_server import Bucket
from train_helpers import Killed, assert_same_end, killed_at, make_shards, tiny_config, train_killed_at

from seqjepa.files import read_checksums
from seqjepa.training.checkpoint import load_run, read_weights
from seqjepa.training.learner import Learner
from seqjepa.training.run_files import kept_epochs, kept_weights
from seqjepa.training.run_store import pulled_run
from seqjepa.training.train import train
from shards.errors import ConfigError
from shards.machine.files import sha256_of_file

KEPT = "train.keep_epochs=[3,1,9]"
OFTEN = "train.checkpoint_minutes=1e-9"
STEPS = 2
"""Of an epoch."""


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Path:
    return make_shards(tmp_path_factory.mktemp("set") / "set", objects=16)


@pytest.fixture(scope="module")
def kept(tmp_path_factory, shards) -> Path:
    """Three epochs, of which the first and the last were kept."""
    out = tmp_path_factory.mktemp("kept") / "run"
    train(tiny_config(KEPT), shards, out, workers=0, progress=False)
    return out


def test_the_weights_are_those_after_that_epoch_and_nothing_else_changes(shards, kept, tmp_path, monkeypatch):
    after: dict[int, dict[str, torch.Tensor]] = {}
    update = Learner.update

    def watched(self: Learner, seq, at: int, *rest: float):
        output = update(self, seq, at, *rest)
        after[at + 1] = {name: value.clone() for name, value in self.method.state_dict().items()}
        return output

    monkeypatch.setattr(Learner, "update", watched)
    train(tiny_config(), shards, tmp_path / "plain", workers=0, progress=False)
    assert_same_end(kept, tmp_path / "plain")
    assert kept_epochs(tmp_path / "plain") == []
    assert kept_epochs(kept) == [1, 3]
    assert set(after) == {1, 2, 3, 4, 5, 6}
    for epoch in (1, 3):
        tensors, epochs = read_weights(kept / kept_weights(epoch))
        assert epochs == epoch
        assert tensors.keys() == after[STEPS * epoch].keys()
        assert all(torch.equal(tensors[name], value) for name, value in after[STEPS * epoch].items())
        assert read_checksums(kept)[kept_weights(epoch)] == (sha256_of_file(kept / kept_weights(epoch)),)
    assert load_run(kept, epoch=1).epochs == 1
    assert not any("state" in path.name and "model" in path.name for path in kept.iterdir())


@pytest.mark.parametrize("step", [1, pytest.param(2, marks=pytest.mark.slow), 3])
def test_a_killed_run_keeps_the_same(shards, kept, tmp_path, monkeypatch, step):
    train_killed_at(step, tiny_config(KEPT, OFTEN), shards, tmp_path / "run", monkeypatch)
    assert_same_end(tmp_path / "run", kept)
    for epoch in (1, 3):
        assert (tmp_path / "run" / kept_weights(epoch)).read_bytes() == (kept / kept_weights(epoch)).read_bytes()


def test_a_run_of_before_goes_on_and_keeps_what_is_asked_for_now(shards, kept, tmp_path, monkeypatch, caplog):
    killed_at(monkeypatch, 3)
    with pytest.raises(Killed):
        train(tiny_config(OFTEN), shards, tmp_path, workers=0, progress=False)
    config = tmp_path / "config.toml"
    lines = config.read_text().splitlines(keepends=True)
    config.write_text("".join(line for line in lines if "keep_epochs" not in line))
    caplog.clear()
    train(tiny_config(KEPT, OFTEN), shards, tmp_path, workers=0, progress=False)
    line = "train.keep_epochs: no weights will be kept after epoch 1, 9: the run has done 1 of its 3 epochs"
    assert [said for said in caplog.messages if "keep_epochs" in said] == [line]
    assert kept_epochs(tmp_path) == [3]
    assert_same_end(tmp_path, kept)


def test_overwrite_removes_them_and_no_other_file(shards, tmp_path):
    train(tiny_config("train.keep_epochs=[1]"), shards, tmp_path, workers=0, progress=False)
    (tmp_path / "model-epoch-mine.safetensors").write_text("mine")
    train(tiny_config("seed=3"), shards, tmp_path, workers=0, progress=False, overwrite=True)
    assert kept_epochs(tmp_path) == []
    assert (tmp_path / "model-epoch-mine.safetensors").exists()
    assert "model-epoch-000001.safetensors" not in read_checksums(tmp_path)


@pytest.mark.parametrize("epochs", ["[0]", str(list(range(1, 102))), "3"])
def test_the_disk_that_they_take_is_bounded(epochs):
    with pytest.raises(ConfigError, match=r"train\.keep_epochs"):
        tiny_config(f"train.keep_epochs={epochs}")


def test_in_a_store_they_are_there_before_the_state_that_follows(shards, kept, bucket, machine, monkeypatch):
    """Another machine goes on after the epoch: what it does not do again has to be there."""
    address, config, put, sent = f"{bucket.address}/runs/one", tiny_config(KEPT, OFTEN), Bucket.put, []

    def listed(self, key, *rest):
        sent.append(key.rpartition("/")[2])
        return put(self, key, *rest)

    monkeypatch.setattr(Bucket, "put", listed)
    killed_at(monkeypatch, STEPS)
    with pytest.raises(Killed):
        train(config, shards, Path(address), workers=0, progress=False)
    states = [place for place, name in enumerate(sent) if name == "state.pt"]
    assert states[0] < sent.index(kept_weights(1)) < states[1]
    machine("second")
    train(config, shards, Path(address), workers=0, progress=False)
    machine("third")
    assert kept_epochs(pulled_run(address)) == []  # whoever reads the last weights needs no others
    there = pulled_run(address, kept=True)
    assert kept_epochs(there) == [1, 3]
    for epoch in (1, 3):
        assert (there / kept_weights(epoch)).read_bytes() == (kept / kept_weights(epoch)).read_bytes()
