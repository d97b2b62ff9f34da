"""`seqjepa embed --engine slurm`: the tasks of an array fill the parts, one is lost, and the file is the same."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from noise_shards import noise_shards
from slurm_nodes import Cluster, needs_slurm, slurm_nodes, wait_until
from typer.testing import CliRunner

from cli import seqjepa_app
from seqjepa.embedding import run as embedding
from seqjepa.embedding.run import Asked, embed_run
from seqjepa.recipes import load_recipe
from seqjepa.training.train import train
from shards.engines.sbatch import program

pytestmark = needs_slurm
SETTINGS = ("data.image_size=0", "optim.epochs=1", "optim.warmup_epochs=0", "optim.batch_size=8", "model.width=0.125")
PART_ROWS = 128
SMALL_PARTS = f"""#!{sys.executable}
import time
from cli import seqjepa_app
from seqjepa.embedding import run
run.PART_ROWS, fill = {PART_ROWS}, run._Work.fill
def slowly(*given):
    time.sleep(0.3)
    return fill(*given)
run._Work.fill = slowly
seqjepa_app()
"""


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with slurm_nodes(tmp_path / "slurm") as cluster:
        yield cluster


@pytest.fixture
def one_thread() -> Iterator[None]:
    """As tasks have, which get a core: sums of floats depend on it."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_the_file_is_the_same(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_thread: None
) -> None:
    monkeypatch.chdir(tmp_path)
    shards, run = noise_shards(tmp_path / "set", train=600, val=40), tmp_path / "run"
    train(load_recipe("3die-rot-M3", [*SETTINGS, "data.context=2"]), shards, run, workers=0, device="cpu")
    monkeypatch.setattr(embedding, "PART_ROWS", PART_ROWS)
    embed_run(run, tmp_path / "whole.npz", Asked(shards, batch_size=32), device="cpu", progress=False)
    words = ["embed", "run", "--shards", "set", "--batch-size", "32", "--device", "cpu", "-o", "array.npz"]
    array = [*words, "--engine", "slurm", "--num-tasks", "4", "--script", "e.sbatch"]
    told = CliRunner().invoke(seqjepa_app, array)
    assert told.output == "e.sbatch: an array of 4 tasks; submit it with `sbatch e.sbatch`\n"
    (tmp_path / "slowly").write_text(SMALL_PARTS)
    os.chmod("slowly", 0o755)
    script = Path("e.sbatch").read_text()
    assert script.count(program("seqjepa")) == 1
    Path("e.sbatch").write_text(script.replace(program("seqjepa"), "./slowly"))
    submit = ("sbatch", "--cpus-per-task=1", "--mem=100", "e.sbatch")
    cluster.says(*submit)
    assert wait_until(lambda: len(list(tmp_path.glob("array.npz.parts/z-*.npy"))) > 2, 120), cluster.says("squeue")
    cluster.kill(cluster.both_work()[0])
    cluster.wait(240)
    assert not (tmp_path / "array.npz").exists(), "what the lost one had to do is missing"
    cluster.says(*submit)
    cluster.wait(240)
    assert (tmp_path / "array.npz").read_bytes() == (tmp_path / "whole.npz").read_bytes()
    assert not (tmp_path / "array.npz.parts").exists()
    done = CliRunner().invoke(seqjepa_app, array)
    assert (done.exit_code, "array.npz is finished" in done.output) == (2, True), done.output
