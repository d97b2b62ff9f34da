"""Evaluation of runs whose actions are declared: each term is read from z, and ways add up along paths."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from seqjepa.config import EvalConfig
from seqjepa.data.actions import probe_targets
from seqjepa.evaluate.capabilities import Capabilities
from seqjepa.evaluate.features import Features
from seqjepa.evaluate.probes import Bench, score_tasks
from seqjepa.evaluate.run import evaluate_run
from seqjepa.evaluate.studies import SUITES, Suite
from seqjepa.evaluate.tasks import tasks_for
from seqjepa.paper.metrics import metric_of
from seqjepa.recipes import load_recipe
from seqjepa.training.train import train
from shards.sample import ViewSample, encode_raw
from shards.schema import ActionSpec, ActionTerm, ParamField, ViewSpec
from shards.stats import PixelStats
from shards.writer import SetBuilder

FIELDS = (ParamField("tx", "m"), ParamField("ty", "m"), *(ParamField(name, "1") for name in ("qx", "qy", "qz", "qw")))
NAMES = tuple(field.name for field in FIELDS)
WALK = ActionSpec(
    (
        ActionTerm("difference", ("tx", "ty")),
        ActionTerm("relative_rotation", ("qx", "qy", "qz", "qw"), form="quaternion_xyzw"),
    )
)


def random_params(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Places and unit quaternions, float32 [*shape, 6]."""
    turns = rng.normal(size=(*shape, 4))
    turns /= np.linalg.norm(turns, axis=-1, keepdims=True)
    return np.concatenate([rng.normal(size=(*shape, 2)), turns], axis=-1).astype(np.float32)


@pytest.fixture(scope="module")
def walks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out, rng = tmp_path_factory.mktemp("walks") / "set", np.random.default_rng(0)
    spec = ViewSpec(5, 16, 16, "raw", FIELDS, actions=WALK)
    with SetBuilder(out, name="walks", spec=spec, classes=("a", "b"), fingerprint={}) as builder:
        for split in ("train", "val"):
            with builder.open_shard(split, 0) as shard:
                for number in range(24):
                    pixels = rng.integers(0, 255, (5, 16, 16, 3), dtype=np.uint8)
                    views, params = [encode_raw(view) for view in pixels], random_params(rng, 5)
                    sample = ViewSample(f"w{number:02d}", views, range(5), params, number % 2)
                    shard.add(sample, PixelStats.of(pixels))
        builder.finish({"command": "test"})
    return out


def test_a_run_whose_actions_the_set_declares_is_evaluated(walks: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(SUITES, "ways", Suite(("retrieval",), path=True))
    small = ("data.image_size=0", "data.context=2", "model.width=0.0625", "model.layers=1", "model.predictor_hidden=16")
    brief = ("optim.epochs=1", "optim.batch_size=8", "train.online_probes=false")
    config = load_recipe("synth-tiny", ("data.action=shards", *small, *brief))
    train(config, walks, tmp_path / "run", device="cpu", workers=0, progress=False)
    found = evaluate_run(tmp_path / "run", walks, EvalConfig(probe_epochs=1, m_val=(1, 2), suite="ways", device="cpu"))
    read = {"r2_rel_term1_avg", "r2_rel_term2_avg", "r2_indiv_term2_avg", "rel_term2_deg", "indiv_term2_deg"}
    assert read <= set(found)
    assert "rel_term1_deg" not in found
    assert [metric_of(key).label for key in ("r2_rel_term1_avg", "indiv_term2_deg")] == [
        "R² term 1 of the action, avg", "rotation of term 2, mean error in degrees",
    ]  # fmt: skip
    assert found["r2_path"]["both"].keys() >= {"1", "2"}
    assert "retrieval" not in found["protocol"]["skipped"]
    assert found["retrieval"]["queries"] == 24 * 5
    assert found["protocol"]["probe_epochs"].keys() == {"classification", "rel_term1", "rel_term2", "indiv_term2"}


def features_that_are_params(samples: int, seed: int) -> Features:
    params = random_params(np.random.default_rng(seed), samples, 4)
    z, labels = torch.from_numpy(params), torch.zeros(samples, dtype=torch.int64)
    return Features(z, np.full(samples, 4), params, NAMES, labels)


def test_differences_are_read_whole_from_features_that_hold_places() -> None:
    splits = [features_that_are_params(400, seed) for seed in (0, 1)]
    can = Capabilities(torch.nn.Module(), WALK, 1, NAMES, 4, labelled=False, declared=WALK)  # type: ignore[arg-type]
    assert [target.key for target in can.targets] == ["rel_term1", "rel_term2", "indiv_term2"]
    config = EvalConfig(m_val=(1,), probe_epochs=9000, standardise=True)
    tasks = [task for task in tasks_for(can, config)[0] if task.name == "r2_rel_term1"]
    scores = score_tasks(tasks, Bench(*splits, torch.device("cpu"), 0), progress=False)
    assert scores.last["r2_rel_term1_avg"] > 0.99


def test_a_set_that_declares_a_preset_is_read_as_the_paper_reads_it() -> None:
    rotation = ActionSpec((ActionTerm("relative_rotation", ("rot_x", "rot_y", "rot_z")),))
    names = ("rot_x", "rot_y", "rot_z", "floor_hue", "light_hue")
    assert [target.key for target in probe_targets(rotation, names, None)] == ["rel_rot", "indiv_rot", "hue"]
