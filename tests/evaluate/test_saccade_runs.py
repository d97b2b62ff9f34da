from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from small_runs import CLASSES, IMAGE, PATCH, PROJECTED, TINY, build_images, saccade_run_of

from seqjepa.commands.evaluate import parse_sizes
from seqjepa.config import EvalConfig
from seqjepa.data.fixations import Fixating
from seqjepa.evaluate.encode import SplitFeatures, encode_splits
from seqjepa.evaluate.results import read_results, results_file
from seqjepa.evaluate.run import evaluate_run
from seqjepa.training.checkpoint import load_run
from shards.errors import ConfigError, UsageError
from shards.reader import ShardSet
from shards.sample import ViewSample, encode_raw
from shards.schema import ParamField, ViewSpec
from shards.stats import PixelStats
from shards.writer import SetBuilder

QUICK = {"device": "cpu", "probe_epochs": 6, "train_draws": 2, "progress": False}
CPU = torch.device("cpu")


def test_every_number_of_a_saccade_run(saccade_run, saccade_shards):
    results = evaluate_run(saccade_run, saccade_shards, **QUICK)
    assert list(results["top1_agg"]) == [str(m) for m in range(1, 9)]
    assert {name: list(by_m) for name, by_m in results["r2_path"].items()} == {
        name: [str(m) for m in range(1, 8)] for name in ("both", "no_action", "no_vision")
    }
    for key in ("top1_z_image", "top1_z_patch", "r2_position_avg", "r2_position_pool"):
        assert results[key] <= results["best"][key] <= 1
    assert "top1_z" not in results
    protocol = results["protocol"]
    assert protocol["skipped"] == {}
    assert protocol["splits"] == ["train", "test"]
    assert (protocol["train_samples"], protocol["val_samples"], protocol["resolution"]) == (48, 24, IMAGE)
    assert protocol["train_draws"] == {"z": 2, "z_agg": 2, "views_per_draw": 8}
    assert protocol["normalisation"] == "run"
    fixating = {"patch": PATCH, "inhibition": "disc", "fixations": "saliency", "fill": "black", "fidelity": "paper"}
    assert protocol["fixating"] == {**fixating, "transfer": False}
    assert json.loads((saccade_run / "results.json").read_text())["trained"] == results


def test_same_seed_same_numbers_and_another_seed_others(saccade_run, saccade_shards, tmp_path):
    one, two, other = (
        evaluate_run(saccade_run, saccade_shards, seed=s, m_val=(1,), out=tmp_path, **QUICK) for s in (0, 0, 1)
    )
    assert {**one, "seconds": 0} == {**two, "seconds": 0}
    assert one["r2_position_avg"] != other["r2_position_avg"]


def test_no_more_fixations_than_measures_need(saccade_run, saccade_shards):
    results = evaluate_run(saccade_run, saccade_shards, m_val=(1, 3), **QUICK)
    assert results["protocol"]["train_draws"]["views_per_draw"] == 4
    assert list(results["r2_path"]["both"]) == ["1", "3"]
    assert evaluate_run(saccade_run, saccade_shards, m_val=(1,), path=False, **QUICK)["protocol"]["skipped"] == {
        "r2_path": "not asked for"
    }


def test_conv_jepa_is_probed_on_means(saccade_shards, tmp_path):
    run = saccade_run_of(tmp_path / "conv", method="conv_jepa", model=PROJECTED)
    results = evaluate_run(run, saccade_shards, m_val=(1, 4), **QUICK)
    assert list(results["top1_z_mean"]) == ["1", "4"]
    assert list(results["protocol"]["skipped"]) == ["top1_agg"]
    assert "r2_path" not in results


def test_without_actions_there_is_no_path(saccade_shards, tmp_path):
    run = saccade_run_of(tmp_path / "none", model=TINY.model_copy(update={"condition": "none"}))
    results = evaluate_run(run, saccade_shards, m_val=(1, 2), **QUICK)
    assert results["protocol"]["skipped"] == {"r2_path": "the method is given no actions"}
    assert list(results["top1_agg"]) == ["1", "2"]


def test_released_runs_are_evaluated_on_released_patches(saccade_shards, tmp_path):
    results = evaluate_run(saccade_run_of(tmp_path / "a", "author"), saccade_shards, m_val=(1,), **QUICK)
    assert results["protocol"]["fixating"]["fidelity"] == "author"


def protocol_of(**options: object) -> EvalConfig:
    return EvalConfig(m_val=(1, 2), probe_epochs=6, train_draws=1, **options)  # type: ignore[arg-type]


def encoded(run: Path, shards: Path, **options: object) -> SplitFeatures:
    return encode_splits(load_run(run), ShardSet.open(shards), protocol_of(**options), CPU, progress=False)


def test_transfer_to_other_patches_takes_the_sets_own_normalisation(saccade_run, saccade_shards, tmp_path):
    usual, larger = encoded(saccade_run, saccade_shards), encoded(saccade_run, saccade_shards, patch=16)
    assert (usual.normalisation, usual.transfer) == ("run", False)
    assert (larger.normalisation, larger.transfer) == ("shards", True)
    assert larger.views.settings() == asdict(Fixating(patch=16))
    other = build_images(tmp_path / "imagenet", {"train": 6, "val": 3}, size=48, name="imagenet")
    found = encoded(saccade_run, other)
    assert (found.normalisation, found.transfer, found.names) == ("imagenet", True, ("train", "val"))
    assert not torch.equal(found.val.z, encoded(saccade_run, other, normalisation="shards").val.z)


