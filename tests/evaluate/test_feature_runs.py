"""Runs that were trained on features: the same runs, and the same numbers, as with the frozen encoder on pixels."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from noise_shards import noise_shards
from ordered_sets import write_walks
from safetensors.torch import load_file

import seqjepa
from seqjepa.embedding.feature_sets import encoder_of_config, encoder_of_run, make_features
from seqjepa.evaluate.run import evaluate_run
from seqjepa.methods import METHODS
from seqjepa.recipes import load_recipe
from seqjepa.training.train import train
from shards.errors import ConfigError
from shards.reader import ShardSet

ENCODER = ("model.backbone=resnet18", "model.width=0.125", "model.stem=cifar")
SMALL = ("model.layers=1", "model.heads=2", "model.ff_mult=1", "model.action_dim=8", "model.predictor_hidden=16")
SHORT = ("optim.epochs=2", "optim.batch_size=8", "optim.warmup_epochs=0", "optim.lr=1e-3")
WATCHED = ("model.dropout=0", "seed=5", "train.monitor_epochs=1")
QUICK = {"probe_epochs": 3, "device": "cpu", "m_val": (1, 2, 3), "progress": False, "val_draws": 2}


def features_of(shards: Path, out: Path, dtype: str = "float32") -> Path:
    source = ShardSet.open(shards)
    make_features(source, out, encoder_of_config(load_recipe("", [*ENCODER, "seed=11"]), source), dtype=dtype)
    return out


def trained(shards: Path, out: Path, *settings: str) -> Path:
    config = load_recipe("", [*ENCODER, *SMALL, *SHORT, *WATCHED, *settings])
    train(config, shards, out, device="cpu", workers=0, progress=False)
    return out


def frozen(features: Path) -> list[str]:
    """Settings with which a run on pixels has the encoder of a set of features."""
    return [f"model.pretrained={json.dumps(str(features / '_meta' / 'encoder.safetensors'))}", "model.freeze=true"]


def losses(run: Path) -> list[float]:
    """Of each epoch."""
    return [json.loads(line)["loss"] for line in (run / "metrics.jsonl").read_text().splitlines()]


def numbers(found: object) -> list[float]:
    """All scores of an evaluation, without what was noted about it."""
    if isinstance(found, dict):
        told = ("protocol", "seconds", "costs", "weights")
        return [number for key in sorted(found) if key not in told for number in numbers(found[key])]
    if isinstance(found, list):
        return [number for value in found for number in numbers(value)]
    return [float(found)] if isinstance(found, int | float) else []


@pytest.fixture(scope="module")
def pixels(tmp_path_factory) -> Path:
    return noise_shards(tmp_path_factory.mktemp("pixels") / "set", train=24, val=16)


@pytest.fixture(scope="module")
def features(pixels, tmp_path_factory) -> Path:
    return features_of(pixels, tmp_path_factory.mktemp("features") / "set")


@pytest.fixture(scope="module")
def on_pixels(pixels, features, tmp_path_factory) -> Path:
    return trained(pixels, tmp_path_factory.mktemp("on-pixels") / "run", *frozen(features))


@pytest.fixture(scope="module")
def on_features(features, tmp_path_factory) -> Path:
    return trained(features, tmp_path_factory.mktemp("on-features") / "run")


def test_training_from_features_is_training_with_the_frozen_encoder(on_pixels, on_features, features):
    a, b = (load_file(run / "model.safetensors") for run in (on_pixels, on_features))
    assert a.keys() == b.keys()
    for name, value in a.items():
        torch.testing.assert_close(b[name], value, rtol=1e-3, atol=2e-4, msg=name)
    for name, value in load_file(features / "_meta" / "encoder.safetensors").items():
        assert torch.equal(b[f"encoder.{name}"], value)  # as it was
    assert losses(on_features) == pytest.approx(losses(on_pixels), abs=1e-4)
    watched = [json.loads((run / "metrics.jsonl").read_text().splitlines()[-1]) for run in (on_pixels, on_features)]
    assert watched[1]["z_rankme"] == pytest.approx(watched[0]["z_rankme"], rel=1e-3)  # what a run is watched by, too
    assert watched[1]["agg_knn"] == pytest.approx(watched[0]["agg_knn"], abs=0.07)


def test_windows_too(tmp_path):
    walks = write_walks(tmp_path / "walks", {"train": (14, 9, 11, 23)})
    features = features_of(walks.path, tmp_path / "features")
    how = ("data.action=shards", "data.order=window", "data.stride=2", "optim.batch_size=4")
    a, b = (
        load_file(trained(shards, tmp_path / name, *how, *more) / "model.safetensors")
        for shards, name, more in ((walks.path, "a", frozen(features)), (features, "b", []))
    )
    for name, value in a.items():
        torch.testing.assert_close(b[name], value, rtol=1e-3, atol=2e-4, msg=name)


@pytest.mark.slow
def test_an_interrupted_run_ends_with_the_same_bits(features, on_features, tmp_path, monkeypatch):
    from seqjepa.training.learner import Learner

    with monkeypatch.context() as context:
        original, calls = Learner.update, []

        def fail(self, seq, step, lr, progress):
            calls.append(step)
            if step == 4:
                raise KeyboardInterrupt
            return original(self, seq, step, lr, progress)

        context.setattr(Learner, "update", fail)
        with pytest.raises(KeyboardInterrupt):
            trained(features, tmp_path / "run", "train.checkpoint_minutes=1e-9")
    run = trained(features, tmp_path / "run", "train.checkpoint_minutes=1e-9")
    a, b = (load_file(folder / "model.safetensors") for folder in (run, on_features))
    assert all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.filterwarnings("ignore:.*Spectral initialisation failed")  # umap, of so few views
@pytest.mark.parametrize(
    ("untrained", "suite"), [(False, "probes"), pytest.param(True, "3diebench", marks=pytest.mark.slow)]
)
def test_an_evaluation_from_features_gives_the_numbers_of_one_on_pixels(
    on_features, pixels, features, tmp_path, untrained, suite
):
    found = []
    for name, shards in (("pixels", pixels), ("features", features)):
        (tmp_path / name).mkdir()
        options = QUICK | {"untrained": untrained, "suite": suite, "path": False}
        found.append(evaluate_run(on_features, shards, out=tmp_path / name, **options))
    seen, read = found
    without_pictures = seen.keys() - read.keys()
    assert without_pictures == ({"neighbours"} if suite == "3diebench" else set())
    if without_pictures:
        assert read["protocol"]["skipped"]["neighbours"].startswith("the shards hold features")
        seen["intervals"].pop("neighbours")
    a, b = (numbers({key: result[key] for key in read if key != "umap"}) for result in found)  # umap magnifies rounding
    assert len(a) > 20
    np.testing.assert_allclose(b, a, rtol=1e-4, atol=1e-5)


def test_a_run_that_saw_features_alone_embeds_images(on_features, on_pixels, pixels, features):
    index, vectors = ShardSet.open(pixels).split("val"), ShardSet.open(features).split("val")
    images = np.stack([index.read_view(sample, 1) for sample in range(5)])
    z = seqjepa.load(on_features, device="cpu").embed(images)
    expected = np.stack([vectors.read_view(sample, 1) for sample in range(5)])
    np.testing.assert_allclose(z.numpy(), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(seqjepa.load(on_pixels, device="cpu").embed(images), z)


@pytest.mark.parametrize("method", sorted(METHODS))
def test_every_method_learns_from_features(features, tmp_path, method):
    more = (
        ["data.action=rotation_colour", "context_ssl.width=16", "context_ssl.pairs=4"]
        if method == "context_ssl"
        else []
    )
    needed = METHODS[method].views_needed
    two = [f"data.context={needed - 1}"] if needed else []
    predictor = ["model.predictor_hidden=0"] if method != "seq_jepa" else []
    projector = ["model.projector=[16,16]"] if method not in ("seq_jepa", "context_ssl") else []
    run = trained(features, tmp_path / "run", f"method={method}", "optim.epochs=1", *two, *more, *predictor, *projector)
    weights = load_file(run / "model.safetensors")
    for name, value in load_file(features / "_meta" / "encoder.safetensors").items():
        assert torch.equal(weights[f"encoder.{name}"], value)
    assert not [name for name in weights if name.startswith("target_encoder.")]


def test_the_encoder_of_a_run_makes_features_too(on_pixels, pixels, features, tmp_path):
    source = ShardSet.open(pixels)
    make_features(source, tmp_path / "set", encoder_of_run(on_pixels, source), dtype="float32")
    made = ShardSet.open(tmp_path / "set")
    assert made.info.spec.features.weights_sha256 == ShardSet.open(features).info.spec.features.weights_sha256
    np.testing.assert_array_equal(
        made.split("val").read_view(3, 2), ShardSet.open(features).split("val").read_view(3, 2)
    )


def test_another_encoder_is_refused(on_features, pixels, tmp_path):
    source = ShardSet.open(pixels)
    other = encoder_of_config(load_recipe("", [*ENCODER, "seed=12"]), source)
    make_features(source, tmp_path / "set", other)
    with pytest.raises(ConfigError, match=r"holds features of another encoder \(resnet18\) than"):
        evaluate_run(on_features, tmp_path / "set", out=tmp_path, **QUICK)
    make_features(
        source,
        tmp_path / "imagenet",
        encoder_of_config(load_recipe("", [*ENCODER, "seed=11", "data.normalisation=imagenet"]), source),
    )
    with pytest.raises(ConfigError, match="of pixels normalised with mean"):
        evaluate_run(on_features, tmp_path / "imagenet", out=tmp_path, **QUICK)


def test_features_of_an_encoder_that_was_trained_lack_those_of_its_target(pixels, tmp_path):
    run, source = trained(pixels, tmp_path / "run", "optim.epochs=1"), ShardSet.open(pixels)
    make_features(source, tmp_path / "set", encoder_of_run(run, source))
    with pytest.raises(ConfigError, match="its targets are another encoder's, the moving average"):
        evaluate_run(run, tmp_path / "set", **QUICK)


def test_encoders_of_timm(pixels, tmp_path):
    """Written and read back: a ViT at the views' size, trained from its features, embeds pixels."""
    source = ShardSet.open(pixels)
    settings = ["model.backbone=timm:test_vit2", "model.pool=avg", "seed=1", "data.normalisation=encoder"]
    make_features(source, tmp_path / "set", encoder_of_config(load_recipe("", settings), source), dtype="float32")
    made = ShardSet.open(tmp_path / "set")
    run = trained(tmp_path / "set", tmp_path / "run", "optim.epochs=1")
    z = seqjepa.load(run, device="cpu").embed(source.split("val").read_view(2, 1))
    np.testing.assert_allclose(z.numpy(), made.split("val").read_view(2, 1), rtol=1e-4, atol=1e-5)
    assert 0 <= evaluate_run(run, tmp_path / "set", **QUICK)["top1_z"] <= 1


@pytest.mark.slow
def test_float16_changes_little(pixels, features, on_features, tmp_path):
    half = features_of(pixels, tmp_path / "half", "float16")
    a, b = ShardSet.open(features).split("val"), ShardSet.open(half).split("val")
    np.testing.assert_allclose(b.read_view(1, 2), a.read_view(1, 2), rtol=1e-3, atol=1e-6)
    run = trained(half, tmp_path / "run")
    loss = [
        json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])["loss"] for folder in (run, on_features)
    ]
    assert loss[0] == pytest.approx(loss[1], abs=1e-2)
