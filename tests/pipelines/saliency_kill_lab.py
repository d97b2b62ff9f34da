"""SIGKILLs builds of saliency maps at random moments and runs them again. Run by test_saliency_killed.py.

In a process of its own, because it forks: torch is imported already, and a forked build starts in no time.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

import torch
from saliency_scene import contents, make_photos

from pipelines.saliency.build import build_saliency
from pipelines.saliency.models import ModelChoice
from pipelines.sources import open_source


def start(photos: Path, out: Path) -> int:
    """Forks a build."""
    if child := os.fork():
        return child
    status = 1
    try:
        choice = ModelChoice("spectral-residual", batch_size=3)
        build_saliency(open_source("folder", photos), out, choice, samples_per_shard=5, device="cpu", workers=0)
        status = 0
    finally:
        os._exit(status)


def finished(pid: int) -> bool:
    """Waits; True after a clean exit, False after SIGKILL."""
    status = os.waitpid(pid, 0)[1]
    if status not in (0, signal.SIGKILL):
        raise SystemExit(f"a build ended with status {status}")
    return status == 0


def tars(out: Path, reference: dict[str, bytes]) -> dict[str, int]:
    """Finished shards and when they were written. One with other bytes than allowed ends it all."""
    found = {}
    for path in out.glob("*.tar"):
        if path.read_bytes() != reference[path.name]:
            raise SystemExit(f"a killed build left a bad {path.name}")
        found[path.name] = path.stat().st_mtime_ns
    return found


def kills(photos: Path, out: Path, reference: dict[str, bytes], wanted: int, seconds: float) -> int:
    rng, killed, before = random.Random(0), 0, {}
    while killed < wanted or before:
        child = start(photos, out)
        time.sleep(rng.uniform(0, seconds))
        os.kill(child, signal.SIGKILL)
        ended = finished(child)
        killed, now = killed + (not ended), tars(out, reference) if out.exists() else {}
        if any(now.get(name) != written for name, written in before.items()):
            raise SystemExit("a finished shard was lost or built again")
        before = now
        if ended:
            if contents(out) != reference:
                raise SystemExit("the resumed set differs")
            shutil.rmtree(out)
            before = {}
    return killed


def kill_builds(place: str, wanted: int) -> None:
    """Prints how many kills there were. SystemExit with a line: what went wrong."""
    folder = Path(place)
    torch.set_num_threads(1)
    images = make_photos(folder / "photos", 24)
    if not finished(start(images, folder / "reference")):
        raise SystemExit("the first build was killed")
    began = time.perf_counter()
    finished(start(images, folder / "timed"))
    whole = time.perf_counter() - began
    count = kills(images, folder / "set", contents(folder / "reference"), wanted, 1.3 * whole)
    sys.stdout.write(str(count))