def test_transfer_leaves_the_runs_own_numbers(saccade_run, saccade_shards):
    own = evaluate_run(saccade_run, saccade_shards, m_val=(1,), **QUICK)
    other = evaluate_run(saccade_run, saccade_shards, m_val=(1,), patch=16, **QUICK)
    assert read_results(saccade_run) == {"trained": own}
    file = results_file(other["protocol"])
    assert file == "results-bright-squares-40-patch16.json"
    assert read_results(saccade_run, file) == {"trained": other}


def test_fixations_of_both_splits_differ_and_labels_are_theirs(saccade_run, saccade_shards):
    found = encoded(saccade_run, saccade_shards)
    assert (found.train.params[:24] != found.val.params).mean() > 0.9
    assert found.train.labels.tolist() == [n % 3 for n in range(48)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"val_split": "val"}, r"no split 'val'.*train, test, unlabeled"),
        ({"train_split": "unlabeled"}, r"samples in split 'unlabeled'.*have no label.*labelled splits"),
        ({"val_split": "train"}, r"learn from split 'train' and be scored on it; choose another"),
        ({"train_split": "test"}, r"learn from split 'test'.*there are: train, test, unlabeled"),
        ({"normalisation": "cifar"}, r"'cifar'; allowed are run, shards, encoder, 3diebench, cifar100"),
        ({"patch": 41}, r"patches of 41 pixels do not fit images of 40×40"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(saccade_run, saccade_shards, options, message):
    with pytest.raises(ConfigError, match=message) as error:
        evaluate_run(saccade_run, saccade_shards, **QUICK, **options)
    assert "\n" not in str(error.value)
    assert not (saccade_run / "results.json").exists()


def test_runs_and_shards_of_different_kinds_are_refused(run, saccade_run, shards, saccade_shards):
    with pytest.raises(ConfigError, match="whole images, the run was trained on stored views"):
        evaluate_run(run, saccade_shards, **QUICK)
    with pytest.raises(ConfigError, match=r"views of 16×16, the run was trained on 8×8"):
        evaluate_run(saccade_run, shards, **QUICK)
    with pytest.raises(ConfigError, match="--patch is for"):
        evaluate_run(run, shards, patch=8, **QUICK)


@pytest.mark.parametrize(("text", "sizes"), [("5", [5]), ("1,3,2", [1, 2, 3]), ("1-3, 5", [1, 2, 3, 5])])
def test_sizes_on_the_command_line(text, sizes):
    assert parse_sizes(text) == sizes


@pytest.mark.parametrize("text", ["", "a", "0", "3-1", "1-65", "-2", "1-", "1.5"])
def test_sizes_that_make_no_sense(text):
    with pytest.raises(UsageError, match="--m-val is"):
        parse_sizes(text)


def test_images_without_maps_do_for_uniform_fixations_only(saccade_run, saccade_shards, tmp_path):
    bare = build_images(tmp_path / "bare", {"train": 6, "val": 3}, maps="none")
    with pytest.raises(ConfigError, match=r"images without saliency maps.*drawn from maps"):
        encoded(saccade_run, bare)
    uniform = saccade_run_of(tmp_path / "uniform", fixations="uniform")
    assert encoded(uniform, bare).train.run_length == 3


def test_defaults_on_a_cpu(saccade_run, saccade_shards):
    loaded, stored = load_run(saccade_run), ShardSet.open(saccade_shards)
    found = encode_splits(loaded, stored, EvalConfig(m_val=(1,)), CPU, progress=False)
    assert (found.train.different_draws, found.val.different_draws) == (8, 1)


def test_baked_sequences_are_probed_in_their_order(saccade_run, tmp_path):
    rng = np.random.default_rng(0)
    spec = ViewSpec(6, PATCH, PATCH, "raw", (ParamField("x", "1"), ParamField("y", "1")), sequence=3)
    with SetBuilder(tmp_path / "baked", name="baked", spec=spec, classes=CLASSES, fingerprint={}) as builder:
        for split, count in (("train", 30), ("val", 15)):
            with builder.open_shard(split, 0) as writer:
                for number in range(count):
                    pixels = rng.integers(0, 255, (6, PATCH, PATCH, 3)).astype(np.uint8)
                    params = rng.uniform(0, 1, (6, 2)).astype(np.float32)
                    views = [encode_raw(view) for view in pixels]
                    writer.add(ViewSample(f"s{number}", views, range(6), params, number % 3), PixelStats.of(pixels))
        builder.finish({"command": "test"})
    results = evaluate_run(saccade_run, tmp_path / "baked", m_val=(1, 2, 3), **QUICK)
    assert results["protocol"]["train_draws"] == {"z": 2, "z_agg": 2, "views_per_draw": 3}
    assert list(results["top1_agg"]) == ["1", "2", "3"]
    assert list(results["r2_path"]["both"]) == ["1", "2"]
    assert results["protocol"]["skipped"] == {"r2_path.3": "needs 4 views, a sample has 3"}


@pytest.mark.gpu
def test_a_gpu_finds_what_a_cpu_does(saccade_run, saccade_shards, tmp_path):
    on_cpu, on_gpu = (
        evaluate_run(saccade_run, saccade_shards, **{**QUICK, "device": device}, m_val=(1, 3), out=tmp_path)
        for device in ("cpu", "cuda")
    )
    assert on_gpu["r2_path"]["both"]["1"] == pytest.approx(on_cpu["r2_path"]["both"]["1"], abs=0.02)
    assert on_gpu["r2_position_avg"] == pytest.approx(on_cpu["r2_position_avg"], abs=0.02)
    assert on_gpu["protocol"]["model_sha256"] == on_cpu["protocol"]["model_sha256"]
