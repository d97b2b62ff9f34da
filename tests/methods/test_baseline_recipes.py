"""Every row of a baseline in the tables of paper and poster has a recipe, and those differ in nothing else."""

from __future__ import annotations

import pytest
import torch
from methods_lab import BASELINES, CONDITIONED

from seqjepa import recipes
from seqjepa.config import OptimConfig, RunConfig
from seqjepa.data.actions import as_spec
from seqjepa.methods import build_method
from seqjepa.recipes import flatten, load_recipe

ADAM = {
    "optim.optimizer": "adam",
    "optim.lr": 1e-3,
    "optim.weight_decay": 0.0,
    "optim.warmup_epochs": 0.0,
    "optim.schedule": "constant",
}
OBJECTS = {"data.set": "3diebench", "data.image_size": 128, "data.normalisation": "3diebench"}
LONG = {**ADAM, "optim.epochs": 2000}
IMAGES = {
    "c100": {
        "data.set": "cifar100",
        "data.image_size": 32,
        "data.normalisation": "cifar100-paper",
        "data.augment": "equimod",
        "model.stem": "cifar",
    },
    "tiny": {
        "data.set": "tiny-imagenet",
        "data.image_size": 64,
        "data.normalisation": "tiny-imagenet-paper",
        "data.augment": "equimod",
    },
    "stl": {
        "data.set": "stl10",
        "data.image_size": 96,
        "data.normalisation": "stl10",
        "data.augment": "simclr",
        "model.stem": "cifar",
    },
}
ACTIONS = {"-all": "augmentation", "-crop": "crop", "-jitter": "jitter", "-blur": "blur"}


def wanted_recipes() -> dict[str, tuple[str, str, dict[str, object]]]:
    """Recipe → method, how its description begins, and what it sets besides method and context."""
    wanted: dict[str, tuple[str, str, dict[str, object]]] = {}
    for method in BASELINES:
        name, rot = method.replace("_", "-"), "-rot" if method in CONDITIONED else ""
        wanted[f"{name}-3die{rot}"] = (method, "Table 1", OBJECTS | ADAM)
        for data in ("c100", "tiny"):
            for suffix, action in ACTIONS.items() if rot else [("", "augmentation")]:
                settings = IMAGES[data] | LONG | {"data.action": action}
                wanted[f"{name}-{data}{suffix}"] = (method, "Table 2", settings)
        if rot:
            wanted[f"{name}-3die-rotcolour"] = (method, "Table 7", OBJECTS | ADAM | {"data.action": "rotation_colour"})
        if method not in ("equimod", "sie"):
            wanted[f"{name}-3die{rot}-plus"] = (method, "Table 8", OBJECTS | {"model.projector_kind": "transformer"})
        if method in ("sie", "simclr", "equimod"):
            high = {"data.image_size": 256, "optim.batch_size": 1024}
            wanted[f"{name}-3die{rot}-hc"] = (method, "Table 11", OBJECTS | LONG | high)
        if method not in ("vicreg_traj", "conditional_byol"):
            table = "Table 3" if method == "simclr" else "Poster"
            wanted[f"{name}-stl"] = (method, table, IMAGES["stl"] | LONG | {"data.action": "augmentation"})
    return wanted


WANTED = wanted_recipes()


@pytest.mark.parametrize("name", WANTED)
def test_a_recipe_sets_what_its_row_says_and_nothing_else(name: str) -> None:
    method, table, settings = WANTED[name]
    config = load_recipe(name)
    context = 2 if method == "vicreg_traj" else 1
    row = {"name": name, "method": method, "data.context": context}
    assert flatten(config.model_dump()) == flatten(RunConfig().model_dump()) | settings | row
    assert recipes.describe_recipes()[name].startswith(f"{table}, ")


def test_there_are_no_other_recipes_of_these_methods() -> None:
    assert {name for name in recipes.names() if load_recipe(name).method in BASELINES} == set(WANTED)
    assert len(WANTED) == 67


@pytest.mark.parametrize("fidelity", ["paper", "author"])
@pytest.mark.parametrize("name", WANTED)
def test_the_method_of_a_recipe_is_built(name: str, fidelity: str) -> None:
    config = load_recipe(name, [f"fidelity={fidelity}"])
    with torch.device("meta"):
        method = build_method(config, as_spec(config.data.action).size)
    assert method.views_needed == config.data.context + 1


def test_plus_models_have_the_papers_optimizer_for_transformers() -> None:
    assert load_recipe("simclr-3die-plus").optim == OptimConfig()
