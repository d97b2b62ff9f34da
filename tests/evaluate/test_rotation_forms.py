"""Runs that are told rotations in other forms are asked for the paper's: their numbers stand beside each other."""

from __future__ import annotations

import pytest
from small_runs import SIZE, TINY, run_directory

from seqjepa.config import DataConfig, RunConfig
from seqjepa.data.actions import as_spec
from seqjepa.evaluate.run import evaluate_run
from seqjepa.training.run import DataInfo

QUICK = {"device": "cpu", "m_val": (1, 2), "probe_epochs": 2, "progress": False, "path": True, "untrained": True}


@pytest.fixture(scope="module")
def found(shards, tmp_path_factory):
    """Of untrained weights, whose encoder is the same whatever an action's size is."""
    results = {}
    for action in ("rotation", "rotation_canonical", "rotation_6d"):
        data = DataInfo(action, as_spec(action).size, (0.4,) * 3, (0.2,) * 3, SIZE, SIZE)
        config = RunConfig(name="tiny", model=TINY, data=DataConfig(action=action))
        run = run_directory(tmp_path_factory.mktemp(action) / "run", config, data)
        results[action] = evaluate_run(run, shards, **QUICK)
    return results


@pytest.mark.parametrize("action", ["rotation_canonical", "rotation_6d"])
def test_the_same_encoder_has_the_same_numbers(found, action):
    """Standard heads, targets and draws: equal to the bit, all that is read from z alone."""
    paper, other = found["rotation"], found[action]
    keys = [key for key in paper if key.startswith(("r2_rel", "r2_indiv", "r2_hue", "rel_rot", "indiv_rot", "top1_z"))]
    assert len(keys) >= 11
    assert {key: other[key] for key in keys} == {key: paper[key] for key in keys}
    assert "targets" not in other["protocol"]
    assert other["r2_path"].keys() == paper["r2_path"].keys()
    same = ("protocol", "probe_epochs"), ("protocol", "r2"), ("protocol", "train_draws")
    assert all(other[part][key] == paper[part][key] for part, key in same)
