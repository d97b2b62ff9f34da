"""Training on ordered sequences: windows with commands, chosen by default; what does not fit is refused at once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from ordered_sets import write_walks
from typer.testing import CliRunner

import cli
from seqjepa.recipes import read_config
from seqjepa.training.checkpoint import load_run
from shards.pixels import encode_raw
from shards.sample import ViewSample
from shards.schema import ViewSpec
from shards.stats import PixelStats
from shards.writer import SetBuilder

TINY = ["--device", "cpu", "--workers", "0", "--epochs", "2", "--set", "model.width=0.0625"]
TINY += ["--set", "optim.warmup_epochs=0", "--set", "optim.batch_size=8"]


def seqjepa(*words: object):
    return CliRunner().invoke(cli.seqjepa_app, [str(word) for word in words])


@pytest.fixture(scope="module")
def walks(tmp_path_factory) -> Path:
    return write_walks(tmp_path_factory.mktemp("walks") / "set", {"train": (14, 9, 11, 23), "val": (9, 12)}).path


def test_windows_are_chosen_and_learned_from(walks, tmp_path):
    done = seqjepa("train", "--shards", walks, "--out", tmp_path / "run", *TINY, "--set", "data.stride=2")
    assert done.exit_code == 0, done.output
    assert "recipe views-tiny, with data.order=window, model.stem=cifar" in done.stderr
    data = read_config(tmp_path / "run" / "config.toml").data
    assert (data.order, data.stride, data.context) == ("window", 2, 3)
    loaded = load_run(tmp_path / "run", torch.device("cpu"))
    assert [term.op for term in loaded.action.terms] == ["command", "difference"]


def test_sequences_that_are_too_short_are_left_out_and_said_to_be(walks, tmp_path, caplog):
    done = seqjepa("train", "--shards", walks, "--out", tmp_path / "run", *TINY, "--set", "data.stride=4")
    assert done.exit_code == 0, done.output
    assert "2 of 4 sequences of split 'train' have fewer than 13 consecutive steps" in caplog.text


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        (
            ["data.order=random"],
            "commands, which lead from a view to the one recorded next and say nothing of views in",
        ),
        (["data.stride=9"], "no sequence of split 'train' has 28 consecutive steps; use fewer views (data.context), a"),
        (["data.order=random", "data.stride=2"], "data.stride = 2 needs data.order = 'window'"),
        (["data.patch=8", "data.action=position"], "data.order = 'window' is for stored views, not for patches"),
    ],
)
def test_what_is_refused_before_anything_is_written(walks, tmp_path, settings, found):
    words = [word for setting in settings for word in ("--set", setting)]
    done = seqjepa("train", "--shards", walks, "--out", tmp_path / "run", *TINY, *words)
    assert done.exit_code == 2
    assert found in " ".join(done.stderr.split())
    assert not (tmp_path / "run").exists()


def test_views_without_parameters_train_without_actions(tmp_path):
    spec = ViewSpec(4, 16, 16, "raw", ())
    with SetBuilder(tmp_path / "set", name="plain", spec=spec, classes=(), fingerprint={}) as builder:
        with builder.open_shard("train", 0) as writer:
            for number in range(16):
                pixels = np.random.default_rng(number).integers(0, 256, (4, 16, 16, 3)).astype(np.uint8)
                views, params = list(map(encode_raw, pixels)), np.zeros((4, 0), np.float32)
                writer.add(ViewSample(f"p{number:02d}", views, range(4), params, -1), PixelStats.of(pixels))
        builder.finish({})
    done = seqjepa("train", "--shards", tmp_path / "set", "--out", tmp_path / "run", *TINY)
    assert done.exit_code == 0, done.output
    assert "data.action=none, model.condition=none" in done.stderr
