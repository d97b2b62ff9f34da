"""What a training run from an object store leaves behind, how soon it goes on, and whether its memory grows.

    python benchmarks/remote_soak.py interrupts [--times 50]     Ctrl-C at random moments, the same command again
    python benchmarks/remote_soak.py memory [--epochs 22]        memory of a run, epoch by epoch
    python benchmarks/remote_soak.py resume [--times 5]          seconds from the command to the first batch
    python benchmarks/remote_soak.py check [--times 5]           seconds a GB that a warm cache's check takes

moto's server on this machine stands for S3; the command is `seqjepa train --shards s3://…` with two workers, on a
ResNet-18 of an eighth of the width and 512 objects in 32 shards. --cache-share 0.5 is a cache of half the set.

interrupts  SIGINT to the whole group, as a terminal sends it. `leaked` counts, over all: processes of the group that
            are still there, files of temporary names in run, cache, and TMPDIR, entries of /dev/shm. `identical`: each
            run that was interrupted until it ended has the weights of one that was left alone.
memory      `slope_percent` is the slope of a least-squares line through the resident memory of all processes of the
            run at the end of each epoch, the first two left out, over its mean, an epoch.
resume      a run that was interrupted in the middle of an epoch goes on: `warm` where its cache is there, `cold` with
            an empty one, as on another machine. The import of torch is part of it.
check       shards that are in the cache (and in the machine's memory) are held against their sha256 by a process that
            begins, eight at a time.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
from common import emit, versions  # noqa: E402
from remote_data import bucket, size_of, upload, write_set  # noqa: E402

OBJECTS, PER_SHARD, PATIENCE = 512, 16, 600.0
SETTINGS = ("data.image_size=0", "model.width=0.125", "optim.batch_size=32", "data.normalisation=shards")
SHARED_MEMORY = Path("/dev/shm")
_TIMED = """
import sys, time
from seqjepa.training.learner import Learner
update = Learner.update
def timed(self, *arguments):
    print(f"first batch at {time.time()}", file=sys.stderr, flush=True)
    Learner.update = update
    return update(self, *arguments)
Learner.update = timed
"""
"""Says when the first batch is there; before the command line of ours."""
_CHECK = """
import sys, time
from shards.stores.cache import check_shards
from shards.reader import ShardSet
paths = ShardSet.open(sys.argv[1]).split("train").shard_paths
began, cpu = time.monotonic(), time.process_time()
check_shards(paths)
size = sum(path.stat().st_size for path in paths) / 1e9
print((time.process_time() - cpu) / size, (time.monotonic() - began) / size)
"""


class Lab:
    """Runs of one set in a bucket, each in `work`, with a cache and a TMPDIR of its own."""

    def __init__(self, work: Path, address: str, epochs: int, cache_size: int) -> None:
        self.work, self.address, self.epochs = work, address, epochs
        self.run, self.cache, self.temporary = work / "run", work / "cache", work / "tmp"
        self.started: list[subprocess.Popen[str]] = []
        self.environment = os.environ | {
            "SEQJEPA_CACHE": str(self.cache),
            "SEQJEPA_CACHE_SIZE": str(cache_size),
            "TMPDIR": str(self.temporary),
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1",
        }

    def clear(self, *folders: Path) -> None:
        for folder in folders or (self.run, self.cache, self.temporary):
            shutil.rmtree(folder, ignore_errors=True)
        self.temporary.mkdir(parents=True, exist_ok=True)

    def start(self, before: str = "") -> subprocess.Popen[str]:
        """The command, in a group of its own."""
        words = ["train", "--shards", self.address, "--recipe", "3die-rot-M3", "--out", str(self.run), "--workers", "2"]
        words += ["--device", "cpu"]
        for setting in (*SETTINGS, f"optim.epochs={self.epochs}"):
            words += ["--set", setting]
        code = f"{before}\nimport sys; from cli import seqjepa_app; sys.argv[0] = 'seqjepa'; seqjepa_app()"
        command = [sys.executable, "-c", code, *words]
        how: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
        self.started.append(subprocess.Popen(command, env=self.environment, cwd=ROOT, start_new_session=True, **how))
        return self.started[-1]

    def end(self) -> None:
        """Whatever has not ended, or has been left behind."""
        for pid in {pid for process in self.started for pid in members(process.pid)}:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def finish(self) -> None:
        process = self.start()
        said = process.communicate(timeout=3600)[1]
        if process.returncode:
            sys.exit(f"a run ended with {process.returncode}: {said[-500:]}")

    def lines(self) -> int:
        """Epochs that metrics.jsonl has."""
        metrics = self.run / "metrics.jsonl"
        return metrics.read_bytes().count(b"\n") if metrics.exists() else 0

    def leaked(self, group: int, shared: set[str]) -> Counter[str]:
        """After the group's first process has ended."""
        found: Counter[str] = Counter(processes=len(members(group)))
        places = (self.run, self.cache, self.temporary)
        files = [path for place in places if place.exists() for path in place.rglob("*") if path.is_file()]
        found["files"] = sum(
            path.name.startswith((".tmp", ".seqjepa-tmp")) or self.temporary in path.parents for path in files
        )
        found["shared memory"] = len(shared_memory() - shared)
        return found


