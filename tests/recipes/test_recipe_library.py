"""Files of recipes: what they extend, their axes, and a user's own."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

import cli
from seqjepa import recipes
from seqjepa.recipes import library, load_recipe
from shards.errors import ConfigError

AXES = """
extends = "3diebench"
name = "{kind}-M{data.context}"
[axes]
"data.context" = [1, 2]
[axes.kind]
plain = {}
told = { data.action = "rotation_colour", optim.lr = 0.5 }
[about]
told-M2 = "Table 0, told"
plain-M1 = "Table 0, plain"
"""


GRID = AXES.partition("[about]")[0]


def written(folder: Path, text: str, name: str = "mine.toml") -> Path:
    (folder / name).write_text(text)
    return folder / name


def test_a_recipe_is_a_combination_of_its_axes_over_what_its_file_extends() -> None:
    plain, told = sorted(library.recipes_of(library.parse(AXES, "x"), "x"), key=lambda recipe: recipe.name)
    assert (plain.name, told.name) == ("plain-M1", "told-M2")
    assert told.about == "Table 0, told"
    base = library.read_packaged("3diebench")["data"]
    assert plain.settings == {"data": {**base, "context": 1}}
    assert told.settings == {"data": {**base, "context": 2, "action": "rotation_colour"}, "optim": {"lr": 0.5}}


def test_a_file_goes_before_its_bases_and_a_later_base_before_an_earlier(tmp_path: Path) -> None:
    written(tmp_path, 'extends = "synth-tiny"\n[optim]\nepochs = 5\nlr = 0.25\n', "first.toml")
    written(tmp_path, "[optim]\nepochs = 6\nwarmup_epochs = 0.0\n", "second.toml")
    mine = written(tmp_path, 'extends = ["first.toml", "second.toml"]\n[optim]\nwarmup_epochs = 1.0\n')
    config, tiny = load_recipe(mine), load_recipe("synth-tiny")
    assert (config.optim.epochs, config.optim.lr, config.optim.warmup_epochs) == (6, 0.25, 1.0)
    assert config.name == "mine"
    assert config.data == tiny.data
    assert config.optim.ema_tau == tiny.optim.ema_tau


ENDLESS = f'name = "{{a}}{{b}}{{c}}"\n[axes]\na = {list(range(100))}\nb = {list(range(100))}\nc = {list(range(100))}'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            'extends = "3die-rot-M33"',
            r"mine.toml: extends '3die-rot-M33', which is not there \(did you mean '3die-rot-M3'",
        ),
        ('extends = "gone.toml"', r"cannot read the recipe .*gone.toml: No such file"),
        ("# seed = 1", r"mine.toml holds no settings; write what differs"),
        ("extends = 3", r"mine.toml: extends = \[?3\]? should be a name or a list of names"),
        ('extends = "mine.toml"', r"mine.toml: extends 'mine.toml', which extends it in turn"),
        (GRID, r"mine.toml has 4 recipes; give one as .*mine.toml:NAME, of plain-M1, told-M1, plain-M2, told-M2"),
        ('name = "{kind}"\n[axes]\nkind = 3', r"mine.toml: \[axes\] holds lists of values and tables of settings"),
        ('name = "a"\n[axes.kind]\nplain = {}', r'mine.toml: name = "a" has no \{kind\}, an axis of this file'),
        ('name = "{a}{b}"\n[axes]\na = [1]', r"mine.toml: name has \{b\}; its axes are: a"),
        ('[about]\nother = "x"', r"mine.toml: \[about\] has 'other', which no combination of its axes gives"),
        ("about = 3", r"mine.toml: \[about\] holds names of recipes, each with a text"),
        ("about.mine = 3", r"mine.toml: \[about\] holds names of recipes, each with a text"),
        ('name = "{a}"\naxes.a.b = 3', r"mine.toml: \[axes\] holds lists of values and tables of settings"),
        ('extends = "a\\u0000.toml"', "cannot read the recipe .*: embedded null"),
        ("name = 3", r"name = 3 should be a valid string"),
        (ENDLESS, r"mine.toml: its axes have 1,000,000 combinations; at most 10,000 are recipes"),
    ],
)
def test_what_a_file_gets_wrong_is_one_line(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        load_recipe(written(tmp_path, text))
    assert "\n" not in str(caught.value)


def test_one_of_several_recipes_of_a_file_is_given_by_its_name(tmp_path: Path) -> None:
    mine = written(tmp_path, GRID)
    config = load_recipe(f"{mine}:told-M2")
    assert (config.name, config.data.context, config.optim.lr) == ("told-M2", 2, 0.5)
    with pytest.raises(ConfigError, match=r"has no recipe 'told-M3' \(did you mean 'told-M\d'\?\); it has: plain-M1, "):
        load_recipe(f"{mine}:told-M3")


def test_axes_are_inherited_and_names_are_not(tmp_path: Path) -> None:
    written(tmp_path, GRID, "grid.toml")
    mine = written(tmp_path, 'extends = "grid.toml"\nname = "{kind}{data.context}"\naxes.kind.slow.optim.lr = 0.25\n')
    assert load_recipe(f"{mine}:slow2").optim.lr == 0.25
    assert load_recipe(f"{mine}:told1").optim.lr == 0.5


def test_a_recipe_is_shown_with_the_files_that_it_comes_from(tmp_path: Path) -> None:
    shown = CliRunner().invoke(cli.seqjepa_app, ["recipes", "cat", "sie-c100-all"]).output
    bases = "cifar100.toml, augmentations.toml, methods.toml, adam.toml"
    assert f"# From c100-baselines.toml, which extends {bases}.\n" in shown
    assert "# The paper's optimizer for encoders with MLPs" in shown
    mine = written(tmp_path, 'extends = "sie-c100-all"')
    assert recipes.find_recipe(mine).files == (str(mine), "sie-c100-all")


def test_a_file_of_a_windows_editor_is_read(tmp_path: Path) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_bytes(b'\xef\xbb\xbfextends = "synth-tiny"\r\n[optim]\r\nlr = 0.125\r\n')
    assert load_recipe(mine).optim.lr == 0.125


def test_two_files_that_extend_each_other_are_refused(tmp_path: Path) -> None:
    written(tmp_path, f'extends = "../{tmp_path.name}/b.toml"', "a.toml")
    with pytest.raises(ConfigError, match=r"a.toml: extends '../\S+/b.toml', which extends it in turn"):
        load_recipe(written(tmp_path, 'extends = "a.toml"', "b.toml"))


def test_files_that_double_with_each_level_are_refused_early(tmp_path: Path) -> None:
    written(tmp_path, 'extends = "synth-tiny"', "0.toml")
    for level in range(1, 31):
        written(tmp_path, f'extends = ["{level - 1}.toml", "{level - 1}.toml"]', f"{level}.toml")
    with pytest.raises(ConfigError, match="extends more than 100 files"):
        load_recipe(tmp_path / "30.toml")


def test_a_loaded_recipe_leaves_the_library_as_it_is() -> None:
    before = load_recipe("3die-rot-M3")
    assert load_recipe("3die-rot-M3", ["data.context=1"]).data.context == 1
    assert load_recipe("3die-rot-M3") == before


def test_a_run_of_before_has_the_set_whose_constants_it_used(tmp_path: Path) -> None:
    for name in ("3die-rot-M3", "c100-all-M2", "tiny-all-M2", "stl-pls-M4", "synth-tiny"):
        config = load_recipe(name)
        old = recipes.to_toml(config).replace(f'set = "{config.data.set}"\n', "")
        assert recipes.read_config(written(tmp_path, old)) == config
        assert config.data.set == ("" if name == "synth-tiny" else recipes.group_of(name))
