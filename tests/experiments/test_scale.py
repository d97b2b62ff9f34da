from __future__ import annotations

from pathlib import Path

import pytest
import torch

from seqjepa.data.actions import as_spec
from seqjepa.experiments.paper_runs import paper_tables, shard_kind_of
from seqjepa.experiments.scale import load_scale, scale_names
from seqjepa.methods import build_method
from seqjepa.recipes import load_recipe
from shards.errors import ConfigError

RECIPES = sorted({recipe for table in paper_tables().values() for recipe in table.recipes})


def scaled(recipe: str, scale: str):
    plain = load_recipe(recipe)
    return plain, load_recipe(recipe, load_scale(scale).changed_settings(recipe, shard_kind_of(plain)))


def write(folder: Path, text: str) -> str:
    (folder / "mine.toml").write_text(text)
    return str(folder / "mine.toml")


@pytest.mark.parametrize("scale", scale_names())
def test_every_recipe_has_settings_that_are_allowed_at_every_scale(scale: str) -> None:
    for recipe in RECIPES:
        plain, at_scale = scaled(recipe, scale)
        assert (plain == at_scale) == (scale == "paper")
        assert (at_scale.method, at_scale.data.context, at_scale.data.action) == (
            *(plain.method, plain.data.context, plain.data.action),
        )


def test_every_recipe_can_be_built_at_the_small_scale() -> None:
    configs = [scaled(recipe, "small")[1] for recipe in RECIPES]
    different = {(c.method, c.model.projector_kind, c.model.condition, c.model.stem): c for c in configs}
    with torch.device("meta"):
        for config in different.values():
            build_method(config, as_spec(config.data.action).size)


def test_small_seq_jepa_is_the_demos_run() -> None:
    demo, small = load_recipe("synth-tiny"), scaled("3die-rot-M3", "small")[1]
    assert (small.data, small.model, small.optim) == (demo.data, demo.model, demo.optim)


def test_what_an_ablation_varies_outlives_every_scale() -> None:
    for scale in scale_names():
        assert [scaled(f"3die-adim{d}-M3", scale)[1].model.action_dim for d in (16, 64, 256)] == [16, 64, 256]
        assert scaled("3die-notrans-M3", scale)[1].model.condition == "predictor"
        assert scaled("stl-pls-stdstem-M4", scale)[1].model.stem == "standard"
        assert scaled("stl-pls-M4", scale)[1].model.stem == "cifar"


def test_later_layers_win_and_epochs_take_the_warm_up_along(tmp_path: Path) -> None:
    text = """
    epochs = 0.1
    settings.data.fraction = 0.5
    settings.optim.batch_size = 64
    defaults.optim.lr = 5e-4
    [kind.3diebench.settings]
    optim.batch_size = 32
    data.image_size = 64
    [method.simclr.settings]
    optim.batch_size = 16
    [evaluation]
    probe_epochs = 30
    [method.simclr.evaluation]
    probe_epochs = 20
    """
    mine = write(tmp_path, text)
    ours, simclr = scaled("3die-rot-M3", mine)[1], scaled("simclr-3die", mine)[1]
    assert (ours.optim.batch_size, simclr.optim.batch_size, scaled("c100-all-M2", mine)[1].optim.batch_size) == (
        32,
        16,
        64,
    )
    assert (ours.optim.epochs, ours.optim.warmup_epochs, ours.optim.lr) == (100, 2.0, 5e-4)
    assert (simclr.optim.epochs, simclr.optim.warmup_epochs, simclr.optim.lr) == (100, 0.0, 1e-3)
    assert scaled("3die-hc-M3", mine)[1].optim.epochs == 200
    assert ours.data.fraction == 0.5
    scale = load_scale(mine)
    assert scale.evaluation_of("3die-rot-M3", "3diebench") == {"probe_epochs": 30}
    assert scale.evaluation_of("simclr-3die", "3diebench") == {"probe_epochs": 20}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[evaluation]\nuntrained = true\n", "unknown key evaluation.untrained"),
        ("[evaluation]\ndevice = 'cpu'\n", "unknown key evaluation.device"),
        ("[evaluation]\nm_val = 1\n", "evaluation.m_val"),
        ("[evaluation]\nsuite = 'foo'\n", "there is no suite 'foo'; there are: probes, 3diebench"),
        ("[method.simcrl.settings]\noptim.lr = 1.0\n", "there is no method 'simcrl' (did you mean 'simclr'?)"),
        ("[kind.stl.settings]\noptim.lr = 1.0\n", "there is no kind of shards 'stl'"),
        ("[kinds]\n3diebench = 'nix'\n", "there is no kind of shards 'nix'"),
        ("epochs = inf\n", "epochs = inf"),
    ],
)
def test_what_would_fail_only_after_training_is_said_before(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_scale(write(tmp_path, text))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("epoch = 0.1", "unknown key epoch.*did you mean 'epochs'"),
        ("epochs = 0", "epochs = 0"),
        ("[kind.stl10.setting]", "unknown key kind.stl10.setting .*did you mean 'settings'"),
        ("epochs = ", "is not TOML"),
    ],
)
def test_mistakes_are_said_in_one_line(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as error:
        load_scale(write(tmp_path, text))
    assert "\n" not in str(error.value)


def test_names_that_are_none() -> None:
    with pytest.raises(ConfigError, match="did you mean 'medium'"):
        load_scale("medum")
    with pytest.raises(ConfigError, match="cannot read the scale"):
        load_scale("/nowhere/x.toml")