def shared_memory() -> set[str]:
    """What Python and torch name so; folders and files of other programs are theirs."""
    return {name for name in os.listdir(SHARED_MEMORY) if name.startswith(("psm_", "sem.", "torch_", "wnsm_"))}


def members(group: int) -> list[int]:
    """Processes of a group (and session), zombies left out."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            state, _, pgrp, session = (entry / "stat").read_text().rpartition(")")[2].split()[:4]
            if group in (int(pgrp), int(session)) and state != "Z":
                found.append(int(entry.name))
    return found


def resident(group: int) -> int:
    """Bytes in memory of all of them; what they share is counted once for each that has it mapped, in parts."""
    total = 0
    for pid in members(group):
        with contextlib.suppress(OSError):
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
            total += 1024 * int(next(line for line in rollup.splitlines() if line.startswith("Pss:")).split()[1])
    return total


def interrupts(lab: Lab, times: int) -> dict[str, Any]:
    lab.clear()
    began = time.monotonic()
    lab.finish()
    whole, expected = time.monotonic() - began, (lab.run / "model.safetensors").read_bytes()
    rng, leaked, codes, slowest, ended, said = random.Random(0), Counter(), Counter(), 0.0, 0, set()
    lab.clear()
    while codes.total() - codes["0"] < times:
        shared, process = shared_memory(), lab.start()
        time.sleep(rng.uniform(0, whole))
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGINT)
        asked = time.monotonic()
        errors = process.communicate(timeout=PATIENCE)[1]
        slowest = max(slowest, time.monotonic() - asked)
        codes[str(process.returncode)] += 1
        leaked += lab.leaked(process.pid, shared)
        said |= {errors.strip().splitlines()[-1][:200]} if "Traceback" in errors else set()
        if process.returncode == 0:
            require_same(lab, expected)
            ended += 1
            lab.clear()
    lab.finish()
    require_same(lab, expected)
    kinds = ("processes", "files", "shared memory")
    return {
        "leaked": {kind: leaked[kind] for kind in kinds},
        "exit_codes": dict(codes),
        "tracebacks": sorted(said),
        "slowest_stop_s": slowest,
        "whole_run_s": whole,
        "runs": ended + 1,
        "identical": True,
    }


def require_same(lab: Lab, expected: bytes) -> None:
    if (lab.run / "model.safetensors").read_bytes() != expected:
        sys.exit("a run that was interrupted ended with other weights")


def memory(lab: Lab) -> dict[str, Any]:
    lab.clear()
    process, sizes = lab.start(), []
    while process.poll() is None:
        if lab.lines() > len(sizes):
            sizes.append(resident(process.pid))
        time.sleep(0.02)
    if process.returncode:
        assert process.stderr is not None
        sys.exit(f"the run ended with {process.returncode}: {process.stderr.read()[-500:]}")
    later = np.array(sizes[2:], float)
    slope = np.polyfit(np.arange(len(later)), later, 1)[0] / later.mean()
    return {"slope_percent": 100 * slope, "mib": [size / 2**20 for size in sizes], "epochs": len(sizes)}


def resume(lab: Lab, times: int) -> dict[str, Any]:
    """The run is interrupted once, in its second epoch; each resumption begins from a copy of it."""
    lab.clear()
    process = lab.start()
    while lab.lines() < 1:
        if process.poll() is not None:
            sys.exit(f"the run ended with {process.returncode}")
        time.sleep(0.01)
    time.sleep(0.3)
    os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=PATIENCE)
    kept, took = lab.work / "stopped", {"warm": [], "cold": []}
    shutil.rmtree(kept, ignore_errors=True)
    lab.run.rename(kept)
    for _ in range(times):
        for name, found in took.items():
            lab.clear(lab.run, *([lab.cache] if name == "cold" else []))
            shutil.copytree(kept, lab.run)
            found.append(to_first_batch(lab))
    return {f"{name}_s": median(found) for name, found in took.items()} | {
        "most_s": {name: max(found) for name, found in took.items()}
    }


def to_first_batch(lab: Lab) -> float:
    began, process = time.time(), lab.start(_TIMED)
    assert process.stderr is not None
    first = next((float(line.split()[-1]) for line in process.stderr if line.startswith("first batch at ")), None)
    os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=PATIENCE)
    if first is None:
        sys.exit("the run ended before its first batch")
    return first - began


def check(lab: Lab, times: int) -> dict[str, Any]:
    lab.clear()
    how: dict[str, Any] = {"env": lab.environment, "check": True, "capture_output": True, "text": True}
    said = [subprocess.run([sys.executable, "-c", _CHECK, lab.address], **how).stdout for _ in range(times + 1)]
    cpu, wall = np.array([text.split() for text in said[1:]], float).T  # the first one has fetched them
    return {"cpu_seconds_a_gb": median(cpu.tolist()), "seconds_a_gb": median(wall.tolist())}


@contextlib.contextmanager
def laboratory(asked: argparse.Namespace, epochs: int) -> Iterator[Lab]:
    asked.work.mkdir(parents=True, exist_ok=True)
    shards = write_set(asked.work, OBJECTS, PER_SHARD)
    cache = int(size_of(shards) * asked.cache_share) if asked.cache_share else 1 << 40
    with bucket():
        lab = Lab(asked.work, upload(shards, shards.name), epochs, cache)
        try:
            yield lab
        finally:
            lab.end()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["interrupts", "memory", "resume", "check"])
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "benchmark-remote", help="folder for the data")
    parser.add_argument("--times", type=int, help="interrupts (50), resumptions (5), checks (5)")
    parser.add_argument("--epochs", type=int, help="of a run: 3 for interrupts, 22 for memory")
    parser.add_argument("--cache-share", type=float, help="of the set's size; without: all of it fits")
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))
    asked.work = asked.work.resolve()
    extra: dict[str, Any] = {"versions": versions("torch", "obstore", "moto"), "cache_share": asked.cache_share}
    with laboratory(
        asked, asked.epochs or {"interrupts": 3, "memory": 22, "resume": 30, "check": 1}[asked.what]
    ) as lab:
        if asked.what == "interrupts":
            found = interrupts(lab, asked.times or 50)
            emit(
                "remote: left behind by interrupts",
                "things",
                float(sum(found["leaked"].values())),
                {},
                **found,
                **extra,
            )
        elif asked.what == "memory":
            found = memory(lab)
            emit("remote: growth of memory", "% an epoch", found["slope_percent"], {}, **found, **extra)
        elif asked.what == "check":
            found = check(lab, asked.times or 5)
            emit("remote: check of a warm cache", "s/GB of a core", found["cpu_seconds_a_gb"], {}, **found, **extra)
        else:
            found = resume(lab, asked.times or 5)
            emit("remote: first batch of a run that goes on", "s", found["cold_s"], {}, **found, **extra)


if __name__ == "__main__":
    main()
