"""A real Slurm, two nodes on this machine: an array of tasks builds the set that one command builds."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from python_path import python_path
from small_3die import same_folders
from small_images import make_folder

pytestmark = [
    pytest.mark.tools,
    pytest.mark.skipif(not (shutil.which("slurmctld") and shutil.which("slurmd")), reason="needs Slurm's daemons"),
    pytest.mark.skipif(os.geteuid() != 0, reason="slurmd runs as root"),
]
CONF = """
ClusterName=seqjepa
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/none
CredType=cred/none
SlurmctldPort={ports[0]}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=batch_sched_delay=0,sched_interval=1
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
KillWait=2
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=1 RealMemory=1000
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=1 RealMemory=1000
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""
IMAGES = 120
SHARD = ["shard", "folder", "--source", "photos", "--size", "224", "--samples-per-shard", "3", "--workers", "0"]


def wait_until(what: Callable[[], bool], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not what() and time.monotonic() < end:
        time.sleep(0.05)
    return what()


class Cluster:
    """Two nodes of one core each, in `folder`."""

    def __init__(self, folder: Path) -> None:
        sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
        ports = [each.getsockname()[1] for each in sockets]
        for each in sockets:
            each.close()
        conf = folder / "slurm.conf"
        conf.write_text(CONF.format(host=socket.gethostname(), ports=ports, folder=folder), encoding="utf-8")
        self.env = {**os.environ, "SLURM_CONF": str(conf), "PYTHONPATH": python_path(), "OMP_NUM_THREADS": "1"}
        self.daemons = []
        for command in (["slurmctld", "-D", "-i"], ["slurmd", "-D", "-N", "n1"], ["slurmd", "-D", "-N", "n2"]):
            (folder / command[-1]).mkdir(exist_ok=True)
            (folder / "state").mkdir(exist_ok=True)
            quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
            self.daemons.append(subprocess.Popen(command, env=self.env, **quiet))
        assert wait_until(lambda: self.says("sinfo", "-h", "-o", "%D %T") == "2 idle", 30), self.says("sinfo")

    def says(self, *command: str) -> str:
        return subprocess.run(command, env=self.env, capture_output=True, text=True, timeout=60).stdout.strip()

    def end(self) -> None:
        self.says("scancel", "--name=seqjepa-build")
        wait_until(lambda: not self.says("squeue", "-h"), 10)
        for daemon in reversed(self.daemons):
            daemon.terminate()
            daemon.wait(20)


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "slurm").mkdir()
    cluster = Cluster(tmp_path / "slurm")
    yield cluster
    cluster.end()


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
    running = cluster.says("squeue", "-h", "-r", "-t", "R", "-o", "%i").split()
    assert len(running) == 2, "both nodes work"
    assert cluster.says("squeue", "-h", "-r", "-t", "R", "-o", "%N").split() in (["n1", "n2"], ["n2", "n1"])
    cluster.says("scancel", "--signal=KILL", running[0])  # its batch script and what it runs: dead at once
    cluster.says("scontrol", "requeue", running[1])  # as after a lost node
    assert len(list(out.glob("*.tar"))) < IMAGES // 3, "lost while there was work"
    assert wait_until(lambda: not cluster.says("squeue", "-h"), 240), cluster.says("squeue")
    assert same_folders(out, tmp_path / "whole")
