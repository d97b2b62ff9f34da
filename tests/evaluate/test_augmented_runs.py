from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from small_runs import IMAGE, TINY, augmented_run_of, build_images

import seqjepa
from seqjepa.config import EvalConfig
from seqjepa.data.augment.parameters import constants_for
from seqjepa.data.augment.recipes import RECIPES
from seqjepa.evaluate.encode import SplitFeatures, encode_splits
from seqjepa.evaluate.results import format_table, read_results, results_file
from seqjepa.evaluate.run import evaluate_run
from seqjepa.report.render.html import Page, render_run
from seqjepa.training.checkpoint import load_run
from shards.errors import ConfigError
from shards.reader import ShardSet

QUICK = {"device": "cpu", "probe_epochs": 6, "train_draws": 2, "m_val": (1, 3), "progress": False}
CPU = torch.device("cpu")
R2 = [f"r2_{part}_{kind}" for part in ("crop", "jitter", "blur") for kind in ("avg", "pool")]


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """48 training and 24 test images of 40×40 pixels without maps, split as CIFAR-100."""
    return build_images(tmp_path_factory.mktemp("images") / "shards", {"train": 48, "test": 24}, maps="none")


@pytest.fixture
def augmented_run(tmp_path: Path) -> Path:
    return augmented_run_of(tmp_path / "augmented")


def test_every_number_and_every_choice(augmented_run, images):
    results = evaluate_run(augmented_run, images, **QUICK)
    assert list(results["top1_agg"]) == ["1", "3"]
    for key in ("top1_z_image", "top1_z_view", *R2):
        assert results[key] <= results["best"][key] <= 1
    protocol = results["protocol"]
    assert protocol["skipped"] == {}
    assert protocol["probe_epochs"] == {"classification": 6, "crop": 6, "jitter": 6, "blur": 1}
    assert protocol["train_draws"] == {"z": "new each epoch, of 2 runs", "z_agg": 6, "views_per_draw": 4}
    assert (protocol["splits"], protocol["normalisation"]) == (["train", "test"], "run")
    how = protocol["augmenting"]
    assert (how["recipe"], how["size"], how["conditioned_on"]) == ("equimod", IMAGE, "augmentation")
    assert (how["observation"]["blur"], how["target"]["blur"], how["target"]["solarise"]) == (1.0, 0.1, 0.2)
    assert (how["r2_views"], how["r2_pairs"]) == (2, "an observation view and a target view")
    assert how["scaling"] == constants_for(RECIPES["equimod"], IMAGE, IMAGE).as_json()
    assert json.loads((augmented_run / "results.json").read_text())["trained"] == results


def test_released_runs_say_what_their_targets_are(images, tmp_path):
    run = augmented_run_of(tmp_path / "author", "author")
    how = evaluate_run(run, images, **QUICK)["protocol"]["augmenting"]
    assert (how["r2_views"], how["r2_pairs"]) == (4, "the first two of 4 views")
    assert how["scaling"] == "norm over the views of a draw"
    (term,) = seqjepa.load(run, "cpu").action_spec.spec.terms
    assert (term.normalise, term.mean) == ("norm", ())


def test_numbers_stand_in_the_table_and_on_the_page(augmented_run, images):
    evaluate_run(augmented_run, images, **QUICK)
    evaluate_run(augmented_run, images, untrained=True, **QUICK)
    results = read_results(augmented_run)
    table = format_table(results)
    page = render_run(Page("t", "l", b"", "a sheet", [], results))
    for row in ("top-1, z of one augmented view", "R² crop difference, avg", "R² blur difference, pooled"):
        assert row in table
        assert row in page
    assert "an observation view and a target view (V = 2), z-scores" in table
    for card in ("Top-1 from the whole image", "R² of the crop", "R² of the colour jitter", "R² of the blur"):
        assert f"<dt>{card}" in page


def test_same_seed_same_numbers_and_another_seed_others(augmented_run, images, tmp_path):
    once = {**QUICK, "probe_epochs": 1, "m_val": (1,), "out": tmp_path}
    one, two, other = (evaluate_run(augmented_run, images, seed=s, **once) for s in (0, 0, 1))
    assert {**one, "seconds": 0} == {**two, "seconds": 0}
    assert one["r2_crop_avg"] != other["r2_crop_avg"]


