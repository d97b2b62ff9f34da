"""Costs against Table 6 and against hours added by hand."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from seqjepa.config import RunConfig
from seqjepa.data.fixations import Fixating
from seqjepa.data.views import Patches
from seqjepa.evaluate import protocol
from seqjepa.evaluate.protocol import COSTS, costs_line, macs_by_size
from seqjepa.methods.seq_jepa import SeqJEPA
from seqjepa.methods.simclr import SimCLR
from seqjepa.training.checkpoint import LoadedRun
from seqjepa.training.metrics_log import training_time
from seqjepa.training.run import DataInfo

TABLE_6 = {128: {1: 0.63, 2: 1.24, 3: 1.85, 4: 2.46, 8: 4.9}, 64: {1: 0.18, 2: 0.34, 3: 0.51, 4: 0.67, 8: 1.32}}
PATCHES_84 = {1: 0.33, 2: 0.64, 3: 0.95, 4: 1.26, 8: 2.51}


@dataclass
class Stub:
    """As much of an EvalContext, its splits and its configuration as costs look at."""

    loaded: Any
    m_val: tuple[int, ...] = (1, 2, 3, 4, 8)
    views: Any = None
    run: Path | None = None
    untrained: bool = False
    splits: Any = field(init=False)
    config: Any = field(init=False)

    def __post_init__(self) -> None:
        self.splits = self.config = self


def loaded(side: int, action: int = 4, *, of_pairs: bool = False) -> LoadedRun:
    with torch.device("meta"):
        made = (SimCLR if of_pairs else SeqJEPA)(RunConfig(), action)
    data = DataInfo("rotation", action, (0.5,) * 3, (0.2,) * 3, side, side)
    return LoadedRun(RunConfig(name="costs"), made, data)


@pytest.mark.parametrize("side", TABLE_6)
def test_macs_are_table_6s(side: int):
    for m, giga in macs_by_size(Stub(loaded(side))).items():  # type: ignore[arg-type]
        assert giga == pytest.approx(TABLE_6[side][int(m)], abs=0.03), (side, m)


def test_other_weights_and_seeds_of_the_same_networks_are_not_counted_again(monkeypatch: pytest.MonkeyPatch):
    first, other = loaded(48), RunConfig(name="other", seed=7)
    macs = macs_by_size(Stub(first))  # type: ignore[arg-type]
    monkeypatch.setattr(protocol, "forward_macs", None)
    assert macs_by_size(Stub(loaded(48)._replace(config=other))) == macs  # type: ignore[arg-type]


def test_macs_of_patches_are_table_6s_too():
    case = Stub(loaded(32, action=2), views=Patches(Fixating(patch=84), (0.5,) * 3, "position"))
    for m, giga in macs_by_size(case).items():  # type: ignore[arg-type]
        assert giga == pytest.approx(PATCHES_84[int(m)], abs=0.03), m


def test_a_method_without_an_aggregate_costs_one_view_and_has_resnet_18s_parameters():
    case = Stub(loaded(128, of_pairs=True))
    costs = COSTS.take(case)["costs"]  # type: ignore[arg-type]
    assert list(costs["macs_g"]) == ["1"]
    assert costs["macs_g"]["1"] == pytest.approx(0.592, abs=0.001)
    assert costs["parameters"] > 11_176_512  # torchvision's ResNet-18 without its classifier


def test_hours_are_those_of_all_epochs_and_of_all_gpus(tmp_path: Path):
    path = tmp_path / "metrics.jsonl"
    assert training_time(path) == {}
    lines = [
        {"seconds": 1800, "device": "NVIDIA A100", "devices": 1},
        {"seconds": 3600, "device": "NVIDIA H200", "devices": 4},
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert training_time(path) == {"hours": 1.5, "device": "NVIDIA A100, NVIDIA H200", "gpu_hours": 4.5}
    path.write_text('{"seconds": 7200}\n')  # of a version that did not say on what
    assert training_time(path) == {"hours": 2}


def test_initial_weights_took_no_training(tmp_path: Path):
    (tmp_path / "metrics.jsonl").write_text('{"seconds": 7200}\n')
    case = Stub(loaded(16), (1,), run=tmp_path)
    assert COSTS.take(case)["costs"]["hours"] == 2  # type: ignore[arg-type]
    assert "hours" not in COSTS.take(replace(case, untrained=True))["costs"]  # type: ignore[arg-type]


def test_costs_in_one_line():
    costs = {
        "parameters": 1_900_480,
        "macs_g": {"1": 0.0077, "10": 0.07654, "3": 0.02},
        "hours": 0.02567,
        "device": "cpu",
    }
    assert costs_line(costs) == (
        "costs: 1.90 M parameters, averages included; 0.0077 to 0.0765 GMAC a sample (M = 1 to 10); "
        "0.0257 h of training (cpu)"
    )
    assert costs_line({"parameters": 5e5, "macs_g": {"1": 0.5}}).endswith("; 0.5 GMAC a sample (M = 1)")
