"""Two steps of every recipe at every scale that comes with the package, on shards of noise: nothing dies, all learn."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
from train_helpers import make_saliency_shards, make_shards, metrics

from seqjepa.config import RunConfig
from seqjepa.experiments.compare import compared_methods, compared_recipe, method_settings
from seqjepa.experiments.paper_runs import shard_kind_of
from seqjepa.experiments.scale import load_scale, scale_names
from seqjepa.recipes import load_recipe, names
from seqjepa.training.train import Trainer, train

pytestmark = pytest.mark.usefixtures("one_thread")

SHORT = ("optim.epochs=1", "optim.batch_size=2", "optim.warmup_epochs=0", "train.checkpoint_minutes=1000")
SAMPLES = 4
FAST = (
    "small:stl-fullsize-M4",
    "small:conditional-byol-c100-all",
    "small:sie-3die-rot-hc",
    "compare-small:context_ssl",
)


CASES = [
    *(f"{scale}:{name}" for scale in scale_names() for name in names()),
    *(f"compare-{scale}:{method}" for scale in ("paper", "small") for method in compared_methods()),
]


def config_of(case: str) -> RunConfig:
    scale, name = case.split(":")
    if scale.startswith("compare-"):
        recipe, settings = compared_recipe(name)[0], method_settings(name, load_scale(scale.removeprefix("compare-")))
    else:
        recipe, settings = name, load_scale(scale).changed_settings(name, shard_kind_of(load_recipe(name)))
    return load_recipe(recipe, (*settings, "data.normalisation=shards", "data.fraction=1.0", *SHORT))


def what_a_step_depends_on(config: RunConfig) -> str:
    optim = config.optim.model_copy(update={"lr": 1e-4, "ema_tau": 0.9})
    return config.model_copy(update={"optim": optim, "name": "", "seed": 0}).model_dump_json()


@pytest.fixture(autouse=True)
def _nothing_saved(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of the time, and a gigabyte for every three networks of the paper's size."""
    monkeypatch.setattr(Trainer, "_write", lambda self: None)


@pytest.fixture(scope="module")
def shards_for(tmp_path_factory: pytest.TempPathFactory):
    @cache
    def made(kind: str, size: int) -> Path:
        out = tmp_path_factory.mktemp(f"{kind}-{size}") / "set"
        if kind == "views":
            return make_shards(out, objects=SAMPLES, views=6, size=size)
        return make_saliency_shards(out, images=SAMPLES, size=size, splits=("train",), maps=kind == "saliency")

    def wanted(config: RunConfig) -> Path:
        kind = "image" if config.data.augment != "none" else "saliency" if config.data.patch else "views"
        return made(kind, config.data.image_size or 48)

    return wanted


def two_steps(config: RunConfig, shards: Path, out: Path) -> None:
    summary = train(config, shards, out, device="cpu", workers=0, progress=False)
    assert summary["steps"] == 2
    assert metrics(out)[0]["samples"] == SAMPLES


@pytest.mark.parametrize("case", FAST)
def test_some_recipes_make_two_steps(case: str, shards_for, tmp_path: Path) -> None:
    config = config_of(case)
    two_steps(config, shards_for(config), tmp_path / "run")


@pytest.fixture(scope="module")
def done() -> set[str]:
    return set()


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_every_recipe_makes_two_steps(case: str, shards_for, tmp_path: Path, done: set[str]) -> None:
    config = config_of(case)
    alike = what_a_step_depends_on(config)
    if alike in done:
        pytest.skip("another recipe makes the same steps")
    done.add(alike)
    two_steps(config, shards_for(config), tmp_path / "run")
