"""Ranks of a run on a set in a store that is larger than their cache: one order, one cache, every sample once."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from test_many_ranks import SAMPLES, recorded, seen, sets, started

from seqjepa.recipes import read_config

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "shards"))
from folder_server import serving

__all__ = ["sets", "started"]


@pytest.mark.slow
def test_nodes_share_a_cache_that_is_smaller_than_the_set(sets, tmp_path, started):
    folder = sets(13, SAMPLES)
    size = sum(path.stat().st_size for path in folder.glob("train-*.tar")) * 12 // 13
    there = {"SEQJEPA_CACHE": str(tmp_path / "cache"), "SEQJEPA_CACHE_SIZE": str(size)}
    with serving(folder) as server:
        for name, nodes, ranks, epochs in (("one", 1, 1, 2), ("many", 2, 2, 2)):
            settings = [f"optim.epochs={epochs}", "train.monitor_epochs=1"]
            words = recorded(server.url, tmp_path / name, tmp_path / f"{name}-records", *settings)
            ended = started(nodes, ranks, words, **there).ended(90)
            assert [code for code, _ in ended] == [0] * nodes, ended
        asked = [path for path in server.asked if path.rpartition("/")[2].startswith("train-")]
    one, many = (seen(tmp_path / f"{name}-records") for name in ("one", "many"))
    assert {place: set(keys) for place, keys in one.items()} == {place: set(keys) for place, keys in many.items()}
    windows = {read_config(tmp_path / name / "config.toml").data.shuffle_window for name in ("one", "many")}
    assert len(windows) == 1
    assert 2 <= min(windows) < 12
    for epoch in range(2):
        keys = [key for place, batch in one.items() if place[0] == epoch for key in batch]
        assert len(set(keys)) == len(keys) == SAMPLES
    assert len(asked) < 2 * 2 * 2 * 13  # ranks do not fetch for themselves: twice an epoch of each run at the very most
    last = json.loads((tmp_path / "many" / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["samples"] == SAMPLES
