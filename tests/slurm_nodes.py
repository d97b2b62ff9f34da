"""A real Slurm with two nodes of one core each on this machine, and what a test of arrays asks of it."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from python_path import python_path

needs_slurm = [
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
        self.says("scancel", "--user=root")
        wait_until(lambda: not self.says("squeue", "-h"), 10)
        for daemon in reversed(self.daemons):
            daemon.terminate()
            daemon.wait(20)

    def both_work(self) -> list[str]:
        """The array's tasks that run, one on each node."""
        running = self.says("squeue", "-h", "-r", "-t", "R", "-o", "%i").split()
        assert len(running) == 2, "both nodes work"
        assert self.says("squeue", "-h", "-r", "-t", "R", "-o", "%N").split() in (["n1", "n2"], ["n2", "n1"])
        return running

    def kill(self, task: str) -> None:
        """Its batch script and what it runs: dead at once."""
        self.says("scancel", "--signal=KILL", task)

    def requeue(self, task: str) -> None:
        """As after a lost node."""
        self.says("scontrol", "requeue", task)

    def wait(self, seconds: float) -> None:
        assert wait_until(lambda: not self.says("squeue", "-h"), seconds), self.says("squeue")


@contextmanager
def slurm_nodes(folder: Path) -> Iterator[Cluster]:
    folder.mkdir()
    cluster = Cluster(folder)
    try:
        yield cluster
    finally:
        cluster.end()
