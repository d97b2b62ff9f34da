"""Table 2 and Figures 10 and 11: a recipe for every row and curve of seq-JEPA on augmented images."""

from __future__ import annotations

import pytest

from seqjepa import recipes
from seqjepa.config import OptimConfig, RunConfig
from seqjepa.experiments.paper_runs import shard_kind_of
from seqjepa.paper.sets import NORMALISATIONS
from seqjepa.recipes import load_recipe

ROWS = [("all", 1), ("all", 2), ("all", 3), ("crop", 2), ("jitter", 3), ("blur", 3), ("noact", 2)]
CURVES = [*(("all", m) for m in range(1, 5)), *((part, m) for part in ("crop", "jitter", "blur") for m in (2, 3))]
SETS = {"c100": "CIFAR-100", "tiny": "Tiny ImageNet"}


@pytest.mark.parametrize("prefix", SETS)
def test_every_row_and_curve_has_a_recipe_that_says_so(prefix: str):
    described = recipes.describe_recipes()
    for part, m in ROWS:
        assert described[f"{prefix}-{part}-M{m}"].startswith(f"Table 2, {SETS[prefix]}, ")
    for part, m in CURVES:
        line = described[f"{prefix}-{part}-M{m}"]
        assert f"M_tr = {m}" in line
        assert SETS[prefix] in line


@pytest.mark.parametrize(
    ("prefix", "size", "stem", "normalisation"),
    [("c100", 32, "cifar", "cifar100-paper"), ("tiny", 64, "standard", "tiny-imagenet-paper")],
)
def test_they_differ_in_what_their_names_say(prefix: str, size: int, stem: str, normalisation: str):
    base = load_recipe(f"{prefix}-all-M2")
    assert base.optim == OptimConfig(epochs=2000)
    assert base.model == RunConfig().model.model_copy(update={"stem": stem})
    data = base.data
    assert (data.image_size, data.normalisation, data.augment) == (size, normalisation, "equimod")
    assert (data.context, data.action, data.patch) == (2, "augmentation", 0)
    flat = recipes.flatten(base.model_dump())
    for part, m in {*ROWS, *CURVES}:
        name = f"{prefix}-{part}-M{m}"
        changed = {"name": name, "data.context": m}
        if part == "noact":
            changed["model.condition"] = "none"
        elif part != "all":
            changed["data.action"] = part
        assert recipes.flatten(load_recipe(name).model_dump()) == flat | changed


PAPER = ((0.4914, 0.4822, 0.4465), (0.247, 0.243, 0.261))
RELEASED = {
    "cifar100": ((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)),
    "tiny-imagenet": ((0.4802, 0.4481, 0.3975), (0.2302, 0.2265, 0.2262)),
}


@pytest.mark.parametrize(("recipe", "base"), [("c100-all-M2", "cifar100"), ("tiny-all-M2", "tiny-imagenet")])
def test_normalisation_is_the_papers_or_the_released_by_fidelity_and_either_by_name(recipe, base):
    """Paper, §A.1: CIFAR-10's for both sets; docs/fidelity.md #17, 18."""
    assert NORMALISATIONS[f"{base}-paper"] == PAPER
    assert NORMALISATIONS[base] == RELEASED[base]
    for fidelity, name in (("paper", f"{base}-paper"), ("author", base)):
        config = load_recipe(recipe, [f"fidelity={fidelity}"])
        assert config.data.normalisation == name
        for asked, meant in ((f"{base}-paper", f"{base}-paper"), (f"{base}-author", base), (base, base)):
            chosen = load_recipe(recipe, [f"fidelity={fidelity}", f"data.normalisation={asked}"])
            assert chosen.data.normalisation == meant


def test_a_run_of_before_keeps_the_constants_that_it_was_trained_with(tmp_path):
    config = load_recipe("c100-all-M2", ["data.normalisation=cifar100"])
    (tmp_path / "config.toml").write_text(recipes.to_toml(config))
    assert 'normalisation = "cifar100"' in recipes.to_toml(config)
    assert recipes.read_config(tmp_path / "config.toml") == config
    for fidelity in ("paper", "author"):
        config = load_recipe("c100-all-M2", [f"fidelity={fidelity}"])
        (tmp_path / "config.toml").write_text(recipes.to_toml(config))
        assert "published" not in recipes.to_toml(config)
        assert recipes.read_config(tmp_path / "config.toml") == config


def test_the_kind_of_shards_is_told_by_either_name():
    for settings in ([], ["fidelity=author"]):
        assert shard_kind_of(load_recipe("c100-all-M2", settings)) == "cifar100"
        assert shard_kind_of(load_recipe("simclr-tiny", settings)) == "tiny-imagenet"


def test_the_demos_run_is_small():
    config = load_recipe("cifar-tiny")
    assert (config.data.image_size, config.model.stem, config.model.width) == (32, "standard", 0.25)
