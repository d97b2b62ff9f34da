from __future__ import annotations

import json
import tomllib

import pytest
import tomli_w

from seqjepa import recipes
from seqjepa.config import OptimConfig, RunConfig
from seqjepa.recipes import load_recipe
from shards.errors import ConfigError

PAPER_ROWS = {
    "Table 1": {"3die-rot-M1", "3die-rot-M3"},
    "Table 3": {"stl-pls-M4", "stl-pls-noact-M4", "stl-pls-noior-M4", "stl-pls-nosal-M4", "conv-jepa-stl-M4"},
    "Figure 9": {f"stl-pls-M{m}" for m in (1, 2, 3, 5)},
    "Poster": {"stl-pls-stdstem-M4", "stl-fullsize-M4"},
    "Table 4": {f"3die-{v}-M3" for v in ("noact", "nopred", "notrans", "adim16", "adim64", "adim128", "adim256")},
    "Table 7": {"3die-rotcolour-M4"},
    "Table 11": {"3die-hc-M1", "3die-hc-M3"},
}


def test_every_row_of_the_tables_has_a_recipe():
    described = recipes.describe_recipes()
    for table, wanted in PAPER_ROWS.items():
        assert {name for name, row in described.items() if row.startswith(f"{table}")} >= wanted
    assert (
        set(described)
        == set(recipes.names())
        >= {"synth-tiny", "saccades-tiny", "3die-rot-M2", "3die-rot-M4", "3die-rot-M5"}
    )


@pytest.mark.parametrize("name", recipes.names())
def test_a_recipe_loads_and_its_resolved_form_is_itself(name: str, tmp_path):
    config = load_recipe(name)
    assert config.name == name
    (tmp_path / "again.toml").write_text(recipes.to_toml(config))
    assert load_recipe(tmp_path / "again.toml") == config


def test_the_papers_settings():
    config = load_recipe("3die-rot-M3")
    assert config.optim == OptimConfig(
        optimizer="adamw", lr=4e-4, weight_decay=1e-3, warmup_epochs=20, warmup_lr=1e-5, final_lr=1e-5,
        schedule="cosine", epochs=1000, batch_size=512, ema_tau=0.996,
    )  # fmt: skip
    assert (config.data.context, config.data.image_size, config.seed, config.fidelity) == (3, 128, 42, "paper")
    high = load_recipe("3die-hc-M1")
    assert (high.data.image_size, high.optim.epochs, high.optim.batch_size) == (256, 2000, 1024)
    assert load_recipe("3die-noact-M3").model.condition == "none"
    assert load_recipe("3die-nopred-M3").model.condition == "aggregator"
    assert load_recipe("3die-notrans-M3").model.condition == "predictor"


def test_the_papers_settings_for_saccades():
    whole = load_recipe("stl-pls-M4")
    assert (whole.optim, whole.model.stem) == (OptimConfig(epochs=2000), "cifar")
    data = whole.data
    assert (data.context, data.patch, data.image_size, data.action) == (4, 32, 96, "position")
    assert (data.normalisation, data.inhibition, data.fixations, data.fill) == ("stl10", "disc", "saliency", "black")
    changed = {
        "stl-pls-noact-M4": {"model.condition": "none"},
        "stl-pls-noior-M4": {"data.inhibition": "none"},
        "stl-pls-nosal-M4": {"data.inhibition": "none", "data.fixations": "uniform"},
        "stl-pls-stdstem-M4": {"model.stem": "standard"},
        "stl-fullsize-M4": {"data.patch": 0, "data.augment": "simclr", "data.action": "augmentation"},
        **{f"stl-pls-M{m}": {"data.context": m} for m in (1, 2, 3, 5)},
    }
    base = recipes.flatten(whole.model_dump())
    for name, wanted in changed.items():
        assert recipes.flatten(load_recipe(name).model_dump()) == base | wanted | {"name": name}
    conv = load_recipe("conv-jepa-stl-M4")
    assert (conv.method, conv.data) == ("conv_jepa", data)


