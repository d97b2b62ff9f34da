"""Training on views whose actions are declared, and on views without parameters."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from train_helpers import make_shards, tiny_config

from seqjepa.methods import METHODS, build_method
from seqjepa.recipes import load_recipe
from seqjepa.training.checkpoint import load_run
from seqjepa.training.data import open_training_data
from seqjepa.training.distributed import World
from seqjepa.training.run import read_run_config, read_run_json
from seqjepa.training.train import build_loader, train
from shards.errors import ConfigError
from shards.sample import ViewSample, encode_raw
from shards.schema import ActionSpec, ActionTerm, ParamField, ViewSpec
from shards.stats import PixelStats
from shards.writer import SetBuilder

WALK = (ParamField("tx", "m"), ParamField("ty", "m"), ParamField("yaw", "rad"), ParamField("push", "N"))
STEP = ActionTerm("difference", ("tx", "ty"), normalise="zscore")
TURN = ActionTerm("angle_difference", ("yaw",))
PUSH = ActionTerm("command", ("push",), over="sum")


def make_walks(out: Path, params: tuple[ParamField, ...] = WALK, *, actions: ActionSpec | None = None, runs: int = 0):
    """Four noisy views of 16 objects; with `runs`, in sequences of two."""
    rng = np.random.default_rng(0)
    spec = ViewSpec(4, 16, 16, "raw", params, sequence=2 * bool(runs), actions=actions)
    with SetBuilder(out, name="walks", spec=spec, classes=(), fingerprint={}) as builder:
        with builder.open_shard("train", 0) as shard:
            for number in range(16):
                pixels = rng.integers(0, 255, (4, 16, 16, 3), dtype=np.uint8)
                values = rng.normal(2, 3, (4, len(params))).astype(np.float32)
                views = [encode_raw(view) for view in pixels]
                shard.add(ViewSample(f"w{number:02d}", views, range(4), values, -1), PixelStats.of(pixels))
        builder.finish({"command": "test"})
    return out


@pytest.fixture(scope="module")
def walks(tmp_path_factory) -> Path:
    return make_walks(tmp_path_factory.mktemp("walks") / "set", actions=ActionSpec((STEP, TURN)))


@pytest.fixture(scope="module")
def bare(tmp_path_factory) -> Path:
    return make_walks(tmp_path_factory.mktemp("bare") / "set", ())


@pytest.mark.parametrize(
    "method", ["byol", "vicreg_traj", *(pytest.param(name, marks=pytest.mark.slow) for name in ("simclr", "vicreg"))]
)
def test_methods_that_need_no_action_train_on_views_without_parameters(method, bare, tmp_path):
    views = ["model.projector=[32,16]", *([] if method == "vicreg_traj" else ["data.context=1"])]
    config = tiny_config(f"method={method}", "data.action=none", "optim.epochs=1", *views)
    last = train(config, bare, tmp_path / "run", device="cpu", workers=0, progress=False)
    assert np.isfinite(float(last["loss"]))
    assert load_run(tmp_path / "run").data.action_size == 0


@pytest.mark.parametrize("method", [name for name, method in METHODS.items() if method.uses_actions])
def test_methods_that_need_actions_say_which_do_not(method, bare):
    config = tiny_config(f"method={method}", "data.action=shards", "data.context=1")
    with pytest.raises(ConfigError, match=r"needs .*byol.*simclr, vicreg, vicreg_traj"):
        build_method((source := open_training_data(bare, config)).config, source.data.action_size)


def test_the_shards_say_what_an_action_is(walks, bare, tmp_path):
    config = tiny_config("data.action=shards", "optim.epochs=2")
    train(config, walks, tmp_path / "run", device="cpu", workers=0, progress=False)
    saved = read_run_config(tmp_path / "run").data.action
    assert isinstance(saved, ActionSpec)
    step, turn = saved.terms
    assert (step.columns, step.normalise, turn) == (("tx", "ty"), "zscore", TURN)
    assert np.allclose(step.mean, 2, atol=1.2)
    assert np.allclose(step.std, 3, atol=1)
    assert read_run_json(tmp_path / "run")["data"]["action"] == "declared"
    loaded = load_run(tmp_path / "run")
    assert (loaded.action, loaded.data.action_size) == (saved, 3)
    assert open_training_data(make_shards(tmp_path / "3die"), config).config.data.action == "rotation"
    assert open_training_data(bare, config).config.data.action == "none"


def test_a_run_whose_actions_the_shards_declare_goes_on(walks, tmp_path):
    for _ in range(2):
        last = train(
            tiny_config("data.action=shards"), walks, tmp_path / "run", device="cpu", workers=0, progress=False
        )
    assert last["epochs"] == 3
    more = tiny_config("data.action=shards")
    again = train(more, walks, tmp_path / "run", device="cpu", workers=0, progress=False, extend_epochs=4)
    assert again["epochs"] == 4


def test_batches_hold_the_declared_actions(walks):
    config = tiny_config("data.action=shards", "data.context=2")
    source = open_training_data(walks, config)
    assert isinstance(source.config.data.action, ActionSpec)
    std = source.config.data.action.terms[0].std
    with build_loader(source, source.config, World(), 0, torch.device("cpu")) as loader:
        batch = next(iter(loader.epoch(0)))
    moved = batch.params.diff(dim=1).numpy()
    assert np.allclose(batch.actions[..., :2].numpy(), moved[..., :2] / std, atol=1e-5)
    assert np.allclose(np.cos(batch.actions[..., 2].numpy()), np.cos(moved[..., 2]), atol=1e-5)
    assert batch.actions[..., 2].abs().max() <= np.pi


def test_a_recipe_may_declare_its_own(walks, tmp_path):
    recipe = tmp_path / "own.toml"
    recipe.write_text('[[data.action]]\nop = "difference"\ncolumns = ["tx"]\n\n[[data.action]]\nop = "categorical"\n'
                      'columns = ["yaw"]\nvalues = [0, 1]\n')  # fmt: skip
    config = load_recipe(recipe)
    assert config.data.action == ActionSpec(
        (ActionTerm("difference", ("tx",)), ActionTerm("categorical", ("yaw",), values=(0, 1)))
    )
    recipe.write_text('[[data.action]]\nop = "difference"\ncolumns = ["x", "y"]\n')
    assert load_recipe(recipe).data.action == "position"
    recipe.write_text('[[data.action]]\nop = "difference"\ncolumns = ["tz"]\n')
    with pytest.raises(
        ConfigError, match="holds views, and actions need tz; the parameters are tx, ty, yaw, push; set"
    ):
        open_training_data(walks, load_recipe(recipe))


def test_commands_need_views_in_order(walks, tmp_path):
    asked = tiny_config('data.action=[{op="command", columns=["push"], over="sum"}]', "data.context=1")
    with pytest.raises(ConfigError, match="holds views in no order, and commands lead from a view to the one recorded"):
        build_loader(open_training_data(walks, asked), asked, World(), 0, torch.device("cpu"))
    source = open_training_data(make_walks(tmp_path / "runs", runs=2), asked)
    with build_loader(source, source.config, World(), 0, torch.device("cpu")) as loader:
        batch = next(iter(loader.epoch(0)))
    assert torch.equal(batch.actions[:, 0, 0], batch.params[:, 0, 3])


def test_angles_in_degrees_are_refused(tmp_path):
    degrees = make_walks(tmp_path / "set", (ParamField("yaw", "deg"),))
    with pytest.raises(ConfigError, match="angle_difference needs angles in rad, and yaw is in 'deg'"):
        open_training_data(degrees, tiny_config('data.action=[{op="angle_difference", columns=["yaw"]}]'))
