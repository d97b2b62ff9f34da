"""A real Slurm, two nodes on this machine: an array of tasks builds the set that one command builds."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from bucket_server import files_of, objects_of, on_machine, serving_bucket
from slurm_nodes import Cluster, needs_slurm, slurm_nodes, wait_until
from small_3die import same_folders
from small_images import make_folder

pytestmark = needs_slurm
IMAGES = 120
SHARD = ["shard", "folder", "--source", "photos", "--size", "224", "--samples-per-shard", "3", "--workers", "0"]


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    monkeypatch.chdir(tmp_path)
    with slurm_nodes(tmp_path / "slurm") as cluster:
        yield cluster


def command(cluster: Cluster, *words: str) -> None:
    program = Path(sys.executable).with_name("seqjepa-data")
    subprocess.run([program, *words], env=cluster.env, check=True, capture_output=True, timeout=120)


def test_an_array_builds_the_same_set_and_survives_lost_tasks(cluster: Cluster, tmp_path: Path) -> None:
    make_folder(tmp_path / "photos", [f"a/{number:03}.png" for number in range(IMAGES)], 400, 400)
    command(cluster, *SHARD, "--out", "whole")
    slurm = ("--engine", "slurm", "--num-tasks", "4", "--script", "b.sbatch")
    command(cluster, "build", "run", *slurm, *SHARD, "--out", "set")
    cluster.says("sbatch", "--cpus-per-task=1", "--mem=100", "b.sbatch")
    out = tmp_path / "set"
    assert wait_until(lambda: len(list(out.glob("*.tar"))) > 2, 60), cluster.says("squeue")
    lost, interrupted = cluster.both_work()
    cluster.kill(lost)
    cluster.requeue(interrupted)
    assert len(list(out.glob("*.tar"))) < IMAGES // 3, "lost while there was work"
    cluster.wait(240)
    assert same_folders(out, tmp_path / "whole")


def test_an_array_builds_the_same_set_at_an_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_folder(tmp_path / "photos", [f"a/{number:03}.png" for number in range(IMAGES // 2)], 400, 400)
    monkeypatch.chdir(tmp_path)
    with serving_bucket(monkeypatch) as bucket:
        on_machine("all", tmp_path, monkeypatch)
        with slurm_nodes(tmp_path / "slurm") as cluster:  # whose tasks have the bucket's environment
            command(cluster, *SHARD, "--out", "whole")
            out = f"{bucket.address}/set"
            slurm = ("--engine", "slurm", "--num-tasks", "3", "--script", "b.sbatch")
            command(cluster, "build", "run", *slurm, *SHARD, "--out", out)
            cluster.says("sbatch", "--cpus-per-task=1", "--mem=100", "b.sbatch")
            cluster.wait(240)
        assert objects_of(bucket, out) == files_of(tmp_path / "whole")