def test_overrides_are_typed_by_toml_and_later_ones_win():
    config = load_recipe(
        "3die-rot-M3", ["optim.lr=1e-3", "optim.lr=2e-3", "model.backbone=resnet34", "train.compile=true"]
    )
    assert (config.optim.lr, config.model.backbone, config.train.compile) == (2e-3, "resnet34", True)
    assert load_recipe("", ['name="a b"']) == RunConfig(name="a b")


def test_author_fidelity_brings_the_released_optimizer_unless_told_otherwise():
    optim = load_recipe("3die-rot-M3", ["fidelity=author"]).optim
    assert (optim.optimizer, optim.weight_decay, optim.schedule, optim.lr_update) == ("adam", 0, "constant", "epoch")
    kept = load_recipe("3die-rot-M3", ["fidelity=author", "optim.schedule=cosine"]).optim
    assert (kept.optimizer, kept.schedule) == ("adam", "cosine")


def test_author_fidelity_of_saccades_keeps_adamw_and_inhibits_squares():
    """The released script for saccades builds AdamW as told; only its lr never decays (docs/fidelity.md #1, 2, 8)."""
    config = load_recipe("stl-pls-M4", ["fidelity=author"])
    assert (config.optim.optimizer, config.optim.weight_decay) == ("adamw", 1e-3)
    assert (config.optim.schedule, config.optim.lr_update, config.data.inhibition) == ("constant", "epoch", "square")
    assert load_recipe("stl-pls-noior-M4", ["fidelity=author"]).data.inhibition == "none"
    for action in ("none", '[{op = "difference", columns = ["x", "y"]}]'):  # patches, whatever is told of them
        told = load_recipe("", ["fidelity=author", "data.patch=32", f"data.action={action}"])
        assert (told.optim, told.data.inhibition) == (OptimConfig(**recipes.AUTHOR_SACCADES["optim"]), "square")


def test_a_configuration_of_an_earlier_version_still_loads(tmp_path):
    old = RunConfig().model_dump()
    for section, keys in {"data": ("split", "patch", "inhibition", "fixations", "fill", "augment")}.items():
        old[section] = {k: v for k, v in old[section].items() if k not in keys}
    del old["model"]["projector"]
    (tmp_path / "config.toml").write_text(tomli_w.dumps(old))
    assert recipes.read_config(tmp_path / "config.toml") == RunConfig()


def test_all_contradictions_between_settings_in_one_line():
    with pytest.raises(ConfigError) as caught:
        load_recipe("", ["data.patch=32", "data.image_size=16"])
    text = str(caught.value)
    assert "\n" not in text
    assert "patches at fixations (data.patch = 32) need data.action = 'position', not 'rotation'" in text
    assert "data.patch = 32 is larger than the images: data.image_size = 16" in text
    with pytest.raises(ConfigError, match=r"data\.patch = 8 and data\.augment = 'simclr' exclude each other"):
        load_recipe("", ["data.patch=8", "data.augment=simclr"])
    with pytest.raises(ConfigError, match=r"'simclrr' is not a recipe.*equimod.*simclr"):
        load_recipe("", ["data.augment=simclrr", "data.action=crop"])


@pytest.mark.parametrize("name", ["mine.yaml", "mine.json", "mine", "folder"])
def test_a_recipe_in_another_format_is_told_what_it_is_to_be(tmp_path, name):
    (tmp_path / name).mkdir() if name == "folder" else (tmp_path / name).write_text("optim:\n  lr: 1\n")
    with pytest.raises(ConfigError, match=rf"{name} is no recipe: a file of one is TOML, and its name ends in \.toml"):
        load_recipe(str(tmp_path / name))


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("lr=1", "'optim.lr'"),
        ("context=2", "'data.context'"),
        ("model.batch_size=8", "'optim.batch_size'"),
        ("width=1", "'model.width' or 'context_ssl.width'"),
    ],
)
def test_a_setting_without_its_section_or_in_another_is_told_where_it_is(given, meant):
    with pytest.raises(ConfigError) as caught:
        load_recipe("synth-tiny", [given])
    assert f"unknown key {given.partition('=')[0]} (did you mean {meant}?), allowed here: " in str(caught.value)


