"""benchmarks/train.py as it runs on a card, with a tiny model on an emulated one: every figure is there."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import pytest

from pipelines.saliency import speed

pytestmark = pytest.mark.emulated
BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
TINY = ("model.width=0.125", "model.layers=1", "model.ff_mult=1", "model.action_dim=8", "model.predictor_hidden=16")


def test_a_card_gets_every_figure(gpu, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    bench = importlib.import_module("train")
    recipe = bench.load_recipe
    monkeypatch.setattr(bench, "load_recipe", lambda name, settings: recipe(name, [*settings, *TINY]))
    monkeypatch.setitem(bench.COPIED, "cuda", 1 << 20)
    monkeypatch.setitem(speed.SIDE, "cuda", 64)
    words = ["--device", "cuda", "--small", "--rounds", "1", "--steps", "1", "--workers", "1", "--work", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["train.py", *words])
    bench.main()
    found = json.loads(capsys.readouterr().out)
    assert set(found["step_ms"]) == set(found["share_of_floor"]) == {"released", "limit", "ours", "eager"}
    assert found["compiled"]
    assert found["peers"].keys() == {"released style (fp32, eager, PIL)"}
    single = ("ours", "limit", "model_flops_per_s", "share_of_matmul_rate", "floor_ms", "gpu_hours_1000_epochs")
    assert all(found[name] > 0 for name in single), found
    assert all(value > 0 for value in found["bytes_per_s"].values())
    assert found["bytes_per_s"].keys() == {"ours", "eager", "limit"}
