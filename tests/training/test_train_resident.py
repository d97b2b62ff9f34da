"""Training from views that are kept decoded: the same run to the bit."""

from __future__ import annotations

import pytest
from train_helpers import Killed, assert_same_end, killed_at, make_shards, tiny_config

from seqjepa.training.train import train


def test_a_run_may_change_its_mind(tmp_path, monkeypatch):
    """One that is killed and goes on the other way ends as one that never changed."""
    shards = make_shards(tmp_path / "set")
    ring, kept = (tiny_config(f"train.resident={word}") for word in ("no", "yes"))
    train(ring, shards, tmp_path / "whole", workers=0, progress=False)
    killed_at(monkeypatch, 2)
    with pytest.raises(Killed):
        train(ring, shards, tmp_path / "run", workers=0, progress=False)
    train(kept, shards, tmp_path / "run", workers=0, progress=False)
    assert_same_end(tmp_path / "run", tmp_path / "whole")
