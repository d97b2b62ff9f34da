"""`seqjepa embed --engine ray`: the nodes of a cluster fill the parts, one is lost, and the file is the same."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from noise_shards import noise_shards
from ray_nodes import Nodes, ray_nodes

from seqjepa.embedding import run as embedding
from seqjepa.embedding.run import Asked, embed_run
from seqjepa.recipes import load_recipe
from seqjepa.training.train import train
from shards.engines.ray_engine import ray_cluster
from shards.errors import UsageError

pytestmark = pytest.mark.tools
SETTINGS = ("data.image_size=0", "optim.epochs=1", "optim.warmup_epochs=0", "optim.batch_size=8", "model.width=0.125")


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    with ray_nodes(3) as nodes:
        yield nodes


@pytest.fixture
def one_thread() -> Iterator[None]:
    """As Ray gives to a worker of one core: sums of floats depend on it."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_the_file_is_the_same(nodes: Nodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_thread: None) -> None:
    shards, run = noise_shards(tmp_path / "set", train=600, val=40), tmp_path / "run"
    train(load_recipe("3die-rot-M3", [*SETTINGS, "data.context=2"]), shards, run, workers=0, device="cpu")
    whole, out = tmp_path / "whole.npz", tmp_path / "ray.npz"
    asked = Asked(shards, batch_size=32)
    monkeypatch.setattr(embedding, "PART_ROWS", 128)
    embed_run(run, whole, asked, device="cpu", progress=False)
    folder = out.with_name("ray.npz.parts")

    def lose_a_node() -> None:
        while len(list(folder.glob("z-*.npy"))) < 4:
            time.sleep(0.02)
        nodes.kill_one()

    loser = threading.Thread(target=lose_a_node)
    loser.start()
    with ray_cluster(nodes.address) as cluster:
        facts = embed_run(run, out, asked, device="cpu", progress=False, cluster=cluster)
        loser.join()
        assert facts["rows"] == 640 * 4
        assert out.read_bytes() == whole.read_bytes()
        assert not folder.exists()
        with pytest.raises(UsageError, match="Ray deals GPUs out"):
            embed_run(run, out, asked, device="cuda:1", cluster=cluster)
