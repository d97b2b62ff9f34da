"""A hub on this machine, for all tests here, and what is pushed to it: a run of one epoch and the shards it is of."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hub_server import Hub, serving, use_hub
from noise_shards import noise_shards

from seqjepa.evaluate.run import evaluate_run
from seqjepa.recipes import load_recipe
from seqjepa.training.train import train

TINY = ("data.image_size=0", "model.width=0.125", "model.layers=1", "optim.epochs=1", "optim.batch_size=4")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with serving() as server:
        use_hub(server, tmp_path, monkeypatch)
        yield server


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return noise_shards(tmp_path_factory.mktemp("hub") / "noise")


@pytest.fixture(scope="session")
def run(shards: Path) -> Path:
    """Trained for an epoch and evaluated, beside its untrained weights. Tests leave it as it is."""
    run = shards.with_name("run")
    train(load_recipe("3die-rot-M3", TINY), shards, run, workers=0)
    for untrained in (False, True):
        evaluate_run(run, shards, probe_epochs=2, m_val=[1, 2], untrained=untrained, device="cpu")
    return run