@pytest.mark.parametrize(("action", "condition"), [("crop", "both"), ("blur", "both"), ("augmentation", "none")])
def test_whatever_a_run_is_conditioned_on_all_is_measured(images, tmp_path, action, condition):
    run = augmented_run_of(tmp_path / "run", action=action, model=TINY.model_copy(update={"condition": condition}))
    results = evaluate_run(run, images, **QUICK)
    assert set(R2) <= set(results)
    assert results["protocol"]["skipped"] == {}


def test_the_recipe_is_the_runs(images, tmp_path):
    run = augmented_run_of(tmp_path / "simclr", augment="simclr")
    how = evaluate_run(run, images, **QUICK)["protocol"]["augmenting"]
    assert (how["recipe"], how["observation"]["blur"], how["target"]["saturation"]) == ("simclr", 0.5, 0.4)


def encoded(loaded, shards: Path, **options: object) -> SplitFeatures:
    protocol = EvalConfig(m_val=(1, 3), probe_epochs=6, train_draws=2, **options)  # type: ignore[arg-type]
    return encode_splits(loaded, ShardSet.open(shards), protocol, CPU, progress=False)


@pytest.mark.parametrize("held_out", ["test", "val"])
def test_splits_are_those_that_the_set_has(augmented_run, tmp_path, held_out):
    """CIFAR-100 is scored on test, Tiny ImageNet on val."""
    small = build_images(tmp_path / held_out, {"train": 9, held_out: 6}, maps="none")
    assert encoded(load_run(augmented_run), small).names == ("train", held_out)


def test_validation_views_are_fixed_and_others_than_training_views(augmented_run, images):
    one, two = (encoded(load_run(augmented_run), images, val_draws=2) for _ in range(2))
    assert (one.train.run_length, one.train.runs, one.val.runs) == (4, 2, 2)
    np.testing.assert_array_equal(one.val.params, two.val.params)
    assert (one.train.params[:24, :, 8] != one.val.params[:, :, 8]).mean() > 0.6


def test_full_size_runs_are_evaluated_on_sets_with_maps(augmented_run, saccade_shards):
    """Augmented whole images of STL-10, whose shards also serve saccades."""
    results = evaluate_run(augmented_run, saccade_shards, **QUICK)
    assert set(R2) | {"top1_z_image", "top1_agg", "r2_position_avg", "r2_position_pool"} <= set(results)
    protocol = results["protocol"]
    assert protocol["skipped"] == {}
    assert protocol["probe_epochs"]["position"] == 1
    asked = {"patch": 32, "inhibition": "disc", "fixations": "saliency", "fill": "black", "fidelity": "paper"}
    assert protocol["position_patches"] == {**asked, "train_draws": 2, "views_per_draw": 2}
    assert "fixating" not in protocol
    assert results_file(protocol) == "results.json"


def test_what_does_not_fit_is_refused(augmented_run, images, shards, tmp_path):
    other = build_images(tmp_path / "other", {"train": 6, "val": 3}, size=32, maps="none")
    with pytest.raises(ConfigError, match=r"images of 32×32, the run was trained on 40×40"):
        evaluate_run(augmented_run, other, **QUICK)
    with pytest.raises(ConfigError, match=r"without saliency maps, and --patch probes patches.*leave out --patch"):
        evaluate_run(augmented_run, images, patch=8, **QUICK)
    with pytest.raises(ConfigError, match=r"views of 16×16, the run was trained on 40×40"):
        evaluate_run(augmented_run, shards, **QUICK)
    assert not (augmented_run / "results.json").exists()


@pytest.mark.gpu
def test_a_gpu_finds_what_a_cpu_does(augmented_run, images, tmp_path):
    on_cpu, on_gpu = (
        evaluate_run(augmented_run, images, **{**QUICK, "device": device}, out=tmp_path) for device in ("cpu", "cuda")
    )
    for key in ("r2_crop_avg", "r2_blur_avg"):
        assert on_gpu[key] == pytest.approx(on_cpu[key], abs=0.03)
    assert on_gpu["protocol"]["augmenting"] == on_cpu["protocol"]["augmenting"]
