from __future__ import annotations

import tomllib

import pytest

from seqjepa import recipes
from seqjepa.config import OptimConfig, RunConfig
from seqjepa.recipes import load_recipe
from seqjepa.toml_writer import dumps
from shards.errors import ConfigError

PAPER_ROWS = {
    "Table 1": {"3die-rot-M1", "3die-rot-M3"},
    "Table 4": {f"3die-{v}-M3" for v in ("noact", "nopred", "notrans", "adim16", "adim64", "adim128", "adim256")},
    "Table 7": {"3die-rotcolour-M4"},
    "Table 11": {"3die-hc-M1", "3die-hc-M3"},
}


def test_every_row_of_the_tables_has_a_recipe():
    described = recipes.describe_recipes()
    for table, wanted in PAPER_ROWS.items():
        assert {name for name, row in described.items() if row.startswith(f"{table}")} >= wanted
    assert set(described) == set(recipes.names()) >= {"synth-tiny", "3die-rot-M2", "3die-rot-M4", "3die-rot-M5"}


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


def test_every_mistake_in_one_line_with_what_is_allowed():
    with pytest.raises(ConfigError) as caught:
        load_recipe(
            "3die-rot-M3", ["optim.lrr=1", "optim.epochs=true", "modle.x=1", "model.condition=some", "optim.lr=nan"]
        )
    text = str(caught.value)
    assert "\n" not in text
    assert "unknown key optim.lrr (did you mean 'lr'?), allowed here: optimizer, lr, weight_decay" in text
    assert "unknown key modle (did you mean 'model'?)" in text
    assert "optim.epochs = True should be a valid integer" in text
    assert "model.condition = 'some' should be 'both', 'aggregator', 'predictor' or 'none'" in text
    assert "optim.lr = nan should be a finite number" in text


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


def test_unknown_and_broken_recipes(tmp_path):
    with pytest.raises(ConfigError, match=r"did you mean '3die-rot-M3'.*there are: .*synth-tiny"):
        load_recipe("3die-rotM3")
    with pytest.raises(ConfigError, match="cannot read"):
        load_recipe(tmp_path / "no.toml")
    (tmp_path / "bad.toml").write_text("a = = 1")
    with pytest.raises(ConfigError, match="not TOML"):
        load_recipe(tmp_path / "bad.toml")


def test_toml_writer_is_read_back_by_the_standard_library():
    table = {
        "text": 'quote " back \\ tab \t newline \n del \x7f é ü €',
        "numbers": [1, -2, 1e-5, 1e300, 0.1, 2**60],
        "flags": [True, False],
        "odd key.with dot": 1,
        "outer": {"inner": {"deep": "x"}, "plain": 3.0},
    }
    assert tomllib.loads(dumps(table)) == table
    for impossible in (None, float("nan"), object()):
        with pytest.raises(TypeError):
            dumps({"x": impossible})
