"""The benchmark's peer is the same probe: features made anew give the scores of cached ones."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from seqjepa.config import EvalConfig
from seqjepa.data.actions import PRESETS
from seqjepa.evaluate.features import encode_views
from seqjepa.evaluate.probe_training import fit_and_score
from seqjepa.evaluate.probes import Bench
from seqjepa.evaluate.studies import Capabilities
from seqjepa.evaluate.tasks import tasks_for
from seqjepa.training.checkpoint import load_run
from shards.reader import ShardSet

PATH = Path(__file__).resolve().parents[2] / "benchmarks" / "probes_recomputed.py"
CPU, STATS = torch.device("cpu"), ((0.4,) * 3, (0.2,) * 3)


@pytest.fixture
def peer(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("probes_recomputed", PATH)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)  # dataclasses look themselves up there
    spec.loader.exec_module(module)
    return module


def test_features_made_anew_are_the_cached_ones_and_give_the_same_scores(peer: ModuleType, run: Path, shards: Path):
    method, stored = load_run(run).method, ShardSet.open(shards)
    train, val = (encode_views(method, stored.split(name), STATS, CPU) for name in ("train", "val"))
    encoded = peer.Encoded(method, peer.decoded(stored.split("train"), CPU, 2), STATS)
    rows, slots = torch.tensor([[3], [7]]), torch.from_numpy(np.array([[0, 3], [2, 1]]))
    torch.testing.assert_close(encoded[rows, slots], train.z[rows, slots], atol=1e-5, rtol=1e-4)
    subject = Capabilities(method, PRESETS["rotation"], 3, train.param_names, 4, labelled=True, no_path="no")
    bench = Bench(train, val, CPU, seed=0)
    for measure in tasks_for(subject, EvalConfig(m_val=(1, 3), probe_epochs=2))[0]:
        _, scores = peer.probe_recomputed(measure, bench, encoded, measure.epochs)
        assert scores == pytest.approx(fit_and_score(measure, bench).last, abs=0.02, rel=0.01), measure.name
