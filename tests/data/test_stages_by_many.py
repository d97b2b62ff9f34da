"""`bake` and `features` as stages: commands that share the shards, and the nodes of a Ray cluster."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from noise_shards import noise_shards
from ray_nodes import Nodes, ray_nodes

from seqjepa.data import bake as baking
from seqjepa.data.bake import Baking, OfStored, bake
from seqjepa.data.fixations import Fixating
from seqjepa.embedding import feature_sets
from seqjepa.embedding.feature_sets import encoder_of_config, make_features
from seqjepa.recipes import load_recipe
from shards.engines.ray_engine import engine_of
from shards.engines.steps import STEP, Step, StepDone
from shards.reader import ShardSet

ENCODER = ("model.backbone=resnet18", "model.width=0.125", "model.stem=cifar", "seed=3")
KINDS = ("features", "stored", "patches")


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """And one thread, as Ray gives to a worker of one core: sums of floats depend on it."""
    monkeypatch.setattr(feature_sets, "_VIEWS_OF_A_SHARD", 16)
    monkeypatch.setattr(baking, "_MOST_IN_A_SHARD", 4)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def sources(tmp_path: Path, build_image_set) -> dict[str, Path]:
    views = noise_shards(tmp_path / "views", train=22, val=6)
    return {"features": views, "stored": views, "patches": build_image_set().path}


def make(kind: str, source: Path, out: Path) -> None:
    if kind == "features":
        opened = ShardSet.open(source)
        make_features(opened, out, encoder_of_config(load_recipe("", [*ENCODER]), opened))
    elif kind == "stored":
        bake(source, out, Baking(2, 3, OfStored(), seed=1))
    else:
        bake(source, out, Baking(2, 3, Fixating(8, fixations="uniform"), seed=1), workers=0)


def digests(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.parametrize("kind", KINDS)
def test_prepared_worked_on_and_finished(kind: str, sources: dict[str, Path], tmp_path: Path) -> None:
    make(kind, sources[kind], tmp_path / "whole")
    out = tmp_path / "steps"
    token = STEP.set(Step("prepare"))
    try:
        with pytest.raises(StepDone, match=f"0 of {len(list((tmp_path / 'whole').glob('*.tar')))} shards"):
            make(kind, sources[kind], out)
        STEP.set(Step("work", 1, 2))
        make(kind, sources[kind], out)
    finally:
        STEP.reset(token)
    assert digests(out) == digests(tmp_path / "whole")


@pytest.mark.tools
@pytest.mark.parametrize("kind", KINDS)
def test_on_a_cluster(kind: str, nodes: Nodes, sources: dict[str, Path], tmp_path: Path) -> None:
    make(kind, sources[kind], tmp_path / "here")
    with engine_of("ray", nodes.address):
        make(kind, sources[kind], tmp_path / "there")
    assert digests(tmp_path / "there") == digests(tmp_path / "here")


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    with ray_nodes(2) as nodes:
        yield nodes
