"""Every family of docs/encoders.md: built at its sizes on no memory, then one step of training for real."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from timm_families import FAMILIES

from seqjepa.config import DataConfig, ModelConfig, OptimConfig, RunConfig
from seqjepa.data.sequence import ViewSequence
from seqjepa.models.backbone import build_backbone
from seqjepa.training.checkpoint import initial_method
from seqjepa.training.distributed import World
from seqjepa.training.learner import Learner

DOCS = Path(__file__).parents[2] / "docs" / "encoders.md"
FAST = ("convnext_atto",)


def config_of(name: str, side: int) -> RunConfig:
    """heads=2: every width here is even."""
    settings = {"heads": 2, "layers": 1, "ff_mult": 1, "predictor_hidden": 32, "view_size": (side, side)}
    model = ModelConfig(**{"backbone": f"timm:{name}", **settings, **FAMILIES[name][1]})
    return RunConfig(model=model, data=DataConfig(context=1), optim=OptimConfig(batch_size=2, accumulate=1))


@pytest.mark.parametrize("name", [pytest.param(n, marks=() if n in FAST else pytest.mark.slow) for n in FAMILIES])
def test_it_is_built_at_its_sizes_and_learns(name: str) -> None:
    sides, _ = FAMILIES[name]
    for side in sides:
        with torch.device("meta"):
            net, features = build_backbone(config_of(name, side).model)
            assert net.eval()(torch.empty(2, 3, side, side)).shape == (2, features)
    config = config_of(name, sides[0])
    learner = Learner(initial_method(config, 4), config, World(), torch.device("cpu"))
    encoder = learner.method.encoder
    before = {key: value.clone() for key, value in encoder.named_parameters()}
    g = torch.Generator().manual_seed(0)
    views, actions = torch.randn(2, 2, 3, sides[0], sides[0], generator=g), torch.randn(2, 1, 4, generator=g)
    seq = ViewSequence(views, actions, torch.zeros(2, 2, 0), torch.zeros(2, dtype=torch.int64), ["", ""])
    output = learner.update(seq, 0, 1e-3, 0.5)
    assert torch.isfinite(output.loss)
    learner.require_finite()
    moved = [key for key, value in encoder.named_parameters() if not torch.equal(value, before[key])]
    assert len(moved) > len(before) / 2


def test_the_documented_families_are_the_checked_ones() -> None:
    rows = re.findall(r"^\| `timm:([\w.]+)` \| ([\d, ]+) \|", DOCS.read_text(), re.MULTILINE)
    assert {name: tuple(map(int, sizes.split(","))) for name, sizes in rows} == {n: v[0] for n, v in FAMILIES.items()}
