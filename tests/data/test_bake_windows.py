"""Sequences of stored views, baked: what training on the ordered set itself would draw, to the bit."""

from __future__ import annotations

import numpy as np
import pytest
from loaders import assert_same, stored_loader
from ordered_sets import COMMAND, write_walks
from typer.testing import CliRunner

import cli
from seqjepa.data.actions import actions_between, every_stride
from seqjepa.data.bake import Baking, OfStored, bake
from shards.errors import ConfigError
from shards.reader import ShardSet
from shards.schema import ActionSpec, ActionTerm
from shards.verify import verify


@pytest.fixture(scope="module")
def walks(tmp_path_factory):
    return write_walks(tmp_path_factory.mktemp("walks") / "set", {"train": (14, 9, 11, 23), "val": (9,)})


@pytest.mark.parametrize(("how", "views"), [(OfStored("window", 2), 4), (OfStored(), 3)])
def test_a_baked_set_is_what_training_draws(walks, tmp_path, how, views):
    bake(walks.path, tmp_path / "baked", Baking(3, views, how, seed=9))
    baked = ShardSet.open(tmp_path / "baked")
    assert verify(tmp_path / "baked", progress=False).ok
    assert (baked.info.spec.sequence, baked.info.spec.actions, baked.info.format_version) == (views, COMMAND, 1)
    shared = {"views": views, "action": COMMAND, "batch_size": 5, "seed": 9, "workers": 0}
    own = stored_loader(walks.split("train"), order="window", stride=how.stride, **shared)
    other = stored_loader(baked.split("train"), **shared)
    for epoch in range(3):
        for a, b in zip(own.epoch(epoch), other.epoch(epoch), strict=True):
            b.params[:, :-1, 0] = a.params[:, :-1, 0]  # of a stride's commands the baked set has the sum
            assert_same(a, b)


@pytest.mark.parametrize("over", ["last", "sum", "mean"])
def test_commands_of_a_stride_are_joined(over):
    spec = ActionSpec((ActionTerm("command", ("u",), over=over),))
    params = np.random.default_rng(0).normal(size=(5, 10, 2)).astype(np.float32)
    kept = every_stride(params, ("x", "u"), spec, 3)
    assert (kept[..., 0] == params[:, ::3, 0]).all()
    exact = actions_between(params, ("x", "u"), spec, 3)
    assert actions_between(kept, ("x", "u"), spec).tolist() == exact.tolist()
    by_hand = {"last": params[:, 2:9:3, 1], "sum": params[:, :9, 1].reshape(5, 3, 3).sum(2)}
    by_hand["mean"] = by_hand["sum"] / 3
    assert exact[..., 0] == pytest.approx(by_hand[over], abs=1e-6)


def test_commands_are_not_baked_in_random_order(walks, tmp_path):
    with pytest.raises(ConfigError, match="say nothing of views in random order"):
        bake(walks.path, tmp_path / "baked", Baking(1, 3, OfStored("random")))
    assert not (tmp_path / "baked").exists()


@pytest.mark.parametrize("words", [["--patch", "8"], ["--augment", "simclr"]])
def test_options_of_images_are_refused(walks, tmp_path, words):
    asked = ["bake", str(walks.path), "--out", str(tmp_path / "baked"), "--sequences", "1", *words]
    done = CliRunner().invoke(cli.seqjepa_data_app, asked)
    assert done.exit_code == 2
    assert f"{words[0]} is for images, and {walks.path} holds views shards" in " ".join(done.stderr.split())
