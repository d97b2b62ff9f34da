"""Evaluation of runs whose actions are declared: each term is read from z, and ways add up along paths."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from small_backbone import SMALL

from seqjepa.config import EvalConfig
from seqjepa.evaluate.results import keyed_rows, read_results
from seqjepa.evaluate.run import evaluate_run
from seqjepa.evaluate.studies import SUITES, Suite
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
    small = (
        SMALL,
        "data.image_size=0",
        "data.context=2",
        "model.width=0.0625",
        "model.layers=1",
        "model.predictor_hidden=16",
    )
    brief = ("optim.epochs=1", "optim.batch_size=8", "train.online_probes=false")
    config = load_recipe("synth-tiny", ("data.action=shards", *small, *brief))
    train(config, walks, run := tmp_path / "run", device="cpu", workers=0, progress=False)
    found = evaluate_run(run, walks, EvalConfig(probe_epochs=1, m_val=(1, 2), suite="ways", device="cpu"))
    protocol = found["protocol"]
    read = {"r2_rel_term1_avg", "r2_rel_term2_avg", "r2_indiv_term2_avg", "rel_term2_deg", "indiv_term2_deg"}
    assert read | {"rel_term1_rmse", "indiv_term1_rmse", "r2_indiv_term1_pool"} <= set(found)
    assert not {"rel_term1_deg", "rel_term2_rmse"} & set(found)
    assert found["blind"].keys() >= {*read, "top1_z", "top1_agg", "rel_term1_rmse"}
    assert found["blind"]["top1_z"] == 0.5
    said = protocol["targets"]["rel_term1"]
    assert said == {"columns": ["tx", "ty"], "units": ["m", "m"], "op": "difference", "unit": "m"}
    labels = {key: label for key, label, _ in keyed_rows(read_results(run))}
    assert labels["r2_rel_term1_avg"] == "R² tx, ty [m] between views, avg"
    assert labels["rel_term1_rmse"] == "tx, ty [m] between views, root mean square error, m"
    assert labels["indiv_term2_deg"] == "qx, qy, qz, qw of a view, mean error in degrees"
    assert found["r2_path"]["both"].keys() >= {"1", "2"}
    assert "retrieval" not in protocol["skipped"]
    assert found["retrieval"]["queries"] == 24 * 5
    assert (protocol["probe_epochs"], protocol["linear_regressors"]) == ({"classification": 1}, "standardised")


def test_views_without_parameters_have_their_class_and_nothing_of_the_papers(tmp_path: Path) -> None:
    out, rng = tmp_path / "set", np.random.default_rng(0)
    with SetBuilder(
        out, name="photographs", spec=ViewSpec(3, 16, 16, "raw", ()), classes=("a", "b"), fingerprint={}
    ) as builder:
        for split in ("train", "val"):
            with builder.open_shard(split, 0) as shard:
                for number in range(16):
                    pixels = rng.integers(0, 255, (3, 16, 16, 3), dtype=np.uint8)
                    params, views = np.zeros((3, 0), np.float32), [encode_raw(view) for view in pixels]
                    shard.add(ViewSample(f"p{number:02d}", views, range(3), params, number % 2), PixelStats.of(pixels))
        builder.finish({"command": "test"})
    small = (
        SMALL,
        "method=simclr",
        "data.action=none",
        "data.context=1",
        "data.image_size=0",
        "model.width=0.0625",
        "model.projector=[16,16]",
    )
    brief = ("optim.epochs=1", "optim.batch_size=8", "train.online_probes=false")
    train(load_recipe("synth-tiny", (*small, *brief)), out, tmp_path / "run", device="cpu", workers=0, progress=False)
    found = evaluate_run(tmp_path / "run", out, EvalConfig(probe_epochs=1, m_val=(1,), device="cpu"))
    assert found["blind"] == {"top1_z": 0.5}
    assert found["protocol"]["targets"] == {}
    assert not any(name.startswith("r2_") for name in [*found, *found["protocol"]["skipped"]])