def test_every_mistake_in_one_line_with_what_is_allowed():
    with pytest.raises(ConfigError) as caught:
        load_recipe(
            "3die-rot-M3",
            [
                *("optim.lrr=1", "optim.epochs=true", "modle.x=1", "model.condition=some", "optim.lr=nan"),
                *("train.keep_epochs=3", "context_ssl=4", "name=a/b"),
            ],
        )
    text = str(caught.value)
    assert "\n" not in text
    assert "unknown key optim.lrr (did you mean 'lr'?), allowed here: optimizer, lr, weight_decay" in text
    assert "unknown key modle (did you mean 'model'?)" in text
    assert "optim.epochs = True should be a valid integer" in text
    assert "model.condition = 'some' should be 'both', 'aggregator', 'predictor' or 'none'" in text
    assert "optim.lr = nan should be a finite number" in text
    assert "train.keep_epochs = 3 should be a list in brackets" in text
    assert "context_ssl = 4 should be a table of settings" in text
    assert "name = 'a/b' should be the name of a folder" in text


@pytest.mark.parametrize(
    ("override", "complaint"),
    [
        ("optim.lr", "has no value"),
        ("=3", "has no value"),
        ("seed.x=3", "seed = {'x': 3}"),
        ("optim.lr.x=3", "optim.lr"),
    ],
)
def test_a_bad_override_is_named(override: str, complaint: str):
    with pytest.raises(ConfigError, match=complaint.replace("{", r"\{")):
        load_recipe("3die-rot-M3", [override])


@pytest.mark.parametrize("width", ["layers", "heads", "ff_mult", "action_dim", "predictor_hidden"])
def test_no_setting_makes_a_network_without_end(width: str):
    with pytest.raises(ConfigError, match=rf"model.{width} = 1000000000 should be less than or equal to"):
        load_recipe("3die-rot-M3", [f"model.{width}=1000000000"])


@pytest.mark.parametrize("name", ["../evil", "a/b", "..", ".hidden", "", r"a\u0000b", r"a\u001b[31mb", r"\n"])
def test_a_name_is_that_of_a_folder(name: str):
    with pytest.raises(ConfigError, match="name"):
        load_recipe("3die-rot-M3", [f'name="{name}"'])


def test_unknown_and_broken_recipes(tmp_path):
    with pytest.raises(ConfigError, match=r"did you mean '3die-rot-M3'.*; see `seqjepa recipes ls`"):
        load_recipe("3die-rotM3")
    with pytest.raises(ConfigError, match="cannot read"):
        load_recipe(tmp_path / "no.toml")
    (tmp_path / "bad.toml").write_text("a = = 1")
    with pytest.raises(ConfigError, match="not TOML"):
        load_recipe(tmp_path / "bad.toml")


def test_a_config_is_written_as_toml_with_every_value_and_read_back_whoever_wrote_it(tmp_path):
    config = load_recipe("simclr-3die", ["optim.lr=1e-5", "model.projector=[64,32]", f"seed={2**60}"])
    written = tomllib.loads(recipes.to_toml(config))
    assert written == json.loads(config.model_dump_json())
    assert (written["optim"]["lr"], written["seed"], written["model"]["projector"]) == (1e-5, 2**60, [64, 32])
    (tmp_path / "old.toml").write_text(recipes.to_toml(config).replace("[\n    64,\n    32,\n]", "[64, 32]"))
    assert "projector = [64, 32]" in (tmp_path / "old.toml").read_text()  # in one line, as before tomli-w
    assert load_recipe(tmp_path / "old.toml") == config
